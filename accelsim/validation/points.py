"""VS-Quant's Figures 3 to 6 beside points of a sweep, which need not be run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.validation.models import BASELINE
from accelsim.validation.published import Published, published

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = {"energy_ratio": "energy_pe_pj", "area_ratio": "area_pe_um2"}


def shown() -> dict[str, Published]:
    """Rows of VS-Quant's Figures 3 to 6, by id."""
    return {name: row for name, row in published().items() if name.startswith("vsq_fig")}


def schemes_shown(workload: str) -> list[str]:
    """The schemes of the figures whose energy is of a workload, 8/8/-/- first: a space with all of them on
    the figures' machine has what `beside_points` needs."""
    return list(
        dict.fromkeys([BASELINE, *(own.scheme for own in shown().values() if own.workload == workload)])
    )


def beside_points(points: pd.DataFrame) -> pd.DataFrame:
    """Published ratios against 8/8/-/- beside those of points, in columns of `ValidationResult.rows`.

    points: one row a point, as `Swept.to_frame()`, each network and scheme at one machine only. Raises
    AccelsimError where a scheme is missing.
    """
    import pandas as pd

    found = {(own["network"], own["scheme"]): own for own in points.to_dict("records")}
    rows = []
    for row in shown().values():
        missing = [own for own in (BASELINE, row.scheme) if (row.workload, own) not in found]
        if missing:
            raise AccelsimError(f"figures: no point of {row.workload} at {missing[0]}, expected one")
        column = _COLUMNS[row.model]
        own, base = (found[row.workload, scheme][column] for scheme in (row.scheme, BASELINE))
        rows.append(
            {
                "id": row.id,
                "quantity": row.quantity,
                "workload": row.workload,
                "machine": row.machine,
                "scheme": row.scheme,
                "published": row.value,
                "modelled": own / base,
            }
        )
    return pd.DataFrame(rows)
