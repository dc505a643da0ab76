"""benchmarks/accuracy.py: its points run on the machine, its file is complete, and absent data are said."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

import accelsim
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch

pytestmark = pytest.mark.kept

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_accuracy", FOLDER / "accuracy.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("network", ["resnet20", "minilm"])
def test_every_point_can_run(benchmark: Any, network: str) -> None:
    points = [point for own in benchmark.SETS.values() for point in own(network)]
    assert len(points) > 100
    for point in points:
        if point.quantize == "float":
            continue
        changes = [f"vector_size={point.vector_size}", *point.overrides.split()]
        arch = load_arch("magnet16", changes + ([f"residual={point.residual}"] if point.residual else []))
        if point.quantize != "fake":
            arch.check_scheme(Scheme.parse(point.scheme))
        assert point.chained or not point.residual


def test_the_file_has_every_point_of_resnet20_once(benchmark: Any) -> None:
    rows = benchmark.read_rows(FOLDER / "accuracy.csv")
    keys = [benchmark.key_of(row) for row in rows]
    assert len(set(keys)) == len(keys)
    wanted = {point for own in benchmark.SETS.values() for point in own("resnet20")}
    found = {key[1:-1] for key in keys if key[0] == "resnet20"}
    missing = [
        point
        for point in wanted
        if tuple(str(getattr(point, name)) for name in benchmark.Point.__dataclass_fields__) not in found
    ]
    assert not missing


def test_what_waits_in_another_format_is_priced_in_it(benchmark: Any) -> None:
    bench = benchmark.Bench.__new__(benchmark.Bench)
    bench.trace, bench.costs = "digits", {}
    found = [
        bench.cost(benchmark.Point("4/4/4/4", chained=True, residual=residual)) for residual in ("", "8/-")
    ]
    wide = accelsim.run("digits", scheme="4/4/4/4", overrides=["residual=8/-"]).summary
    assert found[1]["energy_uj"] == pytest.approx(wide["energy_pj"]["system"] / 1e6)
    assert found[1]["pe_area_um2"] > found[0]["pe_area_um2"]
    rows = {benchmark.key_of(row)[1:-1]: row for row in benchmark.read_rows(FOLDER / "accuracy.csv")}
    for key, row in rows.items():
        without = rows.get((*key[:4], "", *key[5:]))
        if key[4] and without is not None and row["pe_area_um2"]:
            assert float(row["pe_area_um2"]) > float(without["pe_area_um2"])


def test_losses_stand_beside_the_published_ones(benchmark: Any) -> None:
    rows = benchmark.read_rows(FOLDER / "accuracy.csv")
    lines = list(benchmark.beside(rows, "resnet20"))
    # Table 5: 74.36 of 76.16; 89.0625 of 91.2109375 here.
    assert "  4/4/4/4        -1.80     -2.15" in lines


def test_absent_data_are_said_and_nothing_is_written(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "a.csv"
    command = ["accuracy.py", "resnet20", "--data", str(tmp_path / "none"), "--csv", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    assert benchmark.main() == 0
    said = capsys.readouterr().err
    assert said.startswith("skipped: cifar-resnet20") and "resnet20.safetensors" in said
    assert not out.exists()


def test_the_page_s_tables_are_the_file_s(benchmark: Any) -> None:
    """Cells `top-1 / agreement / dB` of docs/accuracy.md, of rounded scale products and of better words."""
    rows = {
        key[1:-1]: row
        for row in benchmark.read_rows(FOLDER / "accuracy.csv")
        if (key := benchmark.key_of(row))[0] == "resnet20"
    }

    def cell(**point: Any) -> str:
        own = benchmark.Point(**point)
        row = rows[tuple(str(getattr(own, name)) for name in benchmark.Point.__dataclass_fields__)]
        return " / ".join(f"{float(row[name]):.1f}" for name in ("value", "same_argmax", "sqnr_db"))

    page = (FOLDER.parent / "docs" / "accuracy.md").read_text("utf-8")
    checked = 0
    for table in page.split("\n\n"):
        lines = [
            [part.strip() for part in line.strip("|").split("|")]
            for line in table.splitlines()
            if line[:1] == "|"
        ]
        if not lines or not lines[0][0].endswith((", V", "ResNet-20")):
            continue
        for first, *cells in lines[2:]:
            for place, (column, found) in enumerate(zip(lines[0][1:], cells, strict=True)):
                if lines[0][0] == "ResNet-20":
                    own = {"scheme": first, "quantize": ("plain", "default", "best")[place % 3]}
                    own |= {"chained": place > 2, "residual": "8/-" if place > 5 else ""}
                else:
                    scheme = lines[0][0].removesuffix(", V")
                    own = {
                        "scheme": scheme + ("" if column == "full" else f":{column}"),
                        "vector_size": int(first),
                    }
                    own |= {"overrides": "out_fifo_words=64" if first == "64" else ""}
                assert found == cell(**own), own
                checked += 1
    assert checked == 4 * 9 + 4 * 5 + 2 * 4 * 6
