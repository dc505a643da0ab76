"""`validate`: every published figure beside the modelled one, as tables and as a folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.machine.arch_file import load_arch
from accelsim.network import Progress
from accelsim.report.folder import VALIDATION_TABLES, result_folder
from accelsim.report.inventory import SCOPES
from accelsim.report.results import write_csv
from accelsim.validation.errors import error_table
from accelsim.validation.models import MODELS
from accelsim.validation.published import FREE_PARAMETERS, Published, published, read_csv
from accelsim.validation.runs import Runs
from accelsim.validation.tornado import tornado as tornado_table

if TYPE_CHECKING:
    import pandas as pd

# Errors below this need no reason.
_MISS_PERCENT = 5.0
_NOT_KNOWN = "not known"


@dataclass(frozen=True, repr=False)
class ValidationResult:
    """Published figures beside modelled ones (docs/validate.md).

    rows: one row a published figure; errors: one row a (family, quantity); parameters: what is free, what it
    is set to, and why; tornado: how far each of them at its ends moves figures, where that was asked for.
    """

    rows: pd.DataFrame
    errors: pd.DataFrame
    parameters: pd.DataFrame
    tornado: pd.DataFrame | None = None

    def __repr__(self) -> str:
        return self.errors.to_string(index=False, float_format="{:.3g}".format)

    def _repr_html_(self) -> str:
        return self.errors.to_html(index=False, float_format="{:.3g}".format)

    def to_frame(self) -> pd.DataFrame:
        """One row a published figure."""
        return self.rows

    def write(self, out: str | Path, *, plots: bool = True) -> Path:
        """Write the tables as CSV, and the pictures. Raises AccelsimError when `out` cannot be written."""
        tables = (self.rows, self.errors, self.parameters, self.tornado)
        with result_folder(out) as folder:
            for name, table in zip(VALIDATION_TABLES, tables, strict=True):
                if table is not None:
                    write_csv(table, folder / f"{name}.csv")
            if plots:
                from accelsim.validation.plots import plot_tornado, plot_validation

                plot_validation(self.rows, folder)
                if self.tornado is not None:
                    plot_tornado(self.tornado, folder)
        return Path(out)


def validate(
    costs: Path | None = None,
    gated_fraction: float | None = 0.0,
    progress: Progress | None = None,
    *,
    tornado: bool = False,
) -> ValidationResult:
    """Model every published figure that can be.

    costs: a folder of cost tables, by default the package's; gated_fraction: as in `accelsim.run`, None
    computes values; tornado: also with each free parameter at its ends, which takes some eight times as long.
    Raises AccelsimError for tables without a price that is needed.
    """
    import pandas as pd

    runs, rows = Runs(costs, gated_fraction), []
    for index, row in enumerate(published().values()):
        rows.append(_compared(row, MODELS[row.model](row, runs) if row.model else {}))
        if progress is not None:
            progress("published figures", index + 1, len(published()))
    frame = pd.DataFrame(rows)
    moved = tornado_table(runs, progress) if tornado else None
    return ValidationResult(frame, error_table(frame), pd.DataFrame(free_parameters()), moved)


def free_parameters() -> list[dict[str, str]]:
    """What publications leave open: machine, parameter, value, the rows that set it, and why it is so set.

    A parameter of the machine has the value of its preset.
    """
    rows = read_csv(FREE_PARAMETERS)
    for row in rows:
        row["value"] = row["value"] or str(getattr(load_arch(row["machine"]), row["parameter"]))
    return rows


def _compared(row: Published, modelled: Mapping[str, float]) -> dict[str, Any]:
    """A row of the result: figures at every scope, and the scope that fits best."""
    ratios = {scope: value / row.value for scope, value in modelled.items()}
    best = min(ratios, key=lambda scope: abs(ratios[scope] - 1)) if ratios else ""
    ratio = ratios.get(row.scope, math.nan)
    missed = not abs(ratio - 1) * 100 <= _MISS_PERCENT
    return {
        "id": row.id,
        "family": row.family,
        "quantity": row.quantity,
        "claim": row.claim,
        "unit": row.unit,
        "relative_to": row.relative_to,
        "published": row.value,
        "modelled": modelled.get(row.scope, math.nan),
        "ratio": ratio,
        "scope": row.scope,
        "best_scope": best,
        "best_ratio": ratios.get(best, math.nan),
        "status": f"sets {row.sets}" if row.sets else row.status,
        "reason": (row.reason or _NOT_KNOWN) if missed else "",
        "machine": row.machine,
        "workload": row.workload,
        "scheme": row.scheme,
        "overrides": " ".join(row.overrides),
        **{f"modelled_{scope}": modelled.get(scope, math.nan) for scope in SCOPES},
        "stated_scope": row.stated_scope,
        "tolerance": math.nan if row.tolerance is None else row.tolerance,
        "evidence": row.evidence,
        "source": row.source,
    }
