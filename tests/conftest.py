"""Shared by the tests of the public doors: one small float trace, and the command line called in-process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers as cores: threads that wait by spinning take the core of another worker.
    # Read when numpy and torch are first imported, below.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np
import pytest

from accelsim.cli.main import main
from accelsim.system.kept import ENVIRONMENT
from accelsim.trace.write import write_trace
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph
from accelsim.workload.layer import FloatLayer, Layer

# A packed im2col first layer, ragged channels with padding and strides, groups, a matmul with its softmax.
GEOMETRIES = {
    "first": Geometry(1, 3, 6, 5, 8, 3, 3, (1, 2), (1, 0)),
    "middle": Geometry(2, 20, 5, 5, 18, 3, 2, (2, 1), (1, 1), (1, 2)),
    "grouped": Geometry(1, 36, 3, 3, 8, 3, 3, (1, 1), (1, 1), groups=2),
    "matmul": Geometry(1, 40, 1, 6, 10, groups=2),
}
UNSIGNED = "middle"


def small_layers() -> list[FloatLayer]:
    rng = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    layers = []
    for name, g in GEOMETRIES.items():
        values = draw(g.N, g.C, g.H, g.W)
        layers.append(
            FloatLayer(
                Layer(
                    name,
                    "matmul" if name == "matmul" else "conv",
                    g,
                    "none" if name == "matmul" else "relu",
                    input_signed=name != UNSIGNED,
                    weight_is_activation=name == "matmul",
                ),
                draw(g.K, g.channels_per_group, g.R, g.S),
                np.maximum(values, 0) if name == UNSIGNED else values,
                None if name == "matmul" else draw(g.K),
            )
        )
    return layers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: workers take short ones from each other at the end, and no long one runs alone."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session", autouse=True)
def _kept_by_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder for what all workers map, time and compute, which holds nothing at first."""
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            ENVIRONMENT, str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kept")
        )
        yield


@pytest.fixture(autouse=True)
def _nothing_kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a test is marked `kept`: many change the mapper beneath its own sources, by which what it keeps
    goes, or hold two ways to the same against each other.

    Those of what is made of runs are marked: they run the same few small workloads again and again, which is
    mapping and timing nearly all.
    """
    marker = request.node.get_closest_marker("kept")
    if marker is None or marker.args == (False,):
        monkeypatch.setenv(ENVIRONMENT, "")


@pytest.fixture(scope="session")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "small.safetensors"
    layers = small_layers()
    graph = Graph.chain(
        [own.layer for own in layers], {"middle": [("max_pool", 90)], "matmul": [("softmax", 60)]}
    )
    return write_trace(path, "small model", layers, {"license": "MIT"}, graph=graph)


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


def call_main(*arguments: object) -> Said:
    """`accelsim ARGUMENTS` in this process; anything but SystemExit is a traceback and fails the test."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["accelsim", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as e:
            main()
    finally:
        sys.argv = argv
    assert isinstance(e.value.code, int)
    return Said(e.value.code, out.getvalue(), err.getvalue())


def python_m(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m accelsim ARGUMENTS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "accelsim", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def refused(said: Said) -> str:
    """The one line of a refusal."""
    # test_cli_refusals.py says that nothing else, not even a blank line, may be there.
    line = said.err
    assert said.status == 2, said
    assert line.startswith("error: ") and line.endswith("\n") and line.count("\n") == 1, said.err
    assert line.strip().isprintable(), line
    assert "Traceback" not in said.out
    return line.removeprefix("error: ").strip()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """call_main in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    return call_main


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and folder below `folder`, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder"
        for path in sorted(folder.rglob("*"))
    }
