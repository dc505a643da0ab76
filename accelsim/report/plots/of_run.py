"""`run.plot`: figures of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.machine import actions
from accelsim.report.plots import breakdown, layers
from accelsim.report.plots.layers import LayerTable
from accelsim.report.plots.timeline import draw_timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from accelsim.report.results import RunResult


@dataclass(frozen=True, repr=False)
class RunPlots:
    """Each draws one finished figure on `ax`, by default on a new one, and returns the axes.

    legend: False where a figure beside it has the same one. Raises AccelsimError for what cannot be drawn.
    """

    run: RunResult

    def __repr__(self) -> str:
        return "<Plots of a run: area, energy, roofline, sqnr, stalls, timeline, utilization>"

    def energy(
        self, ax: Axes | None = None, *, scope: str = "system", by: str = "part", legend: bool = True
    ) -> Axes:
        """Energy within a scope, stacked by "part", "scope" or "evidence"."""
        return breakdown.draw_energy([self.run.report], self._title, ax, scope, by, legend)

    def area(
        self, ax: Axes | None = None, *, scope: str = "array", by: str = "part", legend: bool = True
    ) -> Axes:
        """Placed area of the "array", of one "pe" or of one "datapath", stacked as energy is."""
        return breakdown.draw_area([self.run.report], self._title, ax, scope, by, legend)

    def roofline(self, ax: Axes | None = None, *, memory: str = "dram", legend: bool = True) -> Axes:
        """A point a layer below the machine's peak and the bandwidth of "dram" or "global_buffer"."""
        return layers.draw_roofline(self._table, ax, memory, legend)

    def stalls(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Cycles of every layer by stall reason, with the bound."""
        return layers.draw_stalls(self._table, ax, legend)

    def utilization(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Share of peak that every layer reaches, and what its bound allows."""
        return layers.draw_utilization(self._table, ax, legend)

    def sqnr(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """SQNR of every layer, of its sums and after the PPU."""
        each = {self.run.summary["scheme"]: self.run.layers}
        return layers.draw_sqnr(each, self._title, ax, legend)

    def timeline(
        self, ax: Axes | None = None, *, cycles: tuple[float, float] | None = None, legend: bool = True
    ) -> Axes:
        """What happens when, in these cycles, by default all: DRAM, banks and PEs. Needs a run with
        `timeline=True`."""
        if self.run.timeline is None:
            raise AccelsimError("plot: the run has no timeline, expected one with timeline=True")
        return draw_timeline(self.run.timeline.slices(), self._title, ax, cycles, legend)

    @property
    def _title(self) -> str:
        return title_of(self.run)

    @property
    def _table(self) -> LayerTable:
        return table_of(self.run)


def title_of(run: RunResult) -> str:
    own = run.summary
    synthetic = " (synthetic tensors)" if own["synthetic"] else ""
    return f"{own['trace']} at {own['scheme']} on {own['arch']}{synthetic}"


def table_of(run: RunResult) -> LayerTable:
    counted = (actions.GLOBAL_BUFFER_READ, actions.GLOBAL_BUFFER_WRITE)
    bits = [
        run.report.arch.gb_bank_bits * sum(activity.counts[name] for name in counted)
        for activity in run.activities
    ]
    return LayerTable(title_of(run), run.report.arch, run.layers, bits)
