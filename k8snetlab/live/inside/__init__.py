"""What runs inside: one process that owns namespaces of its own, makes machines of them and sends real packets.

It is started by `k8snetlab.live.lab` as a program of its own, with nothing but Python's standard library: it starts
in a few hundredths of a second, and it shares no line with the model whose predictions it is to test. What it is told
are commands and addresses, what it tells is what the kernel did.
"""
