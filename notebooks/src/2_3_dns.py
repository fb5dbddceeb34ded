# %% [markdown]
# # 2.3 DNS
#
# **The question.** A program knows a name, a packet needs an address. Between them are a file, a C library, a name
# server, and the network itself. Which name is really asked, how often, and who answers?
#
# **After this notebook you can**
#
# - say which questions a name becomes, and count them before you change `ndots`;
# - tell "no such name" from "no such record" and both from silence;
# - say which records a Service gets, for every shape of it;
# - choose a dnsPolicy, read a Corefile, and find the hop where names break.
#
# About an hour, in three parts: the questions; the records; the way there. The end of a part is a good place for a
# break.
#
# # Part one: the questions

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("2_3")
lab = k8s.example("names-of-every-shape")
print(lab.get("services", "default"), lab.get("services", "warehouse"), lab.get("pods", "default"), sep="\n\n")

# %% [markdown]
# Services of every shape, in two namespaces. `default/client` shall look some of them up. All that a program knows of
# DNS stands in one file, `/etc/resolv.conf`, which the kubelet writes into every pod. The first look-up shows it:

# %%
print(lab.resolve("default/client", "web"))

# %% [markdown]
# `nameserver` says whom to ask: the ClusterIP of the Service `kube-system/kube-dns`. `search` lists what may be put
# behind a name. And `ndots:5` says when: a name with fewer than five dots is first tried with each entry of the list.
#
# The program said `web`, and nobody ever asked for `web`. The first entry of the list made it
# `web.default.svc.cluster.local.`, with a dot at its end: now the name is complete. It was asked for twice, because
# nobody knows beforehand which family will answer: A for IPv4, AAAA for IPv6.
#
# ## Predict: a name of the world
#
# The same pod looks up `www.example.com`. It has two dots.

# %%
guess = lesson.predict("How many questions does that cost?", [2, 4, 8])
guess

# %%
world = lab.resolve("default/client", "www.example.com")
assert world.found.name == "www.example.com."
guess.reveal(world.count)

# %% [markdown]
# Six questions for names that nobody ever had, before the seventh and the eighth are the right ones. Here is the
# ladder; A and AAAA are one arrow where both are answered alike.

# %%
k8s.draw.lookup(world)

# %% [markdown]
# Only the last name leaves the cluster: CoreDNS has no zone for it, and asks the name server that its node uses. For
# the others it answers NXDOMAIN at once, since `cluster.local` is its own.
#
# ## Predict: the whole name
#
# Somebody reads this, and writes the whole name into the configuration: `web.default.svc.cluster.local`.

# %%
guess = lesson.predict("How many questions does it cost, written like that?", [2, 8])
guess

# %%
whole = "web.default.svc.cluster.local"
assert lab.resolve("default/client", f"{whole}.").count == 2
guess.reveal(lab.resolve("default/client", whole).count)

# %% [markdown]
# Four dots are fewer than five! The list is walked in vain (`web.default.svc.cluster.local.default.svc.…`), and the
# name as it stands comes last. A dot at the end makes it complete, and two questions are left.
#
# What if `ndots` were smaller? `options` stands in the place of those in the file.

# %%
names = ("web", "stock.warehouse", "www.example.com", whole, f"{whole}.")
values = ("1", "2", "3", "4", "5")
cost = {name: {n: lab.resolve("default/client", name, options={"ndots": n}).count for n in values} for name in names}
assert cost["www.example.com"] == {"1": 2, "2": 2, "3": 8, "4": 8, "5": 8}
k8s.draw.questions(cost, title="How many questions a name costs", across="ndots")

# %% [markdown]
# Why five, then? So that `_http._tcp.web.default.svc` can be looked up without its end. Few programs do that, and all
# others pay for it. With `ndots:1` there is a price at the other end: `stock.warehouse` is asked for in the world
# outside first.
#
# ## Two libraries
#
# The questions are made by the C library in the *image*, not by Kubernetes. Debian has glibc, Alpine has musl. Two
# lookups by both:

# %%
for name, how in {"stock.warehouse": {"options": {"ndots": "1"}}, "web": {"type": "AAAA"}}.items():
    both = [lab.resolve("default/client", name, libc=libc, **how) for libc in ("glibc", "musl")]
    print(f"{name} {how}", *(f"  {each.library:<6}{each.ended}" for each in both), sep="\n")

# %% [markdown]
# A name with enough dots is tried as it stands by both; if it is not found, glibc goes through the list after all,
# and musl gives up. For a name that exists without the type that was asked for, glibc tries the rest of the list, and
# musl stops. So the same pod with another image may find a name or lose it.
#
# ## Whom a pod asks: dnsPolicy
#
# Four policies decide what the kubelet writes. `None` takes all of it from `dnsConfig`; to the others
# `dnsConfig` is added.

# %%
more = {"nameservers": ["192.0.2.53"], "options": [{"name": "ndots", "value": "2"}]}
for policy in k8s.api.DNSPolicy:
    spec = {"spec": {"dnsPolicy": policy, "dnsConfig": more}}
    print(policy, lab.patched("Pod", "default/client", spec).resolv_conf("default/client"), sep="\n")

# %% [markdown]
# The words mislead: `Default` is not the default, and means the file of the *node*. The default is `ClusterFirst`.
#
# ## Predict: a pod in the network of its node
#
# `default/agent` has `hostNetwork: true` and says nothing about DNS, so its policy is `ClusterFirst`.

# %%
assert lab.objects.pod("default/agent").spec.dns_policy == "ClusterFirst"
guess = lesson.predict("What does it hear when it looks up web?", ["FOUND", "NXDOMAIN", "TRY_AGAIN"])
guess

# %%
agent = lab.resolve("default/agent", "web")
print(agent)
guess.reveal(str(agent.status))

# %% [markdown]
# For such pods `ClusterFirst` means the node's own file: no search list, and a name server that never heard of the
# cluster. `ClusterFirstWithHostNet` exists for them. A frequent surprise with agents and ingress controllers.
#
# ## Try it
#
# Write any name. Who asks, with which policy, ndots and library? (A cache on the nodes comes in part three.)

# %%
explorer = k8s.explore.WhichName(lab)
explorer

# %%
explorer.name, explorer.source = "stock", "warehouse/counter"
print(explorer.summary().splitlines()[1])
explorer.name, explorer.ndots, explorer.libc = "web.default", "1", "musl"
print(explorer.summary().splitlines()[1])

# %% [markdown]
# The same word, `stock`, is found in one namespace and not in the other.
#
# # Part two: the records
#
# A zone file is nowhere. CoreDNS watches Services, EndpointSlices and namespaces, and makes records up when it is
# asked. These are all it would say of two Services with the same pods, one with a ClusterIP, one headless:

# %%
records = lab.records()
print(*(each for each in records if any(f"{name}.default.svc" in each.name for name in ("web", "all"))), sep="\n")

# %% [markdown]
# `web` leads to the ClusterIP, `all` to the pods. SRV records say a port as well: priority, weight, port and name. See
# that of `all`: 8080, where the pods listen. The Service's port 80 is nobody's, because no rule translates it
# (section 2.2).
#
# ## A pod with a name
#
# The endpoints of `all` are called by their addresses. A pod has a name of its own if two things come together: it has
# a `hostname`, and its `subdomain` is the name of a headless Service that means it. A StatefulSet sees to both. `clerk`
# says so itself, with hostname `desk`; `web-2` has the hostname `shopwindow`, and no subdomain.

# %%
for name in ("db", "db-0.db", "desk.db", "shopwindow.all"):
    print(f"{name:<16}{lab.resolve('default/client', name).ended}")

# %% [markdown]
# ## Three ways to say nothing
#
# No such name (NXDOMAIN), no such record (NODATA), and no answer at all are different things. `wed` is a typing
# mistake. `empty` and `nobody` are Services whose selector means no pod; `nobody` is headless.

# %%
for name, kind in (("web", "A"), ("web", "AAAA"), ("wed", "A"), ("empty", "A"), ("nobody", "A")):
    said = lab.resolve("default/client", f"{name}.default.svc.cluster.local.", type=kind)
    print(f"{name:<8}{kind:<6}{said.rungs[0].said:<10}", *said.rungs[0].reply.authority)
assert lab.resolve("default/client", "default.svc.cluster.local.").status == "NODATA"

# %% [markdown]
# NXDOMAIN is about the *name*, for every type. NODATA has the code NOERROR and no record. Both carry the zone's SOA
# record, whose last number (30) is the time in seconds for which they may be remembered. A namespace is a name without
# records.
#
# A ClusterIP does not depend on pods, so `empty` has its name, and a connection will be rejected. But a headless
# Service without ready pods does not exist for DNS. A client that starts too early hears "no such name", and somebody
# on the way may remember that. (`publishNotReadyAddresses` gives names to pods that are not ready yet.)
#
# ## Names for names, and the way back
#
# An ExternalName is a CNAME record. CoreDNS follows it at once, and asks outside. PTR records lead from addresses to
# names: a ClusterIP to its Service, a pod to a name in every Service that has it. Last, two names that nobody made:
# with `pods insecure`, which kubeadm sets, `10-244-0-2.default.pod` says its address back, and so does *any* other.

# %%
print(lab.resolve("default/client", "bank", type="A"))
for address in (*lab.objects.service("default/web").cluster_ips, lab.objects.pod("default/clerk").ip):
    print(lab.resolve("default/client", address, type="PTR").ended)
for dashes in ("10-244-0-2", "192-0-2-1"):
    print(lab.resolve("default/client", f"{dashes}.default.pod.cluster.local.", type="A").ended)

# %% [markdown]
# With both families (section 5.7) a Service may have two addresses, and its name an A and an AAAA record. Since the
# search is the same, it costs no question more.

# %%
cidrs = {"node_cidr": "172.18.0.0/16,fd00:172::/64", "pod_cidr": "10.244.0.0/16,fd00:10:244::/56"}
dual = lab.changed(service_cidr="10.96.0.0/12,fd00:10:96::/108", **cidrs)
dual = dual.patched("Service", "default/web", {"spec": {"ipFamilyPolicy": "PreferDualStack"}})
print(dual.resolve("default/client", "web").ended)

# %% [markdown]
# # Part three: the way there
#
# ## A server made of plugins
#
# CoreDNS is configured by a *Corefile*, in the ConfigMap `kube-system/coredns`. Here is the usual one, and the order in
# which its plugins see a question:

# %%
print(k8s.dns.DEFAULT)
print(*(plugin.name for plugin in k8s.dns.corefile(k8s.dns.DEFAULT).blocks[0].plugins))

# %% [markdown]
# `kubernetes` knows the cluster's zone and answers everything in it. What it has no zone for comes to `forward`. The
# order of the lines does not matter: it was settled when CoreDNS was built, so `cache` comes first wherever it stands.
# This one is written upside down. It has two more plugins, and knows whose pods are whose (`verified`):

# %%
fast = lab.applied("""
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
        forward . /etc/resolv.conf
        kubernetes cluster.local {
            pods verified
        }
        autopath @kubernetes
        rewrite name exact pay.example.com bank.default.svc.cluster.local answer auto
        cache 30
    }
""")
for name in ("www.example.com", "pay.example.com.", "192-0-2-1.default.pod"):
    print(f"{name:<24}", fast.resolve("default/client", name, type="A").ended)

# %% [markdown]
# `autopath` walks the search list for the resolver: it knows the pod that asks, and answers the first question with
# what the last would bring, behind a CNAME. Eight questions become two, and CoreDNS pays with memory, as it has to
# watch all pods. `rewrite` asks for another name. The third is no pod's address, and `verified` does not say it back.
#
# ## A question is a packet
#
# It is sent to the ClusterIP of `kube-dns`, rewritten by kube-proxy, and carried by the CNI, like every other one:

# %%
rung = lab.resolve("default/client", "web").rungs[0]
print(rung.answered_by, rung.trace.fate, len(rung.trace.steps[-1].packet.innermost.payload), "bytes")
k8s.draw.topology(lab, rung.trace)

# %% [markdown]
# ## A cache on every node
#
# NodeLocal DNSCache puts a small CoreDNS on every node, at 169.254.20.10. Packets to it never leave the node, and are
# kept from conntrack. What it does not know it asks by TCP. The second lookup of a session shows the use of it:

# %%
near = lab.changed(dns="node-local").session()
for pause in (0, 10, 31):
    near.advance(pause)
    rungs = near.resolve("default/client", "web").rungs
    print(f"{pause} s later: the pod asks {len(rungs)},", f"the node {sum(len(each.beyond) for each in rungs)}")

# %% [markdown]
# Ten seconds later the address is still known, but "no AAAA record" is remembered for 5 s only; the address for 30 s.
# The ladder of the pod is as long as before, since the search list is its own affair. But most of it ends on the node.
#
# ## Break it
#
# A careful person writes a policy: `client` shall send nothing, and what it needs will be allowed one by one. The CNI
# is Calico here, which enforces it.

# %%
denied = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: no-way-out}
spec: {podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}
"""
closed = lab.changed(cni="calico").applied(denied)
guess = lesson.predict("How many seconds does a program wait until it is told anything?", [0, 5, 20])
guess

# %%
broken = closed.resolve("default/client", "web")
print(closed.curl("default/client", "http://web"))
guess.reveal(round(broken.seconds))

# %% [markdown]
# Nobody says no: a dropped packet looks like a slow network. Each question is waited for 5 seconds, twice; then glibc
# tries the name as it stands, twice again. The report will say "curl hangs", or "DNS is down". The trace of the
# question says which hop it was, and which policy:

# %%
print(broken.lost.reason)
assert lab.applied(denied).resolve("default/client", "web")
k8s.draw.topology(closed, broken.lost.trace)

# %% [markdown]
# (With flannel the same policy changes nothing: nobody there enforces it.) The remedy is exercise 3.
#
# Now the other way to lose names: CoreDNS is gone, here because the selector of its Service means nobody.

# %%
gone = lab.patched("Service", "kube-system/kube-dns", {"spec": {"selector": {"k8s-app": "other"}}})
for libc in ("glibc", "musl"):
    print(libc, gone.resolve("default/client", "web", libc=libc).ended)
print(gone.resolve("default/client", "web").lost.reason)

# %% [markdown]
# kube-proxy rejects what has no endpoint. glibc hears of that and gives up at once; musl does not listen for it, and
# waits. Connections by address still work all the time: "the network is fine, only names fail" is the sign of this.
#
# ## On real resolvers
#
# Does a real library ask what the model says? The state of this cluster was given to a real Linux kernel, name servers
# that answer from the model stood in CoreDNS's pods, and programs in the other pods looked names up: by glibc and by
# musl, with CoreDNS alone and with a cache on the nodes. Every question that reached a name server was written down.

# %%
for heard in k8s.live.lookups.recorded():
    print(heard.library, heard.version, heard.dns, sum(len(each.asked) for each in heard.lookups), "questions")
    assert not heard.differing(lab.changed(dns=heard.dns))
print(heard)

# %% [markdown]
# Names, types, order, answers and addresses are the model's, in every case. `make evidence` asks the libraries of your
# own machine. To ask by hand, let the model serve: `k8snetlab dns --serve -f …`, and `dig @127.0.0.1 -p 5353 …`.
#
# ## Exercises
#
# **1.** Write a name with which `client` finds the Service `stock` of the namespace `warehouse` with as few questions
# as possible.

# %% tags=["exercise"]
# solution:
# learner: name = ...  # such as "web"
name = "stock.warehouse.svc.cluster.local."
# end
lesson.check("spelling", name)

# %% [markdown]
# **2.** `client` calls `www.example.com` all day long, and `stock.warehouse` as well. Configure the pod so that the
# first costs two questions and the second four, as it does now, with either library. Give the cluster.

# %% tags=["exercise"]
# solution:
# learner: quick = ...  # lab.patched("Pod", "default/client", {"spec": {...}})
options = {"options": [{"name": "ndots", "value": "2"}]}
quick = lab.patched("Pod", "default/client", {"spec": {"dnsConfig": options}})
# end
lesson.check("ndots", quick)

# %% [markdown]
# **3.** In `closed`, add a policy so that `client` can look names up, even where an answer is long, and can do nothing
# else. The pods of CoreDNS have the label `k8s-app: kube-dns`; every namespace has a label
# `kubernetes.io/metadata.name` with its name.

# %% tags=["exercise"]
# solution:
# learner: opened = ...  # closed.applied("""...""")
opened = closed.applied("""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: names}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
""")
# end
lesson.check("opened", opened)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - A name with fewer dots than `ndots` is asked for with each entry of the search list first, twice each. A dot at its
#   end stops that.
# - The file is the kubelet's, the questions are the C library's. glibc and musl differ where names have enough dots,
#   where a type is missing, and where nobody answers.
# - Records follow from objects: a ClusterIP, or the ready pods of a headless Service, or another name.
# - NXDOMAIN, NODATA and silence mean different things. Silence costs seconds, and is a matter of packets.
# - A question walks the network: Services, policies and CNI apply to it, and a trace says where it ends.
#
# **Version notes.** The DNS specification of Kubernetes is version 1.1.0. `cluster.local` is a choice that almost
# everybody makes. Older guides name kube-dns: a program until CoreDNS took its place (1.13), now only the name of the
# Service. Since 1.28 kubelets take 32 search domains, older ones 6. musl asks again by TCP for answers that were cut
# since 1.2.4; before that, long answers were lost. NodeLocal DNSCache needs its own address allowed by policies.
#
# **Next:** 2.4, Ingress.
