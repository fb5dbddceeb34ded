"""What if the fault is not on one machine, but between them?

A BGP session that is down, or a connection of a mesh, changes what many machines hold, and what their programs say of
it (the RIB, the topology). The CNIs have options for that, and such a fault is another value of an option: all that
follows from it is compiled, nothing is painted over. A CNI without that option stays as it is.

Not modelled: sessions that flap. Guide section 3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from k8snetlab import cni
from k8snetlab.errors import BadOption
from k8snetlab.faults.spots import Spot

if TYPE_CHECKING:
    from k8snetlab.cluster import Options

__all__ = ["as_they_are", "link_down", "peer_down"]


def as_they_are(options: Options, spot: Spot) -> Options:
    """Nothing is chosen otherwise."""
    return options


def peer_down(options: Options, spot: Spot) -> Options:
    """All BGP sessions of the spot's machine are down."""
    return _and(options, "peers_down", spot.host)


def link_down(options: Options, spot: Spot) -> Options:
    """The spot's two machines cannot connect to each other."""
    return _and(options, "links_down", f"{spot.host}:{spot.other}") if spot.other else options


def _and(options: Options, name: str, value: str) -> Options:
    """The options with one value more in a list of the CNI's, if it has such an option and takes it as it is."""
    held = dict(options.cni_options)
    if name not in {option.name for option in cni.named(options.cni, held).options}:
        return options
    held[name] = ",".join(filter(None, (held.get(name, ""), value)))
    try:
        cni.named(options.cni, held)
    except BadOption:  # another option rules it out: Calico with VXLAN has no BGP
        return options
    return msgspec.structs.replace(options, cni_options=tuple(sorted(held.items())))
