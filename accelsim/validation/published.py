"""The published figures, as `published.csv` holds them: one row a figure.

What was published: `id`, `claim`, `value`, `unit`, `relative_to`, `stated_scope`, `source`, `evidence` and
the `tolerance` with which it was read off a plot. How it is modelled: `model` is a name of models.MODELS,
with its machine, workload, scheme, `overrides` of the machine and `part`, an argument of the model; `scope`
is the one that the modelled value is of. `sets` names the free parameter that the row sets; such a row
predicts nothing. `reason`: why a row without a model has none, and of the others why they may miss.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).parent / "published.csv"
PUBLISHED_ACCURACY = Path(__file__).parent / "published_accuracy.csv"
FREE_PARAMETERS = Path(__file__).parent / "free_parameters.csv"


@dataclass(frozen=True)
class Published:
    """One row; empty text where a column says nothing."""

    id: str
    claim: str
    value: float
    unit: str
    relative_to: str
    stated_scope: str
    source: str
    evidence: str
    tolerance: float | None
    family: str
    quantity: str
    model: str
    scope: str
    machine: str
    workload: str
    scheme: str
    overrides: tuple[str, ...]
    part: str
    sets: str
    reason: str

    @property
    def status(self) -> str:
        """ "predicted", "sets" a free parameter, or "not modelled"."""
        if not self.model:
            return "not modelled"
        return "sets" if self.sets else "predicted"


@cache
def published() -> dict[str, Published]:
    """Every published figure by id, in the order of the file."""
    rows = {}
    for cells in read_csv(PUBLISHED):
        values: dict[str, Any] = {field.name: cells[field.name] for field in fields(Published)}
        values["value"] = float(cells["value"])
        values["tolerance"] = float(cells["tolerance"]) if cells["tolerance"] else None
        values["overrides"] = tuple(cells["overrides"].split())
        rows[cells["id"]] = Published(**values)
    return rows


def published_savings(workload: str) -> dict[str, dict[str, float]]:
    """Scheme -> "area" or "energy" -> percent that VS-Quant publishes as saved against 8/8/-/- on a workload,
    which is what `comparison.plot.savings(published=...)` takes: the abstract's figure where it has one,
    else that of Figures 3 to 6."""
    saved: dict[str, dict[str, float]] = {}
    for row in published().values():
        percent = {"percent saved": row.value, "ratio": 100 * (1 - row.value)}.get(row.unit)
        known = row.quantity in ("area", "energy") and row.scope == "pe" and not row.overrides
        if known and percent is not None and (row.workload, row.relative_to) == (workload, "8/8/-/-"):
            saved.setdefault(row.scheme, {}).setdefault(row.quantity, percent)
    return saved


def published_accuracies(model: str) -> dict[str, float]:
    """Best published accuracy of a model by scheme: top-1 or F1 in percent, of integer scales by vector and
    of scales by channel (VS-Quant, Tables 5 to 7)."""
    best: dict[str, float] = {}
    for row in read_csv(PUBLISHED_ACCURACY):
        if row["model"] == model and "float" not in row["granularity"]:
            columns = ("weight_bits", "activation_bits", "weight_scale_bits", "activation_scale_bits")
            scheme = "/".join(row[column] for column in columns)
            best[scheme] = max(best.get(scheme, 0.0), float(row["value"]))
    return best


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
