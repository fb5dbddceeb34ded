"""What happens if…? One explorer a notebook: turn a knob, and the network is computed again.

Each module holds a view model, which knows no widgets and works anywhere, and the explorer over it.

    k8s.explore.PacketWalk(cluster)    0.0  step through one packet
    k8s.explore.RuleBreaker(cluster)   1.1  break a rule of the network model
    k8s.explore.AddressPlanner()       1.2  lay out addresses
    k8s.explore.PodToPod(cluster)      2.1  ways between nodes, sizes, missing entries
    k8s.explore.WhoAnswers(cluster)    2.2  who rewrites the destination
    k8s.explore.WhichName(cluster)     2.3  which name is asked for, and how often
    k8s.explore.SamePacket(cluster)    3.1  the same packet under every CNI
    k8s.explore.WhoMayTalk(cluster)    4.1  who may talk to whom, and which rule says so
    k8s.explore.PodChurn(cluster)      5.1  what a restart costs the API server
    k8s.explore.ZonePlanner(cluster)   5.5  what becomes of a zone of the world's DNS
    k8s.explore.WhichFamily(cluster)   5.7  which address family a connection takes
"""

from k8snetlab.explore.cni import SamePacket
from k8snetlab.explore.contract import RuleBreaker
from k8snetlab.explore.dns import WhichName
from k8snetlab.explore.external import ZonePlanner
from k8snetlab.explore.families import WhichFamily
from k8snetlab.explore.plan import AddressPlanner
from k8snetlab.explore.pod_to_pod import PodToPod
from k8snetlab.explore.policies import WhoMayTalk
from k8snetlab.explore.service import WhoAnswers
from k8snetlab.explore.slices import PodChurn
from k8snetlab.explore.walk import PacketWalk

__all__ = [
    "AddressPlanner", "PacketWalk", "PodChurn", "PodToPod", "RuleBreaker", "SamePacket", "WhichFamily", "WhichName",
    "WhoAnswers", "WhoMayTalk", "ZonePlanner",
]  # fmt: skip
