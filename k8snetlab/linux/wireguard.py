"""Who can read this packet, and from whom can it be?

A WireGuard device has a key pair, and a list of *peers*: the public key of each, the addresses that may be behind it
(`AllowedIPs`), and where it is found (`Endpoint`). Nothing else decides, and the same list is asked twice, which its
authors call cryptokey routing:

- *outwards* it is a routing table: the peer with the longest allowed prefix that holds the destination gets the packet,
  encrypted for it and put into UDP. Without such a peer there is no key to encrypt with, and the sender is told that
  the host cannot be reached (a program on the machine itself reads "Required key not available").
- *inwards* it is a filter: what a peer sent is thrown away unless its source, looked up in the same table, leads to
  that very peer. So nobody who has a key can send in the name of another.

A device carries packets, not frames: there are no MAC addresses and no neighbours on it. What is inside is padded to a
multiple of 16 bytes, but not beyond the MTU; 16 bytes of header stand before it and a tag of 16 behind it.

Keys: a private key is 32 bytes, its public key a point on Curve25519. Here private keys are hashed from a name, so that
the same cluster has the same keys each time, and public keys are truly computed from them: `wg pubkey` says the same.
Such keys are for looking at, never for use.

Not modelled: the handshake and the keys of a session (a packet whose handshake would fail is sent all the same, and
thrown away at the other end), counters, cookies, peers that move (an endpoint stays what it was set to), preshared
keys, keepalives. Guide section 3.1; `wg(8)`, Donenfeld 2017 (WireGuard), RFC 7748.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import sha256

import msgspec

from k8snetlab.address import family
from k8snetlab.linux.route import Route, RouteTable

__all__ = [
    "Wireguard", "WireguardPeer", "WireguardPeers", "padding", "private_key", "public_key", "session", "wg_show",
    "wg_showconf",
]  # fmt: skip

MULTIPLE = 16
"""What is encrypted is as long as a multiple of this."""


class Wireguard(msgspec.Struct, frozen=True):
    """What makes a device a WireGuard device: its public key and its UDP port. `private` is empty where nobody but the
    machine knows it.
    """

    public: str
    port: int
    private: str = ""


class WireguardPeer(msgspec.Struct, frozen=True):
    """A peer of the device of that name: its public key, the prefixes that may be behind it, and its address and port
    (`172.18.0.12`, 51820).
    """

    device: str
    public: str
    allowed: tuple[str, ...]
    endpoint: str
    port: int

    @property
    def name(self) -> str:
        """The beginning of its key, by which people know it."""
        return f"{self.public[:8]}…"

    @property
    def place(self) -> str:
        """Where it is found: `172.18.0.12:51820`, `[fd00::12]:51820`."""
        return f"[{self.endpoint}]:{self.port}" if ":" in self.endpoint else f"{self.endpoint}:{self.port}"

    @property
    def text(self) -> str:
        """The peer on one line, in the words of `wg set`."""
        return f"{self.device} peer {self.public} allowed-ips {','.join(self.allowed)} endpoint {self.place}"


class WireguardPeers:
    """The peers of one device, ready for lookups. A prefix that two peers are given is the later one's."""

    __slots__ = ("_by_session", "_peers", "_tables")

    def __init__(self, own: Wireguard, peers: Iterable[WireguardPeer]) -> None:
        self._peers = tuple(peers)
        self._by_session = {session(peer.public, own.public): peer for peer in self._peers}
        self._tables = {of: RouteTable(self._routes(of)) for of in (4, 6)}

    def _routes(self, of: int) -> Iterator[Route]:
        for number, peer in reversed(tuple(enumerate(self._peers))):
            for prefix in peer.allowed:
                if family(prefix.partition("/")[0]) == of:
                    yield Route(prefix, str(number), family=of)

    def behind(self, address: str) -> WireguardPeer | None:
        """The peer that the address is behind."""
        found = self._tables[family(address)].lookup(address)
        return self._peers[int(found.device)] if found is not None else None

    def sender(self, number: int) -> WireguardPeer | None:
        """The peer that sends with this session number."""
        return self._by_session.get(number)


def padding(length: int, mtu: int) -> int:
    """How many bytes are added to a packet of that length (`calculate_skb_padding`).

    >>> padding(1028, 1420)
    12
    """
    last = length % mtu if length > mtu else length
    return min(mtu, -(-last // MULTIPLE) * MULTIPLE) - last


@lru_cache(maxsize=1 << 14)
def session(sender: str, receiver: str) -> int:
    """The number by which a receiver knows the session with a sender: 32 bits. Real ones are drawn at random in the
    handshake; here they follow from both public keys.
    """
    return int.from_bytes(sha256(f"{sender} {receiver}".encode()).digest()[:4], "little")


# Keys

PRIME = 2**255 - 19


def private_key(of: str) -> str:
    """The private key of the thing of that name, in base64."""
    drawn = bytearray(sha256(f"{of} private key".encode()).digest())
    drawn[0] &= 0xF8
    drawn[31] = drawn[31] & 0x7F | 0x40
    return b64encode(drawn).decode()


@lru_cache(maxsize=1 << 14)
def public_key(private: str) -> str:
    """The public key of a private key, both in base64: X25519 with the base point 9 (RFC 7748, section 5)."""
    return b64encode(_multiplied(b64decode(private), 9).to_bytes(32, "little")).decode()


def _multiplied(scalar: bytes, point: int) -> int:
    """The Montgomery ladder: the first coordinate of so many times a point of Curve25519."""
    times = int.from_bytes(scalar, "little") & ~7 & (1 << 255) - 1 | 1 << 254
    x2, z2, x3, z3, swapped = 1, 0, point, 1, 0
    for at in reversed(range(255)):
        bit = times >> at & 1
        if bit != swapped:
            x2, x3, z2, z3, swapped = x3, x2, z3, z2, bit
        plus, minus = (x2 + z2) % PRIME, (x2 - z2) % PRIME
        squares, others = plus * plus % PRIME, minus * minus % PRIME
        across, along = (x3 - z3) * plus % PRIME, (x3 + z3) * minus % PRIME
        between = (squares - others) % PRIME
        x3, z3 = (across + along) ** 2 % PRIME, point * (across - along) ** 2 % PRIME
        x2, z2 = squares * others % PRIME, between * (squares + 121665 * between) % PRIME
    if swapped:
        x2, z2 = x3, z3
    return x2 * pow(z2, PRIME - 2, PRIME) % PRIME


# What the tool prints


def wg_show(device: str, own: Wireguard, peers: Iterable[WireguardPeer]) -> str:
    """`wg show DEVICE`, as it is before a first packet: handshakes and counters are only there once it came."""
    lines = [f"interface: {device}", f"  public key: {own.public}", "  private key: (hidden)"]
    lines.append(f"  listening port: {own.port}")
    for peer in peers:
        lines += ("", f"peer: {peer.public}", f"  endpoint: {peer.place}", f"  allowed ips: {', '.join(peer.allowed)}")
    return "".join(f"{line}\n" for line in lines)


def wg_showconf(own: Wireguard, peers: Iterable[WireguardPeer]) -> str:
    """`wg showconf DEVICE`: what `wg setconf` takes. A private key that is not known is left out."""
    lines = ["[Interface]", f"ListenPort = {own.port}"]
    lines += [f"PrivateKey = {own.private}"] if own.private else []
    for peer in peers:
        lines += ("", "[Peer]", f"PublicKey = {peer.public}", f"AllowedIPs = {', '.join(peer.allowed)}")
        lines.append(f"Endpoint = {peer.place}")
    return "".join(f"{line}\n" for line in lines)
