# %% [markdown]
# # 5.1 EndpointSlices
#
# **The question.** Whenever a pod comes, goes or stumbles, every node has to hear of it. What does one pod restart
# cost the API server?
#
# **After this notebook you can**
#
# - say which slices are written when a pod changes, and why part-filled slices stay part-filled;
# - count writes and bytes of a rolling update, for slices and for the old Endpoints object;
# - choose how many endpoints belong into one slice, and know when the question does not matter.
#
# About 35 minutes. Nothing here is about packets: section 2.2 shows what kube-proxy makes of the slices.

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("5_1")
lab = k8s.example("service-many-pods")
print(lab.get("services", "default"))
print("pods of the Deployment web:", len(lab.objects.pods_of("deploy/default/web")))

# %% [markdown]
# One Deployment with 250 pods, and a Service in front of it. Nobody wrote down the addresses of the pods: a controller
# finds them by the Service's selector and writes them into *EndpointSlices*.
#
# ## Predict: how many objects for 250 pods?

# %%
guess = lesson.predict("How many EndpointSlices does the Service have?", [1, 3, 250])
guess

# %%
slices = lab.objects.slices_of("default/web")
assert [len(each.endpoints) for each in slices] == [100, 100, 50]
print(lab.get("endpointslices", "default"))
guess.reveal(len(slices))

# %% [markdown]
# At most 100 endpoints go into a slice. The controller manager can be told otherwise
# (`--max-endpoints-per-slice`), up to 1,000. The line shows three addresses, as kubectl does; inside, each endpoint
# says much more:

# %%
endpoint = slices[0].endpoints[0]
print("addresses ", *endpoint.addresses)
print("conditions", endpoint.conditions)
print("node      ", endpoint.node_name, "| pod", endpoint.target_ref.name)

# %% [markdown]
# Three conditions, not one. *ready* means: send new connections. *serving* means: it would answer. *terminating*
# means: it is being deleted. A pod that is leaving is no longer ready, but it may still serve, and kube-proxy falls
# back to such pods when there are no others.
#
# ## What came before
#
# Up to 1.18 kube-proxy read another object: one *Endpoints* for each Service, of the same name, with all addresses in
# it. A controller still writes it. It is deprecated since 1.33; some ingress controllers and tools still read it.

# %%
print(lab.get("endpoints", "default"))
[whole] = [each for each in lab.objects.endpoints if each.name == "web"]
assert len(whole.ready) == 250

# %% [markdown]
# ## A ledger
#
# An object is always written as a whole, however small the change. And each write is sent to everybody who watches:
# to the kube-proxy of every node. So two numbers count: how often something is written, and how large it is then.
#
# `lab.ledger` has both controllers at work on one Service. It is shown what happens to the pods, one event after the
# other, and keeps account.

# %%
ledger = lab.ledger("default/web")
print(ledger)

# %% [markdown]
# ## Predict: one pod restarts
#
# Pods do not restart, they are replaced: a new one gets an address, it becomes ready, the old one is being deleted,
# it is gone. Each of the four is an event. There are 250 pods in three slices.

# %%
guess = lesson.predict("How often is a slice written for one restart?", [1, 2, 4, 6])
guess

# %%
after = ledger.after(k8s.churn.restarted(ledger.pods, 1), "one pod restarts")
guess.reveal(after.last.slices.writes)

# %%
print(after)
assert after.last.endpoints.writes < after.last.slices.writes
assert after.last.slices.bytes < after.last.endpoints.bytes
k8s.draw.ledger(after)

# %% [markdown]
# Four events, four writes, each of one slice. The Endpoints object is written *less* often: a pod that is being
# deleted disappears from it at once, and when it is finally gone there is nothing left to say. But each of its writes
# carries all 250 addresses. Look at the sizes of the slices as well: the new pod went into the third one, the old one
# left the first, and nothing was moved to close the gap.
#
# ## Predict: a small Service
#
# With 250 pods slices send less. Most Services in the world have two or three pods.

# %%
guess = lesson.predict("Ten pods, one restarts: which one sends fewer bytes?", ["EndpointSlices", "Endpoints"])
guess

# %%
service, nodes = ledger.slices.service, ledger.slices.nodes
numbers = (10, 50, 150, 250, 450, 650, 850, 1000)
begun = [k8s.churn.started(service, k8s.churn.resized(ledger.pods, number), nodes) for number in numbers]
ledgers = [one.after(k8s.churn.restarted(one.pods, 1), "one pod restarts") for one in begun]
guess.reveal("Endpoints" if ledgers[0].last.endpoints.bytes < ledgers[0].last.slices.bytes else "EndpointSlices")

# %%
k8s.draw.growth(ledgers)

# %% [markdown]
# The same restart in Services of different size. With ten pods there is one object either way, and an endpoint of a
# slice says more: conditions, and a zone where nodes have one. But Endpoints grow with the Service, and a slice does
# not: it is full at 100. (At 1,000 pods all slices are full; the new pod begins one of its own, and two of the four
# writes are tiny.) Slices are not there to save bytes in small Services. They are there so that large ones do not hurt
# everybody else.
#
# ## Where new endpoints go
#
# The controller wants to write as few slices as it can, and never tidies up. Endpoints that have to leave, leave.
# Slices that are written anyway are filled first, the fullest before the others. What is then left goes *as a whole*
# into the fullest slice that can take all of it, or else into new slices. Two slices are never merged.

# %%
sparse = ledger.after(k8s.churn.shrunk(ledger.pods, 60, k8s.churn.Leaving.ANY, seed=5), "to 60, at random")
print(sparse.last.sizes, "hold", sum(sparse.last.sizes))
sparse = sparse.after(k8s.churn.at_once(k8s.churn.grown(sparse.pods, 75)), "15 more at once")
print(sparse.last.sizes, "hold", sum(sparse.last.sizes))
assert len(sparse.last.sizes) == 3 and sparse.last.slices.writes == 1

# %% [markdown]
# Sixty endpoints would fit into one slice, and lie in three. To move them would be writes without any news in them.
# The fifteen new ones came together, because many things can happen while a Service waits in the controller's queue.
# They went into the fullest slice: one write.
#
# ## Try it
#
# Change the number of pods and what happens to them, the size of the slices, and how often the controllers look. The
# last slider multiplies: everything is sent to every node.

# %%
explorer = k8s.explore.PodChurn(lab)
explorer

# %%
explorer.pods, explorer.most, explorer.nodes = 1000, 1000, 1000
explorer.happens = "ten pods restart"
print(explorer.summary())

# %% [markdown]
# With 1,000 endpoints in a slice we are back where we came from, and worse: as large as the Endpoints object, and
# more to say about each pod. Small slices make small writes, and many objects to list when a node starts:

# %%
sizes = [lab.ledger("default/web", most=most) for most in (10, 100, 1000)]
stumbles = [one.after(k8s.churn.stumbled(one.pods, 1), "one pod stumbles") for one in sizes]
k8s.draw.ledger(*stumbles)

# %% [markdown]
# ## Break it
#
# The Service grows to 1,005 pods. An Endpoints object takes 1,000 addresses; the controller cuts off what is more and
# says so in an annotation, which no program reads.

# %%
guess = lesson.predict("Of 1,005 ready pods, how many stand in the Endpoints object?", [0, 1000, 1005])
guess

# %%
large = ledger.after(k8s.churn.at_once(k8s.churn.grown(ledger.pods, 1005)), "1,005 pods")
cut = large.endpoints.written
print(dict(cut.annotations), "| in slices:", sum(large.slices.sizes))
assert sum(large.slices.sizes) == 1005
guess.reveal(len(cut.ready))

# %% [markdown]
# Five pods get no traffic from anything that still reads Endpoints, and nothing fails. The slices hold all of them.
#
# The second thing to break: somebody changes the `targetPort` of the Service. A slice has one set of ports for all
# its endpoints, so each of them has to be written. The old slices are used for it, under their old names.

# %%
changed = lab.applied("""
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 9090}]
""")
pieces, writes = ledger.slices.of(changed.objects.service("default/web")).sync(ledger.pods)
print(*writes, sep="\n")
assert {write.deed for write in writes} == {"update"} and len(writes) == 3

# %% [markdown]
# ## On a real controller
#
# A real controller (Kubernetes 1.36) was watched while a Service grew to 260 pods, shrank to 130 and grew by one. Once
# it looked after every pod, the newest leaving first. These are the sizes that it left, and those of the ledger:

# %%
seen = {99: (99,), 101: (100, 1), 250: (100, 100, 50), 260: (100, 100, 60), 130: (100, 30), 131: (100, 31)}
real = k8s.churn.started(service, ledger.pods[:1], nodes)
for number in seen:
    real = real.after([*k8s.churn.grown(real.pods, number), *k8s.churn.shrunk(real.pods, number)])
assert {turn.pods: turn.sizes for turn in real.turns[1:]} == seen

# %% [markdown]
# The real one wrote a little less often: 145 times from 101 to 250 pods, where the ledger would count a write for each
# of the 149 (there, pods came ready at once). Pods that come while the Service waits in the queue share a write.
#
# The bytes were measured on the same server: every slice and every Endpoints object of a real cluster has the length
# that is counted here, to the byte. Only `managedFields` are left out, a few hundred bytes more an object.
#
# ## Exercises
#
# **1.** After one restart the slices of `after` hold 99, 100 and 51 endpoints. Now 60 more pods become ready before
# the controller looks again. How many endpoints are in each slice then? Give a list; the order does not matter.

# %% tags=["exercise"]
# solution:
# learner: held = ...  # [100, 100, 50]
held = [99, 100, 51, 60]
# end
lesson.check("sizes", held)

# %% [markdown]
# **2.** Choose the size of slices for the 250 pods: when one pod stumbles, a watcher shall be sent less than 10,000
# bytes for it, and there shall be no more than 20 slices. Give a ledger after the stumble.

# %% tags=["exercise"]
# solution:
# learner: chosen = ...  # lab.ledger("default/web", most=…)
chosen = lab.ledger("default/web", most=15)
chosen = chosen.after(k8s.churn.stumbled(chosen.pods, 1), "one pod stumbles")
# end
lesson.check("limits", chosen)

# %% [markdown]
# **3.** A rolling update has replaced 20 of the 250 pods, one after the other, and the controller looked after every
# event. How often was a slice written?

# %% tags=["exercise"]
# solution:
# learner: rolled = ...
rolled = 20 * 4
# end
lesson.check("rolled", rolled)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - A write carries the whole object, and goes to every node. Slices keep that object small.
# - One restart is four writes of a slice: with an address, ready, being deleted, gone.
# - New endpoints go into one slice if they fit, and slices are never merged.
# - Up to about a hundred pods one Endpoints object is cheaper. Above it, it costs more with every pod, and beyond
#   1,000 it is wrong.
#
# **Version notes.** EndpointSlices are stable since 1.21; kube-proxy reads them since 1.19, and nothing else since 1.22.
# The Endpoints API is deprecated since 1.33 and still served; its controller still runs. Endpoints that people write for a Service
# without a selector are mirrored into slices by a third controller. `trafficDistribution` (section 2.2) adds hints to
# the endpoints, `PreferSameZone` and `PreferSameNode` in place of the older `PreferClose`.
#
# **Next:** 5.2, what a sidecar adds.
