"""Figures of where time goes, from result folders, whole and damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from accelsim.api import compare, run
from accelsim.errors import AccelsimError
from accelsim.report.plots.files import plot_folder

pytestmark = pytest.mark.kept

NAMES = {f"{name}.{kind}" for name in ("roofline", "stalls", "utilization") for kind in ("png", "svg")}


@pytest.fixture(scope="module")
def results(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(trace).write(tmp_path_factory.mktemp("plot") / "run", plots=False)


def test_a_run(results: Path, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in plot_folder(results, tmp_path / "a")}
    again = {path.name: path.read_bytes() for path in plot_folder(results, tmp_path / "b")}
    assert set(first) == NAMES and first == again
    assert b"bound by" in first["roofline.svg"] or len(first["roofline.svg"]) > 10_000


def test_figures_do_not_keep_a_folder_from_being_replaced(results: Path, trace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(results, folder)
    assert {path.parent for path in plot_folder(folder)} == {folder}
    run(trace, gated_fraction=0.0).write(folder, plots=False)
    assert not (folder / "roofline.png").exists()


def test_a_comparison(trace: Path, tmp_path: Path) -> None:
    compare(trace, schemes=["8/8/-/-", "4/4/4/4"], gated_fraction=0.0).write(tmp_path / "c", plots=False)
    written = plot_folder(tmp_path / "c")
    assert {path.parent.name for path in written} == {"8_8_-_-", "4_4_4_4"} and len(written) == 12


def test_what_cannot_be_drawn(results: Path, tmp_path: Path) -> None:
    with pytest.raises(AccelsimError, match="expected a result folder"):
        plot_folder(tmp_path)
    folder = tmp_path / "run"
    shutil.copytree(results, folder)
    table = (folder / "layers.csv").read_text()
    (folder / "layers.csv").write_text(table.replace("bound_cycles", "bound"))
    with pytest.raises(AccelsimError, match=r"layers\.csv: column bound_cycles"):
        plot_folder(folder)
    (folder / "layers.csv").unlink()
    with pytest.raises(AccelsimError, match=r"layers\.csv: cannot be read"):
        plot_folder(folder)
    (folder / "summary.json").write_text('{"trace": ')
    with pytest.raises(AccelsimError, match=r"summary\.json: not a run's summary"):
        plot_folder(folder)
