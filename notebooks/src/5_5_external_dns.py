# %% [markdown]
# # 5.5 External DNS
#
# **The question.** Somebody deploys an Ingress for `shop.example.org`. Who tells the rest of the world where that is?
# What will be created, changed, deleted, and what must never be touched?
#
# **After this notebook you can**
#
# - say which names the objects of a cluster ask for, and where each of them leads;
# - read a plan for a zone before anybody carries it out;
# - let two clusters and a person share one zone without harm.
#
# About 30 minutes. Section 2.3 is about names inside of a cluster; here we look from outside.

# %%
import k8snetlab as k8s

lesson = k8s.course.lesson("5_5")
lab = k8s.example("names-for-the-world", load_balancer="metallb-bgp")
print(lab.get("services", "default"))
print(*(path.host for path in lab.objects.of(k8s.api.Ingress)[0].spec.rules))

# %% [markdown]
# Three Services and an Ingress with two hosts. The CoreDNS of the cluster knows all of the Services. Nobody outside
# asks it: clients ask the DNS of the world, which has heard nothing of this cluster.
#
# A program called *external-dns* runs in the cluster, reads Services and Ingresses once a minute, and writes records
# into a zone at some provider of DNS. No packet and no question ever passes through it.
#
# ## Which names are asked for?
#
# An Ingress asks for its hosts. A Service asks for nothing, until it has an annotation:

# %%
print(k8s.api.to_yaml(lab.objects.service("default/shop")).partition("spec:")[0])

# %%
plan = lab.external_dns("example.org")
print(plan)

# %% [markdown]
# That was a plan for an empty zone. Lines with `+` come, lines with `-` would go. The load balancer gave addresses to
# `shop` and `api` (section 2.2), and the Ingress leads to where its controller takes requests, `203.0.113.80`. The
# Service `stock` has no annotation, so it is not even mentioned.
#
# Each record has a second one beside it, of type TXT. We come to that.
#
# ## Where does a name lead?
#
# The type of the Service decides. Here are two more Services, and why one of them leads nowhere:

# %%
more = lab.applied("""
apiVersion: v1
kind: Service
metadata: {name: inner, annotations: {external-dns.kubernetes.io/hostname: inner.example.org}}
spec: {selector: {app: api}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: ports, annotations: {external-dns.kubernetes.io/hostname: ports.example.org}}
spec: {type: NodePort, selector: {app: api}, ports: [{port: 80}]}
""").external_dns("example.org")
print(*(each for each in more.changes if "ports" in each.resource))
print(*more.left, sep="\n")
assert [each.name for each in more.left if "ClusterIP" in each.why] == ["inner.example.org."]

# %% [markdown]
# A ClusterIP means nothing outside, so `inner` is left alone. A Service with node ports leads to all nodes. (It also
# asks for an SRV record, the only type that can say a port; such records are not managed unless one asks for them.)
#
# ## A zone with a history
#
# Real zones are not empty. In this one a person has made `mail` and `www`. Another cluster, *green*, has made `blog`.
# And our cluster, *blue*, has been here before: `shop` led to an older address, and `old` to a Service that is gone.

# %%
zone = k8s.cluster.example_zone("example.org")
print(zone)

# %% [markdown]
# Read the TXT records. `a-shop` says that the A record of `shop` was made by external-dns, for the owner `blue`, and
# for which object. `mail` and `www` have none.
#
# ## Predict: the name that a person made
#
# The Ingress of our cluster wants `www.example.org`, and a person has made that record by hand.

# %%
guess = lesson.predict("What does external-dns do with www?", ["overwrites it", "adds an address", "leaves it alone"])
guess

# %%
blue = k8s.external.Owning("blue")
plan = lab.external_dns(zone, blue)
print(*(str(each) for each in plan.left), sep="\n")
changed = [each.records.name for each in plan.changes]
guess.reveal("leaves it alone" if "www.example.org." not in changed else "overwrites it")

# %%
k8s.draw.zone(plan)

# %% [markdown]
# One record comes, one changes, one goes. What has no TXT record with our own word in it stays as it is, whatever our
# objects want: `blog` belongs to green, and `www` to somebody who never heard of Kubernetes. Nothing is lost without a
# word: every wish that is not granted has its reason.
#
# Why is `shop` ours, and not green's? Because the TXT record says so, and only because of that. The word is chosen by
# whoever starts the program (`--txt-owner-id`). Two clusters with the same word would delete each other's records.
#
# ## Predict: carried out twice
#
# The plan is carried out. A minute later external-dns looks again.

# %%
guess = lesson.predict("How many changes does the second plan have?", [0, 1, 3])
guess

# %%
provider = k8s.external.Memory(zone)
provider.apply(plan)
again = lab.external_dns(provider.zone(), blue)
assert len(provider.zone().sets) == len(zone.sets)
guess.reveal(len(again.changes))

# %% [markdown]
# None. What is wanted is compared with what is there, each time anew, and no list of deeds is kept: the zone is the
# only memory. That is why deleting its TXT records by hand makes external-dns forget that a name was its own.
#
# ## How much may it do?
#
# Three policies. The line of each says what would be done to the zone above:

# %%
for policy in k8s.external.Policy:
    careful = lab.external_dns(zone, k8s.external.Owning("blue", policy))
    print(f"{policy:<12}", ", ".join(f"{each.action} {each.records.name}" for each in careful.changes))

# %% [markdown]
# `upsert-only` (a word made of *update* and *insert*) never deletes. Many people begin with it, for a wrong annotation
# can then do little harm; old names stay for ever. With `create-only` even a moved load balancer keeps its old record.
#
# `--domain-filter` is the third fence: names outside of it are not looked at, neither ours nor others'.
#
# ## Try it
#
# Change the objects, the policy, the owner. What happens if green's program runs with the word `blue`? What if nobody
# asks whose records are (`noop`)?

# %%
explorer = k8s.explore.ZonePlanner(lab)
explorer

# %%
explorer.happens, explorer.policy = "it leads to a CDN", "sync"
print(explorer.summary())

# %% [markdown]
# A CDN has a name and no fixed address, so `shop` becomes a CNAME. A name with a CNAME can have nothing else: the A
# record has to go in the same breath, and its TXT record too. Under `upsert-only` it may not go, so the CNAME is not
# made either:

# %%
explorer.policy = "upsert-only"
print(*(line for line in explorer.summary().splitlines() if "CNAME" in line), sep="\n")

# %% [markdown]
# ## Break it
#
# Somebody is annoyed by all those TXT records, and starts the program with `--registry=noop`.

# %%
guess = lesson.predict("Of seven A records in the zone, how many would be deleted?", [0, 1, 3, 7])
guess

# %%
reckless = lab.external_dns(zone, k8s.external.Owning(registry=k8s.external.Registry.NOOP))
print(reckless)
guess.reveal(len(reckless.of(k8s.external.Action.DELETE)))

# %% [markdown]
# The mail of the company is gone, and so is the name server's own address: nobody will resolve anything. And `blog`
# and `www` now lead to our Ingress. This is what the plan is for: it was only a plan. On the command line,
# `k8snetlab external-dns -f … --zone example.org --against zonefile` prints the same before anything happens.
#
# The second thing to break: upgrade the program. Up to 0.21 annotations begin with
# `external-dns.alpha.kubernetes.io/`, from 0.22 on with `external-dns.kubernetes.io/`.

# %%
older = k8s.external.Reading(k8s.external.ALPHA)
before = lab.external_dns(zone, blue, older)
print(*(str(each) for each in before.changes), sep="\n")
assert any("is not read" in each.why for each in before.left)

# %% [markdown]
# The older version does not read our annotations. It finds records of its own owner that no object wants any more,
# and `sync` deletes them: `shop` would be offline. The same happens the other way round on the day of the upgrade. So
# put both annotations on, upgrade, then take the old one off.
#
# ## On real name servers
#
# Where no cloud is at hand, external-dns sends updates to a name server (RFC 2136), signed with a secret (TSIG). This
# very plan was sent to two real servers. An update is all or nothing, and here it demands that the zone is still what
# the plan was made for.

# %%
for record in k8s.live.rfc2136.recorded():
    print(record)
    come = {line.split()[0] for line in record.after if line not in record.before}
    assert {"api.example.org.", "a-api.example.org.", "shop.example.org."} <= come

# %% [markdown]
# Unsigned updates and updates with a wrong secret are refused, and the zone stays as it was. So does a plan that comes
# too late: `YXRRSET` means that something is there which the plan did not expect. `make evidence` asks the servers of
# your own machine.
#
# ## Exercises
#
# **1.** Give the Service `stock` the name `stock.example.org`, so that clients outside can use it. Give the cluster;
# `lab.patched("Service", "default/stock", {…})` changes annotations (`metadata`) and type (`spec`).

# %% tags=["exercise"]
# solution:
# learner: answer = ...  # lab.patched("Service", "default/stock", {...})
names = {"external-dns.kubernetes.io/hostname": "stock.example.org"}
answer = lab.patched("Service", "default/stock", {"metadata": {"annotations": names}, "spec": {"type": "LoadBalancer"}})
# end
lesson.check("named", answer)

# %% [markdown]
# **2.** The zone above shall have `api` and the new address of `shop`, and nothing may be deleted. Which options?

# %% tags=["exercise"]
# solution:
# learner: careful = ...  # k8s.external.Owning("blue", …)
careful = k8s.external.Owning("blue", k8s.external.Policy.UPSERT_ONLY)
# end
lesson.check("careful", careful)

# %% [markdown]
# **3.** By mistake the same objects are deployed in the cluster `green` as well, whose external-dns looks after the
# same zone. How many record sets that are there already does it change or delete?

# %% tags=["exercise"]
# solution:
# learner: number = ...
number = 1
# end
lesson.check("alone", number)

# %% [markdown]
# ## Quiz

# %%
lesson.quiz()

# %% [markdown]
# ## Summary
#
# - external-dns makes records and nothing else: addresses come from load balancers, packets go to nodes.
# - Annotations and hosts are wishes. The type of the Service says where a name leads, or that it leads nowhere.
# - A TXT record beside each record says whose it is. What is not ours is left alone.
# - Policy, ownership and domains are three fences; a plan shows what is left between them.
#
# **Version notes.** The older documentation says that a Service of type ClusterIP needs `--publish-internal-services`;
# it still does, unless the annotation `internal-hostname` is used. TXT records have the type in their name since 0.12.
# Here the providers are a zone in memory, name servers with RFC 2136, and Route 53 as its API says (tested against an
# imitation, never at AWS). The providers of other clouds are not modelled, nor what is special about each: aliases,
# weights, proxies. Routes of the Gateway API are read too: their names lead to the addresses of a Gateway, where route,
# Gateway and controller agree (`k8snetlab.dns.wanted` says how). The Gateway itself is the subject of section 5.3.
#
# **Next:** 5.6, certificates for these names.
