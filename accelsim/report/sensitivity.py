"""How savings move with the prices that are least certain. Nothing is run again: energy is linear in prices.

What is varied, how far and why is in sensitivity.csv.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.report.inventory import SCOPES
from accelsim.report.price import Report

if TYPE_CHECKING:
    import pandas as pd


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
    """pJ of each scope with those inside it, with the knob's components at one end."""
    factors: dict[str, float] = {}
    if knob is not None:
        value = float(knob[end])
        if knob["changes"] == "placement_utilization":
            value = math.sqrt(report.arch.placement_utilization / value)
        factors = dict.fromkeys(knob["components"].split(), value)
    rows = report.components
    factor = rows["component"].map(factors).where(rows["action"] != "leakage").fillna(1.0)
    by_scope = (rows["energy_pj"] * factor).groupby(rows["scope"]).sum()
    return {scope: float(by_scope.reindex(SCOPES[: i + 1]).sum()) for i, scope in enumerate(SCOPES)}
