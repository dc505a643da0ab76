"""The figures of a result folder, PNG and SVG, drawn from its tables; the same tables give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.arguments import path_of
from accelsim.report.plots import layers
from accelsim.report.plots.style import figure_of, save_figure
from accelsim.report.read import read_results
from accelsim.system.whole import whole_files, writing

if TYPE_CHECKING:
    from accelsim.report.plots.of_comparison import ComparisonPlots
    from accelsim.report.plots.of_run import RunPlots


def plot_run(plots: RunPlots, folder: Path) -> None:
    """stalls.* of one run, and where it is priced energy.* and area.*."""
    if plots.report.priced:
        for name, draw in (("energy", plots.energy), ("area", plots.area)):
            figure, axes = figure_of(5.2, 4.2)
            draw(axes)
            save_figure(figure, folder / name)
    figure, axes = figure_of(*layers.size_of(len(plots.report.layers)))
    plots.stalls(axes)
    save_figure(figure, folder / "stalls")


def plot_comparison(plots: ComparisonPlots, folder: Path) -> None:
    """energy.* and area.* of all schemes side by side, and savings.* against the first; nothing where nothing
    is priced."""
    if not plots.runs[0].report.priced:
        return
    count = len(plots.runs)
    for name, draw in (("energy", plots.energy), ("area", plots.area)):
        figure, axes = figure_of(4.2 + 0.8 * count, 4.2)
        draw(axes)
        save_figure(figure, folder / name)
    if count > 1:
        figure, axes = figure_of(max(7.5, min(10.0, 2.0 + 2.4 * (count - 1))), 3.8)
        plots.savings(axes)
        save_figure(figure, folder / "savings")


def plot_folder(folder: str | Path, out: str | Path | None = None) -> list[Path]:
    """Draw roofline.*, stalls.* and utilization.* of a run, or of every scheme of a comparison.

    out: where to, by default into the result folder(s). Returns the files written. Raises AccelsimError for a
    folder that holds no results, and for a damaged file in it.
    """
    folder = path_of(folder, "plot")
    read = read_results(folder)
    target = folder if out is None else path_of(out, "plot: out")
    written: list[Path] = []
    with writing("plot", target), whole_files(target) as scratch:
        for name, run in read.items():
            own = scratch / (name if out is None or len(read) > 1 else "")
            own.mkdir(exist_ok=True)
            figure, axes = figure_of(7.5, 4.6)
            layers.draw_roofline(run, axes, "dram", legend=True)
            written += save_figure(figure, own / "roofline")
            for stem, draw in (("stalls", layers.draw_stalls), ("utilization", layers.draw_utilization)):
                figure, axes = figure_of(*layers.size_of(len(run.layers)))
                draw(run, axes, legend=True)
                written += save_figure(figure, own / stem)
    return [target / path.relative_to(scratch) for path in written]
