"""What does `dig` say of the names of a cluster?

`k8snetlab dns --serve` answers at a port of this machine, as the cluster's CoreDNS would, until Ctrl-C. Each question
is told as it comes.

Not modelled: policies and paths. Who asks here asks from no place in the cluster, and is always heard; `k8snetlab dns
--from` is about those who are in it.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING

import k8snetlab as k8s
from k8snetlab.cli import output

if TYPE_CHECKING:
    from k8snetlab.live.nameserver import Asked

__all__ = ["ADDRESS", "PORT", "serve"]

ADDRESS = "127.0.0.1"
PORT = 5353


def serve(cluster: k8s.Cluster, port: int) -> None:
    """Answer questions at a port (0: any that is free) until Ctrl-C, or until somebody ends this program."""
    from k8snetlab.live import nameserver

    answer = nameserver.answering(cluster)
    with nameserver.opened(ADDRESS, port) as (sockets, number):
        dig = f"dig @{ADDRESS} -p {number} kube-dns.kube-system.svc.cluster.local"
        where = f"The names of the cluster are answered at {ADDRESS} port {number}, by UDP and TCP"
        output.say(f"{where}\n\n    {dig}\n\nCtrl-C ends it.")
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            nameserver.serve([nameserver.Socket(each, answer) for each in sockets], _told)
        except KeyboardInterrupt:  # that is how one leaves
            pass
        finally:
            signal.signal(signal.SIGTERM, before)


def _told(asked: Asked) -> None:
    output.say(f"{asked.transport}  {asked.type:<5} {asked.name}  {asked.said}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
