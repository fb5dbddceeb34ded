"""What may a name, an address or a port look like?

The API server asks each of these of a text, whatever the object. A rule that is broken is said as the API server says
it: what kind of mistake, the value, and why: `Invalid value: 70000: must be between 1 and 65535`.

A block with bits beyond its length is taken here, as in objects that older servers stored. RFC 1123, RFC 6335;
Kubernetes API conventions.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

import msgspec

from k8snetlab.address import is_canonical, number

__all__ = [
    "IS_LABEL", "IS_PORT_NAME", "IS_QUALIFIED_NAME", "IS_SUBDOMAIN", "Broken", "block_of", "duplicate", "forbidden",
    "invalid", "is_address", "is_label", "is_port_name", "is_qualified_name", "is_subdomain", "required",
]  # fmt: skip

Broken: TypeAlias = Iterator[tuple[str, str]]
"""Rules that are broken: fields and messages."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PORT_NAME = re.compile(r"(?!.*--)(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

IS_LABEL = "at most 63 small letters, digits or '-', beginning and ending with a letter or digit (RFC 1123)"
IS_SUBDOMAIN = "labels of small letters, digits or '-', joined by dots, at most 253 characters (RFC 1123)"
IS_PORT_NAME = "at most 15 small letters, digits or '-', with a letter in it and no '--' (RFC 6335)"
IS_QUALIFIED_NAME = (
    "[prefix/]name: a DNS name, and at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or "
    "digit"
)


@lru_cache(maxsize=1 << 12)
def is_label(value: str) -> bool:
    """Whether it is a DNS label: `web`, `1-b`."""
    return _LABEL.fullmatch(value) is not None


def is_subdomain(value: str) -> bool:
    """Whether it is a DNS name: `db.example.com`."""
    return len(value) <= 253 and _SUBDOMAIN.fullmatch(value) is not None


@lru_cache(maxsize=1 << 12)
def is_port_name(value: str) -> bool:
    """Whether it is the name of a service as IANA keeps them: `http`."""
    return _PORT_NAME.fullmatch(value) is not None


def is_qualified_name(value: str) -> bool:
    """Whether it is a name with or without the DNS name of who made it up: `https`, `example.com/lb`."""
    prefix, slash, name = value.rpartition("/")
    return _NAME.fullmatch(name) is not None and (not slash or is_subdomain(prefix))


def is_address(value: str) -> bool:
    """Whether it is an IP address, without a zone."""
    if is_canonical(value):
        return True
    try:
        number(value)
    except ValueError:
        return False
    return "%" not in value


def block_of(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The block of addresses, or nothing if it is none. A single address is a block of one. The length is a number:
    Python would take a netmask too.
    """
    _, slash, length = value.partition("/")
    if "%" in value or (slash and not (length.isascii() and length.isdigit() and str(int(length)) == length)):
        return None
    try:
        return ipaddress.ip_network(value, strict=False)
    except ValueError:
        return None


# --- how a broken rule is said ----------------------------------------------------------------------------------------


def required(field: str, why: str = "") -> tuple[str, str]:
    """Something must be said and is not."""
    return field, "Required value" + (f": {why}" if why else "")


def invalid(field: str, value: object, why: str) -> tuple[str, str]:
    """What is said is not possible."""
    return field, f"Invalid value: {_shown(value)}: {why}"


def forbidden(field: str, why: str) -> tuple[str, str]:
    """Something is said that may not be said here."""
    return field, f"Forbidden: {why}"


def duplicate(field: str, values: Iterable[object]) -> Broken:
    """What is said twice in a list; the field has `{}` in the place of the index."""
    seen: set[object] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield field.format(index), f"Duplicate value: {_shown(value)}"
        seen.add(value)


def _shown(value: object) -> str:
    """The value as JSON."""
    return "null" if value is None else msgspec.json.encode(value).decode()
