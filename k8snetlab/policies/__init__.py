"""Who may talk to whom, and which rule says so?

Policies are objects that say what is wanted; a CNI says where they are enforced (`cni.PolicyAttachment`). This room
alone says what is allowed. `plan` reads the objects once, into a normal form; everything else works on that:
`engine` gives the verdict on one flow with its reason.

Guide section 4.1; Kubernetes "Network Policies", policy.networking.k8s.io/v1alpha2.
"""
