"""How does a packet to a stable address find a pod?

A Service's address is on no interface. Two programs keep the promise: the EndpointSlice controller writes down who answers at
the moment (`slices`), and kube-proxy turns Services and slices into rules on every node (`iptables`). Neither sees a packet.

Guide section 2.2; KEP-752 (EndpointSlices), KEP-1669 (terminating endpoints).
"""
