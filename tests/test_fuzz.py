# ruff: noqa: E501
"""Fuzzing of what a run reads, and of the public names of Python (fuzzing.py)."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import small_layers
from fuzzing import MOST_CPU_S, VALUES, Doors, check_door, mutated, write

import accelsim
from accelsim import api
from accelsim.characterise.library import read_library
from accelsim.characterise.recipe import load_recipe
from accelsim.characterise.roles import find_roles
from accelsim.characterise.synthesis import mapping_library
from accelsim.costs.tables import ALL_TABLES, TABLES_DIR
from accelsim.open import open_workload
from accelsim.report.plots.files import plot_folder
from accelsim.report.read import read_results
from accelsim.synthetic.workload import write_recipe
from accelsim.trace.write import write_trace
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph
from accelsim.workload.layer import FloatLayer, Layer

# --- the doors: each makes one input from a seed and hands it in -------------------------------------------

door = Doors()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good inputs of every kind."""
    folder = tmp_path_factory.mktemp("good")
    layers = small_layers()[1:2]
    write_trace(folder / "t.safetensors", "m", layers, {"seed": 0})
    write_recipe(open_workload("resnet18"), folder / "r.json")  # type: ignore[arg-type]
    api.compare(
        folder / "t.safetensors", schemes=["4/4/4/4", "8/8/-/-"], overrides=["pes=2"], gated_fraction=0.0
    ).write(folder / "c", plots=False)
    shutil.copytree(TABLES_DIR, folder / "tables")
    api.cost_list().to_csv(folder / "own.csv", index=False)
    write(folder / "own.yaml", api.accelergy_tables()["ERT.yaml"])
    return folder


@door
def trace(draw: random.Random, folder: Path) -> Callable[[], object]:
    content = (folder / "t.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    text = mutated(draw, header["__metadata__"]["accelsim"])
    if draw.random() < 0.7:
        header["__metadata__"]["accelsim"] = text.encode("utf-8", "replace").decode()
        new = json.dumps(header)
    else:
        new = mutated(draw, json.dumps(header))
    encoded = new.encode("utf-8", "surrogatepass")
    (folder / "x.safetensors").write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + size :])

    def use() -> None:
        found = accelsim.Trace.open(folder / "x.safetensors")
        for info in found.manifest.layers:
            found.float_layer(info.name)

    return use


@door
def recipe(draw: random.Random, folder: Path) -> Callable[[], object]:
    write(folder / "x.json", mutated(draw, (folder / "r.json").read_text()))
    return lambda: open_workload(folder / "x.json")


TOPOLOGY = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
    "first, 16, 16, 3, 3, 3, 16, 1,\nDP2, 16, 16, 3, 3, 16, 1, 2,\nlast, 1, 1, 1, 1, 256, 10, 1,\n"
)


@door
def topology(draw: random.Random, folder: Path) -> Callable[[], object]:
    gemm = "Layer, M, N, K,\na, 10, 20, 30,\nb, 5, 6, 7,\n"
    write(folder / "x.csv", mutated(draw, draw.choice([TOPOLOGY, gemm])))
    return lambda: open_workload(folder / "x.csv")


PRESET = (Path(accelsim.__file__).parent / "machine/presets/magnet16.yaml").read_text("utf-8")


@door
def arch(draw: random.Random, folder: Path) -> Callable[[], object]:
    write(folder / "x.yaml", mutated(draw, draw.choice([PRESET, "base: magnet16\nname: mine\npes: 4\n"])))
    return lambda: accelsim.load_arch(folder / "x.yaml")


@door
def overrides(draw: random.Random, folder: Path) -> Callable[[], object]:
    items = [line.split("#")[0].strip().replace(": ", "=") for line in PRESET.splitlines() if ": " in line]
    return lambda: accelsim.load_arch("magnet16", [mutated(draw, draw.choice(items)) for _ in range(2)])


@door
def results(draw: random.Random, folder: Path) -> Callable[[], object]:
    own = folder / "c"
    name = draw.choice(["summary.json", "layers.csv"])
    path = own / "4_4_4_4" / name
    before = path.read_bytes()

    def use() -> None:
        write(path, mutated(draw, before.decode()))
        try:
            read_results(own)
            if draw.random() < 0.02:  # figures take a second
                plot_folder(own / draw.choice(["", "4_4_4_4"]), folder / "figures")
        finally:
            path.write_bytes(before)

    return use


@door
def cost_tables(draw: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / "tables" / draw.choice(ALL_TABLES).file
    before = path.read_bytes()

    def use() -> None:
        write(path, mutated(draw, before.decode()))
        try:
            api.cost_list(scheme=draw.choice(["4/4/4/4", "8/8/-/-", "3/5/-/6"]), costs=folder / "tables")
        finally:
            path.write_bytes(before)

    return use


@door
def prices(draw: random.Random, folder: Path) -> Callable[[], object]:
    source = folder / draw.choice(["own.csv", "own.yaml"])
    write(folder / f"x{source.suffix}", mutated(draw, source.read_text()))
    return lambda: api.cost_list(costs=folder / f"x{source.suffix}")


TINY = (Path(__file__).parent / "data/tiny.lib").read_text()


@door
def liberty(draw: random.Random, folder: Path) -> Callable[[], object]:
    write(folder / "x.lib", mutated(draw, TINY))

    def use() -> None:
        library = read_library([folder / "x.lib"])
        find_roles(library, load_recipe(None))
        mapping_library(library)
        for cell in library.cells.values():
            assert cell.arcs is not None and cell.passive is not None

    return use


GEOMETRY: dict[str, Any] = {
    "N": 1,
    "C": 4,
    "H": 5,
    "W": 5,
    "K": 4,
    "R": 3,
    "S": 3,
    "stride": (1, 1),
    "padding": (0, 0),
}
RUN: dict[str, Any] = {
    "trace": None, "arch": "magnet16", "scheme": "4/4/4/4", "overrides": ["pes=2"], "options": None, "costs": None,
    "progress": None, "keep_tensors": False, "gated_fraction": 0.0, "timeline": False,
}  # fmt: skip
PLAIN = Geometry(N=1, C=4, H=5, W=5, K=4, R=3, S=3)
LAYER: dict[str, Any] = {
    "name": "a",
    "op": "conv",
    "geometry": PLAIN,
    "activation": "none",
    "input_signed": True,
}
FLOATS: dict[str, Any] = {
    "layer": Layer("a", "conv", PLAIN), "weight": np.ones((4, 4, 3, 3), np.float32),
    "input": np.ones((1, 4, 5, 5), np.float32), "bias": np.ones(4, np.float32),
}  # fmt: skip
WRITTEN: dict[str, Any] = {"model": "m", "layers": [FloatLayer(**FLOATS)], "provenance": {}}


@door
def python(draw: random.Random, folder: Path) -> Callable[[], object]:
    """Public names with a wrong argument."""
    value = draw.choice(VALUES)

    def one(call: Callable[..., object], given: dict[str, Any]) -> Callable[[], object]:
        key = draw.choice(list(given))
        return lambda: call(**{**given, key: value})

    run = {**RUN, "trace": folder / "t.safetensors"}
    compared = {**run, "schemes": ["4/4/4/4"]}
    del compared["scheme"]
    counted = {
        key: run[key] for key in ("trace", "arch", "scheme", "overrides", "options", "costs", "progress")
    }
    return draw.choice(
        [
            one(api.run, run),
            one(api.compare, compared),
            one(api.bits, {**counted, "widths": [24]}),
            one(api.explain_mapping, {**{key: counted[key] for key in counted if key != "progress"}, "layer": "middle"}),
            one(api.cost_list, {"arch": "magnet16", "scheme": "4/4/4/4", "overrides": (), "costs": None}),
            one(api.cost_table, {"component": None, "arch": "magnet16", "costs": None}),
            one(api.component_price, {"component": "sram", "sizes": ["words=64", "width_bits=64"]}),
            one(accelsim.open_workload, {"name_or_path": "resnet18", "seq": None, "batch": None, "seed": None}),
            one(accelsim.load_arch, {"name": "magnet16", "overrides": []}),
            one(accelsim.Scheme.parse, {"text": "4/4/4/4"}),
            one(accelsim.Trace.open, {"path": folder / "t.safetensors"}),
            one(accelsim.QuantizeOptions, {"elements": "float_scale", "weight_percentile": 99.0, "fold": "auto"}),
            one(accelsim.Geometry, GEOMETRY),
            one(accelsim.Layer, LAYER),
            one(accelsim.FloatLayer, FLOATS),
            one(
                lambda **given: write_trace(folder / "w.safetensors", **given),
                {**WRITTEN, "graph": None, "quantized": ()},
            ),
            one(write_trace, {**WRITTEN, "path": folder / "w.safetensors"}),
            one(Graph, {"inputs": (("image", (1, 4, 5, 5)),), "steps": (), "outputs": ("a",)}),
            one(plot_folder, {"folder": folder / "c", "out": None}),
        ]
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", door)
def test_every_door(name: str, good: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    # Figures of a comparison take a second, and twice that beside other work.
    check_door(name, door[name], good, most_cpu_s=2 * MOST_CPU_S if name == "results" else MOST_CPU_S)
