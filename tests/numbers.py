"""What every network is known by: bytes on the wire and MTUs, with IPv4 and, where there is that, with IPv6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """Of one network and family: the frame between nodes for a payload of 1,000 bytes by UDP (Ethernet, IP and UDP
    alone are 42 and 62), the MTU of a pod's device and of its default route (0: it says none), and the MTUs of the
    node's devices.
    """

    wire: int
    pod: int
    route: int
    devices: Mapping[str, int]


CILIUM = {"cilium_host": 1500, "cilium_net": 1500}
FASTDP = {"weave": 1376, "datapath": 1376, "vxlan-6784": 65470}

ROWS: Mapping[str, tuple[Row, Row] | tuple[Row]] = {
    "bridge": (Row(1042, 1500, 0, {"cni0": 1500}), Row(1062, 1500, 0, {"cni0": 1500})),
    "flannel vxlan": (
        Row(1092, 1450, 0, {"cni0": 1450, "flannel.1": 1450}),
        Row(
            1132, 1450, 0, {"cni0": 1450, "flannel-v6.1": 1430}
        ),  # the kernel knows better than flannel, which takes 50
    ),
    "flannel host-gw": (Row(1042, 1500, 0, {"cni0": 1500}), Row(1062, 1500, 0, {"cni0": 1500})),
    "flannel wireguard": (  # 80 are taken off, even over IPv4
        Row(1114, 1420, 0, {"cni0": 1420, "flannel-wg": 1420}),
        Row(1150, 1420, 0, {"cni0": 1420, "flannel-wg-v6": 1420}),
    ),
    "flannel directrouting": (
        Row(1042, 1450, 0, {"cni0": 1450, "flannel.1": 1450}),
        Row(1062, 1450, 0, {"cni0": 1450, "flannel-v6.1": 1430}),
    ),
    "cloud bridge": (Row(1042, 1500, 0, {"cni0": 1500}), Row(1062, 1500, 0, {"cni0": 1500})),
    "cloud ptp": (Row(1042, 1500, 0, {}), Row(1062, 1500, 0, {})),
    "calico bgp": (Row(1042, 1500, 0, {}), Row(1062, 1500, 0, {})),
    "calico ipip": (Row(1062, 1480, 0, {"tunl0": 1480}), Row(1062, 1500, 0, {})),  # there is no IP in IP for IPv6
    "calico ipip-crosssubnet": (Row(1042, 1480, 0, {"tunl0": 1480}), Row(1062, 1500, 0, {})),
    "calico vxlan": (
        Row(1092, 1450, 0, {"vxlan.calico": 1450}),
        Row(1132, 1430, 0, {"vxlan-v6.calico": 1430}),
    ),
    "calico vxlan-crosssubnet": (
        Row(1042, 1450, 0, {"vxlan.calico": 1450}),
        Row(1062, 1430, 0, {"vxlan-v6.calico": 1430}),
    ),
    "calico route-reflector": (Row(1062, 1480, 0, {"tunl0": 1480}), Row(1062, 1500, 0, {})),
    "calico tor": (Row(1042, 1500, 0, {}), Row(1062, 1500, 0, {})),
    "cilium vxlan": (
        Row(1092, 1500, 1450, {**CILIUM, "cilium_vxlan": 1500}),
        Row(1132, 1500, 1430, {**CILIUM, "cilium_vxlan": 1500}),
    ),
    "cilium geneve": (
        Row(1092, 1500, 1450, {**CILIUM, "cilium_geneve": 1500}),
        Row(1132, 1500, 1430, {**CILIUM, "cilium_geneve": 1500}),
    ),
    "cilium native": (Row(1042, 1500, 1500, CILIUM), Row(1062, 1500, 1500, CILIUM)),
    "cilium wireguard": (  # the tunnel's packet of 1,078 or 1,118 bytes is padded to a multiple of 16
        Row(14 + 20 + 8 + 16 + 1088 + 16, 1500, 1370, {**CILIUM, "cilium_vxlan": 1500, "cilium_wg0": 1420}),
        Row(14 + 40 + 8 + 16 + 1120 + 16, 1500, 1350, {**CILIUM, "cilium_vxlan": 1500, "cilium_wg0": 1420}),
    ),
    "cilium ipsec": (  # 2 bytes behind the packet make it a multiple of 4
        Row(14 + 20 + 8 + 8 + 1080 + 16, 1500, 1373, {**CILIUM, "cilium_vxlan": 1500}),
        Row(14 + 40 + 8 + 8 + 1120 + 16, 1500, 1353, {**CILIUM, "cilium_vxlan": 1500}),
    ),
    "weave fastdp": (Row(1092, 1376, 0, FASTDP),),
    "weave sleeve": (Row(1104, 1376, 0, {"weave": 1376}),),
    "weave encryption": (Row(1126, 1376, 0, FASTDP),),
}
