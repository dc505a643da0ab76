"""VS-Quant's figures beside points of a sweep, and the pictures of the design space."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from accelsim.errors import AccelsimError
from accelsim.report.plots.pareto import SweepPlots
from accelsim.sweep import Space, sweep
from accelsim.sweep.front import front
from accelsim.validation.models import area_ratio, energy_ratio
from accelsim.validation.plots import FIGURES, draw_figure
from accelsim.validation.points import beside_points, schemes_shown, shown
from accelsim.validation.published import Published
from accelsim.validation.runs import Runs

pytestmark = pytest.mark.kept


def some_points() -> pd.DataFrame:
    rows = [
        {"network": name, "scheme": scheme, "energy_pe_pj": 10.0 + index, "area_pe_um2": 20.0 + index}
        for name in ("resnet50", "bert-base")
        for index, scheme in enumerate(schemes_shown(name))
    ]
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_points_of_a_sweep_are_what_validate_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: row for name, row in shown().items() if row.scheme == "6/8/-/-"}
    rows = {name: row for name, row in rows.items() if row.workload == "bert-base"}
    assert {row.model for row in rows.values()} == {"energy_ratio", "area_ratio"}
    monkeypatch.setattr("accelsim.validation.points.shown", lambda: rows)
    space = Space.of({"networks": ["bert-base"], "schemes": ["8/8/-/-", "6/8/-/-"]})
    found = beside_points(sweep(space, tmp_path, workers=1).to_frame()).set_index("id")["modelled"]
    runs = Runs()

    def modelled(row: Published) -> float:
        return {"energy_ratio": energy_ratio, "area_ratio": area_ratio}[row.model](row, runs)["pe"]

    for name, row in rows.items():
        assert found[name] == pytest.approx(modelled(row), rel=1e-9), name


def test_a_missing_scheme_is_said() -> None:
    points = some_points()
    with pytest.raises(AccelsimError, match="no point of bert-base at 4/8/6/10"):
        beside_points(points[points["scheme"] != "4/8/6/10"])


def test_all_four_figures_are_drawn() -> None:
    rows = beside_points(some_points())
    assert len(rows) == len(shown()) and {name.split("_")[1] for name in rows["id"]} == {"fig3", "fig4"}
    for number in FIGURES:
        axes = draw_figure(rows, number)
        assert axes.get_title() and axes.get_legend_handles_labels()[1]
        plt.close("all")
    with pytest.raises(AccelsimError, match="figure is 7, expected one of 3, 4, 5, 6"):
        draw_figure(rows, 7)


def test_lines_and_names() -> None:
    frame = pd.DataFrame({"x": [2, 1, 1, 2], "y": [3.0, 5.0, 4.0, 2.0], "scheme": ["a", "a", "b", "b"]})
    plots = SweepPlots(frame, (), front)
    axes = plots.lines("x", "y")
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    assert axes.lines[0].get_xydata().tolist() == [[1, 5], [2, 3]]
    named = plots.pareto("x", "y", names="scheme")
    assert [text.get_text() for text in named.texts] == ["b", "b"]
    with pytest.raises(AccelsimError, match="no column 'other'"):
        plots.pareto("x", "y", names="other")
    plt.close("all")


def test_points_of_unknown_colour_are_hollow() -> None:
    frame = pd.DataFrame({"x": range(7), "y": range(7, 0, -1), "top": [1.0, 2, 3, 4, 5, 6, np.nan]})
    axes = SweepPlots(frame, ("top",), front).pareto("x", "y", colour="top")
    hollow, filled = axes.collections
    assert len(hollow.get_offsets()) == 1 and len(hollow.get_facecolor()) == 0
    assert len(filled.get_offsets()) == 6
    plt.close("all")
