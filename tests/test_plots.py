"""Figures of results: what they draw is what the tables say, and all of it can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.text import Text

import accelsim
from accelsim import AccelsimError, Comparison, RunResult
from accelsim.report.inventory import PART_NAMES
from accelsim.report.plots import parts, style
from accelsim.report.plots import timeline as timelines
from accelsim.report.plots.breakdown import area_frame, energy_frame
from accelsim.report.plots.layers import LayerTable, draw_roofline, draw_stalls, draw_utilization
from accelsim.report.plots.pareto import SweepPlots
from accelsim.sim.layer_run import STALL_REASONS
from accelsim.sweep.front import front
from accelsim.validation.published import published_savings

pytestmark = pytest.mark.kept

SCHEMES = ["8/8/-/-", "4/4/4/4", "4/8/6/10"]
NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def comparison(trace: Path) -> Comparison:
    return accelsim.compare(trace, schemes=SCHEMES, overrides=["pes=4"])


@pytest.fixture(scope="module")
def result(trace: Path) -> RunResult:
    return accelsim.run(trace, overrides=["pes=4"], gated_fraction=0.0, timeline=True)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def bars(axes: Axes) -> dict[str, list[float]]:
    """Label -> its bars' heights."""
    each = {str(own.get_label()): [bar.get_height() for bar in own] for own in axes.containers}
    for own in axes.collections:
        if isinstance(own, PolyCollection):
            each[str(own.get_label())] = [float(np.ptp(path.vertices[:, 1])) for path in own.get_paths()]
    return each


def check_readable(axes: Axes) -> None:
    """No text leaves the figure, and no two stand on each other."""
    figure = axes.figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    texts = [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]  # type: ignore[attr-defined]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        texts += [tick.label1 for tick in ticks]
    if (legend := axes.get_legend()) is not None:
        texts += [*legend.get_texts(), legend.get_title()]
    # Without the lines that lead from labels to their points. Slanted names have
    # boxes that overlap where the texts do not.
    shown = [own for own in texts if own.get_text() and own.get_visible() and own.get_rotation() in (0, 90)]
    boxes = {own: Text.get_window_extent(own, renderer) for own in shown}
    for own, box in boxes.items():
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, own
    for (first, a), (second, b) in combinations(boxes.items(), 2):
        over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(over) < 1, (first.get_text(), second.get_text())


def resnet50(names: int = 54) -> LayerTable:
    """Layers of ResNet-50 with figures that are drawn at random."""
    rng = np.random.default_rng(3)
    arch = accelsim.load_arch("magnet16")
    layers = accelsim.open_workload("resnet50").layers
    macs = np.array([layer.geometry.macs for layer in layers], float)
    bound = np.ceil(macs / (arch.pes * arch.lanes * arch.vector_size))
    cycles = np.ceil(bound * rng.uniform(1, 3, len(macs)))
    shares = rng.dirichlet(np.ones(len(STALL_REASONS)), len(macs))
    table = pd.DataFrame(
        {
            "layer": [layer.name for layer in layers],
            "macs": macs,
            "cycles": cycles,
            "bound_cycles": bound,
            "bound_by": rng.choice(["compute", "dram", "weight_banks", "global_pe rows"], len(macs)),
            "utilization": bound / cycles,
            "dram_read_bits": macs * rng.uniform(0.001, 0.1, len(macs)),
            "dram_write_bits": 0.0,
            **{f"{reason}_share": shares[:, number] for number, reason in enumerate(STALL_REASONS)},
        }
    )
    return LayerTable("resnet50 at 4/4/4/4 on magnet16", arch, table.head(names))


# --- what is drawn ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["part", "scope", "evidence"])
def test_pieces_of_energy_and_area_add_up(comparison: Comparison, by: str) -> None:
    for scope in ("pe", "array", "system"):
        axes = comparison.plot.energy(scope=scope, by=by)
        drawn = np.sum(list(bars(axes).values()), axis=0)
        unit = {"pJ": 1, "nJ": 1e3, "uJ": 1e6}[axes.get_ylabel()[-3:-1]]
        assert drawn * unit == pytest.approx([own.summary["energy_pj"][scope] for own in comparison.runs])
        assert [bar.get_y() + bar.get_height() for bar in axes.containers[-1]] == pytest.approx(drawn)
    for scope in ("datapath", "pe", "array"):
        axes = comparison.plot.area(scope=scope, by=by)
        drawn = np.sum(list(bars(axes).values()), axis=0)
        unit = 1e6 if axes.get_ylabel().endswith("(mm2)") else 1
        assert drawn * unit == pytest.approx([own.summary["area_um2"][scope] for own in comparison.runs])


def test_savings_stand_beside_published_ones(comparison: Comparison) -> None:
    published = {"4/8/6/10": published_savings("bert-base")["4/8/6/10"], "3/3/-/-": {"area": 99.0}}
    axes = comparison.plot.savings(published=published)
    table = comparison.to_frame().set_index("scheme")
    drawn = bars(axes)
    assert set(drawn) == set(SCHEMES[1:])
    for scheme, heights in drawn.items():
        assert heights[1] == pytest.approx(table.loc[scheme, "area_pe_saved_percent"])
        assert heights[4] == pytest.approx(table.loc[scheme, "energy_pe_saved_percent"])
    (points,) = (own for own in axes.lines if own.get_label() == "published")
    assert points.get_ydata().tolist() == [26.0, -34.5]
    (own,) = (each for each in axes.containers if each.get_label() == "4/8/6/10")
    assert points.get_xdata() == pytest.approx([own[at].get_x() + own[at].get_width() / 2 for at in (1, 4)])
    check_readable(axes)


def test_what_is_published_of_a_workload() -> None:
    assert published_savings("resnet50")["4/4/4/6"] == {"area": 37.0, "energy": 24.0}
    assert published_savings("resnet50")["4/4/4/4"] == {"energy": pytest.approx(35.9)}
    assert published_savings("digits") == {}


def test_stalls_add_up_to_the_cycles(result: RunResult) -> None:
    axes = result.plot.stalls()
    assert list(bars(axes)) == [reason.replace("_", " ") for reason in STALL_REASONS]
    assert np.sum(list(bars(axes).values()), axis=0) == pytest.approx(result.layers["cycles"].to_numpy(float))


def test_the_roof_is_the_machines(result: RunResult) -> None:
    arch = result.report.arch
    for memory, byte_rate in (
        ("dram", arch.dram_bits / 8),
        ("global_buffer", arch.gb_banks * arch.gb_bank_bits / 8),
    ):
        axes = result.plot.roofline(memory=memory)
        x, y = axes.lines[0].get_data()
        peak = 2 * arch.pes * arch.lanes * arch.vector_size
        assert y[1] == y[2] == peak and x[1] * byte_rate == pytest.approx(peak)
        points = np.concatenate([own.get_offsets() for own in axes.collections])
        assert len(points) == len(result.layers) and points[:, 1].max() <= peak
    # The last of them: what the buffer's bits are is what its energy is counted by.
    words = result.report.components.query("component == 'global_buffer' and action in ('read', 'write')")
    ordered = result.layers.sort_values("bound_by", kind="stable")
    moved_bits = 8 * 2 * ordered["macs"].to_numpy() / points[:, 0]
    assert moved_bits.sum() == pytest.approx(arch.gb_bank_bits * words["count"].sum())


def test_sqnr_needs_values(comparison: Comparison, result: RunResult) -> None:
    axes = comparison.plot.sqnr()
    lines = {own.get_label(): own for own in axes.lines}
    for scheme in SCHEMES:
        assert lines[scheme].get_ydata() == pytest.approx(comparison[scheme].layers["sqnr_db"], nan_ok=True)
    with pytest.raises(AccelsimError, match="no layer has an SQNR"):
        result.plot.sqnr()


def test_a_timeline_draws_every_slice(result: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = result.plot.timeline()
    compute = result.timeline.slices()["PE 0", "compute"]  # type: ignore[union-attr]
    row = [label.get_text() for label in axes.get_yticklabels()].index("PE 0")
    drawn = [
        path.get_extents()
        for own in axes.collections
        if tuple(own.get_facecolor()[0]) == plt.matplotlib.colors.to_rgba(style.BLUE)
        for path in own.get_paths()
        if row - 0.5 < path.get_extents().y0 < row
    ]
    assert sorted((box.x0, box.x1) for box in drawn) == [(own["begin"], own["end"]) for own in compute]
    # Of too many slices, shares of bins of time: as much of the row is blue as the PE is computing.
    monkeypatch.setattr(timelines, "_MOST_SLICES", 0)
    axes = result.plot.timeline()
    (image,) = axes.images
    pixels = np.asarray(image.get_array())
    own = pixels[row * timelines._ROW_PIXELS : (row + 1) * timelines._ROW_PIXELS]
    blue = np.isclose(own, plt.matplotlib.colors.to_rgb(style.BLUE)).all(axis=2).sum(axis=0)
    busy = sum(each["end"] - each["begin"] for each in compute) / result.summary["cycles"]
    assert blue.mean() / blue.max() == pytest.approx(busy, abs=0.02)


def test_a_window_of_a_timeline(result: RunResult) -> None:
    axes = result.plot.timeline(cycles=(10, 40))
    assert axes.get_xlim() == (10, 40)
    for wrong in ((40, 10), (-1, 10), (10**9, 10**9 + 1), 5, ("a", "b")):
        with pytest.raises(AccelsimError, match="within those of the run"):
            result.plot.timeline(cycles=wrong)  # type: ignore[arg-type]


def test_what_cannot_be_drawn(comparison: Comparison, trace: Path) -> None:
    with pytest.raises(AccelsimError, match="expected one with timeline=True"):
        comparison["4/4/4/4"].plot.timeline()
    with pytest.raises(AccelsimError, match="scope is 'chip', expected one of datapath, pe, array, system"):
        comparison.plot.energy(scope="chip")
    with pytest.raises(AccelsimError, match="scope is 'system', expected one of datapath, pe, array"):
        comparison.plot.area(scope="system")
    with pytest.raises(AccelsimError, match="by is 'layer', expected one of part, scope, evidence"):
        comparison.plot.energy(by="layer")
    with pytest.raises(AccelsimError, match="memory is 'l2', expected one of dram, global_buffer"):
        comparison["4/4/4/4"].plot.roofline(memory="l2")
    with pytest.raises(AccelsimError, match="ax is 3, expected matplotlib axes, or None"):
        comparison.plot.energy(3)  # type: ignore[arg-type]
    one = accelsim.compare(trace, schemes=["4/4/4/4"], gated_fraction=0.0, prices=False)
    with pytest.raises(AccelsimError, match="at least two schemes"):
        one.plot.savings()
    with pytest.raises(AccelsimError, match="has no prices"):
        one.plot.area()


def test_figures_go_on_axes_that_are_given(comparison: Comparison) -> None:
    figure, (left, right) = plt.subplots(1, 2, layout="constrained", figsize=(10, 4))
    assert comparison.plot.energy(left, legend=False) is left and left.get_legend() is None
    assert comparison.plot.area(right, scope="pe") is right and right.get_legend() is not None
    assert plt.get_fignums() == [figure.number]


def test_layers_of_a_comparison_stand_beside_each_other(comparison: Comparison) -> None:
    table = comparison.layers
    assert list(table.index) == list(comparison.runs[0].layers["layer"])
    assert list(table["cycles"].columns) == SCHEMES
    assert table["energy_system_uj", "4/4/4/4"].sum() * 1e6 == pytest.approx(
        comparison["4/4/4/4"].summary["energy_pj"]["system"]
    )


# --- points of a sweep --------------------------------------------------------------------------------------


def points() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "scheme": ["4/4/4/4", "8/8/-/-", "4/4/4/4", "8/8/-/-", "4/4/4/4", "6/6/-/-"],
            "energy_system_pj": [1e6, 2e6, 3e6, 4e6, 1.0, np.nan],
            "top-1 (%)": [60.0, 70.0, 65.0, 80.0, 99.0, 99.0],
            "clock_margin": [0.1, 0.1, 0.1, 0.0, -0.2, np.nan],
            "error": ["", "", "", "", "", "too large"],
        }
    )


def test_the_front_of_a_sweep() -> None:
    plots = SweepPlots(points(), ["top-1 (%)"], front)
    axes = plots.pareto(x="energy_system_pj", y="top-1 (%)")
    assert axes.get_xlabel() == "energy system (uJ), less is better"
    assert axes.get_ylabel() == "top-1 (%), more is better"
    (line,) = axes.lines
    assert np.column_stack(line.get_data()).tolist() == [[1, 60], [2, 70], [4, 80]]
    drawn = {own.get_label(): len(own.get_offsets()) for own in axes.collections}
    assert drawn == {"4/4/4/4": 2, "8/8/-/-": 2}  # neither what failed nor what misses its clock
    check_readable(axes)
    axes = plots.pareto(x="energy_system_pj", y="top-1 (%)", more_is_better=())
    assert np.column_stack(axes.lines[0].get_data()).tolist() == [[1, 60]]


@pytest.mark.parametrize("values", [range(4), range(40)])
def test_points_without_a_colour_are_hollow(values: range) -> None:
    """As those are whose accuracy was not measured; few values have a name each, many a colour bar."""
    frame = pd.DataFrame({"x": [*values, 50], "y": [*values[::-1], 60], "accuracy": [*values, np.nan]})
    axes = SweepPlots(frame, ["accuracy"], front).pareto(x="x", y="y", colour="accuracy")
    drawn = {own.get_label(): own for own in axes.collections}
    assert sum(len(own.get_offsets()) for own in drawn.values()) == len(frame)
    assert drawn["none"].get_offsets().tolist() == [[50, 60]] and not len(drawn["none"].get_facecolors())
    check_readable(axes)


def test_a_sweep_without_such_points() -> None:
    plots = SweepPlots(points(), [], front)
    with pytest.raises(AccelsimError, match="no column 'area', expected one of scheme, energy_system_pj"):
        plots.pareto(x="area", y="top-1 (%)")
    with pytest.raises(AccelsimError, match="expected columns of numbers"):
        plots.pareto(x="scheme", y="top-1 (%)")
    with pytest.raises(AccelsimError, match="no point has both"):
        SweepPlots(points().tail(2), [], front).pareto(x="energy_system_pj", y="top-1 (%)")


# --- that it can be read ------------------------------------------------------------------------------------


def test_every_part_has_a_look_of_its_own() -> None:
    grouped = [name for _, own in parts.GROUPS.values() for name in own]
    assert len(grouped) == len(set(grouped)) and set(grouped) == PART_NAMES
    for looks in (
        [look for look, _ in parts.GROUPS.values()],
        [look for look, _ in parts.SCOPES.values()],
        list(parts.EVIDENCE.values()),
        [style.look_of(number) for number in range(32)],
    ):
        assert len(looks) == len(set(looks))
    groups = [look.color for look, _ in parts.GROUPS.values()]
    assert all(first != second for first, second in pairwise(groups))


@pytest.mark.parametrize("layers", [1, 54])
def test_layers_can_be_read(layers: int) -> None:
    for draw in (draw_stalls, draw_utilization):
        check_readable(draw(resnet50(layers), None, legend=True))
    check_readable(draw_roofline(resnet50(layers), None, "dram", legend=True))


def test_names_of_any_length_and_kind_can_be_drawn() -> None:
    run = resnet50(3)
    run.layers["layer"] = ["x" * 200, "$\\frac{$", "_"]
    run.layers["bound_by"] = ["$\\frac{$", "y" * 200, "dram"]
    for draw in (draw_stalls, draw_utilization):
        check_readable(draw(run, None, legend=True))
    check_readable(draw_roofline(run, None, "dram", legend=True))


def test_breakdowns_can_be_read(comparison: Comparison, result: RunResult) -> None:
    plots = comparison.plot
    for axes in (plots.energy(), plots.area(scope="pe"), plots.savings(), plots.sqnr(), result.plot.energy()):
        check_readable(axes)


def test_numbers_and_names() -> None:
    said = {0: "0", 0.17762: "0.178", 9.999: "10.0", 999.9: "1,000", 154.3: "154", 1234567.0: "1,234,567"}
    assert {value: style.number(value) for value in said} == said
    assert style.readable("global_pe rows") == "global PE rows"


def test_frames_are_in_the_order_of_the_machine(comparison: Comparison) -> None:
    reports = [run.report for run in comparison.runs]
    assert list(energy_frame(reports).columns)[:2] == ["dot product", "scale path"]
    assert list(area_frame(reports, "pe", "scope").columns) == ["datapath", "rest of the PE"]


# --- notebooks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name[:2])
def test_notebooks_are_committed_with_outputs(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    outputs = [own for cell in cells for own in cell["outputs"]]
    assert path.stat().st_size < 400_000
    assert sum("image/png" in own.get("data", {}) for own in outputs) >= 3
    assert all(cell["execution_count"] for cell in cells)
    assert not any(own["output_type"] == "error" for own in outputs)
    # Addresses of objects are others each time.
    assert not any(" at 0x" in "".join(own.get("data", {}).get("text/plain", "")) for own in outputs)
