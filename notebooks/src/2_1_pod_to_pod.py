# %% [markdown]
# # 2.1 Pod to pod
#
# **The question.** A pod has one cable and one default route. How does its frame leave the pod, how does it leave
# the node, and how does the other node know what to do with it?
#
# **After this notebook you can**
#
# - follow a packet between two pods of one node, and between two nodes, device by device;
# - read the three entries by which flannel's VXLAN finds the other node, and say what happens when one is missing;
# - calculate what an overlay costs in bytes, and the largest packet that fits;
# - lay one flow under every CNI plugin side by side, and say what each one does to its frames.
#
# About 55 minutes.

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("2_1")
lab = k8s.example("same-node-other-node")
print(lab.get("pods", "default"))

# %% [markdown]
# `here-a` and `here-b` share a node, `there` lives on another. All three were attached by flannel.
#
# ## The pod's end of the cable

# %%
print(lab.host("default/here-a").show("routes"))
print(lab.host("default/here-a").show("links"))

# %% [markdown]
# One device, `eth0`. It is one end of a *veth pair*, a virtual cable; `@if` gives the number of the other end,
# which is a port of the bridge `cni0` on the node. The bridge's address is the pod's gateway, and whoever is in the
# pod's own block is reached without it.
#
# ## Predict: on the same node
#
# Routers take one from a packet's time to live (TTL), bridges do not. It starts with 64.

# %%
guess = lesson.predict("With which TTL does a packet from here-a arrive at here-b?", [62, 63, 64])
guess

# %%
near = lab.trace("default/here-a", "default/here-b:8080")
print(guess.reveal(near.steps[-1].packet.ip.ttl))
k8s.draw.topology(lab, near)

# %% [markdown]
# Nobody routed it. `here-a` asked on its cable for the MAC address of `here-b` (ARP), and the bridge passed the
# frame from one port to the other, like a switch. The node's routing table was not asked.

# %%
actions = {step.action for step in near.steps if step.where == "node-1"}
assert "BRIDGE" in actions and "FORWARD" not in actions
print(*sorted(actions))

# %% [markdown]
# ## To another node
#
# Now the same to `there`. Its address is in another block, so the packet goes to the gateway, which is the node.
# What does the node know?

# %%
print(lab.node("node-1").show("routes"))

# %% [markdown]
# A route for each other node's block, *via* an address on a device `flannel.1`. This device is the entrance of a
# tunnel: what leaves by it is wrapped up and sent to another node. Two more entries are needed for that, and
# neither of them is learnt; flannel writes them when a node joins.

# %%
print(lab.node("node-1").show("neighbours"))
print(lab.node("node-1").show("fdb"))

# %% [markdown]
# Read the three together, for the other node's block:
#
# 1. the **route** says: via this gateway, through `flannel.1`;
# 2. the **neighbour** says: that gateway has this MAC address (it is the other node's `flannel.1`);
# 3. the **FDB entry** says: this MAC address is behind that node's address.
#
# ## The headers on the way
#
# The table keeps the steps in which something is decided or changed; the picture under it shows the headers.
# Encapsulation is a push, decapsulation a pop: the inner frame comes out as it went in.

# %%
far = lab.trace("default/here-a", "default/there:8080")
print(far)
k8s.draw.headers(far)

# %% [markdown]
# ## Predict: how large on the cable?
#
# A program in `here-a` sends 1000 bytes in a UDP datagram to `there`. UDP adds 8 bytes, IP 20, Ethernet 14: that
# makes 1042 in the pod. And between the nodes?

# %%
guess = lesson.predict("How many bytes has the frame between the nodes?", [1000, 1042, 1050, 1092])
guess

# %%
sent = lab.trace("default/here-a", "default/there:9000/UDP", size=1000)
frame = next(step.packet for step in sent.steps if step.where == "switch")
guess.reveal(frame.length)

# %% [markdown]
# Another IP header (20), UDP (8), VXLAN (8), and the whole Ethernet header of the inner frame (14), which is
# payload now: 50 bytes more. The cable between the nodes carries packets of 1500 bytes, so a pod may send 1450.
# Therefore its device says so:

# %%
mtu = {device: lab.network["node-1"].link(device).mtu for device in ("eth0", "flannel.1", "cni0")}
print(mtu, "and in the pod:", lab.network["default/here-a"].link("eth0").mtu)
assert mtu["eth0"] - mtu["flannel.1"] == 50

# %% [markdown]
# ## Other ways between nodes
#
# An overlay is one answer. Where the nodes share a network, an ordinary route to the other *node* will do; flannel
# calls it `host-gw`, and the plainest setup is a bridge with routes written by hand. Other plugins have other answers,
# and most have several. Kubernetes does not care (section 1.1), and the program in `here-a` does not notice.
#
# ## Predict: the longest frame
#
# The same pods, the same nodes, the same 1000 bytes; only the plugin changes, and with it the whole state of the nodes.

# %%
some = ["flannel vxlan", "flannel host-gw", "calico ipip", "cilium geneve", "weave sleeve"]
guess = lesson.predict("Which of these networks puts the most bytes on the cable between the nodes?", some)
guess

# %%
flows = k8s.networks.flows(lab, "default/here-a", "default/there:9000/UDP", size=1000)
seen = k8s.networks.beside(flows)
frames = {side.name: side.wire.length for side in seen}
assert min(frames.values()) == 1042 and {str(flow.client) for flow in flows.values()} == {"OPEN"}
guess.reveal(max(some, key=lambda name: frames[name]))

# %% [markdown]
# Weave Net's *sleeve* is a program that takes whole frames and puts its own header in front of them: who sent it, who
# shall have it. It has to, for it works where the kernel's tunnels do not. Here are all of them:

# %%
print(seen)

# %% [markdown]
# ## Side by side: one flow under every CNI
#
# The picture draws the headers of the frame between the nodes to scale. The ends stand under each other, so what a
# network adds is what juts out at the left. Under each row are the devices that the packet passed on the two nodes.

# %%
k8s.draw.side_by_side(flows)

# %% [markdown]
# Read it from the left:
#
# - **Nothing added**: somebody *routes* pods. Nodes know each other's blocks (`host-gw`, Calico's `bgp`, Cilium's
#   `native`), or the router between them does (`cloud`, `tor`), and then the packet passes it.
# - **IP in IP**: 20 bytes, one more IP header. No ports, no Ethernet inside: a packet that carries a packet.
# - **VXLAN and Geneve**: 50 bytes. A frame in a UDP datagram, which any network between the nodes lets through.
# - **Encrypted**: what stands behind the header of WireGuard or ESP can be read on the two nodes only. It is padded
#   first, so the number of bytes depends on the payload. Cilium encrypts what it has already wrapped up: two tunnels.
#
# The column `TTL` tells who *routed*. A bridge takes nothing off, a node one, and Weave Net joins all pods to one large
# Ethernet, so nobody routes at all. With Cilium eBPF programs move the packet: through a tunnel it costs one; in
# `native` mode programs and kernels take turns on both nodes, and each takes its share.
#
# Host routes cost nothing, but every machine on the way has to know every block. A router between two zones does
# not (section 1.2): there, `host-gw` has no way to offer.
#
# And on one node? There is nothing to wrap up, and the first device is the whole difference:

# %%
near = k8s.networks.beside(k8s.networks.flows(lab, "default/here-a", "default/here-b:9000/UDP", size=1000))
print(*sorted({str(side.between[0]) for side in near}), sep="\n")
assert {side.added for side in near} == {0}

# %% [markdown]
# ## Before and after
#
# What would a change of the plugin do to *this* cluster? Above it is as it was, below as it would be. Dashed devices
# go, strong ones come, and both have the same flow drawn through them. On the command line the same comparison is
# `k8snetlab diff --change cni=calico`.

# %%
calico = lab.changed(cni="calico")
was, now = (cluster.trace("default/here-a", "default/there:8080") for cluster in (lab, calico))
assert was.client == now.client and was.backend.name == now.backend.name
k8s.draw.before_after(lab, calico, was, now, titles=("flannel", "Calico"))

# %% [markdown]
# No bridge any more: each pod's cable ends in the node itself, which routes even between pods of one node. Pods have
# other addresses, since Calico gives them out of blocks of its own. Both flows are `OPEN`.
#
# ## Try it
#
# Change the network, the target, the size, or take an entry away from `node-1`. The networks are those of the picture
# above.

# %%
explorer = k8s.explore.PodToPod(lab)
explorer

# %% [markdown]
# One byte too many: 1423 bytes of payload make a packet of 1451, and it says that it must not be cut. The sender's own
# kernel refuses it at once, because its own device says 1450. That is the harmless case. It becomes nasty when a pod
# believes in 1500 although the tunnel takes 1450:

# %%
explorer.size = 1423
print(explorer.summary(), end="\n\n")
explorer.mtu = "1500"
print(explorer.summary())

# %% [markdown]
# Now the node has to refuse, and it tells the pod so by ICMP (*fragmentation needed*). If a firewall swallows those
# messages the sender never learns why: small packets work, large ones vanish. Connections open, and the page never
# comes.
#
# ## Break it
#
# Take away one of the three entries of `node-1`. What is the client told?

# %%
explorer.size, explorer.mtu = 0, "as usual"
node = lab.network["node-1"]
route = next(route for route in node.routes if route.via and route.device == "flannel.1")
neighbour = next(entry for entry in node.neighbours if entry.ip == route.via)
fdb = next(entry for entry in node.fdb if entry.mac == neighbour.mac)

# %%
choices = ["OPEN", "REFUSED", "UNREACHABLE", "TIMEOUT"]
guess = lesson.predict("Without the FDB entry, the client in here-a is told:", choices)
guess

# %%
blind = lab.without("node-1", fdb).trace("default/here-a", "default/there:8080")
guess.reveal(blind.client)

# %% [markdown]
# The tunnel device does not know where to send the frame, drops it, and tells nobody. Without the neighbour the
# node asks for a MAC address, hears nothing and reports that. Without the route the packet follows the default
# route to a router that has never heard of pods.

# %%
for missing in (fdb, neighbour, route):
    trace = lab.without("node-1", missing).trace("default/here-a", "default/there:8080")
    print(trace.client, "|", trace.reason)

# %% [markdown]
# To the client two of the three look alike; the trace tells them apart. And the reverse direction is a matter of its
# own: `node-2` has three entries for the way back. Does anything still arrive when `node-1` lacks them?

# %%
back = lab.without("node-1", fdb).trace("default/there", "default/here-a:8080")
print(back.client, "|", back.reason)
assert back.backend.name == "default/here-a"

# %% [markdown]
# It arrives, and `here-a` answers; only the answer is lost, on the node that lacks the entry. The client at the other
# end cannot know the difference, and looks for the fault on the wrong node.
#
# Which entry matters depends on who looks. Take the *route* to the other node's pods away under Cilium:

# %%
explorer.network, explorer.missing = "cilium vxlan", "route"
print(*explorer.summary().splitlines()[:2], sep="\n")
assert explorer.trace.client == "OPEN"

# %% [markdown]
# Nothing happens. A program at the pod's cable has sent the packet into the tunnel before the kernel could look at its
# routes; its own table, the *ipcache*, knows the node behind the address. Who looks for faults has to know where a
# plugin keeps its answers.
#
# ## On the real kernel
#
# All of this was walked by a simulated kernel. Is it true? The same state was put on a real one: every machine became
# a network namespace of Linux, with these devices, routes, neighbours and FDB entries, and real connections were
# opened. What happened is on record, and `proof.machine` names the kernel. Start Jupyter with `K8SNETLAB_LIVE=1` on a
# Linux machine, and the next cell does it again there; `k8snetlab doctor` says whether it can.
#
# A record is found by the whole state that it is about. A cluster that lacks one entry is another state: the last three
# tables are those without the FDB entry, the neighbour, the route.

# %%
proof = k8s.live.evidence(lab)
broken = [k8s.live.evidence(lab.without("node-1", missing)) for missing in (fdb, neighbour, route)]
print(proof, *(each.between("default/here-a", "default/there:8080") for each in broken), sep="\n\n")
assert all(each.agrees for each in (proof, *broken))

# %% [markdown]
# ## Exercises
#
# **1.** What is the largest payload of a UDP datagram from `here-a` to `there` that arrives in one piece? Calculate
# it or try sizes: `lab.trace(…, size=…)`.

# %% tags=["exercise"]
# solution:
# learner: largest = ...
largest = lab.network["default/here-a"].link("eth0").mtu - 20 - 8
# end
lesson.check("largest", largest)

# %% [markdown]
# **2.** In the cluster `hurt` one entry of one machine is missing. Look at a trace, look at the machines, and say
# which machine and which kind: `"route"`, `"neighbour"` or `"fdb"`.

# %% tags=["exercise"]
hurt = lesson.given("hurt")
print(hurt.trace("default/here-a", "default/there:8080").reason)
# solution:
# learner: found = ...  # ("machine", "kind")
found = ("node-2", "neighbour")
# end
lesson.check("missing", found)

# %% [markdown]
# **3.** Give a cluster of the same pods in which nothing is wrapped up between the nodes *and* pods may send 1500
# bytes.

# %% tags=["exercise"]
# solution:
# learner: bare = ...  # lab.changed(cni=…, cni_options={…})
bare = lab.changed(cni="flannel", cni_options={"backend": "host-gw"})
# end
lesson.check("bare", bare)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - On one node a bridge passes frames from pod to pod; between nodes the node routes.
# - A VXLAN overlay needs a route, a neighbour and an FDB entry for each other node, and costs 50 bytes over IPv4.
# - Host routes cost no bytes, and need nodes on one network.
# - Every CNI plugin keeps the same promise with other devices, headers and tables; what it adds is counted in bytes.
# - MTU trouble hits large packets only; a missing entry hits one direction only.
#
# **Version notes.** A bridge is *one* way to attach pods: Calico gives each pod a host route instead, Cilium moves
# packets with eBPF, and both can work with or without encapsulation (section 3.1). The state is that of Calico 3.30,
# Cilium 1.19 and Weave Net 2.8.1, which was archived in 2024. flannel uses Linux's old VXLAN
# port 8472, not the assigned 4789. With `DirectRouting` it uses plain routes inside a subnet, and keeps the pods'
# MTU of 1450.
#
# **Next:** 2.2, who rewrites the destination?
