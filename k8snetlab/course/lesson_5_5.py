"""5.5 External DNS: a name for a Service, a zone that two clusters share, and what must not be deleted."""

from __future__ import annotations

from functools import cache
from typing import Any

from k8snetlab.cluster import Cluster, example, example_zone
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.dns.external import PREFIX, Owning, Plan, Policy, Registry, Zone

__all__ = ["LESSON", "lab", "planned", "zone"]

HOSTNAME = f"{PREFIX}hostname"
STOCK = "stock.example.org."


@cache
def lab() -> Cluster:
    """The cluster of the notebook."""
    return example("names-for-the-world", load_balancer="metallb-bgp")


@cache
def zone() -> Zone:
    """The zone of the notebook, with the records of a person and of two clusters."""
    return example_zone("example.org")


@cache
def planned() -> Plan:
    """What external-dns would do for the cluster blue."""
    return lab().external_dns(zone(), Owning("blue"))


# A name for a Service


def _stock(plan_of: Cluster) -> Plan:
    return plan_of.external_dns(zone(), Owning("blue"))


def _created(cluster: Cluster) -> bool:
    return any(each.records.name == STOCK and each.records.type == "A" for each in _stock(cluster).changes)


def _with(**changes: Any) -> Cluster:
    return lab().patched("Service", "default/stock", changes)


def _why(cluster: Cluster) -> str:
    return next((each.why for each in _stock(cluster).left if each.resource == "service/default/stock"), "")


NAMED: Exercise[Cluster] = Exercise(
    name="named",
    wants=Cluster,
    wanted="a cluster, such as lab.patched(…) gives,",
    right=_created,
    praise=lambda answer: "A name, and an address that is reached from outside: that is all external-dns needs.",
    mistakes=(
        Mistake(
            "nothing was changed",
            lambda answer: not answer.objects.service("default/stock").annotations,
            lambda answer: "The Service stock says no name yet: which annotation does the Service shop have?",
            lambda: _with(spec={"type": "LoadBalancer"}),
        ),
        Mistake(
            "the older annotation",
            lambda answer: "is not read" in _why(answer),
            lambda answer: f"That annotation is of another version. Here they begin with `{PREFIX}`.",
            lambda: _with(metadata={"annotations": {"external-dns.alpha.kubernetes.io/hostname": "stock.example.org"}}),
        ),
        Mistake(
            "no address outside",
            lambda answer: "ClusterIP" in _why(answer),
            lambda answer: "The name is asked for, but it leads nowhere: who outside reaches a ClusterIP?",
            lambda: _with(metadata={"annotations": {HOSTNAME: "stock.example.org"}}),
        ),
        Mistake(
            "another name",
            lambda answer: HOSTNAME in answer.objects.service("default/stock").annotations,
            lambda answer: "Something is created or left alone, but not `stock.example.org`. Look at the plan.",
            lambda: _with(metadata={"annotations": {HOSTNAME: "stock.example.com"}}, spec={"type": "LoadBalancer"}),
        ),
    ),
    otherwise="Ask `answer.external_dns(zone, blue)`: what does it say of the Service stock?",
    solution=lambda: _with(metadata={"annotations": {HOSTNAME: "stock.example.org"}}, spec={"type": "LoadBalancer"}),
)


# What must not be deleted


def _plan(owning: Owning) -> Plan:
    return lab().external_dns(zone(), owning)


def _deletes(owning: Owning) -> bool:
    return any(each.after is None for each in _plan(owning).changes)


def _does(owning: Owning) -> set[str]:
    return {each.records.name for each in _plan(owning).changes}


CAREFUL: Exercise[Owning] = Exercise(
    name="careful",
    wants=Owning,
    wanted='an Owning, such as k8s.external.Owning("blue", …),',
    right=lambda answer: _does(answer) == {"api.example.org.", "shop.example.org."} and not _deletes(answer),
    praise=lambda answer: f"{answer.policy}: what is ours is kept up to date, and nothing is deleted.",
    mistakes=(
        Mistake(
            "everything is ours",
            lambda answer: answer.registry is Registry.NOOP,
            lambda answer: "Without a registry the person's records are ours, too. Read what would be deleted.",
            lambda: Owning(registry=Registry.NOOP),
        ),
        Mistake(
            "another owner",
            lambda answer: answer.owner != "blue",
            lambda answer: f"The owner {answer.owner!r} does not own `shop`, and would not update it.",
            lambda: Owning("green"),
        ),
        Mistake(
            "it deletes",
            _deletes,
            lambda answer: "`old` would be deleted. Which policy lets be what is there, and still updates it?",
            lambda: Owning("blue"),
        ),
        Mistake(
            "it updates nothing",
            lambda answer: answer.policy is Policy.CREATE_ONLY,
            lambda answer: "That is too careful: `shop` leads to an address that nobody has any more.",
            lambda: Owning("blue", Policy.CREATE_ONLY),
        ),
    ),
    otherwise="`api` and `shop` have to be done, and nothing else: which domains, which policy, which owner?",
    solution=lambda: Owning("blue", Policy.UPSERT_ONLY),
)


# A zone that two clusters share


ALONE: Exercise[int] = Exercise(
    name="alone",
    wants=int,
    wanted="a whole number",
    right=lambda answer: answer == len([each for each in _plan(Owning("green")).changes if each.before is not None]),
    praise=lambda answer: "Only `blog` is green's. `www` is a person's, and `shop` and `old` are blue's.",
    mistakes=(
        Mistake(
            "new ones too",
            lambda answer: answer == len(_plan(Owning("green")).changes),
            lambda answer: "That counts a record that would be created as well. What is there already, and changed?",
            lambda: len(_plan(Owning("green")).changes),
        ),
        Mistake(
            "those of blue",
            lambda answer: answer == len(planned().changes),
            lambda answer: "So many are changed for blue. Whose are they in the eyes of green?",
            lambda: len(planned().changes),
        ),
        Mistake(
            "nothing",
            lambda answer: answer == 0,
            lambda answer: "Green has been in this zone before: one of the TXT records says so.",
            lambda: 0,
        ),
    ),
    otherwise='Read the TXT records: which names say `owner=green`? Or plan for `Owning("green")`.',
    solution=lambda: 1,
)


# The quiz


def _person_is_left() -> bool:
    return "www.example.org." not in _does(Owning("blue"))


def _noop_deletes() -> bool:
    gone = [each for each in _plan(Owning(registry=Registry.NOOP)).changes if each.after is None]
    return "mail.example.org." in {each.records.name for each in gone}


def _waits() -> bool:
    nobody = example("names-for-the-world")
    return any("no address yet" in each.why for each in nobody.external_dns("example.org").left)


QUESTIONS = (
    Question(
        "who",
        "Who sends the packets of a client to the name's address to the right node?",
        (
            Choice("external-dns", "It writes a record and is done: no packet passes it, and no question either."),
            Choice("whoever gave the Service its address", "Yes: a load balancer, as in section 2.2.", right=True),
            Choice("CoreDNS of the cluster", "Clients outside ask the world's DNS, and know nothing of the cluster's."),
        ),
    ),
    Question(
        "www",
        "The Ingress wants `www.example.org`, and a person has made that record by hand. What happens?",
        (
            Choice("it is overwritten", "That is what the TXT records prevent: this one has none."),
            Choice("nothing; it is left alone", "Right, and the log of external-dns says so.", right=True),
            Choice("a second record is put beside it", "Two addresses for one name would mislead half of all clients."),
        ),
        proof=_person_is_left,
    ),
    Question(
        "noop",
        "What does the registry `noop` do to a zone that it shares with others?",
        (
            Choice("nothing at all", "It still plans, and still carries out. It only does not ask whose records are."),
            Choice("it deletes what no object wants", "Yes, `mail` among it: never with a shared zone.", right=True),
            Choice("it makes no records", "It makes records, but none that say whose they are."),
        ),
        proof=_noop_deletes,
    ),
    Question(
        "pending",
        "A Service of type LoadBalancer is `<pending>`. What of its name?",
        (
            Choice("it leads to the ClusterIP", "Nobody outside reaches that."),
            Choice("there is none, until it has an address", "Right: it is looked at again every minute.", right=True),
            Choice("it leads to all nodes", "That is what a Service of type NodePort does."),
        ),
        proof=_waits,
    ),
    Question(
        "ttl",
        "A record with a TTL of 300 is changed. When do all clients use the new address?",
        (
            Choice("at once", "Resolvers on the way remember the old one as long as they may."),
            Choice("after up to 300 seconds", "Yes: the old answer lives that long, wherever it was kept.", right=True),
            Choice("when they restart", "Some programs do keep addresses for ever, but DNS does not ask for it."),
        ),
    ),
)

LESSON = Lesson("5_5", "External DNS", (NAMED, CAREFUL, ALONE), QUESTIONS)
