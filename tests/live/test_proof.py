from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster, example
from k8snetlab.errors import CannotDo, UnknownName
from k8snetlab.live.proof import Answer, Ending, Kernel, Proof, Seen, Subject, Tally
from k8snetlab.live.proving import fingerprint
from k8snetlab.live.questions import Kind, Question
from k8snetlab.live.records import RERUN, read, recorded
from k8snetlab.trace import Client
from tools.record_evidence import RECORDS, is_true

README = Path(__file__).resolve().parents[2] / "README.md"
ONE, OTHER = Ending(Client.OPEN, "default/web-1", "10.244.0.3"), Ending(Client.OPEN, "default/web-2", "10.244.0.3")
NOBODY = Ending(Client.TIMEOUT)

MIXED = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: node-1
  containers: [{name: web, image: web, ports: [{containerPort: 53, protocol: UDP}, {containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: silent}
spec: {nodeName: node-2, containers: [{name: silent, image: silent}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: 8080, nodePort: 30080}
    - {name: sctp, port: 3868, protocol: SCTP, nodePort: 30868}
"""


def answer(predicted: tuple[Ending, ...], *happened: Ending) -> Answer:
    """The answer to a question about a Service."""
    seen = tuple(Seen(each.client, each.backend, each.source_seen, str(each.client), 1) for each in happened)
    words = ("default/client", "svc/default/web:80", "10.96.0.9", 80, "TCP")
    return Answer(Kind.POD_TO_SERVICE, *words, predicted, seen)


def proof(*answers: Answer) -> Proof:
    """A proof of these answers."""
    subject = Subject("0" * 64, "flannel", {}, "iptables", 3, 4, 1, ())
    tally = Tally(Kind.POD_TO_SERVICE, len(answers), sum(each.agrees for each in answers), {"OPEN": len(answers)})
    return Proof(subject, Kernel("6.18", "x86_64", "iptables v1.8.9", "root"), (tally,), (), answers)


def asked(cluster: Cluster, most: int = live.MOST) -> tuple[Question, ...]:
    """The questions without what is left out."""
    return live.questions(cluster, most)[0]


# What is asked


def test_every_pod_calls_every_pod() -> None:
    """Itself too, at the first port it listens on, or at a closed one."""
    calls = [each for each in asked(Cluster.load(MIXED)) if each.kind is Kind.POD_TO_POD]
    ours = {(each.probe.source, each.target) for each in calls if "default/" in each.target}
    pods = {each.probe.source for each in calls}
    assert ours == {(pod, target) for pod in pods for target in ("default/web:53/UDP", "default/silent:9")}
    assert len(calls) == len(pods) ** 2


def test_services_are_called_from_a_pod_of_each_node_from_nodes_and_from_outside() -> None:
    """Every port at the ClusterIP and, where there is one, at every node."""
    calls = asked(Cluster.load(MIXED))
    inside = {each.probe.source for each in calls if each.target == "svc/default/web:80"}
    assert {"node-1", "node-2", "node-3", "external", "default/web", "default/silent"} <= inside
    doors = {each.target for each in calls if each.kind is Kind.OUTSIDE_TO_NODE_PORT}
    assert doors == {f"node/node-{number}:30080" for number in (1, 2, 3)}


def test_what_cannot_be_asked_is_said() -> None:
    """A port of SCTP is left out, in words."""
    questions, left_out = live.questions(Cluster.load(MIXED))
    assert left_out == ("svc/default/web:3868: SCTP is not asked",)
    assert not [each for each in questions if each.probe.port == 3868]


def test_no_question_is_put_twice() -> None:
    """Each probe of each kind once, whatever the cluster."""
    calls = asked(example("bookshop"))
    assert len({(each.kind, each.probe) for each in calls}) == len(calls)


@pytest.mark.parametrize("most", [1, 30, 100, 483])
def test_of_many_questions_those_are_asked_that_meet_everybody(most: int) -> None:
    """Every target is called still; the callers share the work evenly; and it is said how much is left out."""
    questions, left_out = live.questions(example("bookshop"), most)
    pairs = [each for each in questions if each.kind is Kind.POD_TO_POD]
    pods = 22
    assert len({each.target for each in pairs}) == pods
    assert len(pairs) <= max(most, pods)
    calls = [sum(each.probe.source == name for each in pairs) for name in {each.probe.source for each in pairs}]
    assert len(calls) == pods and max(calls) - min(calls) <= 1
    assert f"pod to pod: {len(pairs)} of {pods**2} questions are asked" in left_out


# What an answer says


def test_one_of_several_outcomes_agrees() -> None:
    """Where load balancing chooses, anything that the walk knows is right; which one it was is not printed."""
    one = answer((ONE, OTHER), OTHER)
    assert one.agrees
    assert [row[-1] for row in one.rows()] == ["one of these", "one of these"]
    assert str(one) == str(answer((ONE, OTHER), ONE))


def test_what_the_walk_does_not_know_disagrees() -> None:
    """It is printed beside what was said."""
    wrong = answer((ONE,), ONE, NOBODY)
    assert not wrong.agrees
    assert wrong.rows()[-1] == ["", "", "nothing like it", "TIMEOUT"]
    assert wrong.ended == "MIXED"


def test_a_proof_with_a_disagreement_says_so() -> None:
    """The table counts, and the disagreement is listed."""
    whole = proof(answer((ONE,), ONE), answer((ONE,), NOBODY))
    assert not whole.agrees
    assert "1 of 2 questions end on the kernel as the walk says" in str(whole)
    assert "nothing like it" in str(whole)


def test_few_answers_can_be_kept() -> None:
    """The counts stay those of the whole, and a disagreement is never dropped."""
    whole = proof(answer((ONE,), ONE), answer((ONE,), NOBODY))
    assert whole.keeping().probes == whole.disagreements
    assert whole.keeping().asked == 2


def test_asking_for_a_call_that_is_not_there_names_those_that_are() -> None:
    """A misspelt target is answered with the right one."""
    with pytest.raises(UnknownName, match="did you mean default/client → svc/default/web:80"):
        proof(answer((ONE,), ONE)).between("default/client", "svc/default/web:8")


def test_a_proof_survives_json() -> None:
    """What is written is read back as it was."""
    whole = proof(answer((ONE, OTHER), ONE))
    assert msgspec.json.decode(msgspec.json.encode(whole.as_dict()), type=Proof) == whole


# What is on record


@pytest.mark.parametrize("name", RECORDS)
def test_evidence_is_about_what_is_built_today(name: str) -> None:
    """Every record is of the state that the compiler makes now, and the walk agrees with it; `make evidence` renews."""
    (path,) = [path for path in recorded() if path.stem == name]
    assert is_true(path, RECORDS[name].cluster()), "run `make evidence`, then `make notebooks`"


def test_nothing_else_is_on_record() -> None:
    """No file of evidence is about a cluster that nobody can build any more."""
    assert {path.stem for path in recorded()} == set(RECORDS)


def test_evidence_of_another_state_is_refused() -> None:
    """One route less, and the record is not found; it says how to ask."""
    pods = example("same-node-other-node")
    node = pods.network["node-2"]
    changed = pods.without("node-2", next(route for route in node.routes if route.device == "flannel.1"))
    assert fingerprint(changed.network) != fingerprint(pods.network)
    with pytest.raises(CannotDo, match="K8SNETLAB_LIVE=1"):
        live.evidence(changed)


def test_a_fingerprint_is_of_the_state_and_not_of_how_it_came_about() -> None:
    """Loaded again, or changed and changed back, it is the same."""
    pods = example("same-node-other-node")
    again = pods.changed(cni="bridge").changed(cni="flannel")
    assert fingerprint(again.network) == fingerprint(pods.network)


def test_a_rule_less_is_another_fingerprint() -> None:
    """Rules count, like everything that a machine holds."""
    gate = example("service-node-ports").network
    rule = gate["node-1"].netfilter.ipv4["nat"].chains["KUBE-NODEPORTS"].rules[0]
    assert fingerprint(gate.without("node-1", rule)) != fingerprint(gate)


def test_the_readme_gives_the_numbers_that_are_on_record() -> None:
    """Questions and agreements of the bookshop, one by one, and of the notebooks' clusters together."""
    table: dict[str, list[str]] = {}
    for line in README.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[1].isdigit():
            table[cells[0]] = cells[1:]
    proofs = {path.stem: read(path) for path in recorded()}
    shops = sorted(each.asked for name, each in proofs.items() if name.startswith("bookshop"))
    small = sum(each.asked for name, each in proofs.items() if not name.startswith("bookshop"))
    questions = {name: int(number) for name, (number, _) in table.items()}
    assert sorted(number for name, number in questions.items() if name.startswith("bookshop")) == shops
    assert sum(number for name, number in questions.items() if not name.startswith("bookshop")) == small
    assert all(asked == agree for asked, agree in table.values())


# On the kernel


@pytest.mark.parametrize("name", RECORDS)
def test_the_kernel_at_hand_says_what_is_on_record(kernel: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again, it agrees, and what is printed is the same text."""
    record = RECORDS[name]
    cluster = record.cluster()
    before = live.evidence(cluster)
    monkeypatch.setenv(RERUN, "1")
    now = live.evidence(cluster)
    assert now.agrees, str(now)
    assert str(now) == str(before)
    for pair in record.kept:
        assert str(now.between(*pair)) == str(before.between(*pair))


def test_progress_is_told_to_the_end(kernel: None) -> None:
    """It never goes back, and ends with everything done."""
    heard: list[tuple[int, int]] = []
    live.prove(example("one-web-one-client"), told=lambda done, whole: heard.append((done, whole)))
    assert heard == sorted(heard)
    assert heard[-1][0] == heard[-1][1]


def test_a_cluster_larger_than_the_kernel_s_memory_agrees(kernel: None) -> None:
    """150 pods know more neighbours than the kernel keeps for all namespaces together: they are asked in parts."""
    many = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 150
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {containers: [{name: many, image: many, ports: [{containerPort: 8080}]}]}
"""
    proof = live.prove(Cluster.load(many, nodes=2), most=1000)
    assert proof.agrees, str(proof)
    assert proof.asked > 1000
