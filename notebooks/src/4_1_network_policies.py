# %% [markdown]
# # 4.1 Network policies
#
# **The question.** By the rules of the network model every pod reaches every pod. Who *may* talk to whom, and which
# rule says so?
#
# **After this notebook you can**
#
# - read a policy: whom it selects, whom it lets in or out, at which ports, and what it does not say;
# - write the four patterns that most clusters need: closed by default, walls between namespaces, one door to the
#   database, control of what comes from outside and what leaves;
# - find out which policy dropped a packet, on which machine, under Calico, Cilium and Weave Net, and why nobody did
#   under flannel;
# - change policies without surprises: before and after, the smallest change, findings.
#
# About 60 minutes. The plugins are those of 3.1; how a Service leads to a pod is in 2.2, names are in 2.3.

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("4_1")
lab = k8s.recipes.stage(cni="calico")
lab.get("pods")

# %% [markdown]
# These pods are in four namespaces, whose labels will matter as much as those of pods:
#
# | namespace | its labels | pods and their labels |
# |---|---|---|
# | `shop` | `team: shop`, `env: prod` | `web` (`app: web`), `api` (`app: api`, `uses-db: "true"`), `db` (`app: db`) |
# | `test` | `team: shop`, `env: test` | `web` (`app: web`), `load` (`app: load`) |
# | `ops` | `team: ops`, `env: prod` | `monitor` (`app: monitor`), `backup` (`app: backup`, `uses-db: "true"`) |
# | `default` | | `shell` (`run: shell`): somebody started it by hand |
#
# There are no policies yet: every pod may open connections to every pod.
#
# # Part one: what one policy does
#
# ## Predict: the other pods
#
# Here is a policy as many are: it lets `api` connect to `db`.

# %%
one = k8s.recipes.named("one-client")
print(one)
guess = lesson.predict("It says nothing about ops/backup. May backup connect to db, as before?", ["allowed", "denied"])
guess

# %%
limited = one.cluster(cni="calico")
for source in ("shop/api", "ops/backup"):
    print(limited.allowed(source, "shop/db", 5432), end="\n\n")
guess.reveal("allowed" if limited.allowed("ops/backup", "shop/db", 5432) else "denied")

# %% [markdown]
# The policy has no word for "deny". It *selects* `db`, and a pod that any policy selects is **isolated**: from then on
# nothing is allowed but what some rule of some policy allows. So the same lines open a door and build the wall.
#
# And what does it do to everybody else? The matrix of all pods, before and after. Rows are sources, columns are
# destinations.

# %%
k8s.draw.reach(limited.reach([5432]), before=lab.reach([5432]))

# %%
changed = lab.reach([5432, 8081]).diff(limited.reach([5432, 8081]))
assert {pod for change in changed.changes for pod in change.destinations} == {"shop/db"}
assert limited.allowed("shop/db", "shop/api", 8081) and limited.trace("shop/api", "shop/db:5432").reply
print(changed)

# %% [markdown]
# - Nobody but `db` is isolated. What `db` itself sends is not touched either: isolation has a direction, and
#   `policyTypes` says which (`Ingress`, where nothing else is written).
# - Answers belong to their connection. No rule is needed for them, in either direction.
# - Port 8081 of `db` was never mentioned, so it is closed for `api` as well.
# - `diff` shows a connection for each change, with what was said of it before and after.
#
# A connection has two ends, and both must agree: the policies that select the source judge it as egress, those that
# select the destination as ingress. That is what the two lines of a verdict are.
#
# # Part two: the patterns
#
# The files in `data/policies` are policies as one often needs them, and beside each lies its matrix, written by hand.
# This is how many pairs of pods are left of 90, at port 8080:

# %%
recipes = k8s.recipes.each()
for name in ("deny-all-ingress", "deny-all", "same-namespace", "one-namespace", "one-client", "three-tiers"):
    yes, pairs = recipes[name].cluster(cni="calico").reach([8080]).pairs(8080)
    print(f"{yes} of {pairs}  {name:<17} {recipes[name].says}")

# %% [markdown]
# **Closed by default** is where to begin: a policy with the selector `{}` and no rule. It selects every pod of the
# namespace, also those that come tomorrow. After it, every policy is a door with a name.
#
# ## Predict: walls between namespaces
#
# `same-namespace` lets pods of the shop in, and nobody else. `one-namespace` has `ops` in their place: pods of `ops` may
# connect to the shop. (Every namespace carries its name as the label `kubernetes.io/metadata.name`.)

# %%
walls = recipes["one-namespace"].cluster(cni="calico")
guess = lesson.predict("Under one-namespace, may shop/web still connect to shop/api?", ["allowed", "denied"])
guess

# %%
both = walls.applied(recipes["same-namespace"].path)
for name, cluster in {"one-namespace": walls, "and same-namespace": both}.items():
    print(f"{name}:", cluster.reach([8081]).sources_of("shop/api", 8081))
guess.reveal("allowed" if walls.allowed("shop/web", "shop/api", 8081) else "denied")

# %% [markdown]
# Neighbours have no privilege. With both policies both groups get in: policies **add up**. No policy can take back what
# another one allows, and their order means nothing.
#
# The whole shop in four policies: one closes all, three open a door each.

# %%
shop = recipes["three-tiers"].cluster(cni="calico")
k8s.draw.policies(shop)

# %%
k8s.draw.isolation(shop)

# %% [markdown]
# **Control of the outside** is about addresses, for what is outside has no labels. An `ipBlock` means whoever has an
# address of it, and `except` cuts holes. The public front, and what may leave:

# %%
for name in ("public-port", "outside-only", "no-internet"):
    cluster = recipes[name].cluster(cni="calico")
    comes = [who for who in ("external", "shop/api") if cluster.allowed(who, "shop/web", 8080)]
    leaves = bool(cluster.allowed("shop/web", "external", 443))
    print(f"{name:<13} {recipes[name].says}\n    to web: {comes}, web to the outside: {leaves}")

# %% [markdown]
# A caution about addresses: a policy sees the source address that arrives at the pod. Behind a NodePort with
# `externalTrafficPolicy: Cluster` that is a node's (2.2), and the rule for clients is a rule about nodes.
#
# # Part three: selectors by hand
#
# ## Predict: one dash
#
# Two recipes let the monitor into the shop. They differ in a single dash:
#
# ```yaml
# - from:                                              - from:
#     - namespaceSelector:                                 - namespaceSelector:
#         matchLabels:                                         matchLabels:
#           kubernetes.io/metadata.name: ops                     kubernetes.io/metadata.name: ops
#       podSelector:                                       - podSelector:
#         matchLabels:                                         matchLabels:
#           app: monitor                                         app: monitor
# ```

# %%
left, right = (recipes[name].cluster(cni="calico") for name in ("both-selectors", "either-selector"))
guess = lesson.predict("Whom does the right one let in?", {
    1: "the monitor of ops", 2: "both pods of ops", 3: "every monitor, and nobody else"})
guess

# %%
print(left.reach([8080]).diff(right.reach([8080])))
print(*(finding for finding in right.findings() if "ops-or-monitor" in finding.object), sep="\n")
guess.reveal(len(right.reach([8080]).sources_of("shop/db", 8080)))

# %% [markdown]
# Two selectors in **one** item are an AND; two items are an OR, and each of them stands alone: all of `ops`, *or* every
# monitor of the policy's own namespace, where there is none. The second finding says just that.
#
# A selector that is missing and one that is empty are different things as well. Eight ways to write `ingress:`, and
# who gets in:

# %%
text = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: who, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: RULES}
"""
ways = """
[]
[{}]
[{from: [{podSelector: {}}]}]
[{from: [{namespaceSelector: {}}]}]
[{from: [{namespaceSelector: {matchLabels: {env: prod}}}]}]
[{from: [{namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: web}}}]}]
[{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}]}]
[{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}]}]
""".strip().splitlines()

# %%
for rules in ways:
    laid = lab.applied(text.replace("RULES", rules))
    inside = [pod for pod in laid.reach([5432]).sources_of("shop/db", 5432) if "coredns" not in pod]
    print(rules, f"    outside: {'yes' if laid.allowed('external', 'shop/db', 5432) else 'no'}, pods: {inside}", sep="\n")

# %% [markdown]
# - `[]` has no rule: nobody. `[{}]` has a rule without conditions: everybody, the outside too.
# - `podSelector` alone looks into the policy's **own** namespace. `namespaceSelector: {}` is all namespaces.
# - `NotIn` is true for a pod that has no such label at all: `default/shell`, which has no `app`, is "not web". To demand
#   the label, add `Exists`.
#
# ## Ports
#
# A port may be a number, a range (`port` and `endPort`), or a name, which each destination pod gives its own number.
# Without `protocol` TCP is meant, and without `ports` everything.

# %%
named = recipes["named-port"].cluster(cni="calico")
for port in (9090, 9187, 8080):
    print(port, {pod: named.reach([port]).sources_of(pod, port) for pod in ("shop/web", "shop/api", "shop/db")})
assert not named.allowed("ops/monitor", "shop/db", 9090)

# %% [markdown]
# # Part four: the way out
#
# ## Predict: closed, but for one
#
# A pod that may send to nobody is as isolated as one that nobody may send to. `deny-all-egress` closes the way out of
# every pod of the shop. A program in `web` then calls `http://api`.

# %%
silent = recipes["deny-all-egress"].cluster(cni="calico")
guess = lesson.predict("Which step of the call fails?", ["resolve", "connect", "none"])
guess

# %%
call = silent.curl("shop/web", "http://api")
print(call, *str(call.lookup).splitlines()[6:8], sep="\n")
print(*(finding for finding in silent.findings() if finding.kind == "no DNS"), sep="\n")
guess.reveal(call.failed or "none")

# %% [markdown]
# The **name** is lost first, after 20 seconds of waiting: the DNS is a pod like others, and each of the eight queries a
# packet like others, dropped on the node of `web`. Programs then say "unknown host", and nobody thinks of a policy. So
# whoever closes egress opens port 53 in the same minute, for UDP and TCP.
#
# Next, `web` is to reach the `api` and nothing else. It calls the Service `api`, at port 80. Which port must the rule
# have?

# %%
server = recipes["one-server"].cluster(cni="calico")
print(server.curl("shop/web", "http://api"))
print(server.trace("shop/web", "svc/shop/api:80").backend, server.allowed("shop/web", "shop/api", 8081), sep="\n")
assert not server.allowed("shop/web", "shop/api", 80)

# %% [markdown]
# The pod's port, 8081. Policies judge a packet whose destination has already become a backend; a Service has no labels,
# and a rule for its address or its port matches nothing (2.2 shows who rewrites it).
#
# # Part five: who drops it?
#
# A NetworkPolicy is an object in the API server. Somebody has to make rules of it on every node: the network plugin, or
# nobody. The same policy, the same connection from `web` to `db`, four plugins:

# %%
plugins = {cni: one.cluster(cni=cni) for cni in ("calico", "weave", "cilium", "flannel")}
walks = {cni: cluster.trace("shop/web", "shop/db:5432") for cni, cluster in plugins.items()}
for cni, walk in walks.items():
    print(f"{cni}: {walk.client}\n    {walk.reason}")
print(walks["flannel"].explain().splitlines()[-1])

# %%
k8s.draw.topology(plugins["calico"], walks["calico"])

# %% [markdown]
# The program waits until its time is up, in all three: a dropped packet says nothing. It was carried to the node of
# `db`, for ingress is judged where the destination is (and egress where the source is).
#
# Under **flannel** it arrives. The policy was accepted, it is listed, and no machine knows of it. Here is what the
# others have made of it, on `node-3`:

# %%
words = {("calico", "iptables"): " cali-pi-_", ("calico", "ipsets"): plugins["calico"].objects.pod("shop/api").ip,
         ("weave", "iptables"): "app=db", ("cilium", "bpf-policy"): "app=api"}
for (cni, tool), word in words.items():
    lines = (line for line in plugins[cni].node("node-3").show(tool).splitlines() if word in line)
    print(f"{cni}, {tool}:", *(" ".join(line.split()) for line in lines), sep="\n  ")

# %% [markdown]
# - **Calico**: each policy is a chain (`cali-pi-` for ingress), and each pod has a chain that calls those of its
#   policies. "Who has `app: api`" is a *set* of addresses: another pod of that kind is one more entry, and no rule
#   changes. A rule that allows sets a mark; without it, the end of the chain drops.
# - **Weave Net**: the policies of all pods in one chain, a rule for two sets, of sources and of destinations. What no
#   rule accepts is dropped at its end, so the packet cannot say by whose wish.
# - **Cilium**: no chains. The map of each pod has an entry for each *identity* that may come in; a set of labels is one
#   identity, on however many pods. No entry, no entrance.
#
# Where the API leaves room, and also where it does not, plugins differ:

# %%
for name, port in {"pods-by-address": 5432, "port-range": 8081, "named-port": 9090, "cluster-no-tests": 8080}.items():
    found = {cni: recipes[name].cluster(cni=cni).reach([port]).pairs(port)[0] for cni in plugins}
    print(f"{name:<17}", found)

# %% [markdown]
# These are pairs of 90. For Cilium a block of addresses means no pods; and Weave's pods have other addresses, so that
# the block in the file means none of them either. Weave reads the first port of a range alone, and skips a policy that
# names a port: more is open there than somebody wrote. Two of them do not read cluster policies (part six). flannel
# allows all 90, whatever is written.
#
# # Part six: above the namespaces
#
# Whoever may write in a namespace may open it. What nobody there should decide, a `ClusterNetworkPolicy` says: in the
# tier `Admin` before all NetworkPolicies, in `Baseline` after them, for pods that none selects. It can deny.

# %%
cases = {"cluster-no-tests": ("test/load", "shop/web", 8080), "cluster-monitoring": ("ops/monitor", "shop/db", 9187),
         "cluster-pass": ("ops/backup", "shop/db", 5432), "cluster-baseline": ("test/load", "shop/api", 8081)}
for name, question in cases.items():
    print(recipes[name].says, recipes[name].cluster(cni="calico").allowed(*question), sep="\n", end="\n\n")

# %% [markdown]
# The first rule that matches counts, by `priority` and place. `Accept` and `Deny` of the Admin tier are final. `Pass`
# hands the question to the NetworkPolicies, and Baseline answers where these are silent. Unlike a NetworkPolicy, such a
# policy isolates nobody: what no rule matches goes on.
#
# # Part seven: changing policies
#
# The report of `backup` fails since yesterday: it may not connect to `db`. What is the smallest change that lets it, and
# does it open anything else?

# %%
change = limited.to_allow("ops/backup", "shop/db", 5432)
print(change)
after = limited.applied(*change.objects)
print(limited.reach([5432, 9187]).diff(after.reach([5432, 9187])))

# %% [markdown]
# Several changes were tried, and each was judged over every pair of pods. This one turns a single verdict. (A rule of
# its own would have done it too; `from: [{namespaceSelector: {}}]` would have opened the database to all, and the
# difference would have said so.)
#
# For a larger cluster the matrix is made by class: pods that no rule can tell apart are one row. The bookshop has seven
# policies. And what in them is worth a second look?

# %%
books = k8s.example("bookshop", cni="calico")
print(*books.findings(), sep="\n")
k8s.draw.reach(books.reach([5432]))

# %% [markdown]
# Nothing here is wrong, and the first two are meant: a shop window is for everybody, and the pods of the nightly report
# exist only at night. The list is for reading before somebody else does.
#
# ## Try it
#
# Lay any recipe over the cluster, under any of the four plugins, and ask. Show the matrix, the policies, or the way of
# the packet.

# %%
explorer = k8s.explore.WhoMayTalk(k8s.recipes.stage())
explorer

# %%
explorer.policies, explorer.cni, explorer.source, explorer.port = "pods-by-address", "cilium", "test/load", "5432/TCP"
print(*explorer.summary().splitlines()[:7], sep="\n", end="\n\n")
explorer.policies, explorer.cni, explorer.source = "outside-only", "calico", "external"
explorer.target, explorer.port = "shop/web", "8080/TCP"
print(*explorer.summary().splitlines()[3:7], sep="\n")

# %% [markdown]
# In the first, API and plugin disagree, and it is said. In the second, the policies allow what cannot arrive: nobody
# outside knows a way to the address of a pod. A verdict is not a route.
#
# ## Break it
#
# A policy is about labels, so a label can break it. Somebody tidies up and renames `app: api` to `app: answers`, on the
# pod and in the selector of its Service. Everything is ready, and `http://api` still works.

# %%
tidy = shop.patched("Pod", "shop/api", {"metadata": {"labels": {"app": "answers"}}})
tidy = tidy.patched("Service", "shop/api", {"spec": {"selector": {"app": "answers"}}})
for call in (tidy.trace("shop/web", "svc/shop/api:80"), tidy.trace("shop/api", "svc/shop/db:5432")):
    print(call.request.target, call.client, call.reason, sep=": ")
print(*(finding for finding in tidy.findings() if "nobody" in finding.kind), sep="\n")

# %% [markdown]
# Or rather, it does not: two doors are gone. `web` is no longer let in, because the policy `api-for-web` selects nobody,
# and only the closed door is left; and the database lets in an `api` that does not exist. The programs
# only say that it took too long; the trace says where the packet ended, and the findings say why.
#
# ## On the real kernel
#
# The rules were given to a real Linux kernel (`iptables-restore`, `ipset restore`), in a network namespace for each
# machine, and real connections were tried: all pairs of pods, Services, nodes. Calico is in VXLAN mode here, for that
# kernel has no IPIP. Cilium's programs are not ours to load; its policy maps are backed by the walk alone. With
# `K8SNETLAB_LIVE=1` set, this cell does it again on your machine (`k8snetlab doctor` says what it needs).

# %%
real = {name: recipes[name].cluster(cni="calico", cni_options={"mode": "vxlan"}) for name in ("three-tiers", "one-server")}
proofs = {name: k8s.live.evidence(cluster) for name, cluster in real.items()}
print(proofs["three-tiers"], proofs["three-tiers"].between("shop/web", "shop/db:5432"), sep="\n\n")
print(proofs["one-server"].between("shop/web", "shop/db:5432"))
assert all(proof.agrees for proof in proofs.values())

# %% [markdown]
# ## Exercises
#
# **1.** A policy selects `db` and has this rule. Which pods may connect? (The DNS pods and `db` itself do not count.)
#
# ```yaml
# - from:
#     - namespaceSelector:
#         matchLabels: {env: prod}
#       podSelector:
#         matchExpressions: [{key: uses-db, operator: DoesNotExist}]
# ```

# %% tags=["exercise"]
# solution:
# learner: pods = ...  # ["shop/…", …]
pods = ["shop/web", "ops/monitor"]
# end
lesson.check("reading", pods)

# %% [markdown]
# **2.** Two doors to the database: `api` may connect to port 5432, and the monitor of `ops` to port 9187. Nobody else,
# at no other port; and nothing changes for other pods. Start from `lab`.

# %% tags=["exercise"]
# solution:
# learner: doors = ...  # lab.applied("""…""")
doors = lab.applied("""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: doors, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: api}}}]
      ports: [{port: 5432}]
    - from:
        - namespaceSelector: {matchLabels: {team: ops}}
          podSelector: {matchLabels: {app: monitor}}
      ports: [{port: 9187}]
""")
# end
lesson.check("doors", doors)

# %% [markdown]
# **3.** The test copy of `web` may call `http://api.shop`, and open no other connection at all. The pod `load` beside it
# stays as it is. Start from `lab` again.

# %% tags=["exercise"]
# solution:
# learner: calling = ...  # lab.applied("""…""")
calling = lab.applied("""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: calls-the-api, namespace: test}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
    - to:
        - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
          podSelector: {matchLabels: {k8s-app: kube-dns}}
      ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
    - to:
        - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}
          podSelector: {matchLabels: {app: api}}
      ports: [{port: 8081}]
""")
# end
lesson.check("calling", calling)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - A pod that no policy selects is open. One that a policy selects is closed in that direction, but for what some rule
#   of some policy allows. Policies add up; there is no order and no "deny".
# - Both ends must agree. Answers need no rule, a pod reaches itself, and a node reaches its own pods.
# - Selectors in one item are an AND, items are an OR. Missing is not empty. `podSelector` alone means the own namespace.
#   `NotIn` takes pods without the label.
# - Egress is judged after the Service has become a pod: rules name the pod's port. Closing egress closes DNS.
# - The plugin makes rules of it, on the node of the pod that is selected: sets and chains, or a map of identities. Or
#   nobody does, and nothing tells you.
# - Cluster policies stand before and after: `Admin` decides, `Baseline` is the default.
#
# **Version notes.** NetworkPolicy is `networking.k8s.io/v1` since 1.7; `endPort` is stable since 1.25, the label
# `kubernetes.io/metadata.name` since 1.22. AdminNetworkPolicy and BaselineAdminNetworkPolicy became one kind,
# ClusterNetworkPolicy (`v1alpha2`); it is no part of Kubernetes itself, few plugins read it, and Cilium only from 1.20
# on. Layouts here are those of Calico 3.30, Cilium 1.19 and Weave Net 2.8.1, which is archived since 2024. What happens
# to a connection that is open when a policy comes is left to the plugin: Calico lets it live. Cilium has policies of its
# own as well (`CiliumNetworkPolicy`), which can read HTTP requests; `trace` and `curl` ask them, the matrix does not.
#
# **Next:** 5.1, how endpoints are told to everybody.
