# %% [markdown]
# # 2.2 Services
#
# **The question.** Pods come and go, and their addresses with them. A Service has one address that stays. But
# nobody *has* that address: who rewrites the destination, where, and to what?
#
# **After this notebook you can**
#
# - find the rule that sends a packet to a pod, and read its probability;
# - say which source the pod sees: for a pod, a node, somebody outside, and for a pod that calls itself;
# - tell an empty Service from a wrong port and from a policy, by what the client is told.
#
# About 40 minutes. This notebook is about ClusterIP and NodePort in kube-proxy's iptables mode.

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("2_2")
lab = k8s.example("service-three-backends")
print(*(lab.get(kind, "default") for kind in ("pods", "services", "endpointslices")), sep="\n\n")

# %% [markdown]
# Three objects work together. The *Service* holds an address and a selector; the *pods* hold labels; and the
# *EndpointSlice*, written by a controller, holds the addresses of the ready pods that the selector finds.
# kube-proxy reads Services and slices, and writes rules. It never looks at labels.
#
# ## Predict: does the client prefer its neighbour?
#
# The client and `web-1` are on the same node. A packet to `web-1` would not have to leave the machine.

# %%
guess = lesson.predict("How likely does the client's connection go to web-1?", ["1", "1/2", "1/3"])
guess

# %%
trace = lab.trace("default/client", "svc/default/web:80")
chance = {outcome.backend.pod: outcome.probability for outcome in trace.outcomes}
guess.reveal(f"1/{1 / chance['web-1']:.0f}")

# %%
k8s.draw.outcomes(trace)

# %% [markdown]
# All pods are equal, wherever they are (a Service may ask for something else, see the version notes). These
# probabilities were found by walking every way the rules can fall, and they are what the rules make them.
#
# ## The rules
#
# The rules of this Service, as `iptables-save` prints them on the client's node. Read from the top: the Service's
# address leads into a chain `KUBE-SVC-…`, from there into one of three chains `KUBE-SEP-…` (*service endpoint*),
# and there the destination is replaced.

# %%
rules = [line for line in lab.node("node-1").show("iptables").splitlines() if '"default/web:http' in line]
print("\n".join(rules))

# %% [markdown]
# ## Predict: the second of three
#
# Rules are tried in order, and each is a throw of dice. The first of three endpoints has the probability 1/3. All
# three shall be equally likely.

# %%
guess = lesson.predict("Which probability stands in the second rule?", ["1/3", "1/2", "2/3"])
guess

# %%
dice = [float(rule.split("--probability ")[1].split()[0]) for rule in rules if "--probability" in rule]
guess.reveal(f"1/{1 / dice[1]:.0f}")

# %% [markdown]
# The second rule is only asked when the first did not match, and then two endpoints are left: one half of the
# remaining two thirds. The last rule has no dice at all. So what is written is 1/3, 1/2, always — and what comes
# out is a third each:

# %%
print(dice)
first = dice[0]
second = (1 - first) * dice[1]
assert abs(second - 1 / 3) < 1e-6 and abs((1 - first - second) - 1 / 3) < 1e-6

# %% [markdown]
# Every node has the same rules, whether it runs one of the pods or not. That is the point: the packet is rewritten
# where it starts, so there is no machine that all of the traffic has to pass.

# %%
per_node = {
    node.name: [line for line in lab.node(node.name).show("iptables").splitlines() if '"default/web:http' in line]
    for node in lab.objects.nodes
}
assert per_node["node-1"] == per_node["node-2"] == per_node["node-3"]

# %% [markdown]
# ## Who is seen?
#
# A pod that calls a Service keeps its own address: only the destination is replaced. There is one exception.
#
# ## Predict: a pod calls its own Service
#
# `web-1` asks `http://web`, and the dice send it to `web-1`. If the packet came back to it with its own address as
# source, it would answer itself directly, and the connection would never be translated back.

# %%
loop = lab.trace("default/web-1", "svc/default/web:80")
itself = next(outcome for outcome in loop.outcomes if outcome.backend.pod == "web-1")
bridge = lab.network["node-1"].link("cni0").addresses[0].ip
guess = lesson.predict("Which source does web-1 see?", {itself.backend.ip: "its own", bridge: "the bridge's on node-1"})
guess

# %%
others = {outcome.source_seen for outcome in loop.outcomes if outcome is not itself}
assert others == {itself.backend.ip}
guess.reveal(itself.source_seen)

# %% [markdown]
# The other pods see `web-1` itself; this case is called *hairpin*. The rule `-s POD -j KUBE-MARK-MASQ` in each
# `KUBE-SEP` chain marks such packets, and on the way out a marked packet gets an address of the node. The bridge
# port must be willing to send a frame back where it came from, too (`hairpin mode`).
#
# ## From outside: NodePort
#
# A Service of type NodePort opens one port on *every* node. The next cluster has two of them with the same pods, on
# `node-1` and `node-2`; on `node-3` there is none.

# %%
gate = k8s.example("service-node-ports")
print(gate.get("services", "default"))
call = gate.trace("external", "svc/default/open:80", via="node-3")
print(call.request.address, call.request.port, "→", call.backend.name)
k8s.draw.topology(gate, call)

# %% [markdown]
# `node-3` took the request and passed it on to a node that has a pod. The answer must come back the same way,
# because only `node-3` can put the addresses back. To make sure of that it replaces the source as well:

# %%
outcomes = {(outcome.backend.node, outcome.source_seen) for outcome in call.outcomes}
print(sorted(outcomes))
assert all(source != "203.0.113.10" for _, source in outcomes)

# %% [markdown]
# The pod cannot know who called. `externalTrafficPolicy: Local` keeps the client's address, and pays for it: a node
# then takes requests only for its own pods.

# %%
here = gate.trace("external", "svc/default/local:80", via="node-1")
there = gate.trace("external", "svc/default/local:80", via="node-3")
print("node-1:", here.client, "the pod sees", here.source_seen)
print("node-3:", there.client, "|", there.reason)

# %% [markdown]
# A dropped packet, no refusal: a load balancer in front is supposed to notice, by a health check, that `node-3` has
# nothing to offer.
#
# ## Try it
#
# Change the type, who asks, and how many of the three pods are ready.

# %%
explorer = k8s.explore.WhoAnswers(lab)
explorer

# %%
explorer.kind, explorer.source, explorer.ready = "NodePort", "outside", 2
print(explorer.summary())

# %% [markdown]
# ## Break it
#
# First: nobody is ready. The Service still has its address, and the client's packet arrives at its node as always.

# %%
guess = lesson.predict("No pod is ready. What is the client told?", ["OPEN", "REFUSED", "UNREACHABLE", "TIMEOUT"])
guess

# %%
explorer.kind, explorer.source, explorer.ready = "ClusterIP", "a pod", 0
print(explorer.summary())
guess.reveal(explorer.trace.client)

# %% [markdown]
# A rule in the table `filter` rejects packets for a Service without endpoints. Second: a port that the Service does
# not have. No rule mentions it, so nothing is rewritten and nothing rejected.
#
# Third, the most frequent one: everything looks healthy, and still it does not work. In the next cluster three
# Services have three ready pods, and each fails in its own way.

# %%
wrong_port = lab.trace("default/client", "svc/default/web:8080")
print(wrong_port.client, "|", wrong_port.reason)
sick = k8s.example("services-that-do-not-work")
for name in ("orders", "prices", "reviews"):
    print(name, sick.trace("default/client", f"svc/default/{name}:80").client)

# %% [markdown]
# The same word, *refused*, for different causes. Look at the slices: `orders` has no address, and `prices` has one
# but no port. Both are refused by a rule of the node. `reviews` has both, and is refused by the pod itself, where
# nobody listens on that port.

# %%
print(sick.get("endpointslices", "default"))
print(sick.trace("default/client", "svc/default/reviews:80").reason)

# %% [markdown]
# ## On the real kernel
#
# These rules are no picture: they were given to `iptables-restore` on a real Linux kernel, in a network namespace for
# each machine, and real connections were opened. What happened is on record, and `proof.machine` names the kernel. With
# `K8SNETLAB_LIVE=1` set, this cell does it again on your machine, if it is Linux (`k8snetlab doctor` says what it needs).
#
# Where dice decide, a question was put many times, and whatever happened has to be among what the walk says. The tables
# are about the three backends, a pod that calls itself, and the two node ports of `node-3`, on which there is no pod.

# %%
proof, doors = k8s.live.evidence(lab), k8s.live.evidence(gate)
print(proof, proof.between("default/client", "svc/default/web:80"), sep="\n\n", end="\n\n")
print(proof.between("default/web-2", "svc/default/web:80"), end="\n\n")
print(*(doors.between("external", f"node/node-3:{port}") for port in (30081, 30082)), sep="\n\n")
assert proof.agrees and doors.agrees and k8s.live.evidence(sick).agrees

# %% [markdown]
# The client met each of the three pods. `web-2` did as well, itself among them, and then it saw the address of the
# bridge on `node-2`. Through `node-3` the pods see an address of that node; with
# the policy `Local` nothing reaches them.
#
# ## Exercises
#
# **1.** A Service has five ready pods. Which probability stands in its *third* rule?

# %% tags=["exercise"]
# solution:
# learner: probability = ...
probability = 1 / (5 - 2)
# end
lesson.check("dice", probability)

# %% [markdown]
# **2.** Repair `orders` by changing the Service, not the pod. `sick.applied(text)` gives a cluster in which an object
# has been replaced. This is the Service as it is:
#
# ```yaml
# apiVersion: v1
# kind: Service
# metadata: {name: orders}
# spec:
#   selector: {app: order}
#   ports: [{name: http, port: 80, targetPort: http}]
# ```

# %% tags=["exercise"]
# solution:
# learner: fixed = ...  # sick.applied("""…""")
fixed = sick.applied("""
apiVersion: v1
kind: Service
metadata: {name: orders}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: http}]
""")
# end
lesson.check("orders", fixed)

# %% [markdown]
# **3.** In the cluster `gate` the pods behind `open` should see who really calls from outside. Give a cluster in
# which they do, still at port 30081.

# %% tags=["exercise"]
# solution:
# learner: seeing = ...  # gate.applied("""…""")
seeing = gate.applied("""
apiVersion: v1
kind: Service
metadata: {name: open}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 30081}]
""")
# end
lesson.check("seeing", seeing)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - A Service is rules on every node; the packet is rewritten where it starts, for the first packet by a rule and by
#   conntrack from then on.
# - Rule *i* of *n* has the probability 1/(n − i + 1); every endpoint comes out equally likely.
# - Pods see pods as they are. Through a NodePort with policy `Cluster` they see a node; with `Local` the client,
#   and only on nodes that have a pod.
# - No endpoint: refused. Unknown port: timed out. No *local* endpoint: timed out.
#
# **Version notes.** In nftables mode an unknown port of a ClusterIP is refused, too. IPVS mode is deprecated since
# 1.35. A Service may prefer near endpoints (`trafficDistribution: PreferSameZone` or `PreferSameNode`). The Endpoints
# API is deprecated since 1.33, EndpointSlices took its place (section 5.1). LoadBalancer Services,
# policies for traffic inside, affinity and the other proxy modes are the second part of this section.
#
# **Next:** 2.3, how the client found the Service's address.
