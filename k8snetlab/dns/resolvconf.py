"""Whom does a program in a pod ask?

/etc/resolv.conf says it: the name servers, the search list, the options. In a pod the kubelet writes the file:

| dnsPolicy                | with its own network               | with the node's network |
|--------------------------|------------------------------------|-------------------------|
| `ClusterFirst` (default) | the cluster's DNS, its search list | the node's file         |
| `ClusterFirstWithHostNet`| the cluster's DNS, its search list | the same                |
| `Default`                | the node's file                    | the node's file         |
| `None`                   | only what `dnsConfig` says         | the same                |

The cluster's search list is the namespace, `svc` and the domain, then what the node searches; `ndots` is 5, and the
node's options are left out. `dnsConfig` adds servers and domains behind these, and replaces options of the same name.
Three name servers, 32 domains and 2048 characters of search list are the most: what is beyond is left out, and an
event of the pod says so.

Not modelled: the smaller limits of old kubelets and C libraries (six domains, 256 characters), Windows. Guide section
2.3; Kubernetes "Customizing DNS Service", `resolv.conf(5)`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from k8snetlab import api
from k8snetlab.dns.records import DOMAIN

__all__ = ["MOST_CHARACTERS", "MOST_DOMAINS", "MOST_SERVERS", "NODE_LOCAL", "Kubelet", "ResolvConf", "pod_hosts"]

MOST_SERVERS = 3
MOST_DOMAINS = 32
MOST_CHARACTERS = 2048

NODE_LOCAL = "169.254.20.10"
"""Where NodeLocal DNSCache listens on every node."""


class ResolvConf(msgspec.Struct, frozen=True):
    """What a file says: `options` as (name, value), `left_out` what the kubelet would not write into it, and why."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The file, as the container runtime writes it."""
        lines = [f"search {' '.join(self.search)}"] if self.search else []
        lines += (f"nameserver {each}" for each in self.nameservers)
        if self.options:
            lines.append("options " + " ".join(f"{name}:{value}" if value else name for name, value in self.options))
        return "".join(f"{line}\n" for line in lines)

    def __str__(self) -> str:
        return self.text

    @property
    def asked(self) -> tuple[str, ...]:
        """The name servers that a C library asks: the first three, or this machine if the file has none."""
        return self.nameservers[:MOST_SERVERS] or ("127.0.0.1",)

    def with_options(self, options: Mapping[str, str]) -> ResolvConf:
        """The same file with other options, each in the place of its namesake."""
        return msgspec.structs.replace(self, options=tuple((dict(self.options) | dict(options)).items()))

    def said(self, option: str) -> bool:
        """Whether an option is there."""
        return any(name == option for name, _ in self.options)

    def number(self, option: str, usual: int, most: int) -> int:
        """The number that an option says, as a C library takes it: at most `most`, and `usual` where it says none."""
        said = next((value for name, value in reversed(self.options) if name == option), "")
        return min(int(said), most) if said.isascii() and said.isdigit() else usual


class Kubelet(msgspec.Struct, frozen=True):
    """What a kubelet was told of DNS: the cluster's name servers, its domain, and the node's own file."""

    servers: tuple[str, ...]
    node: ResolvConf = ResolvConf()
    domain: str = DOMAIN

    def written(self, pod: api.Pod) -> ResolvConf:
        """The file that a pod gets."""
        policy = pod.spec.dns_policy
        found = self.node
        if policy is api.DNSPolicy.NONE:
            found = ResolvConf()
        elif policy is api.DNSPolicy.CLUSTER_FIRST_WITH_HOST_NET or (
            policy is api.DNSPolicy.CLUSTER_FIRST and not pod.host_network
        ):
            found = self._cluster_first(pod.namespace)
        if pod.spec.dns_config is not None:
            found = _with(found, pod.spec.dns_config)
        return _within_limits(found)

    def _cluster_first(self, namespace: str) -> ResolvConf:
        domain = self.domain.removesuffix(".")
        own = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)
        return ResolvConf(self.servers, tuple(dict.fromkeys((*own, *self.node.search))), (("ndots", "5"),))


def _with(conf: ResolvConf, more: api.PodDNSConfig) -> ResolvConf:
    options = dict(conf.options) | {each.name: each.value for each in more.options}
    return ResolvConf(
        tuple(dict.fromkeys((*conf.nameservers, *more.nameservers))),
        tuple(dict.fromkeys((*conf.search, *more.searches))),
        tuple(options.items()),
    )


def _within_limits(conf: ResolvConf) -> ResolvConf:
    said = []
    servers, search = conf.nameservers, conf.search
    if len(servers) > MOST_SERVERS:
        said.append(f"nameserver {' '.join(servers[MOST_SERVERS:])}: {MOST_SERVERS} name servers are the most")
        servers = servers[:MOST_SERVERS]
    kept = list(search[:MOST_DOMAINS])
    if len(search) > MOST_DOMAINS:
        said.append(f"search {' '.join(search[MOST_DOMAINS:])}: {MOST_DOMAINS} domains are the most")
    while len(" ".join(kept)) > MOST_CHARACTERS:
        said.append(f"search {kept.pop()}: {MOST_CHARACTERS} characters are the most")
    return ResolvConf(servers, tuple(kept), conf.options, tuple(said))


def pod_hosts(pod: api.Pod) -> dict[str, tuple[str, ...]]:
    """What the /etc/hosts says that the kubelet writes for a pod: names and their addresses. They are never asked for.

    A pod knows itself by its hostname, and by its hostname and subdomain where it has one.
    """
    found: dict[str, list[str]] = {"localhost": ["127.0.0.1", "::1"]}
    if not pod.host_network:
        own = pod.spec.hostname or pod.name[:63]
        names = [f"{own}.{pod.spec.subdomain}.{pod.namespace}.svc.{DOMAIN}"] if pod.spec.subdomain else []
        for name in (*names, own):
            found.setdefault(name, []).extend(pod.ips)
    for alias in pod.spec.host_aliases:
        for name in alias.hostnames:
            found.setdefault(name, []).append(alias.ip)
    return {name.removesuffix("."): tuple(dict.fromkeys(held)) for name, held in found.items()}
