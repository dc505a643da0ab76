"""How much what VS-Quant does not state could move the validation: each free parameter at two ends.

The ends are cells of free_parameters.csv: settings of the machine, or `scope`, `workload` and
`gated_fraction`, which are of the comparison. Every published row is modelled anew at each end, its baseline
8/8/-/- too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from accelsim.network import Progress
from accelsim.validation.errors import error_percent
from accelsim.validation.models import MODELS
from accelsim.validation.published import FREE_PARAMETERS, Published, published, read_csv
from accelsim.validation.runs import PRICES_ONLY, Runs

if TYPE_CHECKING:
    import pandas as pd

FAMILY = "VS-Quant Figures 3 to 6"
ENERGY_ERROR = "median error of energies, percent"
AREA_ERROR = "median error of areas, percent"
# Rows that the abstract's claims are of.
_CLAIMS = {
    "energy at 4/4/4/6, 8/8/-/- = 1": "vsq_fig4_6_4_4_4_6_energy",
    "energy at 4/8/6/10, 8/8/-/- = 1": "vsq_fig4_6_4_8_6_10_energy",
}
FIGURES = (ENERGY_ERROR, AREA_ERROR, *_CLAIMS)


def varied_parameters() -> list[dict[str, str]]:
    """Rows of free_parameters.csv with ends."""
    return [row for row in read_csv(FREE_PARAMETERS) if row["low"] or row["high"]]


def tornado(as_set_runs: Runs, progress: Progress | None) -> pd.DataFrame:
    """One row a (figure, parameter), the figure's largest mover first: `low` and `high` say what the
    parameter was, `as_set`, `at_low` and `at_high` what the figure is, and `moves` is the whole way between
    these. An end that is not given is the parameter as it is set.

    as_set_runs: what was simulated so far, with everything as it is set. Raises AccelsimError for a machine
    that an end makes impossible.
    """
    import pandas as pd

    rows, parameters = [row for row in published().values() if row.family == FAMILY], varied_parameters()
    wanted = sum(bool(parameter[end]) for parameter in parameters for end in ("low", "high")) + 1
    done = 0

    def modelled() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("free parameters", done, wanted * len(rows))

    def figures(setting: str) -> dict[str, float]:
        changed = dict(item.split("=", 1) for item in setting.split())
        runs = as_set_runs
        if changed.keys() - {*PRICES_ONLY, "scope", "workload"}:
            # Nothing of what an end simulates is needed again, and it takes memory.
            share = changed.get("gated_fraction")
            runs = Runs(as_set_runs.costs, as_set_runs.gated_fraction if share is None else float(share))
        return _figures(rows, setting, runs, modelled)

    as_set, found = figures(""), []
    for parameter in parameters:
        ends = {end: figures(parameter[end]) if parameter[end] else as_set for end in ("low", "high")}
        for figure in FIGURES:
            values = [as_set[figure], ends["low"][figure], ends["high"][figure]]
            found.append(
                {
                    "figure": figure,
                    "parameter": parameter["parameter"],
                    "low": parameter["low"],
                    "high": parameter["high"],
                    "as_set": values[0],
                    "at_low": values[1],
                    "at_high": values[2],
                    "moves": max(values) - min(values),
                }
            )
    frame = pd.DataFrame(found)
    order = frame["figure"].map(FIGURES.index)
    return (
        frame.assign(order=order)
        .sort_values(["order", "moves"], ascending=[True, False], kind="stable")
        .drop(columns="order")
        .reset_index(drop=True)
    )


def _figures(
    rows: Sequence[Published], setting: str, runs: Runs, done: Callable[[], None]
) -> dict[str, float]:
    import pandas as pd

    modelled = {}
    for row in rows:
        modelled[row.id] = _modelled(row, setting, runs)
        done()

    def median_error(quantity: str) -> float:
        ratios = [modelled[row.id] / row.value for row in rows if row.quantity == quantity]
        return float(error_percent(pd.Series(ratios)).median())

    claims = {figure: modelled[key] for figure, key in _CLAIMS.items()}
    return {ENERGY_ERROR: median_error("energy"), AREA_ERROR: median_error("area"), **claims}


def _modelled(row: Published, setting: str, runs: Runs) -> float:
    for change in _changes(setting):
        row = change(row)
    return MODELS[row.model](row, runs)[row.scope]


def _changes(setting: str) -> Iterator[Callable[[Published], Published]]:
    """What each KEY=VALUE of an end makes of a published row."""
    for item in setting.split():
        key, _, value = item.partition("=")
        if key == "scope":
            yield lambda row, scope=value: replace(row, scope=scope)  # type: ignore[misc]
        elif key == "workload":
            yield lambda row, name=value: _of_workload(row, name)  # type: ignore[misc]
        elif key != "gated_fraction":
            yield lambda row, own=item: replace(row, overrides=(*row.overrides, own))  # type: ignore[misc]


def _of_workload(row: Published, name: str) -> Published:
    """The same network at other sizes: `bert-base@seq=384` for the rows of bert-base."""
    return replace(row, workload=name) if row.workload == name.partition("@")[0] else row
