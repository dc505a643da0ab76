"""How savings move with the prices that are least certain. Nothing is run again: energy is linear in prices.

What is varied, how far and why is in sensitivity.csv.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from accelsim.errors import AccelsimError
from accelsim.report.inventory import SCOPES
from accelsim.report.price import Report

if TYPE_CHECKING:
    import pandas as pd

CLOCK_TREE = "clock_tree"


def knobs() -> list[dict[str, str]]:
    """Rows of sensitivity.csv: knob, components, what `low` and `high` are of them, and why."""
    text = (resources.files("accelsim.report") / "sensitivity.csv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def sensitivity(reports: Sequence[Report]) -> pd.DataFrame:
    """One row a (knob, scheme, scope): energy saved against the first report in percent, with the price as it
    is (`as_priced`), and at `low` and `high`; `moves`: the difference between these, in points.

    Raises AccelsimError for one report alone.
    """
    import pandas as pd

    if len(reports) < 2:
        raise AccelsimError("sensitivity: of one scheme nothing is saved, expected two to compare")
    base = [_energies(report, None, "") for report in reports]
    rows = []
    for knob in knobs():
        ends = {end: [_energies(report, knob, end) for report in reports] for end in ("low", "high")}
        for index, report in enumerate(reports[1:], 1):
            for scope in SCOPES:
                saved = {
                    name: 100 * (1 - found[index][scope] / found[0][scope])
                    for name, found in (("as_priced", base), *ends.items())
                }
                rows.append(
                    {
                        "knob": knob["knob"],
                        "low_is": knob["low"],
                        "high_is": knob["high"],
                        "of": knob["changes"],
                        "scheme": str(report.scheme),
                        "scope": scope,
                        **{f"saved_percent_{name}": value for name, value in saved.items()},
                        "moves": abs(saved["high"] - saved["low"]),
                        "why": knob["why"],
                    }
                )
    return pd.DataFrame(rows)


def _energies(report: Report, knob: dict[str, str] | None, end: str) -> dict[str, float]:
    """pJ of each scope with those inside it; the clock tree takes its share of dynamic energy as changed."""
    share = _clock_share(report)
    factors: dict[str, float] = {}
    if knob is not None:
        value = float(knob[end])
        if knob["changes"] == "share":
            share = value
        elif knob["changes"] == "placement_utilization":
            value = math.sqrt(report.arch.placement_utilization / value)
        factors = dict.fromkeys(knob["components"].split(), value)
    found, total = {}, 0.0
    for scope, rows in _by_scope(report):
        total += sum(
            energy
            * (1.0 if action == "leakage" else factors.get(component, 1.0))
            * _grown(action, scope, share)
            for component, action, energy in rows
        )
        found[scope] = total
    return found


def _by_scope(report: Report) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """(component, action, pJ) of each scope, the clock tree left out."""
    frame = report.components[report.components["component"] != CLOCK_TREE]
    for scope in SCOPES:
        own = frame.loc[frame["scope"] == scope, ["component", "action", "energy_pj"]]
        yield scope, list(own.itertuples(index=False, name=None))


def _grown(action: str, scope: str, share: float) -> float:
    """With the clock tree's part: of dynamic energy on the chip."""
    return 1.0 if action == "leakage" or scope == SCOPES[-1] else 1 / (1 - share)


def _clock_share(report: Report) -> float:
    """s of s / (1 - s), which the clock tree takes of a pJ of dynamic energy."""
    each = report.clock_tree.energy_pj["dynamic_pj"]
    return each / (1 + each)
