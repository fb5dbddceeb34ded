"""What shape does the JSON have?

Every document that the command line prints with `-o json` says `"schema": "k8snetlab/v1"` and its `"kind"`, and
every kind is described by a JSON Schema file here (draft 2020-12). What is described stays as it is; the schemas take
no field that they do not know.

Not modelled: validation; `load` gives the schema as a dictionary for any validator. https://json-schema.org/
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from k8snetlab.errors import UnknownName

__all__ = ["KINDS", "VERSION", "load"]

VERSION = "k8snetlab/v1"
"""What every document says in its field `schema`."""

KINDS = (
    "Trace", "Show", "Cni", "Resolution", "Diff", "Reach", "Doctor", "Contract", "Proof", "Progress", "ExternalDns",
    "Allowed", "Findings", "Error",
)  # fmt: skip
"""The kinds of document, each described by the file of its name in small letters."""


def load(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind of document: `load("Trace")`. Raises `UnknownName`."""
    if kind not in KINDS:
        raise UnknownName("kind of document", kind, KINDS)
    text = resources.files(__name__).joinpath(f"{kind.lower()}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
