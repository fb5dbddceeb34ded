"""How does a node learn which node a pod's network is on?

By BGP, the protocol by which the networks of the Internet tell each other what they reach. A *speaker* opens a session
to each of its peers and tells them its own networks, each with the *next hop* that leads there. What a peer says is
kept as it came (the RIB-in); of all paths to one network the best becomes a route. A session that ends takes
everything with it that it had brought: the routes are withdrawn.

Between speakers of one autonomous system (iBGP) a path is never passed on, for there would be no telling when it went
round in circles. So every speaker must hear every other one: a *full mesh*, n(n-1)/2 sessions. A *route reflector* may
pass on what its clients say, and what it hears for them; it puts its cluster id and the originator into the path, by
which a speaker knows its own words again (RFC 4456). The next hop stays as it was: the reflector need not stand in the
packets' way. Between autonomous systems (eBGP) the speaker puts its number in front of the path and names itself as the
next hop; a path with a speaker's own number in it has been here before, and is refused.

The best path is the one with the highest local preference; then the shortest AS path; then eBGP before iBGP; then the
lowest originator, the shortest cluster list, and the lowest address of the peer.

    rib = Table(speakers, sessions).rib("node-1")
    print(rib)                                    # like birdc's `show route`
    rib.best                                      # network → Path

Not modelled: communities, MED, filters beyond those of the caller, timers, graceful restart, several paths at once
(ECMP). Guide section 3.1; RFC 4271, RFC 4456.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import msgspec

from k8snetlab.address import Prefix, number
from k8snetlab.errors import UnknownName

__all__ = ["Path", "Rib", "Session", "Speaker", "Table"]

LOCAL_PREF = 100


class Speaker(msgspec.Struct, frozen=True):
    """One that speaks BGP: its name, its address (also its identifier), its autonomous system and the networks it
    tells of itself. `cluster` makes it a route reflector.
    """

    name: str
    address: str
    asn: int
    networks: tuple[str, ...] = ()
    cluster: str = ""


class Session(msgspec.Struct, frozen=True):
    """Two speakers that talk. `client` names the one that is the other's client, where that is a route reflector."""

    one: str
    other: str
    client: str = ""

    def peer(self, of: str) -> str:
        """Who is at the other end."""
        return self.other if of == self.one else self.one

    def __str__(self) -> str:
        return f"{self.one} – {self.other}"


class Path(msgspec.Struct, frozen=True):
    """What one peer says about one network; of its own networks a speaker has paths without a peer. `refused` says
    why the path is not used, if it is not.
    """

    network: str
    next_hop: str
    peer: str = ""
    as_path: tuple[int, ...] = ()
    originator: str = ""
    clusters: tuple[str, ...] = ()
    external: bool = False
    local_pref: int = LOCAL_PREF
    refused: str = ""

    def __str__(self) -> str:
        if not self.peer:
            return f"{self.network:<20} blackhole [own]"
        ases = " ".join(map(str, self.as_path))
        code = f"AS{self.as_path[-1]}i" if self.as_path else "i"
        said = f"{self.network:<20} via {self.next_hop} [from {self.peer}] ({self.local_pref}) [{code}]"
        more = f" as-path {ases}" if ases else ""
        more += f" originator {self.originator} cluster {' '.join(self.clusters)}" if self.clusters else ""
        return f"{said}{more}{f' refused: {self.refused}' if self.refused else ''}"


class Rib(msgspec.Struct, frozen=True, dict=True):
    """All that one speaker knows: its own paths, and those its peers told it, in the order of the peers."""

    speaker: Speaker
    paths: tuple[Path, ...]
    addresses: Mapping[str, str]

    @cached_property
    def best(self) -> Mapping[str, Path]:
        """The best path to each network, networks in order."""
        found: dict[str, Path] = {}
        for path in self.paths:
            held = found.get(path.network)
            if not path.refused and (held is None or self._rank(path) < self._rank(held)):
                found[path.network] = path
        return {network: found[network] for network in sorted(found, key=Prefix.of)}

    def _rank(self, path: Path) -> tuple[bool, int, int, bool, int, int, int]:
        peer = self.addresses.get(path.peer, "")
        return (
            bool(path.peer),
            -path.local_pref,
            len(path.as_path),
            not path.external,
            number(path.originator or peer) if path.originator or peer else 0,
            len(path.clusters),
            number(peer) if peer else 0,
        )

    def __str__(self) -> str:
        """Every path, the best one of its network with a star."""
        order = sorted(self.paths, key=lambda path: (Prefix.of(path.network), self._rank(path)))
        return "\n".join(f"{'*' if self.best.get(path.network) == path else ' '} {path}" for path in order)


class Table:
    """Speakers and their sessions, and what follows: each speaker's RIB, worked out when it is first asked for."""

    def __init__(self, speakers: Iterable[Speaker], sessions: Iterable[Session]) -> None:
        self.speakers = {speaker.name: speaker for speaker in speakers}
        self.sessions = tuple(sessions)
        self._addresses = {speaker.name: speaker.address for speaker in self.speakers.values()}
        self._peers: dict[str, list[Session]] = {name: [] for name in self.speakers}
        for session in self.sessions:
            self._peers[session.one].append(session)
            self._peers[session.other].append(session)
        self._ribs: dict[str, Rib] = {}

    def rib(self, name: str) -> Rib:
        """What that speaker knows. Raises `UnknownName`."""
        if name not in self.speakers:
            raise UnknownName("BGP speaker", name, self.speakers)
        if name not in self._ribs:
            self._ribs[name] = self._settled.get(name) or self._heard(name, self._settled)
        return self._ribs[name]

    def peers(self, name: str) -> tuple[str, ...]:
        """Whom a speaker has sessions with."""
        return tuple(session.peer(name) for session in self._peers[name])

    @cached_property
    def _settled(self) -> Mapping[str, Rib]:
        """The RIBs of those who pass on what they hear, after nothing new is said any more."""
        passing = [name for name in self.speakers if self._passes_on(name)]
        ribs = {name: Rib(self.speakers[name], tuple(self._own(name)), self._addresses) for name in passing}
        while True:
            heard = {name: self._heard(name, ribs) for name in passing}
            if all(heard[name].paths == ribs[name].paths for name in passing):
                return heard
            ribs = heard

    def _passes_on(self, name: str) -> bool:
        """Whether others may hear from it more than its own networks: a reflector, or one with an external peer."""
        speaker = self.speakers[name]
        return bool(speaker.cluster) or any(self.speakers[peer].asn != speaker.asn for peer in self.peers(name))

    def _own(self, name: str) -> Iterator[Path]:
        speaker = self.speakers[name]
        return (Path(network, speaker.address) for network in speaker.networks)

    def _heard(self, name: str, ribs: Mapping[str, Rib]) -> Rib:
        """What a speaker knows after its peers, who know what `ribs` says, have talked to it."""
        paths = list(self._own(name))
        for session in self._peers[name]:
            peer = session.peer(name)
            known = ribs[peer].best.values() if peer in ribs else self._own(peer)
            for path in known:
                said = self._said(peer, session, path)
                if said is not None:
                    paths.append(self._checked(name, said, client=session.client == peer))
        return Rib(self.speakers[name], tuple(paths), self._addresses)

    def _said(self, by: str, session: Session, path: Path) -> Path | None:
        """How a speaker passes a path on by a session, if it does."""
        speaker, to = self.speakers[by], session.peer(by)
        if path.peer == to:
            return None
        if self.speakers[to].asn != speaker.asn:
            return Path(path.network, speaker.address, by, (speaker.asn, *path.as_path), external=True)
        if not path.peer or path.external:
            return Path(path.network, path.next_hop, by, path.as_path)
        if not speaker.cluster or not (session.client == to or self._is_client(path.peer, by)):
            return None
        origin = path.originator or self._addresses[path.peer]
        return Path(path.network, path.next_hop, by, path.as_path, origin, (speaker.cluster, *path.clusters))

    def _is_client(self, name: str, of: str) -> bool:
        return any(session.peer(of) == name and session.client == name for session in self._peers[of])

    def _checked(self, name: str, path: Path, *, client: bool) -> Path:
        """The path as a speaker keeps it: with why it is refused, if it has been here before. Who passes on what its
        clients say looks for its own cluster in their words alone, as BIRD does.
        """
        speaker, why = self.speakers[name], ""
        if speaker.asn in path.as_path:
            why = f"the own AS {speaker.asn} is in the path"
        elif path.originator == speaker.address:
            why = "it is its own originator"
        elif client and speaker.cluster in path.clusters:
            why = f"the own cluster {speaker.cluster} is in the path"
        return msgspec.structs.replace(path, refused=why) if why else path
