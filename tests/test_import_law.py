"""The import law: who may know whom.

The order of the rooms is the design, and a sentence of it can be read off the imports: "kube-proxy does not handle
packets, it writes rules" means that `services` never imports what moves packets. Rooms that are not written yet
stand in the law already.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "k8snetlab"
FRONT_DOOR = "k8snetlab"

# Each row may import the rows above it, and nothing of its own row or below.
LAW: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"address", "schemas"}),
    frozenset({"packet", "http", "tls"}),
    frozenset({"wire"}),
    frozenset({"trace"}),
    frozenset({"linux", "api"}),
    frozenset({"cni", "services", "dns", "policies", "edge", "mesh"}),
    frozenset({"controllers"}),
    frozenset({"compile"}),
    frozenset({"flows"}),
    frozenset({"tables", "difference"}),
    frozenset({"cluster"}),
    frozenset({"multicluster", "contract", "faults"}),
    frozenset({"draw", "live"}),
    frozenset({"explore", "course"}),
    frozenset({"cli"}),
)
ROW = {room: row for row, rooms in enumerate(LAW) for room in rooms}

# `linux` knows no Kubernetes and `api` no packets: of the rows above them, `api` sees two rooms only.
NARROWER = {"api": {"errors", "address"}}
LEAVES = frozenset({"draw", "live", "explore", "course", "cli"})

# Who alone may import what from outside, lazily or not: a room, or one module of a room.
ONLY_IN = {
    "yaml": {"api.manifest"},
    "matplotlib": {"draw"},
    "networkx": {"draw"},
    "numpy": {"draw", "policies"},
    "boto3": {"live"},
    "botocore": {"live"},
    "dns": {"dns", "live"},
    "ipywidgets": {"explore", "course"},
    "IPython": {"explore", "course"},
    "typer": {"cli"},
    "rich": {"cli"},
    "socket": {"live", "cli"},
    "socketserver": {"live"},
    "selectors": {"live"},
    "ssl": {"live"},
    "asyncio": {"live"},
    "http.client": {"live"},
    "http.server": {"live"},
    "urllib.request": {"live"},
    "subprocess": {"live", "cli"},
    "time": {"live", "cli"},
}

HEAVY = (
    "IPython", "asyncio", "cryptography", "dns", "ipywidgets", "matplotlib", "networkx", "numpy", "rich", "subprocess",
    "traitlets", "typer", "yaml",
)  # fmt: skip


class Import(NamedTuple):
    """One import statement: the module that says it, the module it names, where, and whether it runs at import time."""

    by: str
    of: str
    place: str
    eager: bool


def module_name(path: Path) -> str:
    """`k8snetlab/linux/route.py` → `k8snetlab.linux.route`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    """Whether `name` is a module or package of ours, rather than a name inside one."""
    if name.removeprefix(f"{FRONT_DOOR}.") in ROW:
        return True
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path: Path, source: str) -> Iterator[Import]:
    """Every import of a source file, those inside functions and `if TYPE_CHECKING` included."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    yield from _imports(ast.parse(source), name, package, path, eager=True)


def _imports(node: ast.AST, name: str, package: str, path: Path, *, eager: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        place = f"{path.relative_to(PACKAGE.parent)}:{getattr(child, 'lineno', 0)}"
        if isinstance(child, ast.Import):
            yield from (Import(name, alias.name, place, eager) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
            base = ".".join([*above, *([child.module] if child.module else [])])
            for alias in child.names:
                inner = f"{base}.{alias.name}"
                ours = base.split(".")[0] == FRONT_DOOR
                yield Import(name, inner if ours and is_module(inner) else base, place, eager)
        else:
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _imports(child, name, package, path, eager=eager and not lazy and not guarded)


def all_imports() -> list[Import]:
    """Every import of the package."""
    return [said for path in sorted(PACKAGE.rglob("*.py")) for said in imports(path, path.read_text(encoding="utf-8"))]


def room(module: str) -> str:
    """`k8snetlab.linux.route` → `linux`; the front door is the empty room."""
    return module.split(".")[1] if "." in module else ""


def breaks_the_order(said: Import) -> str:
    """Why this import is against the order of the rooms; empty where it is not."""
    by, of = room(said.by), room(said.of)
    if said.of.split(".")[0] != FRONT_DOOR or by == of:
        return ""
    if by == "":
        return f"the front door opens the leaf {of} at once" if of in LEAVES and said.eager else ""
    if of == "":
        return "" if by in LEAVES else f"{by} goes through the front door"
    if by not in ROW or of not in ROW:
        return f"the law does not know {by if by not in ROW else of}"
    if ROW[of] >= ROW[by]:
        return f"{of} does not stand above {by}"
    if by in NARROWER and of not in NARROWER[by]:
        return f"{by} may not know {of}"
    return ""


def breaks_the_borders(said: Import) -> str:
    """Why this import of a library is against the law; empty where it is not."""
    for library, rooms in ONLY_IN.items():
        if said.of != library and not said.of.startswith(f"{library}."):
            continue
        own = said.by.removeprefix(f"{FRONT_DOOR}.")
        if not any(own == allowed or own.startswith(f"{allowed}.") for allowed in rooms):
            return f"{library} is imported only in {', '.join(sorted(rooms))}"
    return ""


def test_rooms_import_only_what_stands_above_them() -> None:
    """The order of the rooms holds for every import of the package, lazy ones included."""
    broken = [f"{said.place}: {why}" for said in all_imports() if (why := breaks_the_order(said))]
    assert not broken, "\n".join(broken)


def test_libraries_stay_in_their_rooms() -> None:
    """YAML, pictures, widgets, sockets, processes and the clock are each met in one place."""
    broken = [f"{said.place}: {why}" for said in all_imports() if (why := breaks_the_borders(said))]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("errors.py", "from k8snetlab import packet", "packet does not stand above errors"),
        ("cni/flannel.py", "from k8snetlab.services import iptables", "services does not stand above cni"),
        ("linux/netns.py", "def f():\n    from ..api import Pod", "api does not stand above linux"),
        ("linux/netns.py", "if TYPE_CHECKING:\n    import k8snetlab.cni.plan", "cni does not stand above linux"),
        ("api/pod.py", "from k8snetlab.packet import Packet", "api may not know packet"),
        ("compile.py", "import k8snetlab as k8s", "compile goes through the front door"),
        ("contract.py", "from .faults import FAULTS", "faults does not stand above contract"),
        ("contract.py", "import k8snetlab.cluster, k8snetlab.draw", "draw does not stand above contract"),
        ("shortcut.py", "from k8snetlab import errors", "the law does not know shortcut"),
        ("__init__.py", "from k8snetlab import draw", "the front door opens the leaf draw at once"),
    ],
)  # fmt: skip
def test_the_law_sees_an_import_against_the_order(path: str, source: str, words: str) -> None:
    """Every shape of import that breaks the order is noticed and named."""
    [why] = [why for said in imports(PACKAGE / path, source) if (why := breaks_the_order(said))]
    assert words in why


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("services/iptables.py", "from ..linux.netfilter import Rule\nfrom .endpoints import Endpoints"),
        ("cli.py", "import k8snetlab as k8s\nfrom k8snetlab.draw import topology"),
        ("__init__.py", "def __getattr__(name):\n    from k8snetlab import draw"),
        ("__init__.py", "from k8snetlab.cluster import Cluster"),
        ("explore/paths.py", "import k8snetlab as k8s\nfrom k8snetlab.draw import theme"),
    ],
)
def test_the_law_allows_the_order(path: str, source: str) -> None:
    """Imports that follow the order pass."""
    assert not [why for said in imports(PACKAGE / path, source) if (why := breaks_the_order(said))]


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("api/pod.py", "import yaml", "yaml is imported only in api.manifest"),
        ("cluster.py", "def f():\n    from matplotlib.figure import Figure", "matplotlib is imported only in draw"),
        ("flows.py", "from http.client import HTTPConnection", "http.client is imported only in live"),
        ("linux/netns.py", "import time", "time is imported only in cli, live"),
    ],
)
def test_the_law_sees_a_library_out_of_its_room(path: str, source: str, words: str) -> None:
    """A library met outside of its rooms is noticed, also inside a function."""
    [why] = [why for said in imports(PACKAGE / path, source) if (why := breaks_the_borders(said))]
    assert words in why


def loaded_by(statements: str) -> set[str]:
    """The heavy modules that a fresh Python has loaded after `statements`."""
    code = f"import sys\n{statements}\nprint(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_is_light() -> None:
    """`import k8snetlab` loads no drawing, no widgets, no YAML, no command line: it stays quick."""
    assert loaded_by("import k8snetlab") == loaded_by("")


def test_linux_knows_no_kubernetes_word() -> None:
    """The names in `linux/` are the kernel's: a machine does not know that it is part of a cluster."""
    words = {"pod", "pods", "kube", "kubernetes", "kubelet", "cni", "cluster", "flannel", "clusterip", "nodeport"}
    found = []
    for path in sorted((PACKAGE / "linux").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, field, None) for field in ("id", "attr", "arg", "name")]
            said = {word for name in names if isinstance(name, str) for word in name.lower().split("_")} & words
            found += [f"{path.name}:{getattr(node, 'lineno', 0)}: {word}" for word in sorted(said)]
    assert not found, "\n".join(found)
