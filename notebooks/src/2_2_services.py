# %% [markdown]
# # 2.2 Services
#
# **The question.** Pods come and go, and their addresses with them. A Service has one address that stays. But
# nobody *has* that address: who rewrites the destination, where, and to what?
#
# **After this notebook you can**
#
# - find the rule that sends a packet to a pod, and read its probability;
# - say which source the pod sees, for every type of Service and every policy;
# - tell an empty Service from a wrong port and from a policy, by what the client is told;
# - say what the four proxy modes do with the same packet, and what a thousand Services cost in each.
#
# About an hour, in three parts: the rules; types and policies; the four modes. The end of a part is a good place for a
# break.
#
# # Part one: the rules

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

# %% [markdown]
# All pods are equal, wherever they are (part two shows how to ask for something else). This was found by walking every
# way the rules can fall.
#
# ## Predict: the second of three
#
# The next cell prints the rules of this Service on the client's node, as `iptables-save` does. Read from the top: the
# Service's address leads into a chain `KUBE-SVC-…`, from there into one of three chains `KUBE-SEP-…` (*service
# endpoint*), and there the destination is replaced.
#
# Rules are tried in order, and each is a throw of dice. The first of three endpoints has the probability 1/3. Cover
# the second with your hand: what does it say?

# %%
rules = [line for line in lab.node("node-1").show("iptables").splitlines() if '"default/web:http' in line]
assert rules == [line for line in lab.node("node-3").show("iptables").splitlines() if '"default/web:http' in line]
guess = lesson.predict("Which probability stands in the second rule?", ["1/3", "1/2", "2/3"])
print("\n".join(rules), end="\n\n")
guess

# %%
dice = [float(rule.split("--probability ")[1].split()[0]) for rule in rules if "--probability" in rule]
second = (1 - dice[0]) * dice[1]
assert abs(second - 1 / 3) < 1e-6 and abs((1 - dice[0] - second) - 1 / 3) < 1e-6
guess.reveal(f"1/{1 / dice[1]:.0f}")

# %% [markdown]
# The second rule is only asked when the first did not match, and then two endpoints are left: one half of the
# remaining two thirds. The last rule has no dice at all. What is written is 1/3, 1/2, always; what comes out is a
# third each. And every node has the same rules, whether it runs one of the pods or not: the packet is rewritten where
# it starts, so there is no machine that all of the traffic has to pass.
#
# ## Predict: a pod calls its own Service
#
# A pod that calls a Service keeps its own address: only the destination is replaced. There is one exception. `web-1`
# asks `http://web`, and the dice send it to `web-1`. If the packet came back to it with its own address as source, it
# would answer itself directly, and the connection would never be translated back.

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
# # Part two: types and policies
#
# ## From outside: NodePort
#
# A Service of type NodePort opens one port on *every* node. The next cluster has two of them with the same pods, on
# `node-1` and `node-2`; on `node-3` there is none. Somebody outside asks `node-3`.

# %%
gate = k8s.example("service-node-ports")
call = gate.trace("external", "svc/default/open:80", via="node-3")
assert all(outcome.source_seen != "203.0.113.10" for outcome in call.outcomes)
print(call.request.address, call.request.port, "→", call.backend.name, "sees", call.source_seen)
k8s.draw.topology(gate, call)

# %% [markdown]
# `node-3` passed the request on to a node that has a pod. The answer must come back the same way, because only
# `node-3` can put the addresses back; so it replaced the source as well, and the pod cannot know who called.
# `externalTrafficPolicy: Local` keeps the client's address, and pays for it: a node takes requests only for its own
# pods.

# %%
here = gate.trace("external", "svc/default/local:80", via="node-1")
there = gate.trace("external", "svc/default/local:80", via="node-3")
print("node-1:", here.client, "the pod sees", here.source_seen)
print("node-3:", there.client, "|", there.reason)

# %% [markdown]
# A dropped packet, no refusal: a load balancer in front is supposed to notice that `node-3` has nothing to offer.
#
# ## LoadBalancer: who brings the packet to a node?
#
# Type LoadBalancer is a NodePort with one more address. Kubernetes does not make it work: a *cloud controller* or a
# program such as MetalLB has to give the address away, and see to it that packets come to nodes. As long as there is
# nobody, the Service is `<pending>`. The node port works all the same.
#
# MetalLB in *layer 2* mode answers ARP requests: "this address is at my MAC".

# %%
kind = {"spec": {"type": "LoadBalancer"}}
front = gate.patched("Service", "default/open", kind).patched("Service", "default/local", kind)
print(front.get("services", "default"), end="\n\n")
guess = lesson.predict("How many of the three nodes answer ARP requests for the address of open?", [1, 2, 3])
guess

# %%
ways = {way: front.changed(load_balancer=way) for way in ("metallb-l2", "metallb-bgp", "cloud", "proxy")}
l2 = ways["metallb-l2"]
address = l2.objects.service("default/open").load_balancer[0].ip
guess.reveal(sum(each.address == address for node in l2.objects.nodes for each in l2.network[node.name].responders))

# %% [markdown]
# An address can only be at one MAC, so one node gets all of the traffic, and another takes over when it dies. The other
# ways spread it. With BGP every node tells the router "by me", and the router spreads connections over them. A cloud's
# load balancer may pass packets on as they are, or end the connection and open one of its own, to a node port
# (`proxy`). Whom do the pods see? Here are all sources that some pod may see, for both Services; and the outcomes of
# one of these lines.

# %%
for way, cluster in ways.items():
    for name in ("open", "local"):
        outcomes = cluster.trace("external", f"svc/default/{name}:80").outcomes
        print(f"{way:<12}{name:<6}", *sorted({each.source_seen for each in outcomes}))
k8s.draw.outcomes(ways["metallb-bgp"].trace("external", "svc/default/open:80"))

# %% [markdown]
# With policy `Cluster` it is always some address of the node that took the packet. With `Local` the client is seen,
# except behind the proxy, which is the client now. (It may tell the pod whom it spoke for, in an HTTP header or by the
# PROXY protocol.)
#
# How does the load balancer know which nodes have a pod of `local`? Such a Service has a `healthCheckNodePort`, where
# kube-proxy answers on every node: 200 if there is a local endpoint, 503 if not. Compare the two routes below. And it
# may say which clients are welcome; that is enforced on the node.

# %%
cloud = ways["cloud"]
print(cloud.host("load-balancer").show("routes"), end="\n\n")
strict = cloud.patched("Service", "default/open", {"spec": {"loadBalancerSourceRanges": ["203.0.113.0/28"]}})
for who in ("external:203.0.113.10", "external:203.0.113.99"):
    print(who, strict.trace(who, "svc/default/open:80").reason)

# %% [markdown]
# ## No address at all: headless and ExternalName
#
# With `clusterIP: None` the name of a Service means its pods: DNS gives their addresses, no rule exists, and the
# client chooses. A Service of type ExternalName is an alias in DNS, and nothing else. Here is one of each. The headless
# one maps port 80 to the pods' port `http`, which is 8080.

# %%
named = lab.applied("""
apiVersion: v1
kind: Service
metadata: {name: all}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
""")
for what in ("all:80", "all:8080", "alias:80"):
    walk = named.trace("default/client", what)
    print(f"{what:<9}{walk.request.address}:{walk.request.port}", walk.client, walk.reason, sep=" | ")

# %% [markdown]
# Port 80 of a headless Service is nobody's: without a rule there is nothing that could turn 80 into 8080. The alias
# led to the cluster address of `web`.
#
# ## The same pod again: session affinity
#
# A load balancer that throws dice forgets. `sessionAffinity: ClientIP` makes it remember for some time which address
# was sent where: the next cluster says 600 seconds. A *session* is a place where time passes.

# %%
time = k8s.example("service-session-affinity").session(seed=4)
print("anywhere:", *(time.trace("default/client", "svc/default/anywhere:80").backend.pod for _ in range(8)))
for pause in (0, 1, 10, 599, 599, 601):
    time.advance(pause)
    print(f"sticky, {pause} s later:", time.trace("default/client", "svc/default/sticky:80").backend.pod)

# %% [markdown]
# Each connection begins the ten minutes anew; a longer pause ends them. Behind a NodePort with policy `Cluster` it
# still works, because the node that remembers sees the client before it hides him. But all users behind one NAT are one
# client.
#
# ## Near pods, and pods that leave
#
# `internalTrafficPolicy: Local` is about the cluster address: only pods of the client's own node. What if that pod is
# being deleted and finishes its work (*terminating*, but serving), and what if it is not ready?

# %%
near = lab.patched("Service", "default/web", {"spec": {"internalTrafficPolicy": "Local"}})
leaving = near.patched("Pod", "default/web-1", {"metadata": {"deletionTimestamp": "2026-11-23T12:00:00Z"}})
ill = near.patched("Pod", "default/web-1", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
for cluster in (near, leaving, ill):
    print(cluster.trace("default/client", "svc/default/web:80").chances(), end="\n\n")

# %% [markdown]
# While nobody else is there, new connections still go to a pod that is leaving; so a rolling update need not lose any.
# But a local pod that is not ready is no reason to look elsewhere: two pods are ready, and the client waits in vain.
# The policy is a condition. If you only mean a preference, there is another field; exercise 4 asks for it.
#
# # Part three: four modes for one packet
#
# kube-proxy can keep its promise in other ways, and Cilium can do without it. The same Service on `node-1`, in four
# modes, in the words of four tools: `iptables-save`, `nft list ruleset`, `ipvsadm -Ln`, `cilium-dbg bpf lb list`.
#

# %%
tools = {"iptables": "iptables", "nftables": "nft", "ipvs": "ipvs", "ebpf": "bpf"}
modes, doors = ({mode: cluster.changed(proxy=mode) for mode in tools} for cluster in (lab, gate))
for mode, tool in tools.items():
    lines = [line.strip() for line in modes[mode].node("node-1").show(tool).splitlines()]
    print(mode, *(each for each in lines if trace.request.address in each or itself.backend.ip in each), sep="\n  ")

# %% [markdown]
# - **iptables**: a rule for every Service, and for every endpoint of it. (Only those that name the Service's address or
#   `web-1` are printed, here and below.)
# - **nftables**: some twenty rules, alike in every cluster. They look the destination up in the map `service-ips` (the
#   third line), which leads to one rule that draws one of all endpoints (the fourth). The other lines are sets: pods
#   that may reach themselves, and addresses of Services. Generally available since 1.33.
# - **ipvs**: a *virtual server* with real servers, in a part of the kernel made for that; the Service's address lies on
#   a dummy device of every node. Deprecated since 1.35: do not begin with it.
# - **ebpf**: Cilium without kube-proxy. No rule at all; small programs look the address up in a map. Slot 0 is the
#   Service, the others are its endpoints.
#
# ## Predict: what does tcpdump see?
#
# In `ebpf` mode, somebody runs tcpdump *inside of the client's pod* while a program there calls the Service.

# %%
guess = lesson.predict("Whose address do the packets carry?", ["the Service's", "a pod's"])
guess

# %%
walks = {mode: cluster.trace("default/client", "svc/default/web:80") for mode, cluster in modes.items()}
for mode, walk in walks.items():
    step = next(step for step in walk.steps if step.action is k8s.Action.DNAT)
    print(f"{mode:<9}on {step.where}: {step.why}")
guess.reveal("a pod's" if walks["ebpf"].steps[0].packet.innermost.ip.dst != trace.request.address else "the Service's")

# %% [markdown]
# Three modes rewrite a *packet*, on the node, and conntrack has to rewrite every answer. The fourth rewrites what the
# program said to `connect()`, inside of the pod and before there is a packet: no NAT, nothing to translate back. That
# works for whoever is on the node. Who comes from outside has made his packet already; for him another program does it
# at the node's network card.
#
# For a packet to a ready Service all four come to the same end. At the edges they differ. Three questions: a pod asks
# for a port that the Service does not have; a node asks for a node port at 127.0.0.1; somebody outside asks `node-3`
# for `local`, which has no pod there.

# %%
edges = [("default/client", "svc/default/open:8080"), ("node/node-1", "127.0.0.1:30081"),
         ("external", "node/node-3:30082")]
told = {mode: [str(cluster.trace(*edge).client) for edge in edges] for mode, cluster in doors.items()}
assert told["iptables"] == ["TIMEOUT", "OPEN", "TIMEOUT"] and told["nftables"] == ["REFUSED", "REFUSED", "TIMEOUT"]
told

# %% [markdown]
# In iptables mode nothing knows a wrong port of a Service; nftables and IPVS know the address as a whole. Node ports at
# 127.0.0.1 exist in iptables mode and in Cilium only. Under policy `Local`, a node without a pod drops packets, Cilium
# refuses them, and IPVS sends them to pods elsewhere all the same. And from outside, Cilium hides the client only from
# pods on *other* nodes; the explorer below shows it.
#
# ## Predict: a thousand Services
#
# The last question is what it costs. There are now 1,000 Services more, each with five endpoints, and kube-proxy is in
# iptables mode. The client connects to the pod `web-1` by its own address: no Service is involved.
#
# `compared` counts the rules that a machine compares with a packet and its answer, one after the other, as the kernel
# does.

# %%
crowd = lab.applied("""
apiVersion: apps/v1
kind: Deployment
metadata: {name: crowd}
spec:
  replicas: 5
  selector: {matchLabels: {app: crowd}}
  template:
    metadata: {labels: {app: crowd}}
    spec: {containers: [{name: hello, image: hello, ports: [{containerPort: 8080}]}]}
""")
spec = {"selector": {"app": "crowd"}, "ports": [{"port": 80, "targetPort": 8080}]}
more = [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s-{n}"}, "spec": spec} for n in range(1000)]
guess = lesson.predict("With how many rules of node-1 is it compared?", ["none", "about 20", "about 1,000"])
guess

# %%
grown = {mode: {n: crowd.applied(*more[:n]).changed(proxy=mode) for n in (10, 100, 1000)} for mode in modes}
rules = {mode: {n: cluster.compared("default/client", "default/web-1:8080")["node-1"] for n, cluster in sizes.items()}
         for mode, sizes in grown.items()}
print(guess.reveal(f"about {round(rules['iptables'][1000], -3):,}"))
k8s.draw.curves(rules, title="Rules of node-1 that a new connection between pods is compared with", across="Services")

# %% [markdown]
# Every new connection of every pod passes the rules of all Services, until one of them matches or, as here, none. (Only
# its first packet: conntrack knows the rest.) The other modes look up, and a lookup among a thousand entries costs
# about as much as among ten. (The seven rules that are left in `ebpf` mode are flannel's.)
#
# What a node *holds* grows in every mode. And when one pod of `web` fails, something has to be changed on each node.
# How many lines?

# %%
held = {mode: {n: cluster.node("node-1").counts().entries for n, cluster in sizes.items()}
        for mode, sizes in grown.items()}
fewer = lab.patched("Pod", "default/web-3", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
print({mode: len(cluster.diff(fewer.changed(proxy=mode)).on("node-1")) for mode, cluster in modes.items()})
k8s.draw.curves(held, title="Rules, elements, servers and map slots on node-1", across="Services")

# %% [markdown]
# Seven lines of rules in iptables mode for one pod, since all dice are loaded anew; one rule for another in nftables
# mode; one entry in the others.
#
# ## Try it
#
# Change type, mode, policies and affinity, who asks, and how many of the three pods are ready. (The address of a
# LoadBalancer is announced by MetalLB in layer 2 mode.)

# %%
explorer = k8s.explore.WhoAnswers(lab)
explorer

# %% [markdown]
# The next cell turns the same controls from code: somebody outside asks a NodePort in `ebpf` mode. Look at the last
# column: one pod sees the client, the others see a node.
#
# ## Break it
#
# First: nobody is ready. The Service still has its address, and a packet of a pod arrives at its node as always.

# %%
explorer.kind, explorer.proxy, explorer.source = "NodePort", "ebpf", "outside"
print(explorer.summary(), end="\n\n")
assert {outcome.source_seen for outcome in explorer.trace.outcomes} == {"203.0.113.10", "172.18.0.11"}
guess = lesson.predict("No pod is ready. What is a pod told?", ["OPEN", "REFUSED", "UNREACHABLE", "TIMEOUT"])
guess

# %%
explorer.kind, explorer.proxy, explorer.source, explorer.ready = "ClusterIP", "iptables", "a pod", 0
print(explorer.summary())
guess.reveal(explorer.trace.client)

# %% [markdown]
# A rule in the table `filter` rejects packets for a Service without endpoints. (In `ebpf` mode `connect()` itself
# fails: UNREACHABLE. Try it above.)
#
# Second, the most frequent one: everything looks healthy, and still it does not work. In the next cluster three
# Services have three ready pods, and each fails in its own way.

# %%
sick = k8s.example("services-that-do-not-work")
for name in ("orders", "prices", "reviews"):
    print(name, sick.trace("default/client", f"svc/default/{name}:80").client)
print(sick.get("endpointslices", "default"), end="\n\n")
print(sick.trace("default/client", "svc/default/reviews:80").reason)

# %% [markdown]
# The same word, *refused*, for different causes. Look at the slices: `orders` has no address, and `prices` has one
# but no port. Both are refused by a rule of the node. `reviews` has both, and is refused by the pod itself, where
# nobody listens on that port.
#
# ## On the real kernel
#
# None of this is a picture. The state was given to a real Linux kernel (`iptables-restore`, `nft -f`, eBPF programs at
# the sockets), in a network namespace for each machine, and real connections were opened. What happened is on record,
# and `proof.machine` names the kernel. IPVS is missing: that kernel was built without it. With `K8SNETLAB_LIVE=1` set,
# this cell does it again on your machine, if it is Linux (`k8snetlab doctor` says what it needs).
#
# Where dice decide, a question was put many times, and whatever happened has to be among what the walk says. Below are
# all questions in iptables mode; then what `web-2` met at its own Service in iptables, nftables and `ebpf` mode; then
# somebody outside who asks `node-3` for `local`.

# %%
proofs = {mode: k8s.live.evidence(modes[mode]) for mode in ("iptables", "nftables", "ebpf")}
outside = {mode: k8s.live.evidence(doors[mode]) for mode in ("iptables", "nftables")}
print(proofs["iptables"], *(one.between("default/web-2", "svc/default/web:80") for one in proofs.values()), sep="\n\n")
print(*(one.between("external", "node/node-3:30082") for one in outside.values()), sep="\n\n")
assert all(proof.agrees for proof in (*proofs.values(), *outside.values(), k8s.live.evidence(sick)))

# %% [markdown]
# `web-2` met each of the three pods, itself among them; then it saw the address of the bridge on `node-2`, and in
# `ebpf` mode its own. Through `node-3` nothing reaches the pods of `local`.
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
# **4.** In `gate` again: pods that call `open` should be sent to the pod on their own node, where there is one. The
# client on `node-3`, where there is none, should still reach the others. Stay in iptables mode. (Beside
# `internalTrafficPolicy`, the spec of a Service may have the field `trafficDistribution`, with `PreferSameZone` or
# `PreferSameNode`.)

# %% tags=["exercise"]
# solution:
# learner: staying = ...  # gate.applied("""…""")
staying = gate.applied("""
apiVersion: v1
kind: Service
metadata: {name: open}
spec:
  type: NodePort
  trafficDistribution: PreferSameNode
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 30081}]
""")
# end
lesson.check("staying", staying)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - A Service is state on every node: rules, map entries, virtual servers. The packet is rewritten where it starts, by a
#   decision for its first packet and by conntrack from then on; or, with eBPF, at the socket, before it exists.
# - Rule *i* of *n* has the probability 1/(n − i + 1); every endpoint comes out equally likely.
# - Pods see pods as they are. Through a NodePort or LoadBalancer with policy `Cluster` they see a node; with `Local`
#   the client, and only on nodes that have a pod.
# - LoadBalancer is a NodePort and an address; somebody else brings the packets. A headless Service is its pods, an
#   ExternalName another name.
# - No endpoint: refused. No *local* endpoint: timed out. Unknown port: timed out or refused, by mode.
# - iptables mode compares every new connection with all Services; the others look it up.
#
# **Version notes.** kube-proxy's nftables mode is generally available since 1.33, its layout here is that of 1.36; IPVS
# mode is deprecated since 1.35. LoadBalancer is not for clouds alone: MetalLB and others do it anywhere. The Endpoints
# API is deprecated since 1.33, EndpointSlices took its place (section 5.1). `PreferSameNode` and `PreferSameZone` took
# the place of `PreferClose`. Terminating endpoints are a last resort since 1.26 (stable in 1.28). SCTP is treated as
# TCP by kube-proxy in every mode; Cilium must be told to, and then balances it packet by packet.
#
# **Next:** 2.3, how the client found the Service's address.
