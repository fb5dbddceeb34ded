"""4.1 Network policies: a rule that is read, two doors to a database, and a way out."""

from __future__ import annotations

from functools import cache

from k8snetlab.cluster import Cluster, recipes
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.trace import Client

__all__ = ["LESSON"]

WEB, API, DB, SHELL = "shop/web", "shop/api", "shop/db", "default/shell"
TEST_WEB, LOAD, MONITOR, BACKUP = "test/web", "test/load", "ops/monitor", "ops/backup"
POSTGRES, METRICS, HTTP, ANSWERS = 5432, 9187, 8080, 8081
SYSTEM = "kube-system/"


@cache
def lab() -> Cluster:
    """The cluster of the notebook: pods in four namespaces, and no policies."""
    return recipes.stage(cni="calico")


@cache
def under(name: str) -> Cluster:
    """The same under a recipe."""
    return recipes.named(name).cluster(cni="calico")


def _policy(name: str, namespace: str, spec: str) -> str:
    """A NetworkPolicy in one document."""
    return (
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, "
        f"metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}"
    )


def _sources(cluster: Cluster, pod: str, port: int) -> set[str]:
    """The pods of the notebook that may connect."""
    return {each for each in cluster.reach([port]).sources_of(pod, port) if not each.startswith(SYSTEM)}


def _targets(cluster: Cluster, pod: str, port: int) -> set[str]:
    return {each for each in cluster.reach([port]).targets_of(pod, port) if not each.startswith(SYSTEM)}


# Reading

PROD, NOT_A_USER = "namespaceSelector: {matchLabels: {env: prod}}", "matchExpressions: [{key: uses-db, operator: %s}]"


@cache
def _let_in(peers: str) -> tuple[str, ...]:
    """The pods that a rule with these peers lets in to the database."""
    spec = f"{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{from: [{peers}]}}]}}"
    return tuple(sorted(_sources(lab().applied(_policy("read", "shop", spec)), DB, POSTGRES)))


def _read(operator: str = "DoesNotExist", joined: str = ", ", namespaces: str = PROD) -> tuple[str, ...]:
    selector = f"podSelector: {{{NOT_A_USER % operator}}}"
    return _let_in(f"{{{namespaces}{joined}{selector}}}" if namespaces else f"{{{selector}}}")


def _is(pods: list[str], *wanted: str) -> bool:
    return set(pods) == set(wanted)


def _unknown(pods: list[str]) -> list[str]:
    there = {pod.key for pod in lab().objects.pods}
    return [str(pod) for pod in pods if pod not in there]


READING = Exercise(
    name="reading",
    wants=list,
    wanted='a list of pods, such as ["test/load"],',
    right=lambda answer: not _unknown(answer) and _is([pod for pod in answer if pod != DB], *_read()),
    praise=lambda answer: (
        "Both selectors stand in one item, so a pod must be in production and must not have the label."
    ),
    mistakes=(
        Mistake(
            "no such pod",
            lambda answer: bool(_unknown(answer)),
            lambda answer: f"There is no pod {', '.join(_unknown(answer))}: say NAMESPACE/NAME.",
            lambda: ["web", "monitor"],
        ),
        Mistake(
            "the other way round",
            lambda answer: _is(answer, *_read("Exists")),
            lambda answer: "These have the label uses-db. The operator asks for those that do not have it.",
            lambda: [API, BACKUP],
        ),
        Mistake(
            "read as an OR",
            lambda answer: set(answer) >= set(_read(joined="}, {")) - {DB},
            lambda answer: "That is everybody to whom one of the selectors applies. Is there a dash between the two?",
            lambda: [WEB, API, TEST_WEB, LOAD, MONITOR, BACKUP, SHELL],
        ),
        Mistake(
            "any namespace",
            lambda answer: _is(answer, *_read(namespaces="namespaceSelector: {}")),
            lambda answer: "These lack the label uses-db, as they should. Which labels do their namespaces have?",
            lambda: [WEB, TEST_WEB, LOAD, MONITOR, SHELL],
        ),
        Mistake(
            "own namespace",
            lambda answer: _is(answer, *_read(namespaces="")),
            lambda answer: "There is more than one namespace with that label.",
            lambda: [WEB],
        ),
        Mistake(
            "the label does not count",
            lambda answer: bool(set(answer) & {API, BACKUP}),
            lambda answer: "At least one of these has the label uses-db.",
            lambda: [WEB, MONITOR, BACKUP],
        ),
    ),
    otherwise="Take one pod after the other: its namespace's labels first, then its own.",
    solution=lambda: list(_read()),
)


# Two doors


def _opened(answer: Cluster) -> tuple[set[str], set[str]]:
    return _sources(answer, DB, POSTGRES), _sources(answer, DB, METRICS)


def _elsewhere(answer: Cluster) -> bool:
    """Whether anything else is closed: other pods, or what the database sends."""
    ports = [HTTP, ANSWERS]
    was, now = (cluster.reach(ports) for cluster in (lab(), answer))
    touched = {pod for change in was.diff(now).changes for pod in change.destinations}
    return bool(touched - {DB})


def _doors(answer: Cluster) -> bool:
    return (
        _opened(answer) == ({API}, {MONITOR})
        and not _sources(answer, DB, HTTP)
        and not _elsewhere(answer)
        and not answer.allowed("external", DB, POSTGRES)
    )


TO_DB = "podSelector: {matchLabels: {app: db}}"
FROM_API = "{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 5432}]}"
OF_OPS = "namespaceSelector: {matchLabels: {team: ops}}"
A_MONITOR = "podSelector: {matchLabels: {app: monitor}}"


def _with_doors(*rules: str, subject: str = TO_DB) -> Cluster:
    return lab().applied(_policy("doors", "shop", f"{{{subject}, ingress: [{', '.join(rules)}]}}"))


DOORS = Exercise(
    name="doors",
    wants=Cluster,
    wanted='a cluster, such as lab.applied("""…""") gives,',
    right=_doors,
    praise=lambda answer: "Two rules: what stands in one rule belongs together, peers with ports.",
    mistakes=(
        Mistake(
            "nothing closed",
            lambda answer: BACKUP in _opened(answer)[0] and WEB in _opened(answer)[0],
            lambda answer: "Everybody may still connect to the database. Does a policy select it, for ingress?",
            lab,
        ),
        Mistake(
            "others closed too",
            _elsewhere,
            lambda answer: "Other pods are closed as well. Whom does `podSelector` of the policy select?",
            lambda: _with_doors(
                FROM_API, f"{{from: [{{{OF_OPS}, {A_MONITOR}}}], ports: [{{port: 9187}}]}}", subject="podSelector: {}"
            ),
        ),
        Mistake(
            "one rule for both",
            lambda answer: MONITOR in _opened(answer)[0] and API in _opened(answer)[1],
            lambda answer: "Both may connect to both ports: in one rule, every peer may use every port.",
            lambda: _with_doors(
                "{from: [{podSelector: {matchLabels: {app: api}}}, "
                f"{{{OF_OPS}, {A_MONITOR}}}], ports: [{{port: 5432}}, {{port: 9187}}]}}"
            ),
        ),
        Mistake(
            "monitor stays outside",
            lambda answer: MONITOR not in _opened(answer)[1],
            lambda answer: "The monitor does not get in. In which namespace does a `podSelector` alone look for it?",
            lambda: _with_doors(FROM_API, f"{{from: [{{{A_MONITOR}}}], ports: [{{port: 9187}}]}}"),
        ),
        Mistake(
            "too many",
            lambda answer: bool(_opened(answer)[1] - {MONITOR}),
            lambda answer: (
                f"At {METRICS} others get in too: {', '.join(sorted(_opened(answer)[1] - {MONITOR}))}. "
                "Count the dashes, and look for `ports`."
            ),
            lambda: _with_doors(FROM_API, f"{{from: [{{{OF_OPS}}}, {{{A_MONITOR}}}], ports: [{{port: 9187}}]}}"),
        ),
    ),
    otherwise="Ask `.reach([5432, 9187])` of your cluster for `sources_of` the database.",
    solution=lambda: _with_doors(FROM_API, f"{{from: [{{{OF_OPS}, {A_MONITOR}}}], ports: [{{port: 9187}}]}}"),
)


# A way out

URL = "http://api.shop"


def _elsewhere_reached(answer: Cluster) -> set[str]:
    """What the test copy of web may still reach beside the api and the DNS."""
    ports = (POSTGRES, HTTP, ANSWERS)
    found = {pod for port in ports for pod in _targets(answer, TEST_WEB, port) if (pod, port) != (API, ANSWERS)}
    return found | ({"the outside"} if answer.allowed(TEST_WEB, "external", 443) else set())


def _failed(answer: Cluster) -> str:
    return answer.curl(TEST_WEB, URL).failed or ""


def _load_is_free(answer: Cluster) -> bool:
    return bool(answer.allowed(LOAD, DB, POSTGRES) and answer.allowed(SHELL, LOAD, HTTP))


def _calls(answer: Cluster) -> bool:
    return not _failed(answer) and not _elsewhere_reached(answer) and _load_is_free(answer)


DNS = (
    "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, "
    "podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}"
)
OF_SHOP = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}"
AN_API = "podSelector: {matchLabels: {app: api}}"
THE_API = f"{{to: [{{{OF_SHOP}, {AN_API}}}], ports: [{{port: 8081}}]}}"


def _with_way(*rules: str, subject: str = "podSelector: {matchLabels: {app: web}}", types: str = "Egress") -> Cluster:
    spec = f"{{{subject}, policyTypes: [{types}], egress: [{', '.join(rules)}]}}"
    return lab().applied(_policy("way", "test", spec))


CALLING = Exercise(
    name="calling",
    wants=Cluster,
    wanted='a cluster, such as lab.applied("""…""") gives,',
    right=_calls,
    praise=lambda answer: "A name, a pod in another namespace, and its own port: three things that a rule must know.",
    mistakes=(
        Mistake(
            "nothing closed",
            lambda answer: SHELL in _elsewhere_reached(answer),
            lambda answer: "It may still connect to everybody. Does a policy of its namespace select it, for egress?",
            lab,
        ),
        Mistake(
            "load is closed",
            lambda answer: not _load_is_free(answer),
            lambda answer: "test/load is closed as well. Whom does the policy select, and for which directions?",
            lambda: _with_way(DNS, THE_API, subject="podSelector: {}"),
        ),
        Mistake(
            "no name",
            lambda answer: _failed(answer) == "resolve",
            lambda answer: "The call fails before there is a connection: the name is not found. Who is asked for it?",
            lambda: _with_way(THE_API),
        ),
        Mistake(
            "port of the Service",
            lambda answer: _failed(answer) == "connect" and bool(answer.allowed(TEST_WEB, API, 80)),
            lambda answer: (
                "The name is found, and the connection fails. Port 80 is the Service's; whose does a rule see?"
            ),
            lambda: _with_way(DNS, THE_API.replace("8081", "80")),
        ),
        Mistake(
            "own namespace",
            lambda answer: _failed(answer) == "connect",
            lambda answer: (
                "The name is found, and the connection fails. In which namespace does the rule look for the api?"
            ),
            lambda: _with_way(DNS, f"{{to: [{{{AN_API}}}], ports: [{{port: 8081}}]}}"),
        ),
        Mistake(
            "more than the api",
            lambda answer: bool(_elsewhere_reached(answer)),
            lambda answer: f"The call works. But more is reached: {', '.join(sorted(_elsewhere_reached(answer)))}.",
            lambda: _with_way(DNS, f"{{to: [{{{OF_SHOP}}}]}}"),
        ),
    ),
    otherwise="Try `.curl` on your cluster, and ask `.allowed` for what should be closed.",
    solution=lambda: _with_way(DNS, THE_API),
)


# The quiz


def _nothing_is_isolated_by_no_policy() -> bool:
    found = under("one-client").reach([ANSWERS])
    return found.isolated() == (DB,) and bool(under("one-client").allowed(SHELL, WEB, HTTP))


def _answers_need_no_rule() -> bool:
    closed = under("deny-all-ingress")
    return bool(closed.trace(WEB, f"{LOAD}:{HTTP}").reply) and not closed.allowed(LOAD, WEB, HTTP)


def _policies_add_up() -> bool:
    found = under("allow-all-ingress")
    return bool(found.allowed(SHELL, DB, POSTGRES)) and not under("deny-all-ingress").allowed(SHELL, DB, POSTGRES)


def _flannel_drops_nothing() -> bool:
    heedless = recipes.named("deny-all").cluster(cni="flannel")
    return heedless.trace(SHELL, f"{DB}:{POSTGRES}").client is Client.OPEN and len(heedless.policies.written) == 1


def _a_missing_label_is_not_one_of_these() -> bool:
    return SHELL in _sources(under("all-but-some"), API, ANSWERS)


def _the_pod_s_port() -> bool:
    found = under("one-server")
    return bool(found.allowed(WEB, API, ANSWERS)) and not found.allowed(WEB, API, 80)


def _admin_is_final() -> bool:
    found = under("cluster-no-tests")
    return not found.allowed(LOAD, WEB, HTTP) and bool(found.allowed(SHELL, WEB, HTTP))


QUESTIONS = (
    Question(
        "isolated",
        "The only policy of a cluster lets api connect to db. Who else is limited by it?",
        (
            Choice("db alone: it is closed to everybody but api", "Yes: it is the one that is selected.", right=True),
            Choice("api: it may connect to db and to nobody else", "That would be egress of api; nobody selects it."),
            Choice("every pod of the namespace", "A policy is about the pods that it selects, and about no others."),
        ),
        proof=_nothing_is_isolated_by_no_policy,
    ),
    Question(
        "answers",
        "A pod is closed for ingress by an empty rule list. It opens a connection itself. Do answers reach it?",
        (
            Choice("yes", "Yes: they belong to a connection that was allowed.", right=True),
            Choice("no, they come in", "Policies judge who opens a connection, not each packet of it."),
            Choice("with an egress rule alone", "Nothing limits its egress, so there is nothing to allow."),
        ),
        proof=_answers_need_no_rule,
    ),
    Question(
        "adding",
        "One policy has no rules, another one of the same pods allows everything. Which one wins?",
        (
            Choice("the one that is older", "There is no order among NetworkPolicies."),
            Choice("the one that denies", "None denies. One of them allows, and that is enough."),
            Choice("the one that allows", "Yes: what any rule of any policy allows is allowed.", right=True),
        ),
        proof=_policies_add_up,
    ),
    Question(
        "label",
        "`NotIn [web]` on the label app. Is a pod without the label app meant?",
        (
            Choice("no, it has no such label", "That is what Exists would ask for, in addition."),
            Choice("yes", "Yes, and pods that somebody starts by hand are of that kind.", right=True),
            Choice("only in the policy's own namespace", "That depends on the namespaceSelector, not on the operator."),
        ),
        proof=_a_missing_label_is_not_one_of_these,
    ),
    Question(
        "port",
        "Egress to the Service api, port 80, with pods that listen on 8081. Which port does the rule name?",
        (
            Choice("80", "When the packet is judged, its destination is a pod already."),
            Choice("8081", "Yes: the pod's own, or its name.", right=True),
            Choice("both", "No packet has port 80 any more when it is judged."),
        ),
        proof=_the_pod_s_port,
    ),
    Question(
        "flannel",
        "A policy closes the database, the plugin is flannel. What tells you that nothing is closed?",
        (
            Choice("the API server refuses the policy", "It stores it, as any other object."),
            Choice("an event at the policy", "Nobody looks at the policy, so nobody writes one."),
            Choice("a connection that should fail, and does not", "Yes: try it.", right=True),
        ),
        proof=_flannel_drops_nothing,
    ),
    Question(
        "tiers",
        "A ClusterNetworkPolicy of the tier Admin denies, a NetworkPolicy allows. Who is right?",
        (
            Choice("the Admin tier", "Yes: it is asked first, and Deny is final.", right=True),
            Choice("the NetworkPolicy", "It is asked only where the Admin tier passes or says nothing."),
            Choice("both have to allow", "That holds for the two ends of a connection, not for the tiers."),
        ),
        proof=_admin_is_final,
    ),
)

LESSON = Lesson("4_1", "Network policies", (READING, DOORS, CALLING), QUESTIONS)
