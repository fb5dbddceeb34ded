"""One machine's network stack, and a network of machines.

A `Host` (`host`) is the state of one network namespace: devices and neighbours (`link`), routes (`route`), netfilter
rules (`netfilter`), virtual servers (`ipvs`), eBPF programs and maps (`ebpf`), and listeners (`socket`). `netns` is the
path of a packet through one of them, with what it has to remember (`conntrack`, `skb`); `balancing` is what eBPF
programs do beside that path; `walk` carries frames between them; `text` prints the state as the real tools do.

This room knows no Kubernetes word. Guide section 2.1.
"""
