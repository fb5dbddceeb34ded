"""How do several packets tell one story?

Somebody asks: what happens when `shop/web-0` talks to `svc/shop/api:80`? First the words become a machine that sends
and an address that is sent to (`names`); then a packet walks, and an answer (`walks`). A `curl` is more than one
packet (`curl`), and in a `session` the machines remember what was before.

Names are looked up in `resolution`, which is loaded when somebody asks for that. Guide sections 2.1 to 2.3.
"""

from __future__ import annotations

from k8snetlab.flows.curl import Curl, curl, request_of, where_of
from k8snetlab.flows.names import Sender, Target, Terrain, name_in, sender_of, target_of
from k8snetlab.flows.session import Session
from k8snetlab.flows.walks import Question, asked, trace

__all__ = [
    "Curl", "Question", "Sender", "Session", "Target", "Terrain", "asked", "curl", "name_in", "request_of",
    "sender_of", "target_of", "trace", "where_of",
]  # fmt: skip
