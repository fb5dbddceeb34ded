"""Would real BGP speakers have learnt the same?

Under Calico a program, BIRD, speaks BGP on every node and writes what it hears into the node's routes. `cni.bgp`
computes what it would hear. Here BIRD itself speaks:

    with bird.speaking(shop) as lab:
        print(lab.run("node-1", "ip", "route").out)
        bird.heard(lab, shop, "node-1")                # paths, as `cni.bgp` has them

The lab is built as compiled, but for the routes that come from BIRD. It is started on every speaker, the router too
where it is one, with sessions as the CNI says, and begins with its node's own blocks and nothing else. When all
speakers know the paths that were computed, and the kernel has the routes that were compiled — no others, none missing
— the lab is ready; if that never comes, it is an error that names the lines. `silenced` takes sessions down while all
runs.

How each is told (`configuration`): a node's own blocks are static blackholes; addresses that it has from other nodes'
blocks are learnt from the kernel; next hops are looked up in the kernel's routes, the default route included; who is a
route reflector says so for its clients; the router of a ToR puts itself as next hop. A speaker without an IPv4 address
takes one of 240.0.0.0/4 as its identifier.

Not here: IPIP (few kernels have it), graceful restart, what Calico's confd does, BGP between other routers than ours.
Its version 2 is taken, while Calico 3.30 brings a 1.6 of its own: the lines of configuration differ, what is said on
the wire does not. Guide section 3.1; RFC 4271, RFC 4456; Debian's package bird2.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from k8snetlab.address import family
from k8snetlab.cluster import Cluster
from k8snetlab.cni.bgp import Path, Session, Speaker, Table
from k8snetlab.cni.calico import BIRD, Calico, Pool
from k8snetlab.errors import CannotDo, Problem
from k8snetlab.linux.host import Network
from k8snetlab.linux.text import ip_route
from k8snetlab.live.lab import Lab

__all__ = ["PACKAGE", "PROGRAM", "configuration", "heard", "settled", "silenced", "speaking", "unspoken", "written"]

PROGRAM, PACKAGE = "bird", "bird2"
FOLDER = "/run/bird"
SECONDS = 20.0
"""So long the speakers may take until all routes are there; usually it is less than two."""

AGAIN = 0.1


@contextmanager
def speaking(cluster: Cluster) -> Iterator[Lab]:
    """A lab whose routes between nodes were written by BIRD. Raises `CannotDo` where there is no BIRD or the cluster's
    nodes do not speak BGP, and if the routes do not become those that are compiled.
    """
    known = _tables(cluster)
    if shutil.which(PROGRAM) is None:
        raise CannotDo(Problem(f"there is no program {PROGRAM}: install the package {PACKAGE}", field="bgp"))
    with Lab(unspoken(cluster)) as lab:
        lab.run("", "mkdir", "-p", FOLDER)
        for name in _names(known):
            _start(lab, name, configuration(cluster, name))
        settled(lab, cluster)
        yield lab


def unspoken(cluster: Cluster) -> Network:
    """The machines as they are before anybody has spoken: all else is as compiled."""
    hosts = cluster.network
    changed = {
        name: msgspec.structs.replace(host, routes=kept)
        for name, host in hosts.items()
        if len(kept := tuple(route for route in host.routes if route.protocol != BIRD)) != len(host.routes)
    }
    return hosts.replacing(*changed.values())


def settled(lab: Lab, cluster: Cluster, seconds: float = SECONDS) -> None:
    """Wait until every speaker knows the paths, and has written the routes, that are computed of `cluster`, and no
    others. Raises `CannotDo` naming the lines that differ after so many seconds.
    """
    tables = _tables(cluster)
    wanted = {name: (*_known(tables, name), *_compiled(cluster.network, name)) for name in _names(tables)}
    ends = time.monotonic() + seconds
    while True:
        found = {name: (*_lines(_all(heard(lab, cluster, name))), *written(lab, name)) for name in wanted}
        if found == wanted:
            return
        if time.monotonic() > ends:
            raise CannotDo(_differing(name, found[name], own) for name, own in wanted.items() if found[name] != own)
        time.sleep(AGAIN)


def _differing(name: str, found: Iterable[str], wanted: Iterable[str]) -> Problem:
    more, less = sorted({*found} - {*wanted}), sorted({*wanted} - {*found})
    said = [f"has {'; '.join(more)}"] * bool(more) + [f"has not {'; '.join(less)}"] * bool(less)
    return Problem(f"BIRD {' and '.join(said)}", object=name, field="routes")


def silenced(lab: Lab, cluster: Cluster, silent: Cluster) -> None:
    """End those sessions of `cluster` that `silent` has not, and wait until the routes are its. Raises `CannotDo`."""
    before, after = _tables(cluster), _tables(silent)
    for of, table in before.items():
        kept = {frozenset((each.one, each.other)) for each in after[of].sessions}
        for session in table.sessions:
            if frozenset((session.one, session.other)) not in kept:
                for name in (session.one, session.other):
                    _asked(lab, name, "disable", f'"{_protocol(session.peer(name), of)}"')
    settled(lab, silent)


# What BIRD is told


def configuration(cluster: Cluster, name: str) -> str:
    """The configuration of one speaker, a node or `router`: `bird.conf` for BIRD 2. Raises `UnknownName` for a machine
    that speaks to nobody, and `CannotDo` for a cluster whose nodes do not speak BGP.
    """
    pools = _pools(cluster)
    tables = _tables(cluster)
    for table in tables.values():
        table.rib(name)  # says who there is, if it is not among them
    return "\n".join(
        (
            f"router id {_identifiers(tables)[name]};",
            "protocol device { scan time 1; }",
            f"protocol direct {{ {' '.join(f'ipv{of};' for of in tables)} }}",
            *(line for pool in pools for line in _family(pool, tables[pool.family], name)),
            "",
        )
    )


def _family(pool: Pool, table: Table, name: str) -> Iterator[str]:
    """One family: the own blocks, the kernel's routes, and a session with each peer."""
    of, speaker = pool.family, table.speakers[name]
    blocks = " ".join(f"route {block} blackhole;" for block in pool.allocation.of(name))
    yield f"protocol static own{of} {{ ipv{of}; {blocks} }}"
    exported = "export where source ~ [ RTS_STATIC, RTS_BGP ];"
    yield f"protocol kernel kernel{of} {{ learn; scan time 1; metric 0; ipv{of} {{ import all; {exported} }}; }}"
    own = f"net ~ [ {', '.join(speaker.networks)} ] && source != RTS_BGP || " if speaker.networks else ""
    for session in table.sessions:
        if name in (session.one, session.other):
            yield from _session(of, table, speaker, session, f"{own}source = RTS_BGP")


def _session(of: int, table: Table, speaker: Speaker, session: Session, exported: str) -> Iterator[str]:
    peer = table.speakers[session.peer(speaker.name)]
    reflects = speaker.cluster and session.client == peer.name
    hop = "next hop self; " if peer.asn != speaker.asn else ""
    yield f"protocol bgp '{_protocol(peer.name, of)}' {{"
    yield f"  local {speaker.address} as {speaker.asn}; neighbor {peer.address} as {peer.asn}; multihop;"
    yield "  connect delay time 0; connect retry time 1; error wait time 1, 2;"
    if reflects:
        yield f"  rr client; rr cluster id {speaker.cluster};"
    yield f"  ipv{of} {{ import all; {hop}export where {exported}; }};"
    yield "}"


def _protocol(peer: str, of: int) -> str:
    """What a session is called: after the peer, whose name may have dots and dashes."""
    return f"{peer}:{of}"


def _start(lab: Lab, name: str, text: str) -> None:
    lab.run(name, "tee", f"{FOLDER}/{name}.conf", text=text)
    started = lab.run(
        name, PROGRAM, "-c", f"{FOLDER}/{name}.conf", "-s", f"{FOLDER}/{name}.ctl", "-P", f"{FOLDER}/{name}.pid"
    )
    if started.status:
        raise CannotDo(Problem(f"{PROGRAM}: {started.err.strip()}", object=name))


# What BIRD says


def heard(lab: Lab, cluster: Cluster, name: str) -> Mapping[int, tuple[Path, ...]]:
    """Every path that a speaker knows, by family, in order: its own blocks, and what it was told by its peers. What it
    refused it has forgotten.
    """
    tables = _tables(cluster)
    named = {identifier: speaker for speaker, identifier in _identifiers(tables).items()}
    found: dict[int, list[Path]] = {of: [] for of in tables}
    for of, table in tables.items():
        said = _asked(lab, name, "show", "route", "table", f"master{of}", "all")
        found[of] = list(_paths(said, table, name, named))
    return {of: tuple(sorted(paths, key=repr)) for of, paths in found.items()}


def _paths(said: str, table: Table, name: str, named: Mapping[str, str]) -> Iterator[Path]:
    """The paths in what `show route all` prints: a line each with the network (if it is not that of the line before)
    and who said it, then lines with its attributes.
    """
    speakers, network = table.speakers, ""
    path: Path | None = None
    for line in said.splitlines():
        if "[" in line and not line.startswith("\t"):
            if path is not None:
                yield path
            path = None
            first, _, more = line.partition("[")
            words = first.split()
            network = words[0] if words and "/" in words[0] else network
            by = more.split()[0].rpartition(":")[0]
            if by in speakers:
                external = speakers[by].asn != speakers[name].asn
                path = Path(network, "", by, external=external)
            elif more.startswith("own"):
                yield Path(network, speakers[name].address)
        elif path is not None and line.strip().startswith("BGP."):
            path = _told(path, line.strip().removeprefix("BGP."), table, named)
    if path is not None:
        yield path


def _told(path: Path, line: str, table: Table, named: Mapping[str, str]) -> Path:
    """A path with one more attribute."""
    field, _, value = line.partition(": ")
    words = value.split()
    match field:
        case "next_hop":
            return msgspec.structs.replace(path, next_hop=words[0])
        case "as_path":
            return msgspec.structs.replace(path, as_path=tuple(map(int, words)))
        case "local_pref":
            return msgspec.structs.replace(path, local_pref=int(value))
        case "originator_id":
            return msgspec.structs.replace(path, originator=table.speakers[named[value]].address)
        case "cluster_list":
            return msgspec.structs.replace(path, clusters=tuple(words))
    return path


def written(lab: Lab, name: str) -> tuple[str, ...]:
    """The routes of a machine's kernel that BIRD has written, in order, as `ip route` prints them."""
    return _lines(lab.run(name, "ip", f"-{of}", "route", "show", "proto", BIRD).out for of in (4, 6))


def _known(tables: Mapping[int, Table], name: str) -> tuple[str, ...]:
    """What a speaker knows as `cni.bgp` has it, less what it refuses."""
    ribs = [table.rib(name) for table in tables.values() if name in table.speakers]
    return _lines(str(path) for rib in ribs for path in rib.paths if not path.refused)


def _all(paths: Mapping[int, tuple[Path, ...]]) -> Iterator[str]:
    return (str(path) for held in paths.values() for path in held)


def _compiled(network: Network, name: str) -> tuple[str, ...]:
    host = network[name]
    own = msgspec.structs.replace(host, routes=tuple(route for route in host.routes if route.protocol == BIRD))
    return _lines(ip_route(own, of) for of in (4, 6))


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
    """Lines in order, evenly spaced, without what is said of every route of a protocol."""
    lines = (line for text in texts for line in text.splitlines())
    return tuple(sorted(" ".join(line.replace(f"proto {BIRD}", "").split()) for line in lines))


def _asked(lab: Lab, name: str, *words: str) -> str:
    said = lab.run(name, "birdc", "-s", f"{FOLDER}/{name}.ctl", *words)
    if said.status:
        raise CannotDo(Problem(f"birdc {' '.join(words)}: {said.err.strip() or said.out.strip()}", object=name))
    return said.out


# Who speaks


def _pools(cluster: Cluster) -> tuple[Pool, ...]:
    plugin = cluster.plugin
    pools = plugin.pools(cluster.layout.cni_plan) if isinstance(plugin, Calico) else ()
    found = tuple(pool for pool in pools if pool.bgp is not None)
    if not found:
        raise CannotDo(Problem(f"nobody speaks BGP under {cluster.options.cni} as it is configured", field="cni"))
    return found


def _tables(cluster: Cluster) -> Mapping[int, Table]:
    return {pool.family: pool.bgp for pool in _pools(cluster) if pool.bgp is not None}


def _names(tables: Mapping[int, Table]) -> list[str]:
    return sorted({name for table in tables.values() for name in table.speakers})


def _identifiers(tables: Mapping[int, Table]) -> Mapping[str, str]:
    """The identifier of every speaker: its IPv4 address, or one that nobody has."""
    found: dict[str, str] = {}
    for number, name in enumerate(_names(tables), 1):
        addresses = (table.speakers[name].address for table in tables.values() if name in table.speakers)
        own = next((address for address in addresses if family(address) == 4), "")
        found[name] = own or f"240.0.{number // 256}.{number % 256}"
    return found
