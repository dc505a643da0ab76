"""What mkdocs cannot do with the pages as they are: pages from outside docs/, and GitHub's Markdown.

The README, DEVIATIONS and others become pages of the site, with links between them and docs/ turned to suit.
`api.md` lists the public names, whose docstrings mkdocstrings reads without importing anything.
"""

from __future__ import annotations

import posixpath
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import accelsim

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "DEVIATIONS.md": "deviations.md",
    "CHANGELOG.md": "changelog.md",
    "accelsim/costs/tables/README.md": "cost_tables.md",
}
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^\s*```")
_STARTS = re.compile(r"\s*([-*] |\d+\. |\||```)")


def on_files(files: Files, config: Any) -> Files:
    for source, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text("utf-8")))
    files.append(File.generated(config, "api.md", content=api_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    made = {name: source for source, name in OUTSIDE.items()}
    source = made.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return blank_lines(turned_links(markdown, posixpath.dirname(source)))


def turned_links(markdown: str, folder: str) -> str:
    """Links as they are on the site; `folder`: of the page, from the checkout's. Links to files that are no
    pages keep their text alone."""

    def turned(match: re.Match[str]) -> str:
        target = match[2]
        if re.match(r"\w+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        path = OUTSIDE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        return f"[{match[1]}]({path}{match[3] or ''})" if path else match[1]

    return _LINK.sub(turned, markdown)


def blank_lines(markdown: str) -> str:
    """Python-Markdown wants an empty line before a list, a table and a block; GitHub does not."""
    lines: list[str] = []
    fenced = False
    for line in markdown.splitlines():
        start = _STARTS.match(line)
        before = lines[-1] if lines else ""
        same = _STARTS.match(before)
        if not fenced and start and before.strip() and not before.startswith((" ", "#")):
            if not same or same[1][0] != start[1][0]:
                lines.append("")
        if _FENCE.match(line):
            fenced = not fenced
        lines.append(line)
    return "\n".join(lines) + "\n"


def api_page() -> str:
    """The public names of `accelsim`, by the module that they are from."""
    parts = [
        "# Python",
        "Everything that `import accelsim` offers; each name is imported when it is first used. Beside it: "
        "`accelsim.torch.export`, `accelsim.torch.simulate`, `accelsim.onnx.export` and `accelsim.sweep`.\n",
    ]
    rooms = {"api": "Running", "report": "Results", "machine": "Machines"}
    order = {"Running": 0, "Results": 1, "Machines": 2, "Workloads and formats": 3}
    placed = sorted(
        (order[title], title, name, module)
        for name, module in accelsim._MODULE_OF.items()
        for title in [rooms.get(module.partition(".")[0], "Workloads and formats")]
    )
    for (_, title), names in groupby(placed, key=lambda own: own[:2]):
        parts.append(f"## {title}")
        parts += [f"::: accelsim.{module}.{name}" for _, _, name, module in names]
    parts.append("## Further doors")
    parts += [f"::: accelsim.{name}" for name in ("torch.export", "torch.simulate", "onnx.export")]
    return "\n\n".join(parts) + "\n"
