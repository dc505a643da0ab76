"""The result folder: whole or not at all, and a dump from which the arithmetic can be checked."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import GEOMETRIES, Said, contents
from matplotlib.backends.backend_svg import FigureCanvasSVG
from safetensors import safe_open
from safetensors.numpy import load_file

from accelsim.api import run
from accelsim.errors import AccelsimError
from accelsim.report.results import RunResult, result_folder
from accelsim.system import whole
from accelsim.workload.geometry import Geometry

pytestmark = pytest.mark.kept

Cli = Callable[..., Said]


# --- the dump: docs/numerics.md in int64 NumPy, sharing nothing with the package but the sizes -----


def word_numbers(g: Geometry, vector: int, group: int) -> np.ndarray:
    """int64[pixels, G]: number of the input word of each pixel and g, -1 for padding."""
    depth = g.C // g.groups
    if depth < vector and g.R * g.S > 1:
        count = -(-g.R * g.S * depth // vector)
        return (np.arange(g.pixels)[:, None] * g.groups + group) * count + np.arange(count)
    words = -(-depth // vector)
    rows = []
    for n in range(g.N):
        for p in range(g.P):
            for q in range(g.Q):
                row = []
                for r in range(g.R):
                    for s in range(g.S):
                        h = p * g.stride[0] - g.padding[0] + r * g.dilation[0]
                        w = q * g.stride[1] - g.padding[1] + s * g.dilation[1]
                        inside = 0 <= h < g.H and 0 <= w < g.W
                        base = (((n * g.H + h) * g.W + w) * g.groups + group) * words
                        row += [base + c if inside else -1 for c in range(words)]
                rows.append(row)
    return np.array(rows)


def parts_of(g: Geometry, vector: int, count: int) -> list[list[int]]:
    """The g of each part of a reduction over `count` PEs: channels, at all taps; packed im2col: vectors."""
    depth, taps = g.C // g.groups, g.R * g.S
    if depth < vector and taps > 1:
        return [list(part) for part in np.array_split(np.arange(-(-depth * taps // vector)), count)]
    words = -(-depth // vector)
    return [
        [tap * words + word for tap in range(taps) for word in part]
        for part in np.array_split(np.arange(words), count)
    ]


def recompute(
    dump: dict[str, np.ndarray],
    name: str,
    scheme: str,
    vector: int,
    shift: int,
    bits: int,
    wrap: bool,
    c_split: int,
) -> tuple[np.ndarray, np.ndarray]:
    """psums and overflow counts of one layer, int64[pixels, K]."""
    g = GEOMETRIES[name]
    widths, _, rounded = scheme.partition(":sp")
    spn, scale_bits = int(rounded or 0), sum(int(text) for text in widths.split("/")[2:] if text != "-")
    weights = dump[f"{name}/weight_words"].astype(np.int64)
    inputs = dump[f"{name}/input_words"].astype(np.int64)
    weight_scales = dump.get(f"{name}/weight_scales", np.ones(weights.shape[:2])).astype(np.int64)
    input_scales = dump.get(f"{name}/input_scales", np.ones(len(inputs))).astype(np.int64)
    psums = np.zeros((g.pixels, g.K), dtype=np.int64)
    overflows = np.zeros_like(psums)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    outputs = g.K // g.groups

    def add(total: np.ndarray, k: slice) -> np.ndarray:
        overflows[:, k] += (total < low) | (total > high)
        return (total - low) % (1 << bits) + low if wrap else np.clip(total, low, high)

    for group in range(g.groups):
        k = slice(group * outputs, (group + 1) * outputs)
        words = word_numbers(g, vector, group)
        for number, part in enumerate(parts_of(g, vector, c_split)):
            own = np.zeros((g.pixels, outputs), dtype=np.int64)
            for step in part:
                present = words[:, step] >= 0
                codes = np.where(present[:, None], inputs[words[:, step]], 0)
                scales = np.where(present, input_scales[words[:, step]], 0)
                dot = codes @ weights[k, step].T
                product = scales[:, None] * weight_scales[k, step]
                if spn:
                    drop = scale_bits - spn
                    product = np.minimum((product + (1 << (drop - 1))) >> drop, (1 << spn) - 1)
                value = dot * product
                if shift:
                    value = (value + (1 << (shift - 1))) >> shift
                own = add(own + value, k)
            psums[:, k] = own if number == 0 else add(psums[:, k] + own, k)
    return psums, overflows


@pytest.mark.parametrize(
    ("scheme", "vector", "shift", "bits", "overflow"),
    [
        ("4/4/4/4", 16, 0, 28, "saturate"),
        ("8/8/-/-", 16, 0, 29, "saturate"),
        ("4/4/4/4:sp4", 8, 0, 9, "saturate"),
        ("3/5/4/-", 16, 2, 7, "wrap"),
        ("6/4/-/6", 4, 1, 12, "saturate"),
        ("4/8/6/10:sp8", 16, 3, 14, "wrap"),
    ],
)
def test_the_dump_lets_anyone_recompute_the_psums(
    trace: Path, cli: Cli, tmp_path: Path, scheme: str, vector: int, shift: int, bits: int, overflow: str
) -> None:
    changes = {
        "vector_size": vector, "product_shift": shift, "accumulator_bits": bits, "overflow": overflow,
        "weight_buffer_words": 8, "pes": 3, "global_buffer_kb": 64,
        "gb_weight_kb": 24,
    }  # fmt: skip
    options = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    said = cli("run", trace, "--scheme", scheme, "--dump", "--no-plots", "--out", "r", *options)
    assert said.status == 0, said.err
    dump = load_file(tmp_path / "r/outputs.safetensors")
    with safe_open(tmp_path / "r/outputs.safetensors", framework="numpy") as file:
        facts = json.loads(file.metadata()["accelsim"])
    counted = 0
    for name in GEOMETRIES:
        chain = facts[name]["c_split"]
        psums, overflows = recompute(dump, name, scheme, vector, shift, bits, overflow == "wrap", chain)
        np.testing.assert_array_equal(dump[f"{name}/psums"], psums)
        np.testing.assert_array_equal(dump[f"{name}/overflows"], overflows)
        counted += int(overflows.sum())
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary["overflows"] == counted and summary["accumulator_bits"] == bits
    assert (counted > 0) == (bits < 20)


def test_the_dump_holds_every_operand(trace: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("run", trace, "--dump", "--no-plots", "--out", "r").status == 0
    path = tmp_path / "r/outputs.safetensors"
    dump = load_file(path)
    always = {"weight_words", "weight_scales", "weight_gamma", "input_words", "input_scales", "psums",
              "overflows", "output", "output_scales"}  # fmt: skip
    for name, g in GEOMETRIES.items():
        own = {key.partition("/")[2]: values for key, values in dump.items() if key.startswith(name + "/")}
        assert set(own) == always | ({"bias"} if name != "matmul" else set())
        assert own["psums"].shape == own["overflows"].shape == own["output"].shape == (g.pixels, g.K)
        assert abs(own["weight_words"]).max() <= 7 and own["input_scales"].max() <= 15
        assert own["output_scales"].shape == (g.pixels, g.groups * -(-g.K // g.groups // 16))
    with safe_open(path, framework="numpy") as file:
        gammas = json.loads(file.metadata()["accelsim"])
    assert set(gammas) == set(GEOMETRIES)
    assert all(value["input_gamma"] > 0 and value["output_gamma"] > 0 for value in gammas.values())


# --- whole or not at all -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(trace: Path) -> RunResult:
    return run(trace, scheme="8/8/-/-")


def test_a_new_result_replaces_the_old_one(result: RunResult, trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result.write(out, plots=False, dump=True)
    assert run(trace, scheme="4/4/4/4").write(str(out), plots=False) == out
    assert json.loads((out / "summary.json").read_text())["scheme"] == "4/4/4/4"
    assert not (out / "outputs.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert out.stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_may_be_filled(result: RunResult, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    result.write(tmp_path / "out", plots=False)
    assert (tmp_path / "out/summary.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def no_space(*arguments: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


WRITERS: dict[str, tuple[object, str]] = {
    "json": (Path, "write_text"),
    "csv": (pd.DataFrame, "to_csv"),
    "plot": (FigureCanvasSVG, "print_svg"),
    "dump": (Path, "write_bytes"),
    "rename": (os, "rename"),
}


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "earlier result"])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_full_disk_leaves_things_as_they_were(
    trace: Path,
    cli: Cli,
    result: RunResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    writer: str,
    earlier: bool,
) -> None:
    if earlier:
        result.write(tmp_path / "out", plots=False)
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(*WRITERS[writer], no_space)
        schemes = ("--scheme", "4/4/4/4")
        said = cli(command, trace, *schemes, "--out", "out", "--dump")
    assert said.status == 2
    assert said.err.strip() == "error: results out: cannot be written: No space left on device"
    assert contents(tmp_path) == before


def no_such_folder(*arguments: Any, **options: Any) -> None:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def test_a_file_system_without_new_folders_is_found_before_the_run(
    trace: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /proc, whose permissions allow what it refuses, with the reason of a folder that is gone."""
    monkeypatch.setattr(Path, "mkdir", no_such_folder)
    monkeypatch.setattr("accelsim.api.run", None)
    said = cli("run", trace, "--out", "out")
    assert (said.status, said.out) == (2, "")
    assert said.err.strip() == "error: results out: cannot be written: No such file or directory"
    assert contents(tmp_path) == {}


def test_the_earlier_result_comes_back(
    result: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two folders cannot be swapped, the old one is out of the way when the new one cannot take its
    place."""
    result.write(tmp_path / "out", plots=False)
    before = contents(tmp_path)
    rename, calls = os.rename, []

    def third_fails(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 3:
            no_space()
        rename(source, target)

    monkeypatch.setattr(whole, "_swap", lambda one, other: False)
    monkeypatch.setattr(os, "rename", third_fails)
    with pytest.raises(AccelsimError, match="No space left"):
        result.write(tmp_path / "out", plots=False)
    assert len(calls) == 4 and contents(tmp_path) == before
    result.write(tmp_path / "out", plots=False)
    assert len(calls) == 7 and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, AccelsimError("no"), RuntimeError], ids=str)
def test_whatever_stops_the_writing_leaves_nothing(tmp_path: Path, stop: BaseException) -> None:
    with pytest.raises(type(stop) if isinstance(stop, BaseException) else stop):
        with result_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("x")
            raise stop
    assert contents(tmp_path) == {}


def test_a_file_too_large(trace: Path, tmp_path: Path) -> None:
    """As on a full disk, but by a limit that the operating system enforces."""
    command = [sys.executable, "-m", "accelsim", "run", str(trace), "--dump", "--no-plots", "--out", "out",
               "--scheme", "8/8/-/-"]  # fmt: skip
    probe = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    assert probe.returncode == 0
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    # The first of the files that does not fit: one of some size, after smaller ones.
    limit = sizes["components.csv"] - 1
    assert limit > sizes["summary.json"]
    before = contents(tmp_path)
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert contents(tmp_path) == before
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_the_current_folder_as_out(
    result: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        result.write(".", plots=False)
    except AccelsimError:
        assert contents(tmp_path) == {}
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_files_of_others_beside_a_result_are_kept(result: RunResult, tmp_path: Path) -> None:
    result.write(tmp_path / "out", plots=False)
    (tmp_path / "out/thesis.tex").write_text("mine")
    try:
        result.write(tmp_path / "out", plots=False)
    except AccelsimError:
        pass
    assert (tmp_path / "out/thesis.tex").is_file()


def test_names_too_long_are_refused_in_python(result: RunResult, tmp_path: Path) -> None:
    with pytest.raises(AccelsimError):
        result.write(tmp_path / ("y" * 300), plots=False)
