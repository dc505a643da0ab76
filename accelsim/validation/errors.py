"""How far modelled figures are from published ones, by family and quantity."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_LEAST_FOR_RANKS = 3


def error_percent(ratio: pd.Series) -> pd.Series:
    """|modelled / published - 1| in percent."""
    return 100 * (ratio - 1).abs()


def error_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a (family, quantity), in the order of the figures; only predicted figures count.

    rows: one row a published figure, as `ValidationResult.rows`. predicted and not_modelled count figures;
    median_ratio: of modelled to published; worst_from_median_percent: the largest error once all are divided
    by that ratio, which is the error of a curve's shape; rank_correlation: Spearman's, from three figures on.
    """
    import pandas as pd

    found = []
    for (family, quantity), own in rows.groupby(["family", "quantity"], sort=False):
        known = own[own["status"] == "predicted"]
        errors = error_percent(known.set_index("id")["ratio"])
        line = {
            "family": family,
            "quantity": quantity,
            "predicted": len(known),
            "not_modelled": int((own["status"] == "not modelled").sum()),
            "median_ratio": known["ratio"].median(),
            "median_error_percent": errors.median(),
            "worst_error_percent": errors.max(),
            "worst": str(errors.idxmax()) if len(known) else "",
            "worst_from_median_percent": error_percent(known["ratio"] / known["ratio"].median()).max(),
            "rank_correlation": _rank_correlation(known),
        }
        found.append(line)
    return pd.DataFrame(found)


def _rank_correlation(known: pd.DataFrame) -> float:
    """Spearman's, NaN for too few figures and where all are the same."""
    ranks = known[["published", "modelled"]].rank()
    if len(known) < _LEAST_FOR_RANKS or (ranks.nunique() < 2).any():
        return float("nan")
    return float(ranks["published"].corr(ranks["modelled"]))
