# %% [markdown]
# # 1.2 The networks of a cluster
#
# **The question.** An address turns up in a log: 10.244.1.7. Whose is it — a pod's, a node's, a Service's, or
# nobody's? And when somebody asks for a cluster of a thousand nodes: will the addresses suffice?
#
# **After this notebook you can**
#
# - name the networks of a cluster, and say which of them an address belongs to;
# - find overlaps before they find you;
# - calculate how many nodes, pods and Services a plan has room for.
#
# About 25 minutes.

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("1_2")
lab = k8s.example("every-kind-of-address")
print(lab.get("pods", "default"), lab.get("services", "default"), sep="\n\n")

# %% [markdown]
# ## Three networks, and one block a node
#
# A cluster lives in three networks at once. The **underlay** is what the machines are plugged into; it existed
# before the cluster. The **pod network** is cut into blocks, one a node, so that a pod's address tells its node.
# The **Service network** is only a range of numbers to draw from.

# %%
print(lab.plan)
lab.get("nodes")

# %% [markdown]
# The same as a picture, with each network as a line of numbers. Nodes' blocks lie inside the pod network; that
# nesting is on purpose, and it is the only one allowed.

# %%
k8s.draw.plan(lab.plan)

# %% [markdown]
# ## Predict: how many pods fit on a node?
#
# Every node has a block `/24`, that is 256 numbers. Not all of them can be a pod's. With the plugin `bridge`, which
# flannel uses too, the bridge itself needs one.

# %%
guess = lesson.predict("How many pods can have an address in a block /24?", [256, 255, 254, 253])
guess

# %%
planner = k8s.explore.AddressPlanner()
guess.reveal(planner.room.pods_a_node)

# %% [markdown]
# The first and the last number of a block name the network itself and everybody in it (broadcast), and the first
# usable one belongs to the bridge, the pods' gateway. In practice another limit comes first: a kubelet runs 110
# pods unless it is told otherwise.
#
# ## Whose address is this?
#
# `whose` answers in a sentence. Try the address of an ordinary pod, then one that nobody has yet.

# %%
pod = lab.objects.pod("default/ordinary")
print(lab.plan.whose(pod.ip))
print(lab.plan.whose("10.244.1.200"))

# %% [markdown]
# Here is why the length of the block matters: from the address alone every router — and you — can tell the node.
#
# ## Predict: the Service's address
#
# The Service `chosen` asked for an address of its own choice, `10.96.0.53`. Which machine has it on one of its
# devices?

# %%
chosen = lab.objects.service("default/chosen").cluster_ips[0]
guess = lesson.predict(f"How many machines have {chosen} on one of their devices?", [0, 1, len(lab.objects.nodes)])
guess

# %%
owners = [name for name in lab.network if lab.network[name].is_local(chosen)]
guess.reveal(len(owners))

# %% [markdown]
# A ClusterIP is on no device, answers no ARP request and is in no routing table. It exists in the rules which every
# node applies to packets that set out for it. Outside of the nodes the number means nothing.
#
# Two Services of the example have no address at all. One is *headless* (`clusterIP: None`): its name leads directly
# to pods. The other is an alias of a name outside.

# %%
print(lab.plan.whose(chosen))
without = [service.name for service in lab.objects.services if not service.cluster_ips]
print(without)
assert set(without) == {"alias", "none"}

# %% [markdown]
# ## Predict: the pod on its node's network

# %%
guest, host = lab.objects.pod("default/on-the-host"), lab.objects.node("node-1")
guess = lesson.predict(
    "From which network is the address of the pod on-the-host?", ["the nodes'", "the pods'", "the Services'"]
)
guess

# %%
guess.reveal("the nodes'" if guest.ip in host.addresses else "the pods'")

# %% [markdown]
# An address is therefore no proof of what somebody is: this one stands for the node *and* for every pod on the
# node's network.
#
# ## Several underlay networks
#
# Large clusters spread over zones, and a zone often is a network of its own, with a router in between. Pods and
# Services do not care; but a way from node to node may now lead through that router, which knows nothing of pods
# (section 2.1).

# %%
zones = k8s.example("nodes/three-zones.yaml", node_cidr="172.18.1.0/24, 172.18.2.0/24, 172.18.3.0/24")
print(zones.plan)
assert len([network for network in zones.plan.ranges if network.kind == "underlay"]) == 3

# %% [markdown]
# ## Lay out your own
#
# Change networks, the length of a node's block and the number of nodes. Overlaps are marked; the text under the
# picture says what fits and whose address you asked for.

# %%
planner

# %% [markdown]
# A thousand nodes, each with a block `/24`: does the usual pod network suffice?

# %%
planner.nodes = 1000
print(planner.summary())
assert planner.room.nodes < 1000

# %% [markdown]
# A `/16` holds 256 blocks `/24`, and the 257th node would stay without pods. Either the network becomes larger or
# the blocks become smaller. A block `/26` would do for a thousand nodes, if 61 pods a node are enough:

# %%
planner.node_length = 26
print(planner.room)
assert planner.room.node_blocks >= 1000 and planner.room.pods_a_node == 61

# %% [markdown]
# ## Break it
#
# Now an accident that happens: somebody gives the pods `10.96.0.0/16`, which is a part of the Services' network.

# %%
planner.node_length, planner.nodes = 24, 3
planner.pod_cidr = "10.96.0.0/16"
print(planner.summary())

# %% [markdown]
# An address such as 10.96.0.10 now means a pod *and* a Service. Rules come before routes, so the Service wins
# wherever its rules are: the pod is unreachable, but only on the port that the Service uses. The lab refuses to
# build such a cluster.

# %%
try:
    lab.changed(pod_cidr="10.96.0.0/16")
except ValueError as error:
    print(error)

# %% [markdown]
# Worse are overlaps that no program can see: pods with addresses that some office, data centre or second cluster
# uses, too. Packets for the office then stay in the cluster. There is no error message for that.
#
# ## Exercises
#
# **1.** A company has its machines in 10.0.0.0/16 and keeps the usual Services, 10.96.0.0/12. Choose a private pod
# network for 1,000 nodes with a block `/24` each.

# %% tags=["exercise"]
# solution:
# learner: pod_cidr = ...  # text, such as "10.244.0.0/16"
pod_cidr = "10.128.0.0/14"
# end
lesson.check("pods", pod_cidr)

# %% [markdown]
# **2.** The kubelets keep to 110 pods a node, and addresses are scarce. What is the length of the *smallest* block
# that still holds them?

# %% tags=["exercise"]
# solution:
# learner: length = ...  # a number: 24 for /24
length = 25
# end
lesson.check("block", length)

# %% [markdown]
# **3.** A pod more is created on `node-1`, in the cluster `lab`. Which address will it get? The plugin hands out
# the next one after those it has given. (`lab.get("pods")` with the other namespaces shows who is there already.)

# %% tags=["exercise"]
# solution:
# learner: address = ...  # text
taken = [pod.ip for pod in lab.objects.pods if pod.node_name == "node-1" and not pod.host_network]
last = max(int(ip.split(".")[3]) for ip in taken)
address = f"10.244.0.{last + 1}"
# end
lesson.check("next", address)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - Nodes, pods and Services have networks of their own, which must share no address. Each node has a block of the
#   pods'.
# - A pod's address tells its node. A Service's address is on no device; it stands in rules.
# - The pod network and the length of a node's block limit the number of nodes; they are hard to change later.
#
# **Version notes.** The ranges here are the usual ones of kubeadm with flannel; Services in 10.96.0.0/12 is
# kubeadm's choice. Since Kubernetes 1.33 more Service ranges can be added with `ServiceCIDR` objects. Not every CNI
# cuts blocks by node: Calico hands out small blocks on demand, and several cloud networks give pods addresses of
# the underlay (3.1).
#
# **Next:** 2.1, how a packet gets from pod to pod.
