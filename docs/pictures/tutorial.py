"""Draws tutorial.svg: the run of docs/tutorial.md, whose code blocks it executes.

python docs/pictures/tutorial.py      from a checkout, with accelsim installed
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from accelsim.report.plots.timeline import draw_timeline
from accelsim.report.timeline import slices_of

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "tutorial.md"
PICTURE = HERE / "tutorial.svg"

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "accelsim",
    "font.family": "sans-serif",
    "font.size": 8,
}

Slice = dict[str, Any]


def run_page(folder: Path) -> list[tuple[str, str]]:
    """Execute the page's python blocks in order, in `folder`.

    Returns (what a block printed, what the page says it prints) of each block with a text block after it.
    """
    blocks = re.findall(r"```(\w*)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    namespace: dict[str, Any] = {}
    printed = []
    before = Path.cwd()
    os.chdir(folder)
    try:
        for (kind, code), (following, text) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
            if kind == "python":
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(compile(code, str(PAGE), "exec"), namespace)
                printed.append((out.getvalue(), text if following == "text" else ""))
    finally:
        os.chdir(before)
    return printed


def slices(timeline: Path) -> dict[tuple[str, str], list[Slice]]:
    """(process, track) -> its slices in order of time, each with name, begin, end and args."""
    return slices_of(json.loads(timeline.read_text("utf-8"))["traceEvents"])


def draw(timeline: Path, picture: Path) -> None:
    """One row for DRAM, each bank and each PE: what it issues or waits for, below that its drains."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(11, 3.6), layout="constrained")
        draw_timeline(slices(timeline), "", axes, None, legend=True)
        figure.savefig(picture, format="svg", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_page(Path(folder))
        draw(Path(folder) / "out" / "timeline.json", PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
