"""`run.plot`: figures of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelsim.errors import AccelsimError
from accelsim.machine import actions
from accelsim.report.plots import breakdown, layers
from accelsim.report.plots.layers import LayerTable
from accelsim.report.plots.timeline import draw_timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from accelsim.compute.activity import LayerActivity
    from accelsim.report.price import Report
    from accelsim.report.timeline import Timeline


@dataclass(frozen=True, repr=False)
class RunPlots:
    """Each draws one finished figure on `ax`, by default on a new one, and returns the axes.

    legend: False where a figure beside it has the same one. Raises AccelsimError for what cannot be drawn.
    """

    summary: Mapping[str, Any]
    report: Report
    activities: Sequence[LayerActivity]
    when: Timeline | None = None

    def __repr__(self) -> str:
        return "<Plots of a run: area, energy, roofline, sqnr, stalls, timeline, utilization>"

    def energy(
        self, ax: Axes | None = None, *, scope: str = "system", by: str = "part", legend: bool = True
    ) -> Axes:
        """Energy within a scope, stacked by "part", "scope" or "evidence"."""
        return breakdown.draw_energy([self.report], self._title, ax, scope, by, legend)

    def area(
        self, ax: Axes | None = None, *, scope: str = "array", by: str = "part", legend: bool = True
    ) -> Axes:
        """Placed area of the "array", of one "pe" or of one "datapath", stacked as energy is."""
        return breakdown.draw_area([self.report], self._title, ax, scope, by, legend)

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
        each = {self.summary["scheme"]: self.report.layers}
        return layers.draw_sqnr(each, self._title, ax, legend)

    def timeline(
        self, ax: Axes | None = None, *, cycles: tuple[float, float] | None = None, legend: bool = True
    ) -> Axes:
        """What happens when, in these cycles, by default all: DRAM, banks and PEs. Needs a run with
        `timeline=True`."""
        if self.when is None:
            raise AccelsimError("plot: the run has no timeline, expected one with timeline=True")
        return draw_timeline(self.when.slices(), self._title, ax, cycles, legend)

    @property
    def _title(self) -> str:
        return f"{self.summary['trace']} at {self.summary['scheme']} on {title_end(self.summary)}"

    @property
    def _table(self) -> LayerTable:
        arch, counted = self.report.arch, (actions.GLOBAL_BUFFER_READ, actions.GLOBAL_BUFFER_WRITE)
        words = [sum(activity.counts[name] for name in counted) for activity in self.activities]
        bits = [arch.gb_bank_bits * own for own in words]
        return LayerTable(self._title, arch, self.report.layers, bits)


def title_end(summary: Mapping[str, Any]) -> str:
    return str(summary["arch"]) + (" (synthetic tensors)" if summary["synthetic"] else "")
