"""Corefiles, read and refused."""

from __future__ import annotations

import pytest

from k8snetlab.dns import DEFAULT, ORDER, Server, Surroundings, corefile
from k8snetlab.errors import ManifestError


def test_plugins_act_in_the_order_of_coredns_not_of_the_file() -> None:
    """`cache` is written behind `kubernetes` and `forward`, and looks first."""
    names = [each.name for each in corefile(DEFAULT).blocks[0].plugins]
    assert names == sorted(names, key=ORDER.index)
    assert names.index("cache") < names.index("kubernetes") < names.index("forward")


def test_a_block_may_have_zones_ports_comments_and_snippets() -> None:
    """All that people write into Corefiles."""
    read = corefile(
        """
        (usual) {
            errors   # a comment
            cache 30
        }
        example.org, dns://example.com:1053 10.96.0.0/16 {
            import usual
            import custom/*.override
            hosts {
                192.0.2.1 "www.example.org"
            }
        }
        import custom/*.server
        """
    )
    assert [(each.zones, each.port) for each in read.blocks] == [
        (("example.org.", "96.10.in-addr.arpa."), 53),
        (("example.com.",), 1053),
    ]
    first = read.blocks[0]
    assert [str(each) for each in first.plugins] == ["errors", "cache 30", "hosts"]
    hosts = first.named("hosts")
    assert hosts is not None
    assert [(str(each), each.line) for each in hosts.body] == [("192.0.2.1 www.example.org", 10)]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 0, "no server block"),
        (". {\n errors\n", 1, "never closed"),
        (".\n", 1, "has no {"),
        ("}\n", 1, "closes nothing"),
        (". {\n kubernets cluster.local\n}\n", 2, "no plugin 'kubernets'"),
        (". {\n import nothing\n}\n", 2, "no snippet 'nothing'"),
        (". {\n}\n. {\n}\n", 3, "served by the block in line 1 already"),
        (".:dns {\n}\n", 1, "'dns' is no port"),
        ("tls://. {\n}\n", 1, "tls:// is not modelled"),
        ("10.0.0.0/9 {\n}\n", 1, "whole steps of 8 bits"),
        ('. {\n hosts "a\n}\n', 2, "not closed in its line"),
        ("a..b {\n}\n", 1, "empty label"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, line: int, why: str) -> None:
    """The file, the line and the reason."""
    with pytest.raises(ManifestError, match=why) as refused:
        corefile(text)
    (problem,) = refused.value.problems
    assert (problem.file, problem.line, problem.object) == ("ConfigMap kube-system/coredns", line, "Corefile")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("route53 example.org", "route53 of CoreDNS is not modelled"),
        ("cache 30\ncache 60", "cache stands in line 2 of this block already"),
        ("kubernetes cluster.local {\n pods sometimes\n }", "'pods sometimes' is nothing"),
        ("kubernetes cluster.local {\n labels app=a\n }", "option 'labels' is not modelled"),
        ("forward .", "needs a zone and a name server"),
        ("forward . dns.example.org", "is no name server"),
        ("forward . 127.0.0.53\nloop", "Loop: .* CoreDNS stops"),
        ("hosts /etc/custom", "the file /etc/custom is not here"),
        ("hosts {\n ten.example 10.0.0.1\n }", "neither an address nor an option"),
        ("rewrite ttl a 30", "only name and type are"),
        ("rewrite name regex ( x", "no regular expression"),
        ("template IN A {\n answer hello\n }", "an answer reads like"),
        ("cache {\n success many\n }", "'many' is no number"),
        ("autopath nothing", "neither /etc/resolv.conf nor @kubernetes"),
        ("loadbalance weighted", "only round_robin is"),
    ],
)
def test_a_plugin_that_cannot_be_done_is_refused(line: str, why: str) -> None:
    """A server is not started with a Corefile that means something else than it would do."""
    with pytest.raises(ManifestError, match=why):
        Server(corefile(f". {{\n{line}\n}}"), Surroundings())
