"""Who may talk to whom, and which rule says so?

Policies are objects that say what is wanted; a CNI says where they are enforced (`cni.PolicyAttachment`). This room
alone says what is allowed. `plan` reads the objects once, into a normal form, and everything else works on that:

| module                  | its question                                                                 |
|-------------------------|------------------------------------------------------------------------------|
| `engine`                | may this connection be made, and who says so?                                |
| `explain`               | what is the smallest change that would turn the verdict?                     |
| `findings`, `covering`  | what is probably not what somebody wanted?                                   |
| `matrix`, `classes`     | who can talk to whom, of all pods, and which of them are alike?              |
| `report`, `changes`     | the same as a table, and what another set of policies changes                |
| `rules`                 | the chains and sets that Calico writes, of iptables and of nftables          |
| `npc`                   | the chains and sets that Weave Net writes                                    |
| `maps`, `identities`    | the entries of Cilium's maps, by identities                                  |
| `cilium`, `http`        | CiliumNetworkPolicy, and what its HTTP rules say of a request                |

The engine is the one that is right by definition: matrix, chains and maps must say the same, and the tests ask all of
them about random policies.

Guide section 4.1; Kubernetes "Network Policies", policy.networking.k8s.io/v1alpha2.
"""
