"""The resolv.conf that the kubelet writes."""

from __future__ import annotations

from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.dns import Kubelet, ResolvConf, pod_hosts

NODE = ResolvConf(("192.0.2.1",), ("corp.example",), (("timeout", "1"),))
KUBELET = Kubelet(("10.96.0.10",), NODE)
OWN = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example")


def pod(**spec: Any) -> api.Pod:
    """A pod of the namespace shop."""
    return api.Pod(
        metadata=api.ObjectMeta(name="web-0", namespace="shop"),
        spec=api.PodSpec(containers=(api.Container(name="c"),), **spec),
        status=api.PodStatus(pod_ip="10.244.1.2"),
    )


CONFIG = api.PodDNSConfig(nameservers=("192.0.2.9",), searches=("extra.example",))


@pytest.mark.parametrize(
    ("spec", "written"),
    [
        ({}, ResolvConf(("10.96.0.10",), OWN, (("ndots", "5"),))),
        ({"host_network": True}, NODE),
        (
            {"host_network": True, "dns_policy": api.DNSPolicy.CLUSTER_FIRST_WITH_HOST_NET},
            ResolvConf(("10.96.0.10",), OWN, (("ndots", "5"),)),
        ),
        ({"dns_policy": api.DNSPolicy.DEFAULT}, NODE),
        (
            {"dns_policy": api.DNSPolicy.NONE, "dns_config": CONFIG},
            ResolvConf(("192.0.2.9",), ("extra.example",)),
        ),
        (
            {"dns_config": CONFIG},
            ResolvConf(("10.96.0.10", "192.0.2.9"), (*OWN, "extra.example"), (("ndots", "5"),)),
        ),
    ],
)
def test_each_policy_writes_its_file(spec: dict[str, Any], written: ResolvConf) -> None:
    """The cluster's servers, the node's file, or only what dnsConfig says."""
    assert KUBELET.written(pod(**spec)) == written


def test_the_file_reads_like_a_pods() -> None:
    """Search list, name servers, options."""
    assert KUBELET.written(pod()).text == (
        "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n"
        "nameserver 10.96.0.10\n"
        "options ndots:5\n"
    )


def test_options_of_a_pod_replace_those_of_the_same_name() -> None:
    """The number of dots is replaced, others are added, words without a value stay words."""
    options = (
        api.PodDNSConfigOption(name="ndots", value="2"),
        api.PodDNSConfigOption(name="single-request-reopen"),
    )
    written = KUBELET.written(pod(dns_config=api.PodDNSConfig(options=options)))
    assert written.text.splitlines()[-1] == "options ndots:2 single-request-reopen"
    assert (written.number("ndots", 1, 15), written.said("single-request-reopen")) == (2, True)


def test_what_is_beyond_the_limits_is_left_out_and_said() -> None:
    """Three servers, 32 domains, 2048 characters."""
    servers = tuple(f"192.0.2.{at}" for at in range(1, 5))
    written = KUBELET.written(pod(dns_config=api.PodDNSConfig(nameservers=servers)))
    assert (written.nameservers, written.left_out) == (
        ("10.96.0.10", "192.0.2.1", "192.0.2.2"),
        ("nameserver 192.0.2.3 192.0.2.4: 3 name servers are the most",),
    )
    short = KUBELET.written(pod(dns_config=api.PodDNSConfig(searches=tuple(f"d{at}" for at in range(40)))))
    assert (len(short.search), len(short.left_out)) == (32, 1)
    long = KUBELET.written(
        pod(dns_config=api.PodDNSConfig(searches=tuple(f"{'d' * 60}{at}.example" for at in range(28))))
    )
    assert len(" ".join(long.search)) <= 2048
    assert len(long.search) + len(long.left_out) == 32


def test_a_pod_knows_its_own_name_and_its_aliases() -> None:
    """These stand in /etc/hosts, and are never asked for."""
    alias = api.HostAlias(ip="192.0.2.7", hostnames=("legacy", "legacy.example"))
    held = pod_hosts(pod(hostname="web", subdomain="web", host_aliases=(alias,)))
    assert held["web"] == held["web.web.shop.svc.cluster.local"] == ("10.244.1.2",)
    assert (held["legacy"], held["localhost"]) == (("192.0.2.7",), ("127.0.0.1", "::1"))
    assert "web-0" in pod_hosts(pod())
