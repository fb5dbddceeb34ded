# %% [markdown]
# # 3.1 CNI plugins
#
# **The question.** Kubernetes says what a pod network must do, and leaves the rest to a plugin. What differs between
# the plugins, for the same packet?
#
# **After this notebook you can**
#
# - say for a plugin how a pod is attached, how packets cross between nodes, and what that costs;
# - read what the container runtime and a plugin say to each other;
# - foresee what happens when a route is withdrawn, an MTU is too large, or addresses run out;
# - choose a plugin and a mode for given machines, with reasons.
#
# About 60 minutes. How packets move at all is in 2.1; network policies are in 4.1.

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("3_1")
lab = k8s.example("one-flow-many-networks")
nets = k8s.networks.each(lab)
print(lab.get("pods", "default"), ", ".join(nets), sep="\n\n")

# %% [markdown]
# One client, a pod beside it (`near`), and two that are far, behind a Service `far`. The manifests say nothing of a
# plugin, and no manifest ever does. `each` has built the same cluster on every network that is known here: each plugin,
# with each of its ways between nodes. `bridge` is no product, but what plugins of the CNI project do by themselves;
# `cloud` is any provider whose own route table leads to pods.
#
# # Part one: the same packet
#
# ## Predict: what does Calico add?
#
# `client` sends 1,000 bytes by UDP to `far-2`. In the pod that makes a frame of 1,042 bytes. Calico is there as its
# manifest installs it, with IPIP.

# %%
guess = lesson.predict("How many bytes longer is the frame between the nodes?", [0, 20, 50])
guess

# %%
walks = {name: cluster.trace("default/client", "default/far-2:9000/UDP", size=1000) for name, cluster in nets.items()}
longest = {name: max(step.packet.length for step in walk.steps) for name, walk in walks.items()}
assert {longest[name] for name in ("flannel host-gw", "calico bgp", "cilium native", "cloud bridge")} == {1042}
assert {longest[name] for name in ("flannel vxlan", "calico vxlan", "cilium vxlan", "weave fastdp")} == {1092}
guess.reveal(longest["calico ipip"] - 1042)

# %% [markdown]
# One IPv4 header more, and nothing else. Here are nine of the networks side by side. The headers of the largest frame
# are drawn to scale; what juts out at the left is what a network adds. Under each row stand the devices that the packet
# passed.

# %%
shown = ["bridge", "flannel vxlan", "flannel wireguard", "cloud bridge", "calico bgp", "calico ipip", "cilium vxlan",
         "weave fastdp", "weave sleeve"]
k8s.draw.side_by_side({name: walks[name] for name in shown})

# %% [markdown]
# There are three families of answers:
#
# - **No tunnel.** Somebody between the nodes has to know where pods are: the nodes themselves, if they share a subnet
#   (`bridge`, `host-gw`, `bgp`, `native`), or the router (`cloud`, Calico with `tor`).
# - **A tunnel.** The packet is packed into one from node to node, and nobody between them needs to know pods. VXLAN and
#   Geneve carry whole frames (50 bytes), IPIP packets alone (20).
# - **An encrypted tunnel.** WireGuard adds its header, a tag that proves the sender, and padding to a multiple of 16.
#
# Equal bytes are not equal ways. flannel has a bridge on each node, Calico none, and Weave a bridge, a pair of devices
# and a datapath. With Weave the TTL arrives as it was sent: its whole cluster is one Ethernet, and nobody routes.
#
# ## Turn every knob
#
# Choose the network, whom the client asks, the family, the proxy mode, and whether the nodes share a subnet. The
# picture shows the path, or the headers after each change.

# %%
explorer = k8s.explore.SamePacket(lab)
explorer

# %%
explorer.network, explorer.flow, explorer.proxy, explorer.look = "cilium vxlan", "Service", "ebpf", "headers"
print(*explorer.summary().splitlines()[:15], sep="\n", end="\n\n")
explorer.network, explorer.subnets = "calico bgp", "two subnets"
print(*explorer.summary().splitlines()[:3], sep="\n")
assert explorer.trace.client is k8s.Client.TIMEOUT

# %% [markdown]
# The second one is lost. The next hop must be on the sender's own cable, and `node-2` is not: the packet goes to the
# default router, who has never heard of pods. Tunnels do not mind subnets.
#
# # Part two: how a pod is plugged in
#
# For every new pod the container runtime makes an empty network namespace and calls a program: the plugin. It reads
# JSON from standard input and variables from its environment, does its work, and prints JSON.

# %%
bridge = nets["bridge"]
print(bridge.cni_call("default/client", "ADD"))

# %% [markdown]
# The plugin `bridge` itself called another one, `host-local`, for an address (IPAM). A *list* of plugins is called in
# its order for `ADD`, and in reverse for `DEL`. Calico's plugin answers less: the node's end of a cable and an address.
#
# `CHECK` gets the answer to `ADD` back (`prevResult`) and compares; here somebody has deleted a route in the pod.

# %%
for command in ("ADD", "DEL"):
    print(command, [call.plugin for call in nets["flannel vxlan"].cni_call("default/client", command).calls])
print(nets["calico ipip"].cni_call("default/client", "ADD").answer)
route = bridge.network["default/client"].routes[0]
bridge.without("default/client", route).cni_call("default/client", "CHECK").answer

# %% [markdown]
# flannel's plugin only reads what its daemon has left in `/run/flannel/subnet.env`, and delegates to `bridge`. So the
# plugin attaches pods, and a daemon on each node sees to what is between nodes. Most projects are made of these two.
#
# ## Predict: whose address is it?
#
# Two pods, the same pod in two clusters. What they see of the network:

# %%
for name in ("flannel vxlan", "calico ipip"):
    pod = nets[name].host("default/client")
    print(name, *pod.show("addresses").splitlines()[-3:-1], pod.show("routes"), sep="\n")
guess = lesson.predict("Whose address is 169.254.1.1?", ["its node's", "the router's", "nobody's"])
guess

# %%
owners = [host.name for host in nets["calico ipip"].network.values() if "169.254.1.1" in host.owned]
guess.reveal({"node-1": "its node's", "router": "the router's"}[owners[0]] if owners else "nobody's")

# %% [markdown]
# Under flannel a pod is one of 254 on a bridge, and neighbours talk over it directly. Under Calico a pod is a network
# of its own: its address is a `/32`, so *everything* is behind the gateway, which nobody has. The node answers for it,
# because its end of the cable has `proxy_arp`. The packet to a pod of the same node:

# %%
for name in ("flannel vxlan", "calico ipip"):
    near = nets[name].trace("default/client", "default/near:8080")
    for step in near.steps:
        if step.action in ("ARP", "BRIDGE", "ROUTE"):
            print(f"{name:<15}{step.where:<16}{step.action:<8}{step.why}")

# %% [markdown]
# A bridge asks who has the *destination*; a routed cable asks for the gateway, and the node has one route for each pod
# (`10.244.0.2 dev cali…`). Since every packet is routed, it meets netfilter: Calico hangs policies there.
#
# Cilium goes further. There is a device for each pod, and neither a bridge nor a route behind it. A program at the
# device looks the destination up in maps:

# %%
cilium = nets["cilium vxlan"]
print(cilium.node("node-1").show("bpf-endpoint"))
print(cilium.node("node-1").show("bpf-ipcache"))
call = cilium.trace("default/client", "default/far-2:8080")
print(*cilium.hubble(call), sep="\n")

# %% [markdown]
# The first map has the pods of this node. The second one, the *ipcache*, has all the others: behind which node an
# address is, and its **identity**, a number that stands for a set of labels. `far-2` and `far-3` have the same. The
# identity of the sender travels in the tunnel's header, and policies ask for it, not for addresses. The last lines are
# what Hubble prints: flows, with names and identities.
#
# # Part three: what the nodes hold
#
# What changes on the machines when flannel goes and Calico comes? `diff` compares two clusters, entry by entry. This is
# its summary, and the same as a picture:

# %%
flannel, calico = nets["flannel vxlan"], nets["calico bgp"]
print(flannel.diff(calico).summary())
was, now = (cluster.trace("default/client", "default/far-2:8080") for cluster in (flannel, calico))
k8s.draw.before_after(flannel, calico, was, now, titles=("flannel, VXLAN", "Calico, BGP"))

# %% [markdown]
# Nothing is left of the old network, and the pods have other addresses. That is why one does not change the plugin of
# a running cluster, but drains nodes or builds another cluster.
#
# Now all of them, measured: a packet is sent, the frame is searched for its plain text, nodes are moved to other
# subnets, clusters of three and of four nodes are compared. `2 +1` means two entries with three nodes, and one more
# for each node more.

# %%
table = k8s.networks.table()
assert table["flannel vxlan"].one_more.total == 3 and table["weave fastdp"].one_more.total == 0
table

# %%
for name in ("flannel vxlan", "calico ipip", "weave fastdp", "cilium vxlan"):
    attachment = nets[name].plugin.policies
    print(f"{name:<15}{attachment.backend:<10}", *attachment.chains("DEVICE"))

# %% [markdown]
# ROUTER is what the router between the nodes holds; CACHE are entries of the ipcache: for each other node its network
# and its own address in it, and one for each pod there. Only two kinds of networks need nothing on a node for one node
# more: Weave learns MAC addresses from frames, as any switch does, and where the router knows the pods, nodes need not.
#
# The lines at the end say where the rules of NetworkPolicies belong (4.1): in chains that every packet to a pod and
# every packet from it passes, or in a map of identities for each pod. With flannel there is no such place. A policy is
# accepted by the API server there, and nothing happens.

# %%
k8s.draw.curves(k8s.networks.growth("routes", (2, 10, 50)), title="Routes to pods of others, on a node", across="nodes")

# %%
five = ("bridge", "flannel vxlan", "flannel wireguard", "cilium vxlan", "weave fastdp")
grown = {name: {nodes: nets[name].changed(nodes=nodes) for nodes in (3, 10, 50, 200)} for name in five}
totals = {name: {n: k8s.networks.held(cluster, "node-1").total for n, cluster in of.items()}
          for name, of in grown.items()}
k8s.draw.curves(totals, title="Entries of all kinds for pods of others, on a node", across="nodes")

# %% [markdown]
# None of these numbers is large for a kernel, which finds a route among thousands as fast as among ten. What grows
# painfully is the work of telling everybody: with n nodes, each new one has to be told to n others.
#
# # Part four: who tells whom
#
# Calico's nodes speak BGP. Each tells all others its *blocks* of addresses, and who says it is the next hop. What
# `node-1` has heard, and the routes that became of it:

# %%
print(*calico.rib("node-1"))
print(calico.node("node-1").show("routes"))

# %% [markdown]
# ## Predict: one link less
#
# A firewall cuts `node-1` off from `node-2`: no BGP session between them, in a cluster with Calico; no connection of
# the routers, in one with Weave. Both still reach `node-3`. Does `client` still reach `far-2`?

# %%
bgp = calico.changed(cni_options={"mode": "bgp", "peers_down": "node-1:node-2"})
mesh = nets["weave fastdp"].changed(cni_options={"links_down": "node-1:node-2"})
guess = lesson.predict("Who still delivers?", ["Calico and Weave", "Calico", "Weave", "neither"])
guess

# %%
lost, relayed = (cluster.trace("default/client", "default/far-2:8080") for cluster in (bgp, mesh))
print(lost.reason, calico.diff(bgp), sep="\n\n")
opened = [name for name, walk in {"Calico": lost, "Weave": relayed}.items() if walk.client is k8s.Client.OPEN]
guess.reveal(" and ".join(opened) or "neither")

# %%
k8s.draw.topology(mesh, relayed)

# %% [markdown]
# With the session goes all that it had brought: one route on each side. `node-3` knows both, and tells neither of the
# other, for what comes from a peer of the same autonomous system is never passed on. (There would be no telling whether
# it goes round in circles.) So a *full mesh* is needed, n(n−1)/2 sessions; or some nodes become **route reflectors**,
# which may pass it on; or the routers of the racks (*top of rack*) speak for all.
#
# Weave's routers *gossip*: everybody learns the whole map of links and computes ways. `node-3` relays, and the frame is
# wrapped twice on its way.

# %%
reflected = calico.changed(cni_options={"mode": "bgp", "topology": "route-reflector"})
print(*reflected.rib("node-2"), end="\n\n")
print(*nets["calico tor"].rib("router"))

# %% [markdown]
# The reflector did not make itself the next hop: packets do not pass it. With `tor` it is otherwise. The router is the
# next hop of everybody, and nodes keep nothing but their default route.
#
# # Part five: limits
#
# ## An MTU that is too large
#
# An MTU that is told by hand is often wrong by exactly a tunnel: 1,500 for the pods, on nodes with 1,500. A small
# packet arrives, so the connection opens. And a page of text?

# %%
for name in ("flannel vxlan", "cilium vxlan", "weave fastdp"):
    wide = nets[name].changed(cni_options={"mtu": "1500"})
    print(name, wide.curl("default/client", "default/far-2:8080"), sep="\n", end="\n\n")

# %% [markdown]
# - flannel: the node *routes* into its tunnel. It tells the sender "fragmentation needed", and the next segment is
#   smaller. That costs a round trip; and where ICMP is filtered, it hangs.
# - Cilium: the device has 1,500 anyway, and the *route* says 1,450. Nothing to go wrong.
# - Weave: frames are *bridged* into the tunnel. A switch sends no ICMP: the large frame vanishes and nobody is told.
#   The connection opens, and then hangs for ever. This is the classic **black hole**.
#
# ## A table that is full, a network without addresses
#
# A provider's route table needs an entry for each node, and has a limit (50 here). The plan of addresses ends
# too: with `host-local` when there is no block for a node, with Weave when the ring is used up.

# %%
crowd = {"selector": {"matchLabels": {"app": "crowd"}}, "replicas": 300, "template": {
    "metadata": {"labels": {"app": "crowd"}}, "spec": {"containers": [{"name": "hello", "image": "hello"}]}}}
full = lab.applied({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "crowd"}, "spec": crowd})
tight = ({"cni": "cloud", "nodes": 51}, {"cni": "flannel", "pod_cidr": "10.244.0.0/23"},
         {"cni": "weave", "pod_cidr": "10.32.0.0/24"})

# %%
for options in tight:
    try:
        full.changed(**options)
    except ValueError as error:
        print(options["cni"], error, sep=": ")

# %% [markdown]
# flannel was refused at `node-3`, although 512 addresses would be enough for 300 pods: every node takes a `/24` of
# them, used or not. Calico does not. It cuts the whole network into blocks, usually of 64 addresses, and a node claims
# them as it needs them; when no block is left, it *borrows* single addresses from those of other nodes. The price is
# routes, here on `node-1`; and below, what happens where borrowing is forbidden (`strictaffinity`).

# %%
for size in ("29", "26", "23"):
    blocks = full.changed(cni="calico", pod_cidr="10.244.0.0/22", cni_options={"mode": "bgp", "blocksize": size})
    print(f"blocks of /{size}:", k8s.networks.held(blocks, "node-1").routes, "routes to pods of others")

# %%
try:
    blocks.changed(cni_options={"mode": "bgp", "blocksize": "23", "strictaffinity": "on"})
except k8s.PoolExhausted as error:
    print(error)

# %% [markdown]
# Small blocks are many routes; so are blocks that are too large, when there are fewer of them than nodes.
#
# ## Break it
#
# *"The pods of one node reach nobody, not even each other. Their interfaces are up, their routes are right."* Calico,
# and somebody has hardened the kernel settings of `node-1`:

# %%
broken = nets["calico ipip"].broken("proxy-arp-off")
print(k8s.faults.FAULTS["proxy-arp-off"].symptom)
print(broken.trace("default/client", "default/near:8080").reason)
assert broken.trace("node/node-1", "default/near:8080").client is k8s.Client.TIMEOUT

# %% [markdown]
# The first step of every packet of a pod is the question for 169.254.1.1, and nobody answers now. An answer to the
# kubelet's probe needs it as well: soon the pods are not ready, and Services have lost them. There is a second way to
# the same symptom, with proxy ARP on:

# %%
default = next(route for route in calico.network["node-1"].routes if route.prefix == "default")
print(calico.without("node-1", default).trace("default/client", "default/near:8080").reason)
repaired = broken.repaired("proxy-arp-off")
assert repaired.trace("default/client", "default/near:8080").client is k8s.Client.OPEN

# %% [markdown]
# Proxy ARP answers only for what the node itself could reach, by another device. Without a default route it cannot
# reach 169.254.1.1. Nothing of Calico's was touched.
#
# ## On the real kernel
#
# The state of these clusters was given to a real Linux kernel, and connections were opened. With `K8SNETLAB_LIVE=1`
# set, this cell does it again on your machine.

# %%
put = ("flannel vxlan", "cloud bridge", "calico bgp", "calico vxlan", "calico tor")
proofs = {**{name: k8s.live.evidence(nets[name]) for name in put}, "session down": k8s.live.evidence(bgp)}
for name, proof in proofs.items():
    print(name, proof.between("default/client", "default/far-2:8080"), sep="\n", end="\n\n")
assert all(proof.agrees for proof in proofs.values())

# %% [markdown]
# Not everything can be put on a kernel in this way. The lab makes no devices for IPIP and WireGuard, and it has neither
# Cilium's programs nor Weave's router: there the walk stands alone. `k8snetlab doctor` says what your machine has.
#
# ## Exercises
#
# **1.** The nodes are in two subnets, and the router between them is not yours. Give a cluster in which all pods reach
# each other, policies can be enforced, and no byte is added between nodes of *one* subnet.

# %% tags=["exercise"]
zones = lab.changed(node_cidr="172.18.1.0/24,172.18.2.0/24")
# solution:
# learner: suits = ...  # zones.changed(cni=…, cni_options={…})
suits = zones.changed(cni="calico", cni_options={"mode": "vxlan-crosssubnet"})
# end
lesson.check("subnets", suits)

# %% [markdown]
# **2.** Calico with `topology=tor`: every node has one session, to `router`. Give a value of `peers_down` with which
# the pod `far-2` is reached by nobody on other nodes, and everybody else is.

# %% tags=["exercise"]
# solution:
# learner: down = ...  # text, such as "node-1:node-2"
down = "node-2:router"
# end
lesson.check("session", down)

# %% [markdown]
# **3.** Calico with its default, IPIP. How many pods can `node-2` have at most, until the other nodes need a second
# route to it?

# %% tags=["exercise"]
# solution:
# learner: pods = ...  # a number
pods = 2 ** (32 - 26) - len(nets["calico ipip"].network["node-2"].link("tunl0").addresses)
# end
lesson.check("block", pods)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - The runtime asks a plugin, by JSON, to put a device and an address into a pod. Between nodes a daemon works.
# - Pods hang on a bridge (bridge, flannel, Weave), on routed cables (Calico) or on programs (Cilium).
# - Packets cross as they are, where the nodes or the router know pods, or in a tunnel, which costs 20 to 120 bytes and
#   needs an MTU that leaves room for it. A black hole is where nobody can tell the sender.
# - Knowledge comes from the API server (flannel, Cilium, Calico's VXLAN), by BGP (Calico) or by gossip (Weave).
# - Address plans, route tables and BGP meshes have ends; they can be computed beforehand.
#
# **Version notes.** A plugin need not create a bridge, and Calico is not always unencapsulated: its manifest installs
# IPIP, the resources that come with its operator VXLAN between subnets. Modelled are flannel 0.27, Calico 3.30 with
# iptables, Cilium 1.19 and Weave Net
# 2.8.1. Weave Net was archived in 2024 and gets no more fixes: it is here because it shows how a mesh works, not to be
# installed. `GC` and `STATUS` came with version 1.1 of the CNI specification. Names, ports and MTUs change with
# versions; the way of asking does not.
#
# **Next:** 4.1, network policies; 5.7 for the same in IPv6.
