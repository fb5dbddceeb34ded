# %% [markdown]
# # 0.0 A packet goes for a walk
#
# **The question.** Inside a cluster somebody types `curl http://web` and a page appears. What happened in between?
# Which machines were involved, who changed the packet, and how did the answer find its way home?
#
# **After this notebook you can**
#
# - name the machines and devices that a packet meets between two pods on different nodes;
# - say where a Service's address is turned into a pod's address, and where it is turned back;
# - tell *refused* from *timed out*, and say what each of them proves.
#
# It takes about 25 minutes and needs nothing but this notebook: no cluster, no Docker, no root.

# %% [markdown]
# ## How to use this course
#
# Every section follows the same beat: a question, then you **predict**, then you run the cell, then the network
# shows itself, and at the end you **break** something on purpose. Run cells from top to bottom with *Shift+Enter*.
#
# Nothing you see is a recorded animation. The manifests are compiled into the state that the machines would hold —
# devices, routes, rules — and a small model of the Linux kernel walks a packet through that state. Change anything
# and everything is computed again. So do change things: the cells are yours.

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("0_0")
lesson

# %% [markdown]
# `lesson` asks you questions and checks your answers. It keeps your progress in a small file on this computer; the
# last cell of the notebook shows it, and you can start over whenever you like.
#
# ## The smallest shop
#
# One example has just what we need: a pod `client` on one node, a pod `web` on another, and a Service, also called
# `web`, between them. `get` prints what `kubectl get` would.

# %%
lab = k8s.example("one-web-one-client")
print(lab.get("pods", "default"), lab.get("services", "default"), sep="\n\n")

# %% [markdown]
# Look at the addresses. The two pods have addresses from different ranges, one range for each node. The Service has
# an address from a third range; section 1.2 is about those ranges. (`kubernetes` is the API server's own Service,
# which every cluster has.)
#
# ## Predict: which address is on the packet?
#
# The client resolves the name `web`, opens a TCP connection and sends the first packet. Commit to an answer before
# you go on: click one of the choices.

# %%
web, node = lab.objects.pod("default/web"), lab.objects.node("node-2").addresses[0]
service = lab.objects.service("default/web").cluster_ips[0]
choices = {web.ip: "the pod web", service: "the Service web", node: "the node of web"}
guess = lesson.predict("Which destination does the packet carry when it leaves the client pod?", choices)
guess

# %%
story = lab.curl("default/client", "http://web")
trace = story.connect
guess.reveal(trace.steps[0].packet.ip.dst)

# %% [markdown]
# The client knows nothing about pods. Its resolver answered with the address of the Service, and that is where the
# packet goes. (Its question was a packet, too, to a name server. `story.lookup` holds it; section 2.3 follows it.)
#
# Did curl get its page? A `curl` is more than one packet: the connection is opened, the request is sent, and the
# answer comes back. `story` tells all three.

# %%
print(story)
assert story.ok

# %% [markdown]
# ## The walk
#
# Now take your time with the first packet of that connection. The explorer below shows the network: nodes as boxes,
# in them pods, a bridge `cni0`, the kernel's routing, and the devices that lead outside. Move the slider **Stop**
# (click it, then use the arrow keys) and read under the picture what happened, why, and what the packet looks like
# now.

# %%
explorer = k8s.explore.PacketWalk(lab)
explorer.source, explorer.target = "default/client", "svc/default/web:80"
explorer

# %% [markdown]
# Everything a control does can be done from code too. This is the packet as its node, `node-1`, gives it a new
# destination. Under *why* you find the rule that decided, printed as `iptables-save` on a real node prints it.

# %%
explorer.step = explorer.actions.index("DNAT") + 1
print(explorer.summary())

# %% [markdown]
# ## Who rewrites the destination?
#
# A trace is a list of steps, and you can ask it questions. `DNAT` means *destination network address translation*:
# a rule replaced the destination. There is exactly one such step on the way.

# %%
dnat = [step for step in trace.steps if step.action == "DNAT"]
print(dnat[0].where, "|", dnat[0].rule.text)
assert len(dnat) == 1 and dnat[0].packet.ip.dst == web.ip

# %% [markdown]
# No proxy process touched the packet. The program called *kube-proxy* wrote this rule when the Service was created,
# and has nothing to do since; the kernel of the client's own node applies it. From here on the packet is an
# ordinary packet from one pod to another.
#
# ## Predict: how many machines?
#
# Count everything that has a network of its own and sees the packet on its way **there**: pods, nodes, switches.

# %%
guess = lesson.predict("How many of them see the packet on its way to web?", [2, 3, 4, 5, 6])
guess

# %%
visited = list(dict.fromkeys(step.where for step in trace.steps))
guess.reveal(len(visited))

# %% [markdown]
# A pod is a machine of its own in this respect: it has its own devices, addresses and routes (a *network
# namespace*), joined to its node by a virtual cable. The switch stands for whatever joins the nodes. It forwards
# frames between nodes and has never heard of pods, because the packet it sees is addressed from node to node:

# %%
print(" → ".join(visited))
wire = next(step for step in trace.steps if step.where == "switch")
for header in wire.packet.headers:
    print(f"{header.layer:9}{header.length:3} bytes   {header}")

# %% [markdown]
# Seven headers where three would do. The first four are a UDP packet between the two *nodes*; its payload is the
# whole frame between the two *pods*. That is an overlay network, here VXLAN by flannel, and it costs bytes. Section
# 2.1 compares it with other ways.

# %%
assert len(wire.packet.headers) == 7
print(wire.packet.length, "bytes on the cable for a packet of", wire.packet.innermost.length)

# %% [markdown]
# ## Predict: who answers?
#
# `web` answers. Its packets carry its own address as their source: a pod knows nothing of Services. What does the
# client see?

# %%
choices = {web.ip: "the pod web", service: "the Service web"}
guess = lesson.predict("Which source does the answer carry when it reaches the client?", choices)
guess

# %%
back = trace.reply[-1]
guess.reveal(back.packet.ip.src)

# %% [markdown]
# The client's node remembered the connection. Its table of connections (*conntrack*) recognised the answer and put
# the Service's address back, so the client hears from the address it spoke to. No rule is asked a second time:
# rules decide for the first packet of a connection, conntrack repeats the decision for all others.

# %%
undone = next(step for step in trace.reply if step.action == "CONNTRACK")
print(f"{undone.where}: {undone.why}")
assert undone.where == dnat[0].where

# %% [markdown]
# The whole walk in prose, if you would rather read it once from start to end:

# %%
print(trace.explain())

# %% [markdown]
# ## Break it
#
# Delete the pod `web` and try again. `deleted` gives another cluster; the first one stays as it is, so you can
# compare the two. The Service still exists, and so does its address.

# %%
guess = lesson.predict("The pod is gone, the Service is not. What is curl told?", ["OPEN", "REFUSED", "TIMEOUT"])
guess

# %%
alone = lab.deleted("Pod", "default/web")
broken = alone.trace("default/client", "svc/default/web:80")
guess.reveal(broken.client)

# %% [markdown]
# kube-proxy saw that the Service has no endpoint left and replaced its rules: the node now answers such packets
# with an error. *Refused* is an answer, so somebody was there to give it. Compare a port which the Service does not
# have:

# %%
print(broken.reason)
lost = lab.trace("default/client", "svc/default/web:81")
print(lost.client, "|", lost.reason)

# %% [markdown]
# No rule knows port 81 of that address. The packet leaves the cluster through the node's default route, and
# disappears: nobody out there has the address, and nobody says so. *Timed out* means that a packet was lost, on its
# way there or on its way back. The last step of a trace tells where.
#
# ## Exercises
#
# Put your answer in the place of the dots. The check answers in a sentence; if you are wrong it says where to look.
#
# **1.** On which machine is the Service's address replaced by the pod's? Let the trace tell you.

# %% tags=["exercise"]
# solution:
# learner: machine = ...
machine = next(step.where for step in trace.steps if step.action == "DNAT")
# end
lesson.check("rewriter", machine)

# %% [markdown]
# **2.** Send a packet from `default/client` that is *refused*, in the cluster `lab`, where nothing is broken.
# Targets are written like `default/web:8080` (a pod), `svc/default/web:80` (a Service) or `node/node-1:22`.

# %% tags=["exercise"]
# solution:
# learner: refused = ...  # lab.trace("default/client", …)
refused = lab.trace("default/client", "default/web:81")
# end
lesson.check("refused", refused)

# %% [markdown]
# **3.** Every machine that *routes* a packet for others takes one from its time to live, so that a packet in a loop
# dies. The pod's packet starts with 64. With how much does it arrive at `web`? (The tunnel's outer packet has a
# time to live of its own: look at the innermost IP header.)

# %% tags=["exercise"]
# solution:
# learner: ttl = ...
ttl = trace.steps[-1].packet.innermost.ip.ttl
# end
lesson.check("ttl", ttl)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - The client sends to the Service's address, which is on no interface anywhere. A rule on the **client's node**
#   gives the packet a pod's address; conntrack on the same node undoes it for the answers.
# - Pods, nodes and switches each see a different part of the packet. Between nodes an overlay wraps it.
# - *Refused* is an answer, *timed out* is a loss.
#
# **Version notes.** What you saw is kube-proxy's iptables mode. Its nftables mode (general availability in
# Kubernetes 1.33) refuses port 81 at once instead of letting the packet go; IPVS mode is deprecated since 1.35;
# Cilium can do without kube-proxy. The layout of rules is that of 1.36, the semantics are those of 1.37.
#
# **Next:** 1.1, what every cluster promises, whichever way it is built.

# %%
k8s.course.Overview()
