"""Reading our own pages: tables, anchors, links, and the programs that they print."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")
PAGES = (*READMES, "CHANGELOG.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def tables(page: str) -> list[list[list[str]]]:
    """The page's tables: rows of cells, headings first, an escaped bar read as a bar."""
    found: list[list[list[str]]] = []
    inside = False
    for line in _FENCE.sub("", text(page)).splitlines():
        if line.startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not inside:
                found.append([])
            if not set("".join(cells)) <= set("-: "):
                found[-1].append(cells)
        inside = line.startswith("|")
    return found


def table(page: str, *headings: str) -> list[list[str]]:
    """The rows, without its headings, of the one table whose first headings are these."""
    (rows,) = (t[1:] for t in tables(page) if tuple(t[0][: len(headings)]) == headings)
    return rows


def anchors(page: str) -> set[str]:
    """What a link into the page may name: explicit ids, and headings as a forge makes them."""
    said = text(page)
    slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", said, re.MULTILINE)}
    return slugs | set(re.findall(r'<a id="([^"]+)"></a>', said))


def block(page: str, name: str) -> str:
    """The one fenced block whose opening line ends in this name."""
    (found,) = re.findall(rf"^```\w+ {re.escape(name)}\n(.*?)^```$", text(page), re.DOTALL | re.MULTILINE)
    return found
