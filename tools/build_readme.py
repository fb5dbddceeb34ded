"""Write what the README shows of the lab: the first trace and its picture.

    python tools/build_readme.py            write README.md and docs/first-trace.svg
    python tools/build_readme.py --check    exit 1 if they are not what the lab says today

The text stands between the two marks in README.md; nothing else of it is touched.
"""

from __future__ import annotations

import sys
from pathlib import Path

import k8snetlab as k8s

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "first-trace.svg"
BEGIN, END = "<!-- first trace: made by tools/build_readme.py -->", "<!-- end of first trace -->"
SOURCE, TARGET, SEED = "shop/web-0", "svc/shop/api:80", 3


def built() -> dict[Path, str]:
    """The files as they should be."""
    shop = k8s.example("bookshop")
    trace = shop.trace(SOURCE, TARGET, seed=SEED)
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    there, _, _ = str(trace).partition("\nBack\n")
    back = f"Back\n… {len(trace.reply)} steps …"
    shown = f"{head}{BEGIN}\n```text\n{there}\n{back}\n\n{trace.chances()}\n```\n{END}{tail}"
    return {README: shown, PICTURE: k8s.draw.topology(shop, trace).svg}


def main(arguments: list[str]) -> int:
    """Write the files, or compare them."""
    stale = [path for path, text in built().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the lab says today: run make notebooks")
        return 1 if stale else 0
    for path, text in built().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
