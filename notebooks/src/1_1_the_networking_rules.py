# %% [markdown]
# # 1.1 The networking rules
#
# **The question.** Kubernetes does not build a network. It leaves that to a plugin, and there are dozens of them.
# So what may a program in a pod rely on? What does *every* cluster promise?
#
# **After this notebook you can**
#
# - state the rules of the Kubernetes network model, and check them on any cluster;
# - say which address a pod, a node and a pod on its node's network have in the eyes of others;
# - recognise from the failed check which rule somebody broke.
#
# About 30 minutes.

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("1_1")
lab = k8s.example("pods-on-two-nodes")
print(lab.get("pods", "default"))

# %% [markdown]
# Four ordinary pods, two on each of two nodes, and one named `agent` that asked for its node's network
# (`hostNetwork: true`).
#
# ## Predict: the address of agent

# %%
guess = lesson.predict("Which address does the pod agent have?", ["one of its own", "its node's", "none"])
guess

# %%
agent, node = lab.objects.pod("default/agent"), lab.objects.node("node-2")
guess.reveal("its node's" if agent.ip in node.addresses else "one of its own")

# %% [markdown]
# A pod on the host network has no network namespace of its own. It uses its node's devices, addresses and routes,
# and shares the node's ports with everything else that runs there. For the rules below it counts as a part of its
# node.
#
# ## The contract
#
# The rules are short. They speak of *whether* packets arrive and of *which addresses* they carry, and not of
# bridges, tunnels or routes: how a network keeps the promise is its own affair.
#
# `k8s.contract.check` sends real walks through the cluster, every pair of them, and says for each rule what it
# sent.

# %%
report = k8s.contract.check(lab)
print(report)
assert report.holds

# %% [markdown]
# ## Rule 1: pods reach all pods, without NAT
#
# *Without NAT* is the important half. The packet that arrives carries the addresses it was sent with: no rule of
# any machine in between replaced them.

# %%
trace = lab.trace("default/left-a", "default/right-a:8080")
left, right = lab.objects.pod("default/left-a"), lab.objects.pod("default/right-a")
print(trace.client, "| right-a sees", trace.source_seen)
assert (trace.source_seen, trace.backend.ip) == (left.ip, right.ip)

# %% [markdown]
# The picture shows the way. Solid and round is the packet, dashed and square is the answer.

# %%
k8s.draw.topology(lab, trace)

# %% [markdown]
# ## Rule 2: a pod sees the address that others see
#
# What a pod finds on its own `eth0` is what its peers find in the packets. A program may therefore tell others its
# own address: databases that form a cluster, and everything that registers itself somewhere, rely on it.

# %%
print(lab.host("default/left-a").show("addresses"))
assert f"inet {trace.source_seen}/" in lab.host("default/left-a").show("addresses")

# %% [markdown]
# ## Rule 3: nodes reach all pods
#
# Programs of the node itself — above all its kubelet, which sends the readiness and liveness probes — reach every
# pod, and again without NAT.
#
# ## Predict: the node's face
#
# A node has several addresses: one on the network of the machines, one on the bridge of its pods, and with flannel
# one on its tunnel device. A program on `node-1` calls `right-a`, on the other node.

# %%
faces = {device: lab.network["node-1"].link(device).addresses[0].ip for device in ("eth0", "cni0", "flannel.1")}
guess = lesson.predict(
    "Which source does right-a see when node-1 itself calls?", {ip: f"node-1's {device}" for device, ip in faces.items()}
)
guess

# %%
call = lab.trace("node/node-1", "default/right-a:8080")
guess.reveal(call.source_seen)

# %% [markdown]
# The node chose the source when it looked up its route. The route to the other node's pods leads through the tunnel
# device, so the packet gets the address of that device. It is an address of the node, hence no NAT; but a firewall
# or a network policy that only knows the `eth0` address will not recognise it. To a pod of its own the node shows
# yet another face:

# %%
own = lab.trace("node/node-1", "default/left-a:8080")
print("right-a sees", call.source_seen, "and left-a sees", own.source_seen)
assert {call.source_seen, own.source_seen} < set(faces.values())

# %% [markdown]
# ## Rule 4: kubelets and API server
#
# The kubelet reaches the pods of its node, and the API server reaches the kubelets at port 10250: that is how
# `kubectl logs`, `exec` and `port-forward` work.
#
# ## Rule 5: a pod address means nothing outside
#
# Nobody outside of the cluster can reach a pod by its address, because no router outside knows the way.

# %%
outside = lab.trace("external", "default/right-a:8080")
print(outside.client, "|", outside.reason)
assert outside.backend is None

# %% [markdown]
# Strictly speaking the rules allow more: a network *may* make pods reachable from outside (several cloud networks
# do), but a program may not count on it. The check here says what an ordinary private cluster does.
#
# ## Break a rule
#
# The explorer below breaks one rule at a time by changing the state of a machine: a firewall rule, a masquerade
# rule, a listener, a route. Choose one and look which check fails — and which do not.

# %%
explorer = k8s.explore.RuleBreaker(lab)
explorer

# %% [markdown]
# ## Predict: hidden pods
#
# Suppose a masquerade rule is too wide: it replaces the source of *every* packet that leaves `node-1`'s pods, and
# not only of those that leave the cluster. Can pods still talk to each other?

# %%
guess = lesson.predict("left-a connects to right-a. What is it told?", ["OPEN", "REFUSED", "TIMEOUT"])
guess

# %%
explorer.broken = "same-address"
hidden = k8s.contract.break_rule(lab, "same-address").trace("default/left-a", "default/right-a:8080")
guess.reveal(hidden.client)

# %% [markdown]
# Everything seems to work, and that makes this fault so hard to notice. But `right-a` now sees a node where a pod
# should be: logs name the wrong client, and a network policy that allows `left-a` no longer recognises it.

# %%
print(explorer.summary())
assert hidden.source_seen != left.ip

# %% [markdown]
# Now the kubelet: nothing is wrong with pods or packets between them, and still somebody will complain.

# %%
explorer.broken = "kubelet"
print(explorer.summary())

# %% [markdown]
# ## One contract, many networks
#
# The same pods on every network that this package knows: the plugins in all the ways they bring packets from node to
# node. Addresses, devices and routes differ; the promises hold on each of them. That is why manifests can be moved from
# cluster to cluster. The explorer has the same list.

# %%
others = {name: k8s.networks.on(lab, name) for name in k8s.networks.ways()}
print(", ".join(others))
assert all(k8s.contract.check(network).holds for network in others.values())

# %% [markdown]
# How different are they underneath? `diff` compares the state of all machines, entry by entry; here is what would
# change if flannel went and a plain bridge came. Section 2.1 lays their packets side by side.

# %%
print(lab.diff(others["bridge"]).summary())

# %% [markdown]
# ## Exercises
#
# **1.** The plugin `bridge` can masquerade by itself (`masquerade: on`), which is meant for machines that stand
# alone. Which rule does it break in a cluster? Give its name, as `report.broken` would.

# %% tags=["exercise"]
alone = lab.changed(cni="bridge", cni_options={"masquerade": "on"})
# solution:
# learner: rule = ...  # a name such as "pod-to-pod"
rule = k8s.contract.check(alone).broken[0]
# end
lesson.check("masquerade", rule)

# %% [markdown]
# **2.** Break rule 1 yourself. `lab.without(machine, entry)` is a cluster in which one machine lacks one entry.
# Take something away from `node-1` so that its pods do not reach those of `node-2`, while pods on one node still
# talk.

# %% tags=["exercise"]
routes = lab.network["node-1"].routes
print(lab.node("node-1").show("routes"))
# solution:
# learner: broken = ...  # lab.without("node-1", routes[…])
broken = lab.without("node-1", next(route for route in routes if route.device == "flannel.1"))
# end
lesson.check("route", broken)

# %% [markdown]
# **3.** Somebody hardened this cluster. Find out what is wrong and give a repaired one. `hurt.sysctl(machine, key,
# value)` changes a kernel setting; a report or a trace tells what happened to a packet.

# %% tags=["exercise"]
hurt = lesson.given("hurt")
print("broken:", k8s.contract.check(hurt).broken)
# solution:
# learner: repaired = ...
repaired = hurt.sysctl("node-2", "net.ipv4.ip_forward", 1)
# end
lesson.check("repair", repaired)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - Pods reach pods and nodes reach pods, without NAT; a pod's own address is the one that others see.
# - The kubelet reaches its pods, the API server the kubelets; outside the cluster a pod address means nothing.
# - The rules say what must arrive, and not how. A broken rule is found by asking, rule by rule, who reaches whom
#   and *as whom*.
#
# **Version notes.** Many texts, the guide this course follows among them, describe the pod network as a bridge on
# each node. The rules do not ask for one, and CNI plugins need not create it: Calico and Cilium route or use eBPF
# instead (section 3.1). Network policies may forbid what these rules promise; they come in section 4.1.
#
# **Next:** 1.2, whose address is this?
