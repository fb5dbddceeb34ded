"""How does a name become an address?

A program knows a name, a packet needs an address. Between them stand: the file that says whom to ask and what to put
behind a name (`resolvconf`), the C library that makes questions of it (`resolver`), the name server with its chain of
plugins (`corefile`, `coredns`), and the records that follow from the objects of the cluster (`records`). What is asked
and answered are values (`messages`).

Neither resolvers nor name servers send anything here: both are generators that give questions and take answers, so
that the questions walk the simulated network (`flows`) or real sockets (`live`).

    server = Server(corefile(DEFAULT), Surroundings(Directory(services, slices, namespaces, pods)))
    answered(server, Question("web.shop.svc.cluster.local.", "A"))

Not modelled: DNSSEC, zone transfers, DNS over TLS or HTTPS. Guide section 2.3; the DNS specification of Kubernetes,
RFC 1035.
"""

from __future__ import annotations

from k8snetlab.dns.coredns import Question, Server, Surroundings, answered
from k8snetlab.dns.corefile import DEFAULT, ORDER, Corefile, corefile
from k8snetlab.dns.messages import (
    Lost,
    Message,
    Query,
    Rcode,
    Record,
    Reply,
    absolute,
    fitted,
    length,
    reverse_name,
    within,
)
from k8snetlab.dns.records import DOMAIN, Directory, PodRecords, Zones
from k8snetlab.dns.resolvconf import NODE_LOCAL, Kubelet, ResolvConf, pod_hosts
from k8snetlab.dns.resolver import LIBRARIES, PAIR, Found, Resolving, Status, candidates, resolver

__all__ = [
    "DEFAULT", "DOMAIN", "LIBRARIES", "NODE_LOCAL", "ORDER", "PAIR", "Corefile", "Directory", "Found", "Kubelet",
    "Lost", "Message", "PodRecords", "Query", "Question", "Rcode", "Record", "Reply", "ResolvConf", "Resolving",
    "Server", "Status", "Surroundings", "Zones", "absolute", "answered", "candidates", "corefile", "fitted", "length",
    "pod_hosts", "resolver", "reverse_name", "within",
]  # fmt: skip
