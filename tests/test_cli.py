"""The command line: what its commands print and write."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import GEOMETRIES, Said, contents, python_m, refused
from safetensors.numpy import load_file

from accelsim import __version__
from accelsim.api import DEFAULT_SCHEMES
from accelsim.cli.progress import progress_bar

pytestmark = pytest.mark.kept

Cli = Callable[..., Said]
TABLES = {"summary.json", "layers.csv", "components.csv", "area.csv", "stalls.csv"}
RUN_PLOTS = {f"{name}.{kind}" for name in ("energy", "area", "stalls") for kind in ("png", "svg")}
COMPARISON_PLOTS = {f"{name}.{kind}" for name in ("energy", "area", "savings") for kind in ("png", "svg")}


def test_run_writes_the_documented_folder(trace: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("run", trace, "--scheme", "4/8/6/10", "--out", "deep/er/out", "--set", "pes=4")
    assert (said.status, said.err.strip()) == (0, "")
    assert {path.name for path in (tmp_path / "deep/er/out").iterdir()} == TABLES | RUN_PLOTS
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["out"]
    summary = json.loads((tmp_path / "deep/er/out/summary.json").read_text())
    for text in ("first", "middle", "grouped", "matmul", f"{summary['cycles']:,}", "results in deep/er/out/"):
        assert text in said.out
    assert summary["arch_parameters"]["pes"] == 4


def test_run_defaults(trace: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("run", trace, "--no-plots").status == 0
    folder = tmp_path / "results" / "small-4_4_4_4"
    assert {path.name for path in folder.iterdir()} == TABLES
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["arch"], summary["scheme"], summary["trace"]) == ("magnet16", "4/4/4/4", "small")


def test_compare_writes_each_run_as_run_would(trace: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("compare", trace, "--out", "c")
    assert said.status == 0
    names = {scheme.replace("/", "_") for scheme in DEFAULT_SCHEMES}
    assert {p.name for p in (tmp_path / "c").iterdir()} == names | {"comparison.csv"} | COMPARISON_PLOTS
    for scheme in DEFAULT_SCHEMES:
        assert scheme in said.out
        assert {p.name for p in (tmp_path / "c" / scheme.replace("/", "_")).iterdir()} == TABLES | RUN_PLOTS
    assert cli("run", trace, "--scheme", "4/4/4/4", "--out", "r").status == 0
    one, other = contents(tmp_path / "r"), contents(tmp_path / "c/4_4_4_4")
    summaries = [json.loads(files.pop("summary.json")) for files in (one, other)]
    assert one == other
    for summary in summaries:
        del summary["wall_s"]
    assert summaries[0] == summaries[1]
    rows = list(csv.DictReader((tmp_path / "c/comparison.csv").open()))
    assert [row["scheme"] for row in rows] == list(DEFAULT_SCHEMES)
    assert int(rows[1]["cycles"]) == summaries[0]["cycles"]
    for column in ("energy_datapath", "energy_system", "area_pe"):
        unit = "pj" if column.startswith("energy") else "um2"
        saved = 100 * (1 - float(rows[1][f"{column}_{unit}"]) / float(rows[0][f"{column}_{unit}"]))
        assert float(rows[1][f"{column}_saved_percent"]) == pytest.approx(saved, abs=1e-9)
        assert float(rows[0][f"{column}_saved_percent"]) == 0


@pytest.mark.parametrize("scheme", ["8/8/-/-", "4/4/4/4", "4/8/-/6", "6/4/4/10:sp5"])
def test_summary_has_the_documented_fields(trace: Path, cli: Cli, tmp_path: Path, scheme: str) -> None:
    assert cli("run", trace, "--scheme", scheme, "--out", "r", "--no-plots").status == 0
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    scopes = ["datapath", "pe", "array", "system"]
    assert summary["schema"] == 2
    assert (summary["trace"], summary["arch"], summary["scheme"]) == ("small", "magnet16", scheme)
    assert summary["macs"] == sum(
        g.N * g.P * g.Q * g.K * g.R * g.S * g.C // g.groups for g in GEOMETRIES.values()
    )
    assert type(summary["cycles"]) is int and summary["cycles"] > 0
    assert summary["utilization"] == pytest.approx(summary["macs"] / (summary["cycles"] * 16 * 16 * 16))
    assert list(summary["energy_pj"]) == scopes and list(summary["fj_per_op"]) == scopes
    assert list(summary["area_um2"]) == scopes[:3]
    for scope in scopes:
        fj = 1e3 * summary["energy_pj"][scope] / (2 * summary["macs"])
        assert summary["fj_per_op"][scope] == pytest.approx(fj)
    tops = 2 * summary["macs"] / summary["cycles"] * 1e9 / 1e12 / (summary["area_um2"]["array"] / 1e6)
    assert summary["tops_per_mm2"] == pytest.approx(tops)
    assert type(summary["sqnr_db"]) is float and 5 < summary["sqnr_db"] < 60
    assert summary["overflows"] == 0 and type(summary["overflows"]) is int
    assert summary["wall_s"] > 0


def test_no_floats_means_no_sqnr(trace: Path, cli: Cli, tmp_path: Path) -> None:
    quantize = ("trace", "quantize", trace, "--out", "q.safetensors", "--scheme", "8/8/-/-", "--drop-floats")
    assert cli(*quantize, "--scheme", "4/4/4/4").out == "wrote q.safetensors\n"
    assert cli("run", "q.safetensors", "--out", "q", "--no-plots").status == 0
    assert cli("run", trace, "--out", "f", "--no-plots").status == 0
    stored, direct = (json.loads((tmp_path / name / "summary.json").read_text()) for name in "qf")
    assert stored["sqnr_db"] is None and direct["sqnr_db"] is not None
    assert stored["cycles"] == direct["cycles"] and stored["energy_pj"] == direct["energy_pj"]
    line = refused(cli("run", "q.safetensors", "--scheme", "4/8/-/-", "--out", "x"))
    assert "4/8/-/-@16" in line and "8/8/-/-@16" in line


def test_trace_info(trace: Path, cli: Cli) -> None:
    said = cli("trace", "info", trace)
    assert said.status == 0
    for text in ("small model", "MIT", *GEOMETRIES, "2,592"):  # 6 x 2 pixels x 8 x 3 x 3 x 3, of `first`
        assert text in said.out
    digits = cli("trace", "info", "digits").out
    for row in (r"nodes +1", r"graph +as listed", r"graph_inputs +image", r"graph_outputs +fc"):
        assert re.search(rf"^{row} *$", digits, re.MULTILINE), digits


def test_quantize_option_changes_the_run(trace: Path, cli: Cli, tmp_path: Path) -> None:
    for name, option in ("default", ()), ("other", ("--quantize", "elements=float_scale")):
        run = ("run", trace, "--out", name, "--no-plots", "--dump", *option)
        assert cli(*run).status == 0
    one, other = (load_file(tmp_path / name / "outputs.safetensors") for name in ("default", "other"))
    assert any((one[key] != other[key]).any() for key in one)


def test_costs(cli: Cli) -> None:
    overview = cli("costs")
    assert overview.status == 0 and "dot_product" in overview.out and "synthesis" in overview.out
    rows = list(csv.DictReader(io.StringIO(cli("costs", "sram", "dram", "--csv").out)))
    assert {row["component"] for row in rows} == {"sram", "dram"}
    assert all(row["source"] and row["unit"] for row in rows)
    everything = list(csv.DictReader(io.StringIO(cli("costs", "--csv").out)))
    assert len(everything) > len(rows) and all(row in everything for row in rows)
    assert "sram" in cli("costs", "sram").out


def test_help_names_every_command(cli: Cli) -> None:
    for arguments, words in {
        ("--help",): ("run", "compare", "trace", "costs"),
        (): ("run", "compare", "trace", "costs"),
        ("trace", "--help"): ("info", "quantize"),
        ("run", "--help"): ("--arch", "--scheme", "--out", "--set", "--dump"),
        ("compare", "--help"): ("--arch", "--scheme", "--out"),
    }.items():
        said = cli(*arguments)
        assert said.status == 0 and said.err == ""
        for word in words:
            assert word in said.out


def test_help_shows_the_defaults(cli: Cli) -> None:
    assert "8/8/-/-" in cli("compare", "--help").out
    assert "results/TRACE" in cli("run", "--help").out


def test_python_m(trace: Path, tmp_path: Path) -> None:
    version = python_m("--version", cwd=tmp_path)
    assert (version.returncode, version.stdout, version.stderr) == (0, f"accelsim {__version__}\n", "")
    run = python_m("run", trace, "--out", "r", "--no-plots", cwd=tmp_path)
    assert run.returncode == 0 and "results in r/" in run.stdout
    assert {path.name for path in (tmp_path / "r").iterdir()} == TABLES
    wrong = python_m("run", trace, "--set", "pes=0", cwd=tmp_path)
    assert wrong.returncode == 2 and "pes = 0" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.kept(False)
def test_the_same_bytes_twice(trace: Path, tmp_path: Path) -> None:
    """In two processes whose string hashes differ; wall_s is the only field that may."""
    found = []
    for name, seed in ("a", "1"), ("b", "2"):
        schemes = ("--scheme", "8/8/-/-", "--scheme", "4/4/4/4:sp4")
        done = python_m(
            "compare", trace, *schemes, "--dump", "--out", name, cwd=tmp_path, PYTHONHASHSEED=seed
        )
        assert done.returncode == 0, done.stderr
        files = contents(tmp_path / name)
        for path, text in files.items():
            if path.endswith("summary.json"):
                summary = json.loads(text)
                wall = f'"wall_s": {summary["wall_s"]}\n'.encode()
                assert text.count(wall) == 1
                files[path] = text.replace(wall, b"")
        found.append(files)
    assert {Path(path).suffix for path in found[0]} == {"", ".json", ".csv", ".png", ".svg", ".safetensors"}
    assert found[0] == found[1]


def test_the_bar_of_a_layer_goes_when_it_has_ended_or_another_begins(monkeypatch):
    from rich.progress import Progress

    bars, create = [], Progress.__init__

    def kept(self, *columns, **options):
        create(self, *columns, **options)
        bars.append(self)

    monkeypatch.setattr(Progress, "__init__", kept)
    with progress_bar() as tell:
        for what, done, of, seen in (
            ("cycles of a", 1, 9, ["cycles of a"]),
            ("cycles of b", 1, 9, ["cycles of b"]),
            ("scales of a", 1, 2, ["cycles of b", "scales of a"]),
            ("cycles", 1, 3, ["scales of a", "cycles"]),
            ("scales of a", 2, 2, ["cycles"]),
            ("cycles of c", 3, 9, ["cycles", "cycles of c"]),
        ):
            tell(what, done, of)
            assert [task.description for task in bars[0].tasks if task.visible] == seen, what
