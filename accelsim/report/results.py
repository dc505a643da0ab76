"""Results of a run: summary, tables, and the folder they are written to (whole, or not at all)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.compute.activity import LayerActivity
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.report.accuracy import accuracy_columns
from accelsim.report.dump import dump_tensors
from accelsim.report.explain import explain
from accelsim.report.folder import TABLES, UNPRICED_TABLES, result_folder
from accelsim.report.price import Report
from accelsim.report.sensitivity import sensitivity
from accelsim.report.shown import shown_comparison, shown_run
from accelsim.report.timeline import Timeline

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.report.plots.of_comparison import ComparisonPlots
    from accelsim.report.plots.of_run import RunPlots

# Column of `Comparison.layers`, of which column of layers.csv, in which unit of it.
_OF_LAYERS = (
    ("cycles", "cycles", 1),
    ("utilization", "utilization", 1),
    ("energy_system_uj", "energy_system_pj", 1e6),
    ("sqnr_db", "sqnr_db", 1),
)


@dataclass(frozen=True, repr=False)
class RunResult:
    """One trace at one scheme on one machine.

    `summary` is what summary.json holds (docs/results.md); `report` has the tables as DataFrames;
    `activities` the raw counts of every layer, its operands and values where they were kept; `narrow`:
    (overflows, mean SQNR) at the published accumulator width, `timeline`: when everything happened, where
    asked for.
    """

    summary: dict[str, Any]
    report: Report
    activities: tuple[LayerActivity, ...]
    narrow: tuple[int, float | None] | None = None
    timeline: Timeline | None = None

    def __repr__(self) -> str:
        return shown_run(self.summary, self.report.layers).text()

    def _repr_html_(self) -> str:
        return shown_run(self.summary, self.report.layers).html()

    def to_frame(self) -> pd.DataFrame:
        """One row a (layer, component, action): count, energy_per_action_pj, energy_pj."""
        return self.report.components

    @property
    def layers(self) -> pd.DataFrame:
        return self.report.layers

    @property
    def area(self) -> pd.DataFrame:
        return self.report.area

    @property
    def plot(self) -> RunPlots:
        """Figures: energy, area, roofline, stalls, utilization, sqnr, timeline (docs/plots.md)."""
        from accelsim.report.plots.of_run import RunPlots

        return RunPlots(self.summary, self.report, self.activities, self.timeline)

    def explain(self) -> pd.DataFrame:
        """One row a (scope, component, action) of the whole run: count x energy_per_action_pj = energy_pj,
        with what the constant rests on. Raises AccelsimError where nothing is priced."""
        _need_prices(self.report)
        return explain(self.report)

    def write(
        self, out: str | Path, *, plots: bool = True, dump: bool = False, explained: bool = False
    ) -> Path:
        """Write the result folder, with `explain()` in it where asked for. Raises AccelsimError when `out`
        cannot be written or holds other files."""
        with result_folder(out) as folder:
            write_run(self, folder, plots=plots, dump=dump)
            if explained:
                write_csv(self.explain(), folder / "explained.csv")
        return Path(out)


@dataclass(frozen=True, repr=False)
class Comparison:
    """Several schemes on one trace; the first is the baseline that savings refer to.

    accuracy: names of the columns that `with_accuracy` added.
    """

    runs: tuple[RunResult, ...]
    table: pd.DataFrame
    accuracy: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return shown_comparison(self.runs[0].summary, self.table, self.accuracy).text()

    def _repr_html_(self) -> str:
        return shown_comparison(self.runs[0].summary, self.table, self.accuracy).html()

    def to_frame(self) -> pd.DataFrame:
        """One row a scheme; `saved_percent` columns are against the first scheme."""
        return self.table

    @property
    def layers(self) -> pd.DataFrame:
        """One row a layer, schemes beside each other: columns (figure, scheme). `frame("layers")` has all."""
        return layers_table(self.runs)

    @property
    def plot(self) -> ComparisonPlots:
        """Figures: energy, area, savings, sqnr (docs/plots.md)."""
        from accelsim.report.plots.of_comparison import ComparisonPlots

        return ComparisonPlots([run.plot for run in self.runs], self.table)

    def with_accuracy(
        self, measured: Mapping[str, Mapping[str, float]] | Mapping[Scheme, Mapping[str, float]]
    ) -> Comparison:
        """The same with accuracy beside area and energy: in what is shown, `to_frame()` and what is written.

        measured: of any of the schemes, numbers by name with their unit: {"4/4/4/4": {"top-1 (%)": 89.8}}.
        Raises AccelsimError for a scheme that was not compared, a value that is no finite number, and a name
        that is a column already.
        """
        columns = accuracy_columns(measured, list(self.table["scheme"]))
        for name in columns:
            if name in self.table:
                raise AccelsimError(f"accuracy: {name!r} is a column already, expected another name")
        added = {name: [math.nan if v is None else v for v in values] for name, values in columns.items()}
        return replace(self, table=self.table.assign(**added), accuracy=(*self.accuracy, *columns))

    def sensitivity(self) -> pd.DataFrame:
        """How the savings move with the prices that are least certain: one row a (knob, scheme, scope)."""
        _need_prices(self.runs[0].report)
        return sensitivity([run.report for run in self.runs])

    def __getitem__(self, scheme: str | Scheme) -> RunResult:
        """The run at a scheme. Raises KeyError naming those there are."""
        for run in self.runs:
            if str(run.report.scheme) == str(scheme):
                return run
        raise KeyError(f"{scheme}: compared were {', '.join(self.table['scheme'])}")

    def frame(self, table: str) -> pd.DataFrame:
        """The table `layers`, `components`, `area` or `stalls` of every run, with a `scheme` column."""
        import pandas as pd

        if table not in TABLES:
            raise AccelsimError(f"table '{table}': expected one of {', '.join(TABLES)}")
        parts = {str(run.report.scheme): getattr(run.report, table) for run in self.runs}
        return pd.concat(parts, names=["scheme"]).reset_index(level="scheme").reset_index(drop=True)

    def write(
        self, out: str | Path, *, plots: bool = True, dump: bool = False, sensitive: bool = False
    ) -> Path:
        """Write `<scheme>/` as RunResult.write would for each run, comparison.csv, the plots, and where asked
        for `sensitivity()`."""
        with result_folder(out) as folder:
            for run in self.runs:
                own = folder / run.report.scheme.folder_name
                own.mkdir()
                write_run(run, own, plots=plots, dump=dump)
            write_csv(self.table, folder / "comparison.csv")
            if sensitive:
                write_csv(self.sensitivity(), folder / "sensitivity.csv")
            if plots:
                from accelsim.report.plots.files import plot_comparison

                plot_comparison(self.plot, folder)
        return Path(out)


def _need_prices(report: Report) -> None:
    if not report.priced:
        raise AccelsimError("the run has no prices, which this needs: expected one without --no-prices")


def write_run(run: RunResult, folder: Path, *, plots: bool, dump: bool) -> None:
    text = json.dumps(run.summary, indent=1, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    for name in TABLES if run.report.priced else UNPRICED_TABLES:
        write_csv(getattr(run.report, name), folder / f"{name}.csv")
    if dump:
        tensors = dump_tensors(run.report.arch, run.activities)
        (folder / "outputs.safetensors").write_bytes(tensors)
    if run.timeline is not None:
        run.timeline.write(folder / "timeline.json")
    if plots:
        from accelsim.report.plots.files import plot_run

        plot_run(run.plot, folder)


def layers_table(runs: tuple[RunResult, ...]) -> pd.DataFrame:
    """Cycles, utilization, and of what is known energy and SQNR, of every layer at every scheme."""
    import pandas as pd

    columns: dict[tuple[str, str], pd.Series] = {}
    for name, column, unit in _OF_LAYERS:
        for run in runs:
            own = run.layers.set_index("layer")
            if column in own and not own[column].isna().all():
                columns[name, str(run.report.scheme)] = own[column] / unit if unit != 1 else own[column]
    return pd.DataFrame(columns).rename_axis(columns=["figure", "scheme"])


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False, lineterminator="\n")
