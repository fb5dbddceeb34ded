"""How long does it take to answer a question for a name, and to look one up? Prints a table; nothing is asserted.

    make bench          or          python benchmarks/names.py

A zone of 100,000 records is asked in this process, without a network; a lookup sends every question of the C library
through the simulated one. Each figure is the median of many, with its goal beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial

import k8snetlab as k8s
from k8snetlab import api
from k8snetlab.dns import DEFAULT, Directory, Question, Server, Surroundings, answered, corefile, reverse_name

SERVICES = 33_334
"""Each has an A, an SRV and a PTR record."""


def service(number: int) -> api.Service:
    """One of the Services."""
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return api.Service(
        metadata=api.ObjectMeta(name=f"s{number}", namespace="town"),
        spec=api.ServiceSpec(cluster_ip=address, ports=(api.ServicePort(name="http", port=80),)),
    )


def median(actions: Iterable[Callable[[], object]]) -> float:
    """The median time of these calls, in seconds."""
    took = []
    for action in actions:
        begin = time.perf_counter()
        action()
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


def main() -> None:
    """The table."""
    services = tuple(map(service, range(SERVICES)))
    server = Server(corefile(DEFAULT), Surroundings(Directory(services, (), (api.namespace_object("town"),))))
    asked = {
        "a Service's address": [Question(f"s{at}.town.svc.cluster.local.", "A") for at in range(0, SERVICES, 7)],
        "a named port": [Question(f"_http._tcp.s{at}.town.svc.cluster.local.", "SRV") for at in range(0, SERVICES, 7)],
        "an address backwards": [
            Question(reverse_name(services[at].cluster_ips[0]), "PTR") for at in range(0, SERVICES, 7)
        ],
        "a name that is not there": [Question(f"n{at}.town.svc.cluster.local.", "A") for at in range(0, SERVICES, 7)],
    }
    for questions in asked.values():
        answered(server, questions[0])  # makes the indexes
    for what, questions in asked.items():
        seconds = median(partial(answered, server, each) for each in questions)
        print(f"{'100,000 records: ' + what:48} {seconds * 1e6:8.1f} µs   goal 100 µs")
    shop = k8s.example("bookshop")
    for name in ("api", "www.example.com"):
        count = shop.resolve("shop/web-0", name).count
        seconds = median(partial(shop.resolve, "shop/web-0", name, seed=seed) for seed in range(100))
        print(f"{f'a lookup of {name}, {count} questions':48} {seconds * 1e3:8.2f} ms")


if __name__ == "__main__":
    main()
