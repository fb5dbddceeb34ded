"""How does state look to a program?

The real tools print lines; a program wants rows of named values. One function for each kind of state gives the rows of
a machine in the order of the tool's lines, and one for each kind of object its row. Values are numbers, texts,
booleans, nothing, or lists of texts — no nesting, so that a row fits in a table.

Not modelled: what the text does not say either (counters, time-outs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from k8snetlab import api
from k8snetlab.address import AddressPlan
from k8snetlab.cni import Rib
from k8snetlab.linux.host import Host
from k8snetlab.linux.netfilter import Tables
from k8snetlab.linux.nftables import Table
from k8snetlab.linux.route import Route
from k8snetlab.linux.xfrm import XfrmPolicy

__all__ = ["OF_MACHINES", "Row", "of_object", "of_plan", "of_rib"]

Value: TypeAlias = str | int | bool | list[str] | None
Row: TypeAlias = dict[str, Value]


# Machines


def links(host: Host) -> Iterator[Row]:
    """A row for each device."""
    for link in host.links:
        yield {
            "name": link.name,
            "index": link.index,
            "kind": link.kind.value,
            "mac": link.mac,
            "mtu": link.mtu,
            "up": link.up,
            "master": link.master or None,
            "hairpin": link.hairpin if link.master else None,
            "peer_host": link.peer.host if link.peer else None,
            "peer_link": link.peer.link if link.peer else None,
            "vni": link.vxlan.vni or None if link.vxlan else None,
            "vxlan_port": link.vxlan.port if link.vxlan else None,
            "vxlan_local": link.vxlan.local or None if link.vxlan else None,
        }


def addresses(host: Host) -> Iterator[Row]:
    """A row for each address of each device."""
    for link in host.links:
        for address in link.addresses:
            yield {
                "device": link.name,
                "family": address.family,
                "address": address.ip,
                "length": address.length,
                "scope": address.scope,
            }


def routes(family: int) -> Callable[[Host], Iterator[Row]]:
    """A row for each route of table main."""

    def found(host: Host) -> Iterator[Row]:
        held = [route for route in host.routes if route.family == family and route.table == "main"]
        yield from (_route(route) for route in sorted(held, key=_place))

    return found


def _place(route: Route) -> tuple[int, int, int]:
    block = route.block()
    return block.base, -block.length, route.metric


def _route(route: Route) -> Row:
    return {
        "family": route.family,
        "table": route.table,
        "type": route.type.value,
        "destination": str(route.block()),
        "via": route.via or None,
        "device": route.device or None,
        "source": route.source or None,
        "scope": route.scope,
        "protocol": route.protocol,
        "metric": route.metric,
        "onlink": route.onlink,
        "mtu": route.mtu or None,
        "hops": [f"via {hop.via} dev {hop.device} weight {hop.weight}" for hop in route.hops],
    }


def rules(host: Host) -> Iterator[Row]:
    """A row for each policy routing rule of IPv4."""
    for rule in sorted((rule for rule in host.rules if rule.family == 4), key=lambda each: each.priority):
        yield {
            "family": rule.family,
            "priority": rule.priority,
            "invert": rule.invert,
            "source": rule.source or None,
            "destination": rule.to or None,
            "mark": rule.mark or None,
            "mask": rule.mask if rule.mark else None,
            "in_device": rule.iif or None,
            "table": rule.table,
        }


def neighbours(host: Host) -> Iterator[Row]:
    """A row for each permanent neighbour."""
    for entry in host.neighbours:
        yield {"address": entry.ip, "device": entry.device, "mac": entry.mac, "state": "PERMANENT"}


def fdb(host: Host) -> Iterator[Row]:
    """A row for each forwarding entry of tunnels and bridges, and for each port's own address."""
    for entry in host.fdb:
        bridged = entry.device in host.ports
        yield {
            "mac": entry.mac,
            "device": entry.dst if bridged else entry.device,
            "bridge": entry.device if bridged else None,
            "remote": None if bridged else entry.dst,
        }
    for link in host.links:
        if link.master:
            yield {"mac": link.mac, "device": link.name, "bridge": link.master, "remote": None}


def iptables(family: int) -> Callable[[Host], Iterator[Row]]:
    """A row for each rule, in the order of tables and chains."""
    return lambda host: _rules(host.netfilter.of(family), family)


def _rules(tables: Tables, family: int) -> Iterator[Row]:
    for table in tables.values():
        for chain in table.chains.values():
            for number, rule in enumerate(chain.rules, 1):
                yield {
                    "family": family,
                    "table": table.name,
                    "chain": chain.name,
                    "number": number,
                    "comment": rule.comment or None,
                    "text": rule.text,
                }


def bpf(host: Host) -> Iterator[Row]:
    """A row for each slot of each frontend of the load-balancing map; slot 0 is the frontend itself."""
    for frontend in host.ebpf.services.values() if host.ebpf is not None else ():
        key = frontend.key
        for slot in range(len(frontend.backends) + 1):
            backend = frontend.backends[slot - 1] if slot else None
            yield {
                "address": key.address,
                "port": key.port,
                "protocol": key.protocol,
                "scope": key.scope.value,
                "number": frontend.number,
                "slot": slot,
                "kind": frontend.kind,
                "flags": [flag.value for flag in frontend.flags],
                "backend": backend.ip if backend else None,
                "backend_port": backend.port if backend else None,
                "affinity": frontend.affinity or None,
            }


def bpf_ipcache(host: Host) -> Iterator[Row]:
    """A row for each network whose identity is known."""
    for entry in host.datapath.known if host.datapath is not None else ():
        yield {"prefix": entry.prefix, "identity": entry.identity, "tunnel": entry.tunnel or None}


def bpf_endpoint(host: Host) -> Iterator[Row]:
    """A row for each address of the machine and of its containers."""
    for entry in host.datapath.endpoints if host.datapath is not None else ():
        yield {
            "address": entry.address,
            "endpoint": entry.number or None,
            "identity": entry.identity,
            "device": entry.device or None,
            "mac": entry.mac or None,
            "node_mac": entry.node_mac or None,
        }


def bpf_policy(host: Host) -> Iterator[Row]:
    """A row for each entry of each endpoint's policy map; identity 0 is any peer."""
    for entry in host.datapath.permits if host.datapath is not None else ():
        yield {
            "endpoint": entry.endpoint,
            "direction": entry.direction.value,
            "identity": entry.identity,
            "protocol": entry.protocol or None,
            "port": entry.port or None,
            "deny": entry.deny,
        }


def ipsets(host: Host) -> Iterator[Row]:
    """A row for each entry of each set, and one without an entry for an empty set."""
    for held in host.ipsets:
        for entry in held.listed or (None,):
            yield {"set": held.name, "type": held.type.value, "family": held.family, "entry": entry}


def ipvs(host: Host) -> Iterator[Row]:
    """A row for each real server of each virtual server, and one without for a virtual server that has none."""
    for virtual in host.ipvs:
        for server in virtual.servers or (None,):
            yield {
                "family": virtual.family,
                "protocol": virtual.protocol or None,
                "address": virtual.address or None,
                "port": virtual.port or None,
                "mark": virtual.mark or None,
                "scheduler": virtual.scheduler.value,
                "persistent": virtual.persistent or None,
                "server": server.address if server else None,
                "server_port": server.port if server else None,
                "weight": server.weight if server else None,
                "forward": "Masq" if server else None,
            }


def xfrm(host: Host) -> Iterator[Row]:
    """A row for each state and each policy of IPsec; keys are not told."""
    if host.xfrm is None:
        return
    for entry in host.xfrm.entries:
        policy = entry if isinstance(entry, XfrmPolicy) else None
        yield {
            "list": entry.chain,
            "direction": policy.direction.value if policy else None,
            "priority": policy.priority if policy else None,
            "src": entry.src,
            "dst": entry.dst,
            "mark": entry.mark,
            "mask": entry.mask,
            "spi": entry.spi,
            "reqid": entry.reqid,
        }


def wg(host: Host) -> Iterator[Row]:
    """A row for each peer of each WireGuard device, and one without for a device that has none."""
    for link in host.links:
        own = link.wireguard
        if own is None:
            continue
        held = [peer for peer in host.wireguard if peer.device == link.name]
        for peer in held or (None,):
            yield {
                "device": link.name,
                "public_key": own.public,
                "port": own.port,
                "peer": peer.public if peer else None,
                "endpoint": peer.place if peer else None,
                "allowed_ips": list(peer.allowed) if peer else [],
            }


def nft(host: Host) -> Iterator[Row]:
    """A row for each element of sets and maps, and for each rule, table by table. `name` is that of the set or chain;
    `number` counts in it.
    """
    for table in host.nftables:
        for held in table.sets.values():
            kind = "map element" if held.data else "set element"
            for number, element in enumerate(held.ordered, 1):
                text = element.written(held.types, held.data)
                yield _nft(table, kind, held.name, number, element.comment, text)
        for chain in table.chains.values():
            for number, rule in enumerate(chain.rules, 1):
                yield _nft(table, "rule", chain.name, number, rule.comment, rule.text)


def _nft(table: Table, kind: str, name: str, number: int, comment: str, text: str) -> Row:
    return {
        "family": table.family,
        "table": table.label,
        "kind": kind,
        "name": name,
        "number": number,
        "comment": comment or None,
        "text": text,
    }


def sysctls(host: Host) -> Iterator[Row]:
    """A row for each kernel setting."""
    for key, value in sorted(host.sysctls.items()):
        yield {"key": key, "value": value}


OF_MACHINES: Mapping[str, Callable[[Host], Iterator[Row]]] = {
    "addresses": addresses,
    "links": links,
    "routes": routes(4),
    "routes6": routes(6),
    "rules": rules,
    "neighbours": neighbours,
    "fdb": fdb,
    "iptables": iptables(4),
    "ip6tables": iptables(6),
    "nft": nft,
    "bpf": bpf,
    "bpf-ipcache": bpf_ipcache,
    "bpf-endpoint": bpf_endpoint,
    "bpf-policy": bpf_policy,
    "ipsets": ipsets,
    "ipvs": ipvs,
    "wg": wg,
    "wgconf": wg,
    "xfrm": xfrm,
    "sysctls": sysctls,
}
"""The rows of every kind of state that `Machine.show` prints."""


# Objects


def of_object(each: api.Object) -> Row:
    """The row of one object: what `kubectl get` would print of it."""
    name: Row = {"namespace": each.namespace or None, "name": each.name}
    match each:
        case api.Pod():
            return name | _pod(each)
        case api.Service():
            return name | _service(each)
        case api.Node():
            return name | _node(each)
        case api.EndpointSlice():
            return name | _slice(each)
        case api.Endpoints():
            return name | _endpoints(each)
        case _:
            return name


def _pod(pod: api.Pod) -> Row:
    return {
        "ready": pod.ready,
        "phase": str(pod.status.phase),
        "terminating": pod.terminating,
        "ips": list(pod.ips),
        "node": pod.node_name or None,
        "host_network": pod.host_network,
    }


def _service(service: api.Service) -> Row:
    return {
        "type": service.spec.type.value,
        "cluster_ips": list(service.spec.cluster_ips),
        "external_ips": [*(each.ip or each.hostname for each in service.load_balancer), *service.spec.external_ips],
        "external_name": service.spec.external_name or None,
        "ports": [
            f"{port.port}:{port.node_port}/{port.protocol}" if port.node_port else f"{port.port}/{port.protocol}"
            for port in service.spec.ports
        ],
        "selector": [f"{key}={value}" for key, value in sorted(service.spec.selector.items())],
    }


def _node(node: api.Node) -> Row:
    return {
        "ready": node.ready,
        "addresses": list(node.addresses),
        "pod_cidrs": list(node.pod_cidrs),
        "zone": node.zone or None,
    }


def _slice(piece: api.EndpointSlice) -> Row:
    return {
        "service": piece.service_name,
        "address_type": piece.address_type.value,
        "ports": [f"{port.port}/{port.protocol}" for port in piece.ports],
        "ready": [endpoint.address for endpoint in piece.endpoints if endpoint.ready],
        "not_ready": [endpoint.address for endpoint in piece.endpoints if not endpoint.ready],
    }


def _endpoints(each: api.Endpoints) -> Row:
    ports = (f"{port.port}/{port.protocol}" for subset in each.subsets for port in subset.ports)
    return {"ports": list(dict.fromkeys(ports)), "ready": list(each.ready), "not_ready": list(each.not_ready)}


def of_rib(rib: Rib) -> list[Row]:
    """A row for each path that a speaker of BGP knows."""
    return [
        {
            "network": path.network,
            "next_hop": path.next_hop,
            "peer": path.peer,
            "as_path": [str(number) for number in path.as_path],
            "best": rib.best.get(path.network) == path,
            "refused": path.refused,
        }
        for path in rib.paths
    ]


def of_plan(plan: AddressPlan) -> list[Row]:
    """A row for each network of the address plan; `overlaps` names those it shares addresses with and must not."""
    return [
        {
            "name": held.name,
            "kind": held.kind,
            "block": str(held.block),
            "overlaps": [other.name for pair in plan.overlaps if held in pair for other in pair if other != held],
        }
        for held in plan.ranges
    ]
