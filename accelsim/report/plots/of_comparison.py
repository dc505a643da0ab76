"""`comparison.plot`: figures of several schemes beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.report.plots import breakdown, layers, savings
from accelsim.report.plots.of_run import RunPlots, title_end
from accelsim.report.plots.savings import Published

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from accelsim.report.price import Report


@dataclass(frozen=True, repr=False)
class ComparisonPlots:
    """Each draws one finished figure on `ax`, by default on a new one, and returns the axes. Those of one run
    are at `comparison[scheme].plot`.

    legend: False where a figure beside it has the same one. Raises AccelsimError for what cannot be drawn.
    """

    runs: Sequence[RunPlots]
    table: pd.DataFrame

    def __repr__(self) -> str:
        return "<Plots of a comparison: area, energy, savings, sqnr>"

    def energy(
        self, ax: Axes | None = None, *, scope: str = "system", by: str = "part", legend: bool = True
    ) -> Axes:
        """Energy within a scope, a bar a scheme, stacked by "part", "scope" or "evidence"."""
        return breakdown.draw_energy(self._reports, self._title, ax, scope, by, legend)

    def area(
        self, ax: Axes | None = None, *, scope: str = "array", by: str = "part", legend: bool = True
    ) -> Axes:
        """Placed area of the "array", of one "pe" or of one "datapath", stacked as energy is."""
        return breakdown.draw_area(self._reports, self._title, ax, scope, by, legend)

    def savings(
        self, ax: Axes | None = None, *, published: Published | None = None, legend: bool = True
    ) -> Axes:
        """What area, energy and cycles of each scheme are below those of the first.

        published: {scheme: {"area": percent, "energy": percent}}, drawn at the PE's bars, such as
        `accelsim.validation.published.published_savings(network)`.
        """
        return savings.draw_savings(self.table, self._title, ax, published, legend)

    def sqnr(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """SQNR of every layer, a line a scheme."""
        each = {run.summary["scheme"]: run.report.layers for run in self.runs}
        return layers.draw_sqnr(each, self._title, ax, legend)

    @property
    def _title(self) -> str:
        own = self.runs[0].summary
        return f"{own['trace']} on {title_end(own)}"

    @property
    def _reports(self) -> list[Report]:
        return [run.report for run in self.runs]
