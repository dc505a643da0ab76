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

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "tutorial.md"
PICTURE = HERE / "tutorial.svg"

COLORS = {
    "input": "#4c78a8",
    "weight": "#f58518",
    "output": "#54a24b",
    "compute": "#b279a2",
    "drain": "#9d755d",
}
STALLS = {"weight wait": "#fde3c6", "input wait": "#d3dfec", "output wait": "#d5ead3", "drain": "#e8dfda"}
SHORT = {"input": "in", "weight": "w", "output": "out"}
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
    events = json.loads(timeline.read_text("utf-8"))["traceEvents"]
    processes, tracks = {}, {}
    for event in events:
        if event["name"] == "process_name":
            processes[event["pid"]] = event["args"]["name"]
        elif event["name"] == "thread_name":
            tracks[event["pid"], event["tid"]] = event["args"]["name"]
    found: dict[tuple[str, str], list[Slice]] = {}
    for event in sorted((event for event in events if event["ph"] == "X"), key=lambda event: event["ts"]):
        key = processes[event["pid"]], tracks[event["pid"], event["tid"]]
        begin, end = event["ts"], round(event["ts"] + event["dur"], 3)
        own = {"name": event["name"], "begin": begin, "end": end, **event["args"]}
        found.setdefault(key, []).append(own)
    return found


def draw(timeline: Path, picture: Path) -> None:
    """One row for DRAM and each bank, two for each PE: what it issues or waits for, and its drains."""
    found = slices(timeline)
    rows: list[tuple[str, list[Slice]]] = [
        ("DRAM", [*found["DRAM", "reads"], *found["DRAM", "writes"]]),
        *((f"{track}", own) for (process, track), own in sorted(found.items()) if process == "global buffer"),
    ]
    for process in sorted({process for process, _ in found if process.startswith("PE ")}):
        rows.append((process, [*found[process, "stalls"], *found[process, "compute"]]))
        rows.append((f"{process} drain", found[process, "PPU drain"]))
    end = max(own["end"] for own in found["layers", "layer"])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(11, 0.32 * len(rows) + 0.9))
        for row, (label, own_slices) in enumerate(rows):
            for own in own_slices:
                color, text = _look(label, own)
                if color is None:
                    continue
                width = own["end"] - own["begin"]
                axes.barh(
                    row, width, left=own["begin"], height=0.8, color=color, edgecolor="white", linewidth=0.8
                )
                if text and width >= 1.2 * len(text) / 2:
                    dark = color in STALLS.values()
                    axes.text(
                        own["begin"] + width / 2,
                        row,
                        text,
                        ha="center",
                        va="center",
                        fontsize=6.5,
                        color="#555555" if dark else "white",
                    )
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, end)
        axes.set_xticks([*range(0, int(end), 5), int(end)])
        axes.set_xlabel("cycle")
        axes.grid(axis="x", color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.tight_layout()
        figure.savefig(picture, format="svg", metadata={"Date": None})
        plt.close(figure)


def _look(label: str, own: Slice) -> tuple[str | None, str]:
    """Color (None: not drawn) and text of a slice."""
    if "operand" in own:
        operand = own["operand"]
        return COLORS[operand], SHORT[operand] if operand == "weight" else f"{SHORT[operand]} {own['index']}"
    if label.endswith("drain"):
        return COLORS["drain"], "drain"
    if "steps" in own:
        return COLORS["compute"], f"{own['steps']} steps"
    return STALLS.get(own["name"]), own["name"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_page(Path(folder))
        draw(Path(folder) / "out" / "timeline.json", PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
