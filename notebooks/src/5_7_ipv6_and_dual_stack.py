# %% [markdown]
# # 5.7 IPv6 and dual-stack
#
# **The question.** A pod has two addresses, its node has two, the Service in front of it may have one or two. Which
# family does this packet use, and what happens where one of them is missing?
#
# **After this notebook you can**
#
# - lay out both families, and say where a node keeps the routes and rules of each;
# - predict which addresses a Service gets, and change it without losing the first one;
# - tell apart the four ways in which a family can be missing, by what the client is told.
#
# About 35 minutes. Names, and which address a program picks from a DNS answer, belong to section 2.3.

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("5_7")
four = {"node_cidr": "172.18.0.0/16", "pod_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/12"}
six = {"node_cidr": "fd00:172::/64", "pod_cidr": "fd00:10:244::/56", "service_cidr": "fd00:10:96::/108"}
both = {name: f"{four[name]},{six[name]}" for name in four}

# %% [markdown]
# A dual-stack cluster is two networks on the same machines. Every CIDR is given twice, and the family that comes first
# is the *primary* one.

# %%
lab = k8s.example("service-both-families", **both)
print(lab.get("nodes"), lab.get("pods", "default"), sep="\n\n")

# %% [markdown]
# ## Two address plans
#
# A node's block is a `/24` in one family and a `/64` in the other. That sounds like very different sizes, and it is.
#
# The pods' networks are `10.244.0.0/16` and `fd00:10:244::/56`. How many nodes can get a block of each?

# %%
room4 = k8s.explore.plan.room(k8s.explore.plan.Blocks(*four.values(), 24))
room6 = k8s.explore.plan.room(k8s.explore.plan.Blocks(*six.values(), 64))
for of, room in {4: room4, 6: room6}.items():
    print(f"IPv{of}: {room.node_blocks} nodes, {room.pods_a_node:,} pods on each, {room.services:,} Services")
assert room4.node_blocks == room6.node_blocks and room4.services == room6.services

# %% [markdown]
# The difference of two lengths counts: eight bits from `/16` to `/24`, eight bits from `/56` to `/64`. IPv6 does not
# run out of pods on a node, but a plan that is too narrow runs out of *blocks* just as fast. Both plans are hard to
# change later. The Services' network is a `/108` because the API server keeps a map of it; 20 bits were the most it
# took.
#
# ## A pod with two addresses, a node with two tables
#
# There is one cable, one device, one MAC address, and one MTU. Only the addresses come in pairs, and for each family
# there is a routing table of its own. First those of a pod, then those of its node:

# %%
for name in ("default/client", "node-1"):
    print(lab.host(name).show("routes"), lab.host(name).show("routes6"), sep="\n")
print("IPv4:", lab.node("node-1").counts(4))
print("IPv6:", lab.node("node-1").counts(6))
assert lab.node("node-1").counts(6).rules < lab.node("node-1").counts(4).rules

# %% [markdown]
# Two default routes, two ways to each other node, even two tunnel devices: flannel carries IPv6 in IPv6. The rules of
# kube-proxy are there twice as well, in `iptables` and in `ip6tables`, and neither knows of the other. There are fewer
# for IPv6: no Service has an address of that family so far.
#
# ## The same walk over both
#
# `family=` tells a trace which of the pod's addresses to call. Here is how the sender finds the MAC address of its
# gateway, and what goes over the cable between the nodes.

# %%
calls = {of: lab.trace("default/client", "default/web-2:8080", family=of) for of in (4, 6)}
for call in calls.values():
    print(call.fate, next(step.why for step in call.steps if step.action == "ARP"), sep=" | ")

# %%
frames = {of: max(step.packet.length for step in calls[of].steps if step.action == "TRANSMIT") for of in (4, 6)}
print(frames)
assert frames[6] - frames[4] == 2 * 20
k8s.draw.headers(calls[6])

# %% [markdown]
# A trace calls that step ARP in both families. On the wire it is not: IPv6 has no broadcast and no ARP. A host sends
# a *neighbour solicitation*, an ICMPv6 message to a multicast group that few machines listen to (NDP). The answer is
# the same, a MAC address, and so is what goes wrong without it. One consequence: a firewall that drops "all ICMP"
# merely annoys IPv4, and kills IPv6.
#
# The headers are larger. An IPv6 header has 40 bytes, not 20, and between the nodes there are two of them.
#
# ## Predict: a Service in a dual-stack cluster
#
# The Service `web` was written years ago and says nothing about families. Nodes and pods have both.

# %%
guess = lesson.predict("How many cluster IPs does the Service web have?", [0, 1, 2])
guess

# %%
try:
    lab.trace("default/client", "svc/default/web:80", family=6)
except ValueError as error:
    print(error)
guess.reveal(len(lab.objects.service("default/web").cluster_ips))

# %% [markdown]
# Nothing becomes dual-stack by itself: without `ipFamilyPolicy` a Service is `SingleStack`, of the primary family.
# Over IPv6 there is nothing to call, although each of its pods would answer.
#
# ## There and back
#
# The policy is the switch. `PreferDualStack` takes what the cluster has; `RequireDualStack` insists on two.

# %%
dual = lab.patched("Service", "default/web", {"spec": {"ipFamilyPolicy": "PreferDualStack"}})
print(dual.answer)

# %% [markdown]
# The old address stayed, a second one came. There is also a second EndpointSlice now: a slice holds addresses of one
# family (5.1), and the controller writes one for each family of the Service.

# %%
print(dual.get("endpointslices", "default"))
added = dual.node("node-1").counts(6).rules - lab.node("node-1").counts(6).rules
print(added, "more rules in ip6tables,", dual.node("node-1").counts(4) == lab.node("node-1").counts(4))

# %% [markdown]
# Back again, only the second half goes. The *first* family is settled for as long as the Service lives. The API server
# refuses to turn the order round:

# %%
single = dual.patched("Service", "default/web", {"spec": {"ipFamilyPolicy": "SingleStack"}})
assert single.objects.service("default/web").cluster_ips == lab.objects.service("default/web").cluster_ips

# %%
try:
    dual.patched("Service", "default/web", {"spec": {"ipFamilies": ["IPv6", "IPv4"]}})
except ValueError as error:
    print(error)

# %% [markdown]
# ## Which one does a client take?
#
# With two addresses somebody has to choose. A trace that is not told takes the Service's first family that the client
# has too. A real program hears both addresses from DNS, and its library sorts them (RFC 6724), often IPv6 first; many
# try both at nearly the same time (Happy Eyeballs). No node ever translates one family into the other: the choice
# holds all the way to the pod.

# %%
for of in (None, 4, 6):
    call = dual.trace("default/client", "svc/default/web:80", family=of)
    print(of, call.request.address, "→", call.backend.ip, "sees", call.source_seen)
k8s.draw.topology(dual, call)

# %% [markdown]
# ## Let them meet
#
# A connection needs one family that four parties share: the cluster, the Service, the program and the client. Turn
# any of them. The text tells for both families how a call ends.

# %%
explorer = k8s.explore.WhichFamily(lab)
explorer

# %%
explorer.families, explorer.policy = "IPv4", "RequireDualStack"
print(explorer.summary(), end="\n\n")
explorer.families, explorer.policy, explorer.asked = "IPv6", "PreferDualStack", "IPv6"
print(explorer.summary())
only = lab.changed(**six)

# %% [markdown]
# The first way to miss a family: the cluster has not got it. `RequireDualStack` says so at once; `PreferDualStack`
# takes one address in silence. A cluster of IPv6 alone, as the second text shows, is a complete cluster. Its pods
# reach an IPv4-only service outside only through a translator (NAT64 with DNS64), which is no part of Kubernetes.
#
# ## Predict: a program of one family
#
# The second way: the cluster, the Service and the pods have both, but the program in the pods was started with
# `--listen=0.0.0.0`, as many are. `bound` lets it listen on the pod's IPv4 address alone.

# %%
old = dual
for name in ("default/web-1", "default/web-2"):
    old = old.bound(name, old.objects.pod(name).ip)
guess = lesson.predict("A client asks over IPv6. What is it told?", ["OPEN", "REFUSED", "TIMEOUT"])
guess

# %%
asked = old.trace("default/client", "svc/default/web:80", family=6)
print(asked.reason)
guess.reveal(str(asked.client))

# %% [markdown]
# Kubernetes does not know where a program listens. The kubelet's probe goes to the pod's *first* address, so the pod is
# ready, and both slices list it. In production this looks like "sometimes refused", as clients choose differently.
#
# ## Predict: who cuts?
#
# Third: both families work, until packets become large. The pods' MTU is set to 1,500 here, too much for a tunnel.
# A datagram of 1,440 bytes which may be cut (`df=False`) sets out to the other node.

# %%
wide = dual.changed(cni_options={"mtu": "1500"})
guess = lesson.predict("Over IPv4 node-1 cuts it in two. And over IPv6?", ["node-1 does", "the pod does", "nobody"])
guess

# %%
sent = {of: wide.trace("default/client", "default/web-2:9000/UDP", family=of, size=1440, df=False) for of in (4, 6)}
print(sent[4].fate, sent[6].fate, sent[6].reason, sep="\n")
cutting = [step.where for step in sent[6].steps if step.action == "FRAGMENT"]
print(dual.curl("default/client", "default/web-2:8080", family=6))
guess.reveal("node-1 does" if "node-1" in cutting else "the pod does" if cutting else "nobody")

# %% [markdown]
# Routers never cut IPv6. The node tells the sender (*Packet Too Big*), who has to cut at the source or send less. TCP
# does that by itself, as the call at the end shows. It was made with the usual MTU, and still its first segment was
# too large: flannel takes 50 bytes off for every pod, and IPv6 in IPv6 needs 70. Everything depends on that one
# ICMPv6 message; filter it, and connections open and then hang.
#
# ## Break it
#
# Fourth: nodes and Services have IPv6, and the CNI plugin does not. Weave Net is such a plugin.

# %%
half = dual.changed(cni="weave")
print(half.get("endpointslices", "default"))
for who in ("default/client", "node/node-1"):
    missing = half.trace(who, "svc/default/web:80", family=6)
    print(f"{who} is told {missing.client}: {missing.reason}")

# %% [markdown]
# The Service has its IPv6 address all the same, so DNS would give it away; but no pod has one, and the slice of that
# family is empty. A pod cannot even send: its programs are told at once, and try IPv4. A node can, and kube-proxy
# rejects the call. That costs time: over IPv4 such a refusal is instant; over IPv6 the kernel ignores the first one and
# believes the second, so that `connect` takes about a second. A client that tries IPv6 first is slow, and nothing is
# "down".
#
# ## On the real kernel
#
# The state of these clusters was given to a real Linux kernel, a network namespace for each machine, and connections
# were opened over both families. With `K8SNETLAB_LIVE=1` set, this cell does it again on your machine.

# %%
proofs = [k8s.live.evidence(one) for one in (dual, old, only)]
print(*(proof.between("default/client", "svc/default/web:80") for proof in proofs), sep="\n\n")
assert all(proof.agrees for proof in proofs)

# %% [markdown]
# First both families, then the program that listens on IPv4 alone, last the cluster without IPv4.
#
# ## Exercises
#
# **1.** The Service `web` shall have both families with IPv6 *first*. Give such a cluster, made from `lab`. Its pods
# carry the label `app: web`, and their port is called `http`.

# %% tags=["exercise"]
# solution:
# learner: turned = ...  # a cluster
turned = lab.deleted("Service", "default/web").applied("""
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ipFamilyPolicy: PreferDualStack
  ipFamilies: [IPv6, IPv4]
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
""")
# end
lesson.check("turned", turned)

# %% [markdown]
# **2.** The cluster shall grow to 500 nodes with a block `/64` each. Choose a network for the pods: private addresses
# (`fc00::/7`) that overlap neither nodes nor Services. The controller that cuts it into blocks refuses more than 16
# bits between the network and a block.

# %% tags=["exercise"]
# solution:
# learner: pods = ...  # text, such as "fd00:10:244::/56"
pods = "fd00:10:244::/55"
# end
lesson.check("plan", pods)

# %% [markdown]
# **3.** In `lab`, with its usual MTU: how many bytes of payload has the largest datagram that `client` can send to
# `web-2` over IPv6 without anybody cutting or refusing it?

# %% tags=["exercise"]
# solution:
# learner: payload = ...
payload = lab.network["node-1"].link("flannel-v6.1").mtu - 40 - 8
# end
lesson.check("payload", payload)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - Dual-stack is two networks side by side: two plans, routing tables, sets of rules and slices. Nobody translates.
# - A Service has one family unless its policy says otherwise; the first one stays, the second comes and goes.
# - A family can be missing in the cluster (the API server refuses, or gives one), in the Service (no address), in the
#   pods (no route, or rejected after a second) or in the program (reset).
# - Routers do not cut IPv6. MTUs have to be right, and ICMPv6 has to pass.
#
# **Version notes.** Dual-stack is stable since Kubernetes 1.23 (KEP-563). Larger or additional Service networks are
# `ServiceCIDR` objects since 1.33. flannel needs `EnableIPv6` and a network of each family. Weave Net, archived in 2024,
# has no IPv6 at all. The tables of headers and sizes are those of flannel with VXLAN; section 3.1 compares plugins.
#
# **Next:** 6.0, the broken shop.
