"""What does it look like?

Pictures of networks, traces and address plans, all computed from them: a leaf of the package, state in, `Drawing` out.
"""

from k8snetlab.draw.drawing import Drawing, Easel
from k8snetlab.draw.topology import topology

__all__ = ["Drawing", "Easel", "topology"]
