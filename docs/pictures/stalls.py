"""Draws stalls.svg: the array of magnet16 on ResNet-50, and what each PE does with its cycles at two schemes.

python docs/pictures/stalls.py      from a checkout, with accelsim installed
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import accelsim

PICTURE = Path(__file__).resolve().parent / "stalls.svg"
SCHEMES = ("8/8/-/-", "4/4/4/4")
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "accelsim",
    "font.family": "sans-serif",
    "font.size": 8,
}
# What is shown together, and in which color: stall reasons of docs/timing.md.
GROUPS = {
    "computes": (("compute",), "#b279a2"),
    "waits for weights": (("weight_wait",), "#f58518"),
    "waits for inputs": (("input_wait",), "#4c78a8"),
    "waits for outputs": (("output_wait",), "#54a24b"),
    "drains, bubbles, idle": (("drain", "bubble", "idle"), "#cccccc"),
}
_COLUMNS = 4


def shares(result: accelsim.RunResult) -> dict[int, dict[str, float]]:
    """PE -> group -> share of the run's cycles."""
    cycles = result.report.stalls.groupby(["pe", "stall_reason"])["cycles"].sum()
    total = result.summary["cycles"]
    return {
        int(pe): {
            name: sum(int(cycles[pe, reason]) for reason in reasons) / total
            for name, (reasons, _) in GROUPS.items()
        }
        for pe in cycles.index.get_level_values("pe").unique()
    }


def dram_share(result: accelsim.RunResult) -> float:
    """Of what the DRAM port could move in the run's cycles."""
    counts = result.to_frame().groupby(["component", "action"])["count"].sum()
    return float(counts["dram", "bit"] / (result.report.arch.dram_bits * result.summary["cycles"]))


def draw(comparison: accelsim.Comparison, picture: Path) -> None:
    """A panel a scheme."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(comparison.runs), figsize=(9, 3.9))
        for axes, result in zip(panels, comparison.runs, strict=True):
            _panel(axes, result)
        handles = [Rectangle((0, 0), 1, 1, color=color) for _, color in GROUPS.values()]
        figure.legend(handles, list(GROUPS), loc="lower center", ncols=len(GROUPS), frameon=False)
        figure.tight_layout(rect=(0, 0.06, 1, 1))
        figure.savefig(picture, format="svg", metadata={"Date": None})
        plt.close(figure)


def _panel(axes: Axes, result: accelsim.RunResult) -> None:
    summary, found = result.summary, shares(result)
    title = (
        f"{summary['scheme']}: {summary['cycles']:,} cycles, lanes at {summary['utilization']:.0%} of peak"
    )
    axes.set_title(title, fontsize=9)
    rows = -(-len(found) // _COLUMNS)
    axes.set_xlim(-0.05, _COLUMNS)
    axes.set_ylim(-rows - 0.05, 2.15)
    axes.axis("off")
    busy = dram_share(result)
    _box(axes, 1.55, "DRAM", f"port busy {busy:.0%} of the time", busy)
    _box(axes, 0.85, f"global buffer, {result.report.arch.gb_banks} banks", "", None)
    axes.text(_COLUMNS / 2, 0.42, "crossbar with multicast", ha="center", va="center", color="#555555")
    for place in range(_COLUMNS):
        axes.plot([place + 0.47] * 2, [0.1, 0.28], color="#999999", linewidth=1)
    axes.plot([0.47, _COLUMNS - 0.53], [0.28] * 2, color="#999999", linewidth=1)
    axes.plot([_COLUMNS / 2] * 2, [1.3, 1.5], color="#999999", linewidth=1)
    axes.plot([_COLUMNS / 2] * 2, [0.62, 0.85], color="#999999", linewidth=1)
    for pe, own in found.items():
        left, bottom = pe % _COLUMNS, -(pe // _COLUMNS) - 0.85
        begin = 0.0
        for name, share in own.items():
            width = 0.94 * share
            axes.add_patch(Rectangle((left + begin, bottom), width, 0.55, color=GROUPS[name][1], linewidth=0))
            begin += width
        axes.add_patch(Rectangle((left, bottom), 0.94, 0.55, fill=False, edgecolor="#666666", linewidth=0.8))
        axes.text(left, bottom + 0.6, f"PE {pe}", fontsize=6.5, va="bottom", color="#555555")
        axes.text(left + 0.47, bottom + 0.27, f"{own['computes']:.0%}", fontsize=7, ha="center", va="center")


def _box(axes: Axes, bottom: float, name: str, said: str, filled: float | None) -> None:
    width = _COLUMNS - 0.06
    if filled is not None:
        axes.add_patch(Rectangle((0, bottom), width * filled, 0.45, color="#e3d7cf", linewidth=0))
    axes.add_patch(Rectangle((0, bottom), width, 0.45, fill=False, edgecolor="#666666", linewidth=0.8))
    axes.text(0.08, bottom + 0.22, name, va="center")
    axes.text(width - 0.08, bottom + 0.22, said, va="center", ha="right")


def main() -> None:
    draw(accelsim.compare("resnet50", schemes=SCHEMES, gated_fraction=0.0), PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
