"""`--json` of every command that prints tables, `accelsim doctor`, and completion in shells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Said, refused

import accelsim
from accelsim import api, doctor
from accelsim.trace.find import bundled_traces

Cli = Callable[..., Said]
ROOT = Path(__file__).resolve().parents[1]
SCHEMES = ("--scheme", "8/8/-/-", "--scheme", "4/4/4/4")
SPACE = """\
networks: [digits]
schemes: [4/4/4/4]
set: {pes: [4, 16]}
tune: {objectives: {energy_pe_pj: min, area_array_um2: min}}
"""


def said_json(said: Said) -> dict[str, Any]:
    assert (said.status, said.err) == (0, ""), said.err
    found = json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(found, dict)
    return found


def same(rows: list[dict[str, Any]], frame: pd.DataFrame) -> None:
    """Every figure as it is in Python, to the last bit; null where there is none."""
    assert len(rows) == len(frame) > 0
    for row, own in zip(rows, frame.to_dict("records"), strict=True):
        assert list(row) == list(own)
        for name, value in own.items():
            if value is None or value != value:
                assert row[name] is None, name
            else:
                assert row[name] == value and type(row[name]) in (str, int, float, bool), name


@pytest.mark.kept
def test_run(trace: Path, cli: Cli, tmp_path: Path) -> None:
    found = said_json(cli("run", trace, "--no-plots", "--out", "r", "--explain", "--json"))
    assert list(found) == ["summary", "layers", "explained", "results"] and found["results"] == "r"
    assert found["summary"] == json.loads((tmp_path / "r/summary.json").read_text())
    result = accelsim.run(trace)
    same(found["layers"], result.layers)
    same(found["explained"], result.explain())


@pytest.mark.kept
def test_compare(trace: Path, cli: Cli) -> None:
    found = said_json(cli("compare", trace, *SCHEMES, "--no-plots", "--sensitivity", "--json"))
    assert list(found) == ["comparison", "summaries", "sensitivity", "results"]
    comparison = accelsim.compare(trace, schemes=["8/8/-/-", "4/4/4/4"])
    same(found["comparison"], comparison.to_frame())
    same(found["sensitivity"], comparison.sensitivity())
    assert [own["scheme"] for own in found["summaries"]] == ["8/8/-/-", "4/4/4/4"]


@pytest.mark.kept
def test_map(trace: Path, cli: Cli) -> None:
    found = said_json(cli("map", trace, "middle", "--top", "3", "--json"))
    ranked, facts = api.explain_mapping(trace, "middle")
    same(found["candidates"], ranked.head(3))
    assert found["layer"] == json.loads(json.dumps(facts))


@pytest.mark.kept
def test_bits(trace: Path, cli: Cli) -> None:
    found = said_json(cli("bits", trace, "--json"))
    result = accelsim.bits(trace)
    same(found["layers"], result.layers)
    same(found["widths"], result.by_width())
    assert found["summary"]["lossless_bits"] == result.summary["lossless_bits"]


def test_trace_info(trace: Path, cli: Cli) -> None:
    found = said_json(cli("trace", "info", trace, "--json"))
    assert found["trace"]["model"] == "small model"
    assert [row["layer"] for row in found["layers"]] == ["first", "middle", "grouped", "matmul"]


def test_costs(cli: Cli, tmp_path: Path) -> None:
    same(said_json(cli("costs", "sram", "--json"))["costs"], api.cost_table("sram"))
    same(said_json(cli("costs", "--scheme", "4/4/4/4", "--json"))["costs"], api.cost_list())
    clocks = said_json(cli("costs", "--scheme", "4/4/4/4", "--frequency", "--json"))["costs"]
    same(clocks, api.clock_table())
    sizes = ["V=16", "W=4", "A=4", "stages=2", "period_ps=1000"]
    price = said_json(cli("costs", "dot_product", *(f"--set={size}" for size in sizes), "--json"))["price"]
    assert price == json.loads(json.dumps(api.component_price("dot_product", sizes)))
    written = said_json(cli("costs", "--scheme", "4/4/4/4", "--accelergy", ".", "--json"))["written"]
    assert [Path(name).name for name in written] == ["ERT.yaml", "ART.yaml"]
    assert "expected one of them" in refused(cli("costs", "sram", "--csv", "--json"))


def test_rtl(cli: Cli) -> None:
    assert said_json(cli("rtl", "--out", "build", "--set", "pes=4", "--json")) == {"written": "build"}


@pytest.mark.kept
def test_sweep(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    sweep = ("sweep", "space.yaml", "--store", "s", "--workers", "1", "--json")
    looked = said_json(cli(*sweep, "--dry-run"))
    assert looked["outlook"]["points"] == 2 and looked["outlook"]["seconds"] is None
    swept = said_json(cli(*sweep))
    assert swept["counts"]["computed"] == 2 and swept["results"] == "results/space.csv"
    cycles = pd.read_csv(tmp_path / "results/space.csv")["cycles"]
    assert [row["cycles"] for row in swept["points"]] == list(cycles)


@pytest.mark.slow
def test_tune(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'accelsim[tune]'")
    (tmp_path / "space.yaml").write_text(SPACE)
    found = said_json(cli("tune", "space.yaml", "--store", "s", "--workers", "1", "--trials", "2", "--json"))
    assert found["counts"] == {"points": 2, "space": 2, "failed": 0, "feasible": 2}
    frame = pd.read_csv(tmp_path / "results/space-tune.csv").query("front")
    assert [row["cycles"] for row in found["front"]] == list(frame.sort_values("energy_pe_pj")["cycles"])


def test_refusals_stay_a_line_on_stderr(trace: Path, cli: Cli) -> None:
    for arguments in (("run", "absent"), ("compare", trace, "--scheme", "x"), ("map", trace, "absent")):
        said = cli(*arguments, "--json")
        assert refused(said) and said.out == ""
    assert "--csv and --json" in refused(cli("validate", "--csv", "--json"))


# --- doctor -------------------------------------------------------------------------------------------------


def test_doctor_of_this_installation(cli: Cli) -> None:
    said = cli("doctor")
    assert said.status == 0 and said.out.endswith("ready to run\n"), said
    found = said_json(cli("doctor", "--json"))
    assert found["problems"] == [] and found["accelsim"] == accelsim.__version__
    assert {own["trace"] for own in found["traces"]} == set(bundled_traces())
    kernels = found["kernels"]
    assert kernels["instructions"] in ("AVX-512 VNNI", "portable") and kernels["threads"] >= 1
    assert found["kept"] == {"what": "mappings, timings", "cache_folder": None, "cache_writable": False}
    assert any("ACCELSIM_CACHE_DIR" in note for note in found["notes"])
    packages = {own["package"]: own for own in found["packages"]}
    assert packages["numpy"]["fits"] and packages["numpy"]["extra"] is None
    assert packages["numpy"]["installed"] == metadata.version("numpy")
    assert packages["pytest"]["extra"] == "test"
    for own in found["tools"]:
        assert own["version"] is None or any(digit.isdigit() for digit in own["version"])


def test_doctor_names_where_mappings_and_timings_are_kept(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELSIM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = said_json(cli("doctor", "--json"))
    assert found["kept"]["cache_folder"] == str(tmp_path / "accelsim") and found["kept"]["cache_writable"]
    assert not list(tmp_path.iterdir())
    (tmp_path / "accelsim").touch()  # a file, in which nothing can be kept
    assert said_json(cli("doctor", "--json"))["kept"]["cache_writable"] is False


def test_doctor_tells_what_is_wrong(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"numpy": "1.26.4"}
    real = metadata.version

    def version(name: str) -> str:
        if name == "simpy":
            raise metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr("accelsim.trace.find.trace_folders", lambda: ())
    said = cli("doctor")
    line = refused(said)
    assert "numpy is 1.26.4, expected >=2.0" in line and "simpy is not installed" in line
    assert "no bundled trace" in line and "problem: " in said.out and "ready" not in said.out
    monkeypatch.setattr(doctor, "_kernels", lambda: 1 / 0)
    assert "kernels: cannot be loaded: ZeroDivisionError" in refused(cli("doctor", "--json"))


def test_doctor_finds_tools_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in ("yosys", "echo odd noise; echo Yosys 0.99 >&2"), ("verilator", "exit 3"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {own["tool"]: own for own in doctor.examine()["tools"]}
    assert found["yosys"]["version"] == "Yosys 0.99"
    assert found["verilator"]["path"] and found["verilator"]["version"] is None
    assert found["iverilog"]["path"] is None


# --- completion ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, expected",
    [
        ("accelsim comp", {"compare"}),
        ("accelsim run --arch ma", {"magnet16"}),
        ("accelsim run di", {"digits"}),
        ("accelsim compare resnet", {"resnet18", "resnet50"}),
        ("accelsim costs cha", {"characterise"}),
    ],
)
def test_completion_in_bash(words: str, expected: set[str], tmp_path: Path) -> None:
    asked = {"_ACCELSIM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": f"{words.count(' ')}"}
    program = "import sys; sys.argv = ['accelsim']; from accelsim.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env={**os.environ, **asked}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.stderr, set(done.stdout.split())) == ("", expected)
