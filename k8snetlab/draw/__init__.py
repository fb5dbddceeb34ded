"""What does it look like?

Pictures of networks, traces and address plans. Each is computed from the value that it shows — take a route away, and
the path in the picture goes another way — and is a value itself: a `Drawing`, which is text, SVG and PNG. This room
is a leaf; matplotlib and networkx are met here only.

| picture         | question                                                      | in         |
|-----------------|---------------------------------------------------------------|------------|
| `topology`      | which way did the packet go?                                  | `topology` |
| `trace`         | who did what, in which order?                                 | `ladder`   |
| `headers`       | what is on the wire, header by header?                        | `headers`  |
| `side_by_side`  | and on other networks, for the same flow?                     | `beside`   |
| `before_after`  | what does a change do to the machines and to the path?        | `change`   |
| `outcomes`      | who may take the packet, and how likely?                      | `outcomes` |
| `nobody`        | why was no packet sent?                                       | `outcomes` |
| `plan`          | which addresses are whose, and do any overlap?                | `plan`     |
| `reach`         | who may open connections to whom?                             | `matrix`   |
| `policies`      | whom do policies select, and what do they let through?        | `policies` |
| `isolation`     | which pods are closed, for which direction?                   | `policies` |
| `ledger`        | what did controllers write about pods that came and went?     | `ledger`   |
| `growth`        | and how does that grow with the number of pods?               | `ledger`   |
| `lookup`        | which questions does a name become, and who answers them?     | `lookup`   |
| `questions`     | how many are they, by ndots or any other choice?              | `lookup`   |
| `curves`        | does it grow with the number of things, or not?               | `curves`   |
| `graph`, `path` | the same as networkx graphs                                   | `graphs`   |

Every picture is given on light or dark paper (`theme`), and says in sentences what is to be seen (`Drawing.alt`). An
`Easel` paints one drawing after the other quickly: that is for explorers.

Not modelled: motion. Guide sections 1.1 to 2.3, 3.1, 4.1 and 5.1.
"""

from k8snetlab.draw.beside import side_by_side
from k8snetlab.draw.change import before_after
from k8snetlab.draw.curves import curves
from k8snetlab.draw.drawing import Drawing, Easel
from k8snetlab.draw.graphs import graph, path
from k8snetlab.draw.headers import headers
from k8snetlab.draw.ladder import trace
from k8snetlab.draw.ledger import growth, ledger
from k8snetlab.draw.lookup import lookup, questions
from k8snetlab.draw.matrix import reach
from k8snetlab.draw.outcomes import nobody, outcomes
from k8snetlab.draw.plan import plan
from k8snetlab.draw.policies import isolation, policies
from k8snetlab.draw.topology import topology
from k8snetlab.draw.zone import zone

__all__ = [
    "Drawing", "Easel", "before_after", "curves", "graph", "growth", "headers", "isolation", "ledger", "lookup",
    "nobody", "outcomes", "path", "plan", "policies", "questions", "reach", "side_by_side", "topology", "trace",
    "zone",
]  # fmt: skip
