"""docs/formats_compared.md says what benchmarks/formats_compared.csv and accuracy.csv hold."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import accelsim

pytestmark = pytest.mark.kept

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/formats_compared.md").read_text("utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("formats_compared", ROOT / "benchmarks/formats_compared.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_that_of_the_rows(script: ModuleType) -> None:
    assert script.table() in PAGE, "another table now: python benchmarks/formats_compared.py --page"
    assert len(script.read()) == len(script.NETWORKS) * len(script.SCHEMES)


def test_every_figure_of_the_sentences_stands_in_its_row(script: ModuleType) -> None:
    """Each sentence names formats, and then their figures: shares of three decimals, top-1 in percent."""
    rows = {line.split("|")[1].strip(): line for line in script.table().splitlines()}
    text = PAGE.partition("## Which format wins where\n")[2].partition("\nWhat they do not")[0]
    parts = re.split(r"\*\*(.+?)\*\*", text)[1:]
    assert set(parts[::2]) == set(script.SCHEMES) - {"8/8/-/-"}
    for scheme, said in zip(parts[::2], parts[1::2], strict=True):
        figures = re.findall(r"\b\d\.\d{3}\b|\d\d\.\d(?= %)", said)
        assert figures, scheme
        for figure in figures:
            assert f"| {figure} |" in rows[scheme], (scheme, figure)


def test_the_least_of_each_column_is_where_the_sentences_say(script: ModuleType) -> None:
    rows = {(row["network"], row["scheme"]): row for row in script.read()}

    def least(figure: str, network: str) -> str:
        return min(script.SCHEMES, key=lambda scheme: float(rows[network, scheme][figure]))

    convolutional, *transformers = script.NETWORKS
    assert least("area_pe_um2", convolutional) == "4/4/4/6"
    assert {least("energy_pe_uj", name) for name in transformers} == {"4/4/4/6"}
    assert least("energy_pe_uj", convolutional) == "mxfp4"
    narrow = [scheme for scheme in script.SCHEMES if scheme not in ("8/8/-/-", "mxint8")]
    top1 = script.resnet20()
    assert max(narrow, key=top1.__getitem__) == "4/4/4/6"


def test_areas_are_those_of_today(script: ModuleType) -> None:
    from accelsim.sweep.pe import pe_points

    frame = pe_points(script.SCHEMES, (16,)).to_frame().set_index("scheme")["area_pe_um2"]
    for row in script.read():
        assert float(row["area_pe_um2"]) == pytest.approx(frame[row["scheme"]], rel=1e-5), row["scheme"]


def test_rows_are_what_a_run_says(script: ModuleType) -> None:
    run = accelsim.run("digits", scheme="mxfp4", keep_tensors=False)
    row = script.row_of("digits", "mxfp4", run.summary)
    assert row["cycles"] == run.summary["cycles"] and row["bits_per_weight"] == "4.25"
    assert float(row["energy_pe_uj"]) == pytest.approx(run.summary["energy_pj"]["pe"] / 1e6, rel=1e-5)
