"""Draws savings.svg: what schemes save against 8/8/-/-, as VS-Quant published it and as modelled.

python docs/pictures/savings.py                 models all published figures first, some minutes
python docs/pictures/savings.py validate.csv    from the table of `accelsim validate --out DIR`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

PICTURE = Path(__file__).resolve().parent / "savings.svg"
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "accelsim",
    "font.family": "sans-serif",
    "font.size": 8,
}
_COLORS = {"energy": "#4c78a8", "area": "#54a24b"}
_NETWORKS = {"resnet50": "ResNet-50", "bert-base": "BERT"}


def points(figures: pd.DataFrame) -> pd.DataFrame:
    """Rows of Figures 3 to 6: `row` (scheme and network), quantity, and what is saved in percent."""
    own = figures[figures["family"].str.match("VS-Quant Figure") & figures["modelled"].notna()]
    return pd.DataFrame(
        {
            "row": own["scheme"] + "  " + own["workload"].map(_NETWORKS),
            "quantity": own["quantity"],
            "published": 100 * (1 - own["published"]),
            "modelled": 100 * (1 - own["modelled"]),
        }
    ).drop_duplicates(["row", "quantity"])


def draw(figures: pd.DataFrame, picture: Path) -> None:
    """figures: as `ValidationResult.rows`, or validate.csv."""
    own = points(figures)
    energies = own[own["quantity"] == "energy"].sort_values("published", kind="stable")
    rows = {name: place for place, name in enumerate(energies["row"])}
    assert set(own["row"]) == set(rows)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(9, 0.2 * len(rows) + 1.0), sharey=True)
        for axes, (quantity, color) in zip(panels, _COLORS.items(), strict=True):
            shown = own[own["quantity"] == quantity]
            places = shown["row"].map(rows)
            axes.hlines(places, shown["published"], shown["modelled"], color="#bbbbbb", linewidth=1.2)
            axes.scatter(shown["modelled"], places, color=color, s=26, zorder=3, label="modelled")
            axes.scatter(
                shown["published"], places, facecolors="white", edgecolors="black", marker="D", s=20,
                linewidth=0.9, zorder=4, label="published (VS-Quant, MLSys 2021)",
            )  # fmt: skip
            axes.axvline(0, color="#888888", linewidth=0.8)
            axes.set_xlabel(f"{quantity} of a PE saved against 8/8/-/- (%)")
            axes.grid(axis="both", color="#eeeeee", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(list(rows.values()), list(rows))
        panels[1].legend(frameon=False, loc="upper right")
        figure.tight_layout()
        figure.savefig(picture, format="svg", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    if len(sys.argv) > 1:
        figures = pd.read_csv(sys.argv[1])
    else:
        import accelsim

        figures = accelsim.validate().to_frame()
    draw(figures, PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
