"""Real C libraries in the pods of a lab, and the questions that the model's name servers hear of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from k8snetlab import BadOption, CannotDo, Cluster, example, live
from k8snetlab.compile import RESOLVERS
from k8snetlab.live.lookups import CASES, EXAMPLE, PROGRAMS, Names, compiled, expected, heard, named, recorded
from tests.live.conftest import Ordinary
from tests.live.shop import DUAL_STACK

PODS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: usual}
spec: {containers: [{name: shell, image: shell:1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: own}
spec:
  dnsPolicy: None
  dnsConfig: {nameservers: [10.96.0.10], searches: [svc.cluster.local], options: [{name: ndots, value: "2"}]}
  hostAliases: [{ip: 192.0.2.7, hostnames: [printer.example.org]}]
  containers: [{name: shell, image: shell:1}]
---
apiVersion: v1
kind: Pod
metadata: {name: default}
spec: {dnsPolicy: Default, containers: [{name: shell, image: shell:1}]}
"""
NOBODY = {"spec": {"selector": {"k8s-app": "nobody"}}}


@pytest.fixture(scope="module")
def musl(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """The program that musl is built into; the test skips where nothing compiles it."""

    def program() -> str:
        try:
            return str(compiled(tmp_path_factory.mktemp("musl")))
        except CannotDo as error:
            pytest.skip(str(error))

    return program


@pytest.fixture(scope="module")
def names(kernel: None) -> Iterator[tuple[Cluster, Names]]:
    """A cluster with both families and a pod of every dnsPolicy, at work."""
    cluster = Cluster.load(PODS, **DUAL_STACK)
    with live.Lab(cluster) as lab, named(lab, cluster) as found:
        yield cluster, found


@pytest.mark.parametrize(("library", "dns"), [("glibc", "cluster"), ("musl", "node-local")])
def test_a_real_library_asks_what_the_model_says(kernel: None, musl: Callable[[], str], library: str, dns: str) -> None:
    """Every case on record: the same questions in the same order, the same addresses."""
    cluster = example(EXAMPLE, dns=dns)
    found = heard(cluster, library, musl() if library == "musl" else "getent", "")
    assert found.differing(cluster) == ()
    assert len(found.lookups) == len(CASES)


@pytest.mark.parametrize(
    ("who", "name", "options"),
    [
        ("default/usual", "web", {}),
        ("default/usual", "www.example.com", {"ndots": "1"}),
        ("default/own", "web.default", {}),
        ("default/own", "web.default.svc.cluster.local", {}),
        ("default/own", "printer.example.org", {}),
        ("default/default", "web", {}),
        ("default/default", "example.com", {}),
        ("node/node-1", "web", {}),
    ],
)
def test_every_policy_is_read_as_it_is_written(
    names: tuple[Cluster, Names], who: str, name: str, options: Mapping[str, str]
) -> None:
    """The search list, servers and options of a pod's own file; /etc/hosts is read before; nodes ask the world."""
    cluster, lookups = names
    seen, said = lookups.lookup(who, name, "python", options), cluster.resolve(who, name, options=options)
    assert (seen.asked, seen.addresses) == (expected(said), tuple(sorted(said.addresses)))
    assert (seen.status == 0) == bool(said)


@pytest.mark.parametrize("name", ["web", "www.example.com", "nosuch", "web.default.svc.cluster.local."])
def test_dig_goes_through_the_search_list_too(names: tuple[Cluster, Names], name: str) -> None:
    """In the order of glibc, and it asks for A alone."""
    if shutil.which("dig") is None:
        pytest.skip("no dig on this machine: Debian's package bind9-dnsutils brings it")
    cluster, lookups = names
    said = cluster.resolve("default/usual", name, type="A")
    assert lookups.lookup("default/usual", name, "dig").asked == expected(said)


def test_the_files_of_this_machine_stay(names: tuple[Cluster, Names]) -> None:
    """A program in a pod reads the pod's file; nobody else does."""
    cluster, lookups = names
    before = Path("/etc/resolv.conf").read_text()
    assert lookups.run("default/own", "cat", "/etc/resolv.conf").out == cluster.resolv_conf("default/own").text
    assert Path("/etc/resolv.conf").read_text() == before


def test_what_a_program_cannot_do_is_told(names: tuple[Cluster, Names]) -> None:
    """One that is not there, or asks for both types only: not taken for a name that is not found."""
    with pytest.raises(CannotDo, match="no-such-program does not start"):
        names[1].lookup("default/usual", "web", "no-such-program")
    with pytest.raises(BadOption, match="getent does not ask for AAAA alone"):
        names[1].lookup("default/usual", "web", type="AAAA")


def test_without_backends_no_question_arrives(kernel: None) -> None:
    """The Service refuses, which the library hears; nobody is asked, and that is what the model says too."""
    cluster = Cluster.load(PODS).patched("Service", "kube-system/kube-dns", NOBODY)
    with live.Lab(cluster) as lab, named(lab, cluster) as lookups:
        seen, said = lookups.lookup("default/usual", "web"), cluster.resolve("default/usual", "web")
    assert (seen.asked, seen.addresses) == (expected(said), said.addresses) == ((), ())
    assert said.count > 0 and not said


def test_afterwards_the_lab_answers_again(kernel: None) -> None:
    """Port 53 of a CoreDNS pod belongs to the name server meanwhile, and to the lab before and after."""
    cluster = Cluster.load(PODS)
    pod = next(each for each in cluster.network if each.startswith("kube-system/coredns"))
    probe = live.Probe("default/usual", cluster.objects.pod(pod).ip, 53, "UDP")
    with live.Lab(cluster) as lab:
        before = lab.probe([probe])
        with named(lab, cluster):
            between = lab.probe([probe], patience=0.2)
        assert lab.probe([probe]) == before != between


def test_an_ordinary_user_may_look_names_up_in_a_lab(kernel: None, ordinary: Ordinary) -> None:
    """The files are laid over those of the machine in a user namespace as well."""
    code = (
        "import sys\n"
        "from k8snetlab import Cluster, live\n"
        "cluster = Cluster.load(sys.argv[1])\n"
        "with live.Lab(cluster) as lab, live.lookups.named(lab, cluster) as names:\n"
        "    print(*(each.name for each in names.lookup('default/usual', 'web').asked))\n"
    )
    out, err = ordinary(code, PODS)
    assert (out.split(), err) == (["web.default.svc.cluster.local."] * 2, "")


def test_what_is_on_record_is_what_the_model_says() -> None:
    """On machines without a lab too: glibc and musl, with and without NodeLocal DNSCache."""
    found = recorded()
    assert [(each.library, each.dns) for each in found] == [(a, b) for a in ("glibc", "musl") for b in RESOLVERS]
    for each in found:
        assert each.differing(example(EXAMPLE, dns=each.dns)) == ()
        assert [(one.source, one.name, one.options, one.type) for one in each.lookups] == list(CASES)
        assert each.version and str(len(each.lookups[0].asked)) in str(each).splitlines()[2]


def test_nothing_compiles_without_a_compiler(tmp_path: Path) -> None:
    """Told with the packages that bring it."""
    with pytest.raises(CannotDo, match="musl-tools"):
        compiled(tmp_path, "no-such-gcc")
    assert set(PROGRAMS) == {"getent", "python", "dig"}
