"""Layer by layer: what bounds it (roofline), where its time goes, its share of peak, its SQNR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.report.plots import style
from accelsim.report.plots.style import (
    MARKERS,
    SERIES,
    Look,
    axes_for,
    bars,
    legend_beside,
    panel_inches,
    place_labels,
    readable,
    short,
    title,
    unit_for,
)
from accelsim.sim.layer_run import STALL_REASONS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# In a run of more layers than this the axis numbers layers instead of naming them.
_MOST_NAMES = 64
_LABELLED = 5
_NARROW_INCHES = 4.5  # half of a page
# Of every stall reason; a wait has the colour of what is waited for, hatched.
STALLS = dict(
    zip(
        STALL_REASONS,
        (
            Look(style.BLUE),
            Look(style.SKY),
            Look(style.VERMILION, "xxxx"),
            Look(style.ORANGE, "////"),
            Look(style.PURPLE, "\\\\\\\\"),
            Look(style.GREEN),
            Look(style.LIGHT),
        ),
        strict=True,
    )
)
MEMORIES = ("dram", "global_buffer")


@dataclass(frozen=True)
class LayerTable:
    """What figures of a run are drawn from. layers: `layer`, `bound_by` and the numbers that they need;
    global_buffer_bits: read and written by each layer, where that is known."""

    title: str
    arch: Arch
    layers: pd.DataFrame
    global_buffer_bits: Sequence[int] | None = None


def draw_roofline(run: LayerTable, ax: Axes | None, memory: str, legend: bool) -> Axes:
    """Operations a cycle over operations a byte; layers without traffic stand at the right edge."""
    layers, arch = run.layers, run.arch
    peak = 2 * arch.pes * arch.lanes * arch.vector_size
    byte_rate, moved = _traffic(run, memory)
    operations = 2 * layers["macs"].to_numpy(float)
    with np.errstate(divide="ignore"):
        intensity = operations / moved
    edge = 4 * max(peak / byte_rate, intensity[np.isfinite(intensity)].max(initial=1.0))
    still = ~np.isfinite(intensity)
    intensity = np.where(still, edge, intensity)
    achieved = operations / layers["cycles"].to_numpy(float)
    axes = axes_for(ax, 7.5, 4.6)
    first = min(intensity.min(), peak / byte_rate) / 2
    last = 1.6 * (edge if still.any() else max(intensity.max(), peak / byte_rate))
    ridge = peak / byte_rate
    axes.plot([first, ridge, last], [first * byte_rate, peak, peak], color="black", linewidth=1.2)
    for number, bound in enumerate(sorted(layers["bound_by"].unique())):
        own = (layers["bound_by"] == bound).to_numpy()
        axes.scatter(
            intensity[own], achieved[own], s=30, color=SERIES[number % len(SERIES)], alpha=0.85,
            marker=MARKERS[number % len(MARKERS)], edgecolors="black", linewidths=0.4,
            label=short(readable(bound)), zorder=3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(first, last)
    axes.set_ylim(min(achieved.min(), first * byte_rate) / 1.5, 2.6 * peak)
    where = {"dram": "DRAM", "global_buffer": "global buffer"}[memory]
    none = ", none: right edge" if still.any() else ""
    axes.set_xlabel(f"operations per byte of {where} traffic (1 MAC = 2 operations{none})")
    axes.set_ylabel("operations per cycle")
    # No point is above the roof but by a little: what is written there covers nothing.
    axes.annotate(
        f"peak {peak:,} operations a cycle; {where} {byte_rate:,.4g} bytes a cycle", (0.01, 0.98),
        xycoords="axes fraction", va="top", fontsize=style.SMALL,
    )  # fmt: skip
    title(axes, run.title)
    if legend:
        legend_beside(axes, heading="bound by")
    _label_slowest(axes, run, intensity, achieved, byte_rate, peak)
    return axes


def _traffic(run: LayerTable, memory: str) -> tuple[float, np.ndarray]:
    """(bytes a cycle at most, bytes of each layer)"""
    if memory not in MEMORIES:
        raise AccelsimError(f"plot: memory is {memory!r:.40}, expected one of {', '.join(MEMORIES)}")
    if memory == "dram":
        moved = run.layers["dram_read_bits"] + run.layers["dram_write_bits"]
        return run.arch.dram_bits / 8, moved.to_numpy(float) / 8
    if run.global_buffer_bits is None:
        raise AccelsimError("plot: traffic of the global buffer is not known, expected a run")
    return run.arch.gb_banks * run.arch.gb_bank_bits / 8, np.array(run.global_buffer_bits, float) / 8


def _label_slowest(
    axes: Axes, run: LayerTable, x: np.ndarray, y: np.ndarray, rate: float, peak: float
) -> None:
    """Names of the points furthest below the roof; of layers at one place that of the first."""
    roof = np.minimum(peak, x * rate)
    spots: dict[tuple[float, float], list[int]] = {}
    for index in np.argsort(y / roof, kind="stable"):
        spots.setdefault((float(f"{x[index]:.2g}"), float(f"{y[index]:.2g}")), []).append(int(index))
    narrow = panel_inches(axes)[0] < _NARROW_INCHES
    chosen = list(spots.values())[: _LABELLED // 2 + 1 if narrow else _LABELLED]
    names = [short(str(name)) for name in run.layers["layer"]]
    texts = [names[own[0]] + (f" and {len(own) - 1} more" if len(own) > 1 else "") for own in chosen]
    along = np.geomspace(*axes.get_xlim(), 150)
    drawn = np.concatenate([np.stack([x, y], 1), np.stack([along, np.minimum(along * rate, peak)], 1)])
    place_labels(axes, [(x[own[0]], y[own[0]]) for own in chosen], texts, drawn)


def draw_stalls(run: LayerTable, ax: Axes | None, legend: bool) -> Axes:
    """Cycles of each layer, mean over the PEs, by stall reason; ticks: the least that any mapping takes."""
    layers = run.layers
    cycles = layers["cycles"].to_numpy(float)
    axes = axes_for(ax, *size_of(layers))
    size, unit = unit_for(
        cycles.max() / 10, ((1.0, "cycles"), (1e3, "thousand cycles"), (1e6, "million cycles"))
    )
    places, bottom = _places(axes, list(layers["layer"])), np.zeros(len(layers))
    bound = layers["bound_cycles"].to_numpy(float) / size
    axes.hlines(bound, places - 0.46, places + 0.46, color="black", linewidth=1.3, label="bound")
    for reason, look in STALLS.items():
        own = layers[f"{reason}_share"].to_numpy(float) * cycles / size
        bars(axes, places, own, bottom, label=readable(reason), look=look)
        bottom += own
    axes.set_ylim(0, 1.05 * max(bottom.max(), bound.max()))
    axes.set_ylabel(f"{unit}, mean over the PEs")
    title(axes, run.title)
    if legend:
        legend_beside(axes, reverse=True)
    return axes


def draw_utilization(run: LayerTable, ax: Axes | None, legend: bool) -> Axes:
    """Share of peak that each layer reaches, coloured by what bounds it; ticks: what the bound allows."""
    layers, arch = run.layers, run.arch
    peak = arch.pes * arch.lanes * arch.vector_size
    axes = axes_for(ax, *size_of(layers))
    places = _places(axes, list(layers["layer"]))
    ceiling = 100 * np.minimum(1.0, (layers["macs"] / (layers["bound_cycles"] * peak)).to_numpy(float))
    axes.hlines(ceiling, places - 0.46, places + 0.46, color="black", linewidth=1.3, label="at the bound")
    bounds = sorted(layers["bound_by"].unique())
    for number, bound in enumerate(bounds):
        own = (layers["bound_by"] == bound).to_numpy()
        reached = 100 * layers["utilization"].to_numpy(float)[own]
        bars(axes, places[own], reached, label=short(readable(bound)), look=style.look_of(number))
    axes.set_ylim(0, 105)
    axes.set_ylabel("utilization (% of peak)")
    title(axes, run.title)
    if legend:
        legend_beside(axes, heading="bound by")
    return axes


def draw_sqnr(each: Mapping[str, pd.DataFrame], heading: str, ax: Axes | None, legend: bool) -> Axes:
    """SQNR of the integer sums (filled) and of what the PPU hands on (hollow), a line a scheme. Raises
    AccelsimError where no layer has one.

    each: scheme -> its layers.
    """
    if any(layers["sqnr_db"].isna().all() for layers in each.values()):
        raise AccelsimError("plot: no layer has an SQNR, expected a run on float values that are known")
    names = [str(name) for name in next(iter(each.values()))["layer"]]
    axes = axes_for(ax, *size_of(next(iter(each.values()))))
    places = _places(axes, names)
    for number, (scheme, layers) in enumerate(each.items()):
        color, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
        kind: dict[str, Any] = {"color": color, "marker": marker, "markersize": 5}
        axes.plot(places, layers["sqnr_db"].to_numpy(float), linewidth=1, label=scheme, **kind)
        handed_on = layers["ppu_sqnr_db"].to_numpy(float)
        axes.plot(places, handed_on, linestyle="none", markerfacecolor="none", **{**kind, "markersize": 8})
    axes.plot([], [], "o", color=style.GREY, markerfacecolor="none", markersize=8, label="after the PPU")
    axes.grid(axis="y", linewidth=0.4)
    axes.set_ylabel("SQNR (dB)")
    title(axes, heading)
    if legend:
        legend_beside(axes)
    return axes


def _places(axes: Axes, names: Sequence[str]) -> np.ndarray:
    places = np.arange(len(names))
    if len(names) <= _MOST_NAMES:
        size = style.LEAST if len(names) <= 48 else style.LEAST - 0.5
        axes.set_xticks(places, [short(name) for name in names], rotation=90, fontsize=size, parse_math=False)
    else:
        axes.set_xlabel("layer, by number")
    axes.set_xlim(-0.8, len(names) - 0.2)
    return places


def size_of(layers: pd.DataFrame) -> tuple[float, float]:
    """Inches of a figure of these layers, whose names stand upright below it."""
    names = list(layers["layer"])
    longest = max(len(short(str(name))) for name in names) if len(names) <= _MOST_NAMES else 0
    return min(10.0, max(5.5, 2.6 + 0.14 * len(names))), 3.1 + 0.06 * longest
