"""Which names does a cluster have?

A cluster's zone is not a file. CoreDNS watches Services, EndpointSlices, namespaces and pods, and its plugin
`kubernetes` makes up the records when it is asked:

| name (in `svc.cluster.local`)      | A, AAAA                        | SRV `_PORT._PROTOCOL.NAME…`                  |
|------------------------------------|--------------------------------|----------------------------------------------|
| `SERVICE.NAMESPACE`, ClusterIP     | the ClusterIPs                 | the Service's name, the Service's port       |
| `SERVICE.NAMESPACE`, headless      | the addresses of its endpoints | a name for each endpoint, the endpoint's port|
| `ENDPOINT.SERVICE.NAMESPACE`       | that endpoint's address        | the same                                     |
| `SERVICE.NAMESPACE`, ExternalName  | CNAME to the other name        | nothing                                      |

An endpoint is called by its `hostname` (a pod with `hostname`, in the Service named by its `subdomain`: StatefulSets do
that), else by its address with dashes. Endpoints that are not ready have no records; `publishNotReadyAddresses` makes
them ready. Addresses lead back by PTR: a ClusterIP to its Service, an endpoint to its name in every Service that has
it. `10-244-1-2.NAMESPACE.pod.cluster.local` says an address back; *insecure* answers any address, *verified* only
those of pods in the namespace, *disabled* (the default of the plugin, but not of kubeadm's Corefile) nothing.

A namespace alone is a name without records (NODATA), and so is `svc.cluster.local`. A headless Service without ready
endpoints does not exist (NXDOMAIN); one with a ClusterIP does. An SRV record's weight is 100 shared out over all that
the answer was made of, both families counted, so a dual-stack Service has 50.

Records are found by name in indexes that are made once.

Not modelled: zone transfers, other clusters (`multicluster`), selecting objects by label; the SOA's serial number,
which is the time of the last change, is always 1. Guide section 2.3; the DNS specification of Kubernetes (version
1.1.0), CoreDNS 1.13.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from ipaddress import ip_address
from itertools import chain as joined
from math import floor
from typing import NamedTuple

import msgspec

from k8snetlab import api
from k8snetlab.address import family
from k8snetlab.dns.messages import Message, Query, Rcode, Record, Reply, address_of, reverse_name, within

__all__ = ["DOMAIN", "Asked", "Directory", "Lookup", "PodRecords", "Zones", "endpoint_name"]

DOMAIN = "cluster.local."
"""The domain that almost every cluster has."""

VERSION = "1.1.0"
"""The version of the DNS specification, told by `dns-version.cluster.local`."""

VERSION_TTL = 28800
LONGEST_CHAIN = 8
"""So many CNAMEs are followed."""

Asked = Generator[tuple[Query, ...], tuple[Reply, ...], Message | None]
"""How a name server works: it may ask others, and gives an answer, or nothing where it is not responsible."""

Lookup = Callable[[str, str], Asked]
"""How it finds a name that is not its own: (name, type)."""


class PodRecords(StrEnum):
    """Which records pods have as such (the option `pods`)."""

    DISABLED = "disabled"
    INSECURE = "insecure"
    VERIFIED = "verified"


class Endpoint(NamedTuple):
    """A ready endpoint of a Service: its address, its label, and its ports as (name, protocol, number)."""

    address: str
    label: str
    ports: tuple[tuple[str, str, int], ...]


class Host(NamedTuple):
    """What a name leads to: an address (or another name), under which name, and a port (-1: none)."""

    host: str
    owner: str
    port: int = -1


def endpoint_name(address: str, hostname: str = "") -> str:
    """The label of an endpoint: its hostname, else its address with dashes.

    >>> endpoint_name("10.244.1.2"), endpoint_name("fd00::2"), endpoint_name("10.244.1.2", "web-0")
    ('10-244-1-2', 'fd00--2', 'web-0')
    """
    if hostname:
        return hostname
    dashed = address.replace(".", "-").replace(":", "-")
    return f"{dashed}0" if dashed.endswith("-") else dashed


class Directory(msgspec.Struct, frozen=True, dict=True):
    """The objects that CoreDNS watches, found by name and by address."""

    services: tuple[api.Service, ...] = ()
    slices: tuple[api.EndpointSlice, ...] = ()
    namespaces: tuple[api.Namespace, ...] = ()
    pods: tuple[api.Pod, ...] = ()

    @cached_property
    def by_key(self) -> Mapping[str, api.Service]:
        """Services by `namespace/name`, in small letters."""
        return {service.key.lower(): service for service in self.services}

    @cached_property
    def known(self) -> frozenset[str]:
        """The namespaces, in small letters."""
        return frozenset(each.name.lower() for each in self.namespaces)

    @cached_property
    def _by_service(self) -> Mapping[str, tuple[api.EndpointSlice, ...]]:
        found: dict[str, list[api.EndpointSlice]] = {}
        for piece in self.slices:
            if piece.service_name and piece.address_type is not api.AddressType.FQDN:
                found.setdefault(f"{piece.namespace}/{piece.service_name}".lower(), []).append(piece)
        return {key: tuple(pieces) for key, pieces in found.items()}

    def endpoints(self, key: str, *, pod_names: str = "") -> tuple[Endpoint, ...]:
        """The ready endpoints of a Service. `pod_names` says that those without hostname are called like their pod
        (`endpoint_pod_names`); empty: by address.
        """
        there = self._kept.get((key, pod_names))
        if there is None:
            there = self._kept[key, pod_names] = tuple(self._endpoints(key, pod_names))
        return there

    @cached_property
    def _kept(self) -> dict[tuple[str, str], tuple[Endpoint, ...]]:
        """Endpoints that were asked for before."""
        return {}

    def _endpoints(self, key: str, pod_names: str) -> Iterator[Endpoint]:
        for piece in self._by_service.get(key, ()):
            ports = tuple((port.name or "", str(port.protocol), port.port or -1) for port in piece.ports)
            for each in piece.endpoints:
                if each.ready:
                    pod = each.target_ref.name if pod_names and each.target_ref is not None else ""
                    label = each.hostname or (pod if len(pod) < 64 else "")
                    for address in each.addresses:
                        yield Endpoint(address, endpoint_name(address, label or ""), ports or (("", "TCP", -1),))

    @cached_property
    def by_cluster_ip(self) -> Mapping[str, api.Service]:
        """Services by each of their ClusterIPs."""
        return {address: service for service in reversed(self.services) for address in service.cluster_ips}

    @cached_property
    def by_endpoint(self) -> Mapping[str, tuple[str, ...]]:
        """The Services (`namespace/name`) that have an address among their ready endpoints."""
        found: dict[str, dict[str, None]] = {}
        for key, pieces in self._by_service.items():
            for each in joined.from_iterable(piece.endpoints for piece in pieces):
                if each.ready:
                    for address in each.addresses:
                        found.setdefault(address, {})[key] = None
        return {address: tuple(keys) for address, keys in found.items()}

    @cached_property
    def by_pod_ip(self) -> Mapping[str, tuple[api.Pod, ...]]:
        """Pods by their primary address, the only one that CoreDNS looks at."""
        found: dict[str, list[api.Pod]] = {}
        for pod in self.pods:
            if pod.networked and not pod.terminating:
                found.setdefault(pod.ip, []).append(pod)
        return {address: tuple(pods) for address, pods in found.items()}


class _Name(NamedTuple):
    """A name of the cluster's zone in its parts; empty where it is shorter."""

    kind: str = ""
    namespace: str = ""
    service: str = ""
    endpoint: str = ""
    port: str = ""
    protocol: str = ""


def _parsed(base: str) -> _Name | None:
    """The parts of a name, given without its zone; None for one that no object can have."""
    if base in ("", "svc", "pod"):
        return _Name()
    labels = base.split(".")
    kind, *rest = reversed(labels)
    if kind not in ("svc", "pod") or len(rest) > 4:
        return None
    name = _Name(kind, *rest[:2])
    match rest[2:]:
        case [endpoint]:
            return name._replace(endpoint=endpoint)
        case [protocol, port]:
            return name._replace(protocol=protocol.removeprefix("_"), port=port.removeprefix("_"))
        case _:
            return name


class Zones(msgspec.Struct, frozen=True):
    """The zones that the plugin `kubernetes` answers for, and how: its options in the Corefile.

    `zones` are absolute and in small letters, the cluster's domain first, reverse zones after it. `ttl` is in seconds.
    `namespaces` are the only ones shown, unless empty. `own` are the addresses of the name server itself.
    """

    directory: Directory
    zones: tuple[str, ...] = (DOMAIN,)
    pods: PodRecords = PodRecords.DISABLED
    ttl: int = 5
    namespaces: frozenset[str] = frozenset()
    own: tuple[str, ...] = ()
    pod_names: bool = False
    endpoints: bool = True
    empty_services: bool = True

    @property
    def domain(self) -> str:
        """The cluster's domain: the first zone that is not a reverse zone."""
        return next((zone for zone in self.zones if not zone.endswith("arpa.")), self.zones[0])

    def zone_of(self, name: str) -> str:
        """The zone that a name (in small letters) is in; the longest where several are; else nothing."""
        return max((zone for zone in self.zones if within(name, zone)), key=len, default="")

    # Answers

    def answer(self, name: str, kind: str, lookup: Lookup) -> Asked:
        """What the zone says of a name in one of its zones, or nothing where it does not have the name.

        `lookup` finds what other names of ExternalName Services lead to, where that is elsewhere.
        """
        low = name.lower()
        zone = self.zone_of(low)
        if kind in ("A", "AAAA"):
            found = yield from self._addresses(name, low, zone, kind, (), lookup)
            return found if found is None else self._said(zone, found)
        if kind == "SOA":
            return self._said(zone, (self.soa(zone),) if low == zone else ())
        if kind == "PTR":
            return self._pointer(name, low, zone)
        if kind == "NS" and low == zone:
            return self._servers(name, zone)
        if kind == "TXT" and low == f"dns-version.{zone}":
            return self._said(zone, (Record(name, "TXT", VERSION_TTL, f'"{VERSION}"'),))
        hosts = self.hosts(low, zone)
        if hosts is None:
            return None
        if kind == "SRV":
            return self._located(name, zone, hosts)
        aliases = (Record(name, "CNAME", self.ttl, each.host) for each in hosts if kind == "CNAME" and _is_name(each))
        return self._said(zone, tuple(aliases))

    def refusal(self, name: str) -> Message:
        """The answer for a name that is not there."""
        zone = self.zone_of(name.lower())
        return Message(Rcode.NXDOMAIN, authority=(self.soa(zone),), authoritative=True)

    def soa(self, zone: str) -> Record:
        """The record that says who is responsible for a zone, and how long absence may be remembered."""
        return Record(zone, "SOA", min(300, self.ttl), f"ns.dns.{zone} hostmaster.{zone} 1 7200 1800 86400 {self.ttl}")

    def _said(self, zone: str, answers: tuple[Record, ...], additional: tuple[Record, ...] = ()) -> Message:
        authority = () if answers else (self.soa(zone),)
        return Message(Rcode.NOERROR, answers, authority, additional, authoritative=True)

    def _addresses(
        self, name: str, low: str, zone: str, kind: str, before: tuple[Record, ...], lookup: Lookup
    ) -> Generator[tuple[Query, ...], tuple[Reply, ...], tuple[Record, ...] | None]:
        """The A or AAAA records of a name, behind the CNAMEs that lead to them. A CNAME within the zone that leads to
        nothing is not said either.
        """
        hosts = self.hosts(low, zone)
        if hosts is None:
            return None
        found: dict[Record, None] = {}
        of = 4 if kind == "A" else 6
        for each in hosts:
            if not _is_name(each):
                if family(each.host) == of:
                    found[Record(name, kind, self.ttl, each.host)] = None
                continue
            alias = Record(name, "CNAME", self.ttl, each.host)
            target = each.host.lower()
            if target == low or len(before) >= LONGEST_CHAIN or alias in before:
                continue
            if within(target, zone):
                beyond = yield from self._addresses(each.host, target, zone, kind, (*before, alias), lookup)
                found |= dict.fromkeys((alias, *beyond) if beyond else ())
            else:
                told = yield from lookup(each.host, kind)
                if told is not None:
                    found |= dict.fromkeys((alias, *told.answers))
        return tuple(found)

    def _located(self, name: str, zone: str, hosts: tuple[Host, ...]) -> Message:
        """SRV records, and the addresses of what they name."""
        there = [each for each in hosts if not _is_name(each)]
        weight = max(1, floor(100.0 / (100 * len(there)) * 100)) if there else 0
        located = (
            Record(name, "SRV", self.ttl, f"0 {weight} {each.port} {each.owner}") for each in there if each.port >= 0
        )
        extra = (_address(each, self.ttl) for each in there if each.port >= 0)
        return self._said(zone, tuple(dict.fromkeys(located)), tuple(dict.fromkeys(extra)))

    def _pointer(self, name: str, low: str, zone: str) -> Message | None:
        address = address_of(low)
        if not address:
            return self._said(zone, ()) if self.hosts(low, zone) is not None else None
        names = self.names_of(address)
        return self._said(zone, tuple(Record(name, "PTR", self.ttl, each) for each in names)) if names else None

    def _servers(self, name: str, zone: str) -> Message:
        """The name servers of the zone: the Services that lead to this one."""
        hosts = tuple(self._own_services(zone))
        names = dict.fromkeys(each.owner for each in hosts)
        records = tuple(Record(name, "NS", self.ttl, each) for each in names)
        return self._said(zone, records, tuple(_address(each, self.ttl) for each in hosts))

    # What names lead to

    def hosts(self, low: str, zone: str) -> tuple[Host, ...] | None:
        """What a name leads to; nothing where it exists without records, None where it does not exist."""
        if low == f"ns.dns.{zone}":
            return tuple(each._replace(owner=low) for each in self._own_services(zone))
        name = _parsed("" if low == zone else low.removesuffix(f".{zone}"))
        if name is None:
            return None
        if not name.namespace:
            return ()
        if zone.endswith("arpa.") or not self._shown(name.namespace):
            return None
        if not name.service:
            return ()
        return self._pod(name, low) if name.kind == "pod" else self._service(name, zone)

    def _shown(self, namespace: str) -> bool:
        return namespace in self.directory.known and (not self.namespaces or namespace in self.namespaces)

    def _pod(self, name: _Name, low: str) -> tuple[Host, ...] | None:
        label = name.service
        four = label.count("-") == 3 and "--" not in label
        try:
            address = str(ip_address(label.replace("-", "." if four else ":")))
        except ValueError:
            return None
        if self.pods is PodRecords.INSECURE:
            return (Host(address, low),)
        if self.pods is PodRecords.VERIFIED:
            pods = self.directory.by_pod_ip.get(address, ())
            return (Host(address, low),) if any(pod.namespace == name.namespace for pod in pods) else None
        return None

    def _service(self, name: _Name, zone: str) -> tuple[Host, ...] | None:
        key = f"{name.namespace}/{name.service}"
        service = self.directory.by_key.get(key)
        if service is None:
            return None
        if service.spec.type is api.ServiceType.EXTERNAL_NAME:
            other = service.spec.external_name.rstrip(".")
            return (Host(f"{other}.", ""),) if other and not name.endpoint else None
        if service.headless or name.endpoint:
            return tuple(self._endpoint_hosts(name, service, zone)) or None
        if not self.empty_services and not self.directory.endpoints(key):
            return None
        owner = f"{service.name}.{service.namespace}.svc.{zone}"
        ports = [(port.name or "", str(port.protocol), port.port) for port in service.spec.ports] or [("", "TCP", -1)]
        found = [
            Host(address, owner, number)
            for port, protocol, number in ports
            if _fits(name, port, protocol)
            for address in service.cluster_ips
        ]
        return tuple(found) or None

    def _endpoint_hosts(self, name: _Name, service: api.Service, zone: str) -> Iterator[Host]:
        if not self.endpoints:
            return
        key = f"{name.namespace}/{name.service}"
        for each in self.directory.endpoints(key, pod_names="yes" if self.pod_names else ""):
            if name.endpoint in ("", each.label.lower()):
                owner = f"{each.label}.{service.name}.{service.namespace}.svc.{zone}"
                yield from (
                    Host(each.address, owner, number)
                    for port, protocol, number in each.ports
                    if _fits(name, port, protocol)
                )

    def _own_services(self, zone: str) -> Iterator[Host]:
        """The addresses of the Services that lead to the name server itself, or its own."""
        keys = dict.fromkeys(key for address in self.own for key in self.directory.by_endpoint.get(address, ()))
        services = [self.directory.by_key[key] for key in keys if key in self.directory.by_key]
        if not services:
            yield from (Host(address, f"ns.dns.{zone}") for address in self.own)
        for service in services:
            whole = f"{service.name}.{service.namespace}.svc.{zone}"
            if service.headless:
                ends = self.directory.endpoints(service.key.lower())
                yield from (Host(each.address, f"{each.label}.{whole}") for each in ends)
            yield from (Host(address, whole) for address in service.cluster_ips)

    def names_of(self, address: str) -> tuple[str, ...]:
        """The names that an address leads back to."""
        service = self.directory.by_cluster_ip.get(address)
        if service is not None and (not self.namespaces or self._shown(service.namespace)):
            return (f"{service.name}.{service.namespace}.svc.{self.domain}",)
        found: dict[str, None] = {}
        for key in self.directory.by_endpoint.get(address, ()):
            namespace, _, name = key.partition("/")
            if not self.namespaces or self._shown(namespace):
                for each in self.directory.endpoints(key, pod_names="yes" if self.pod_names else ""):
                    if each.address == address:
                        found[f"{each.label}.{name}.{namespace}.svc.{self.domain}"] = None
        return tuple(found)

    # All of them

    def records(self) -> Iterator[Record]:
        """Every record that the zones have for objects, Service by Service. Records that are made up for any address
        (`pods insecure`) are not among them.
        """
        zone = self.domain
        yield self.soa(zone)
        yield Record(f"dns-version.{zone}", "TXT", VERSION_TTL, f'"{VERSION}"')
        for service in self.directory.services:
            if self._shown(service.namespace.lower()):
                yield from self._of_service(service, zone)
        if self.pods is PodRecords.VERIFIED:
            for address, pods in self.directory.by_pod_ip.items():
                for pod in pods:
                    yield _address(Host(address, f"{endpoint_name(address)}.{pod.namespace}.pod.{zone}"), self.ttl)
        if any(each.endswith("arpa.") for each in self.zones):
            yield from self._pointers()

    def _of_service(self, service: api.Service, zone: str) -> Iterator[Record]:
        name = f"{service.name}.{service.namespace}.svc.{zone}"
        hosts = self.hosts(name.lower(), zone) or ()
        found = [_address(each._replace(owner=name), self.ttl) for each in hosts if not _is_name(each)]
        found += [Record(name, "CNAME", self.ttl, each.host) for each in hosts if _is_name(each)]
        if service.headless:
            found += [_address(each, self.ttl) for each in hosts]
        for port, protocol in self._ports(service):
            at = f"_{port}._{protocol.lower()}.{name}"
            located = self._located(at, zone, self.hosts(at.lower(), zone) or ())
            found += located.answers
        yield from dict.fromkeys(found)

    def _ports(self, service: api.Service) -> Iterable[tuple[str, str]]:
        if service.headless:
            ends = self.directory.endpoints(service.key.lower())
            return dict.fromkeys((port, protocol) for each in ends for port, protocol, _ in each.ports if port)
        return [(port.name, str(port.protocol)) for port in service.spec.ports if port.name]

    def _pointers(self) -> Iterator[Record]:
        for address in dict.fromkeys((*self.directory.by_cluster_ip, *self.directory.by_endpoint)):
            name = reverse_name(address)
            if self.zone_of(name):
                yield from (Record(name, "PTR", self.ttl, each) for each in self.names_of(address))


def _is_name(host: Host) -> bool:
    return host.host.endswith(".")


def _address(host: Host, ttl: int) -> Record:
    return Record(host.owner, "A" if family(host.host) == 4 else "AAAA", ttl, host.host)


def _fits(name: _Name, port: str, protocol: str) -> bool:
    """Whether a port is meant by a name; a name without port and protocol means all."""
    return name.port in ("", port.lower()) and name.protocol in ("", protocol.lower())
