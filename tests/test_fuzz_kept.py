# ruff: noqa: E501
"""Fuzzing of what is read back and of texts: stores, caches, pages, spaces, models, names (fuzzing.py)."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import small_layers
from fuzzing import VALUES, WORDS, Doors, check_door, mutated, write

from accelsim import api
from accelsim.characterise.library import read_library
from accelsim.characterise.recipe import load_recipe
from accelsim.characterise.roles import find_roles
from accelsim.cli.options import read_accuracy
from accelsim.costs.query import COMPONENTS
from accelsim.open import open_workload
from accelsim.page import write_report
from accelsim.quantize.options import quantize_options
from accelsim.report.results import RunResult
from accelsim.sweep import Space, Store, outlook, sweep
from accelsim.sweep.identity import resolve
from accelsim.sweep.pe import pe_points
from accelsim.sweep.run import Counts, Swept
from accelsim.system.kept import ENVIRONMENT
from accelsim.trace.write import write_trace
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import FloatLayer, Layer

door = Doors()
LIBERTY = Path(__file__).parent / "data/tiny.lib"
SPACE = """
networks: [t.safetensors]
schemes: [4/4/4/4, 8/8/-/-]
archs: [magnet16]
machines: [{pes: 2, gb_banks: 16}]
set: {clock_ghz: [0.5, 1.0], dram_bits_per_cycle: [32, 64]}
prices: [{}, {placement_utilization: 0.6}]
gated_fraction: 0.25
accuracy: {t.safetensors: {4/4/4/4: {top1: 89.5}, 8/8/-/-: {top1: 91}}}
tune: {objectives: {energy_system_pj: min, top1: max}, constraints: {cycles: {max: 100000}}}
"""
TABLE = "network,scheme,accuracy,note\nt,4/4/4/4,89.5,a\nt.safetensors,8/8/-/-,91,b\nother,4/4/4/4,1,\n"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good inputs of every kind."""
    folder = tmp_path_factory.mktemp("good")
    trace = folder / "t.safetensors"
    write_trace(trace, "m", small_layers()[1:2], {"seed": 0})
    few = {"overrides": ["pes=2"], "gated_fraction": 0.0}
    api.run(trace, timeline=True, **few).write(folder / "run", plots=False)
    api.compare(trace, schemes=["4/4/4/4", "8/8/-/-"], **few).write(folder / "compared", plots=False)
    api.bits(trace, overrides=["pes=2"], widths=[24]).write(folder / "bits")
    (folder / "space.yaml").write_text(SPACE)
    (folder / "accuracy.csv").write_text(TABLE)
    with Store(folder / "store") as store:
        frame = sweep(Space.read(folder / "space.yaml"), store, workers=1).to_frame()
    frame.to_csv(folder / "sweep.csv", index=False)
    before = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = str(folder / "kept")
    try:
        small_run(folder)
    finally:
        os.environ[ENVIRONMENT] = before or ""
    return folder


@cache
def expected_layers(folder: Path) -> pd.DataFrame:
    return small_run(folder).layers


def small_run(folder: Path) -> RunResult:
    """Of a layer that is mapped anew in no time."""
    path = folder / "tiny.safetensors"
    if not path.exists():
        layer = Layer("a", "conv", Geometry(N=1, C=4, H=2, W=2, K=4))
        ones = np.ones((4, 4, 1, 1), np.float32), np.ones((1, 4, 2, 2), np.float32), None
        write_trace(path, "m", [FloatLayer(layer, *ones)], {})
    return api.run(path, overrides=["pes=1"])


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Bytes with one to three of them changed, or cut off, or with some more."""
    own = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        if own:
            own[draw.randrange(len(own))] = draw.randrange(256)
    kind, at = draw.random(), draw.randrange(len(own) + 1)
    return bytes(own[:at]) if kind < 0.2 else bytes(own) + draw.randbytes(at) if kind < 0.3 else bytes(own)


def repacked(draw: random.Random, data: bytes) -> bytes:
    """Of a compressed text another one, or damaged bytes."""
    if draw.random() < 0.3:
        return damaged(draw, data)
    text = zlib.decompress(data).decode("utf-8", "surrogateescape")
    return zlib.compress(mutated(draw, text).encode("utf-8", "replace"), 1)


@door
def space(draw: random.Random, folder: Path) -> Callable[[], object]:
    write(folder / "x.yaml", mutated(draw, SPACE))

    def use() -> None:
        found = Space.read(folder / "x.yaml")
        if found.size > 64:
            return
        with Store(folder / "store") as store:
            outlook(found, store)

    return use


@door
def accuracy_table(draw: random.Random, folder: Path) -> Callable[[], object]:
    how = draw.choice(["x.csv", "{file: x.csv, columns: {accuracy: top1}, where: {note: a}}"])
    text = f"networks: [t.safetensors]\nschemes: [4/4/4/4, 8/8/-/-]\naccuracy: {how}\n"
    write(folder / "x.csv", mutated(draw, TABLE))
    write(folder / "x.yaml", mutated(draw, text) if draw.random() < 0.3 else text)
    return lambda: Space.read(folder / "x.yaml")


@door
def accuracy_json(draw: random.Random, folder: Path) -> Callable[[], object]:
    write(folder / "x.json", mutated(draw, '{"4/4/4/4": {"top-1 (%)": 89.5}, "8/8/-/-": {"top-1 (%)": 91}}'))
    return lambda: read_accuracy(folder / "x.json", ["4/4/4/4", "8/8/-/-"])


@door
def store(draw: random.Random, folder: Path) -> Callable[[], object]:
    """A sweep's store whose cells, or bytes, are others."""
    shutil.rmtree(folder / "x-store", ignore_errors=True)
    shutil.copytree(folder / "store", folder / "x-store")
    file = folder / "x-store/store.sqlite"
    if draw.random() < 0.2:
        file.write_bytes(damaged(draw, file.read_bytes()))
    else:
        table, column = draw.choice(
            [("points", own) for own in ("figures", "error", "seconds", "key", "run_key")]
            + [("records", own) for own in ("data", "seconds", "network")]
        )
        with closing(sqlite3.connect(file)) as db:
            for own, value in (
                db.execute(f"select rowid, {column} from records").fetchall()
                if (table == "records")
                else db.execute(f"select key, {column} from points").fetchall()
            ):
                new: object = draw.choice([None, 0, -1, 1e308, 1 << 62, "x", b"\xff\0", *WORDS[:40]])
                if isinstance(value, bytes) and draw.random() < 0.8:
                    new = repacked(draw, value)
                elif isinstance(value, str) and draw.random() < 0.8:
                    new = mutated(draw, value)
                if isinstance(new, str):
                    new = new.encode("utf-8", "replace").decode()
                name = "rowid" if table == "records" else "key"
                db.execute(f"update or ignore {table} set {column} = ? where {name} = ?", (new, own))
            db.commit()
    return lambda: swept(folder)


def swept(folder: Path) -> None:
    found = Space.read(folder / "space.yaml")
    with Store(folder / "x-store") as own:
        outlook(found, own)
        for point in resolve(found.points()):
            own.layers(point.run_key)
        Swept(found, own, Counts(found.size), 0.0).to_frame()


@door
def kept(draw: random.Random, folder: Path) -> Callable[[], object]:
    """What earlier runs have left in the cache."""
    files = sorted(path for path in (folder / "kept").rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files}
    expected = expected_layers(folder)

    def use() -> None:
        os.environ[ENVIRONMENT] = str(folder / "kept")
        for path in draw.sample(files, draw.randint(1, len(files))):
            seal, data = before[path][:32], before[path][32:]
            path.write_bytes(draw.choice([seal, b""]) + repacked(draw, data))
        try:
            found = small_run(folder)
            assert found.layers.equals(expected)
        finally:
            os.environ[ENVIRONMENT] = ""
            for path, data in before.items():
                path.write_bytes(data)

    return use


@door
def page(draw: random.Random, folder: Path) -> Callable[[], object]:
    """Folders and tables that a page is made of."""
    source = folder / draw.choice(["run", "compared", "bits", "sweep.csv"])
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*.*") if path.is_file())
    path = draw.choice([path for path in files if path.suffix in (".csv", ".json")])
    before = path.read_bytes()

    def use() -> None:
        write(path, mutated(draw, before.decode()))
        try:
            write_report([source], folder / "x.html")
        finally:
            path.write_bytes(before)

    return use


@door
def library_recipe(draw: random.Random, folder: Path) -> Callable[[], object]:
    text = (
        "avoid: ['X*']\nfull_adder: FA\nhalf_adder: HA\nor_gates: {2: OR2}\ntarget_ps: 100\n"
        "mapping_load_ff: 1.5\noutput_load_ff: 2\ninput_slew_ps: 10\nhold_ps: 5\nmax_fanout: 20\ntimeout_s: 60\n"
    )
    write(folder / "x.yaml", mutated(draw, text))
    return lambda: find_roles(read_library([LIBERTY]), load_recipe(folder / "x.yaml"))


@door
def inputs(draw: random.Random, folder: Path) -> Callable[[], object]:
    """Arrays for a model."""
    pytest.importorskip("onnx")
    from accelsim.onnx.inputs import load_inputs

    path = folder / draw.choice(["x.npz", "x.safetensors"])
    if path.suffix == ".npz":
        np.savez(path, x=np.arange(6.0).reshape(2, 3), y=np.array(["a"]))
        if draw.random() < 0.5:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x.npy", damaged(draw, b"\x93NUMPY\1\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }"
                                                  + b" " * 54 + b"\n" + b"\0" * 8))  # fmt: skip
            return lambda: load_inputs(path)
        content = path.read_bytes()
    else:
        content = (folder / "t.safetensors").read_bytes()
        if draw.random() < 0.5:
            size = int.from_bytes(content[:8], "little")
            head = mutated(draw, content[8 : 8 + size].decode()).encode("utf-8", "replace")
            path.write_bytes(len(head).to_bytes(8, "little") + head + content[8 + size :])
            return lambda: load_inputs(path)
    path.write_bytes(damaged(draw, content))
    return lambda: load_inputs(path)


@door
def model(draw: random.Random, folder: Path) -> Callable[[], object]:
    """An ONNX model of damaged bytes."""
    pytest.importorskip("onnxruntime")
    from onnx_models import small_model

    from accelsim.onnx.capture import capture

    made, x = small_model()
    (folder / "x.onnx").write_bytes(damaged(draw, made.SerializeToString()))
    return lambda: capture(folder / "x.onnx", x, "float")


@door
def texts(draw: random.Random, folder: Path) -> Callable[[], object]:
    """Names, schemes and options as they are typed."""
    component = draw.choice(sorted(COMPONENTS))
    kind, text = draw.choice(
        [
            ("open", "resnet18@batch=2,seed=1"), ("open", "bert-base@seq=64"), ("open", str(folder / "t.safetensors")),
            ("scheme", "4/8/6/10:sp8"), ("scheme", "4/4/4/4@32"), ("scheme", "mxfp4"), ("scheme", "8/8/-/-"),
            ("quantize", "scale_rounding=up"), ("quantize", "preset=vs-quant"), ("quantize", "weight_percentile=99.5"),
            ("sizes", "words=64"), ("sizes", "width_bits=64"), ("component", component), ("layer", "middle"),
        ]
    )  # fmt: skip
    new = mutated(draw, text)
    return {
        "open": lambda: open_workload(new),
        "scheme": lambda: api.cost_list(scheme=new),
        "quantize": lambda: quantize_options([new]),
        "sizes": lambda: api.component_price(component, [new, "words=64", "width_bits=64"]),
        "component": lambda: api.cost_table(new),
        "layer": lambda: api.explain_mapping(folder / "t.safetensors", new, overrides=["pes=2"]),
    }[kind]


@door
def python(draw: random.Random, folder: Path) -> Callable[[], object]:
    """Public names beyond those of test_fuzz.py with a wrong argument."""
    value = draw.choice(VALUES)

    def one(call: Callable[..., object], given: dict[str, Any]) -> Callable[[], object]:
        key = draw.choice(list(given))
        return lambda: call(**{**given, key: value})

    trace = folder / "t.safetensors"
    swept = Space.of({"networks": [str(trace)], "schemes": ["4/4/4/4"]})
    sides: dict[str, Any] = {
        "networks": ["digits"], "schemes": ["4/4/4/4"], "archs": ["magnet16"], "machines": [{}], "set": {"pes": [4]},
        "prices": [{}], "gated_fraction": 0.0, "accuracy": {}, "tune": None,
    }  # fmt: skip
    return draw.choice(
        [
            one(lambda **given: Space.of(given), sides),
            one(lambda **given: Space.read(**given), {"path": folder / "space.yaml"}),
            one(lambda **given: Store(**given).close(), {"folder": folder / "x-store"}),
            one(sweep, {"space": swept, "store": folder / "store", "workers": 1, "progress": None}),
            one(outlook, {"space": swept, "store": folder / "store"}),
            one(swept.with_accuracy, {"measure": lambda network, scheme: {"top1": 1.0}}),
            lambda: swept.with_accuracy(lambda network, scheme: value),
            one(write_report, {"sources": [folder / "run"], "out": folder / "x.html"}),
            one(
                api.emit_rtl,
                {
                    "out": folder / "rtl",
                    "arch": "magnet16",
                    "scheme": "4/4/4/4",
                    "trace": trace,
                    "layer": None,
                    "overrides": (),
                },
            ),
            one(api.clock_table, {"arch": "magnet16", "scheme": "4/4/4/4", "overrides": (), "costs": None}),
            one(
                api.accelergy_tables,
                {"arch": "magnet16", "scheme": "4/4/4/4", "overrides": (), "costs": None},
            ),
            one(api.check_costs, {"costs": None}),
            one(
                pe_points,
                {"schemes": ["4/4/4/4"], "vector_sizes": [16], "arch": "magnet16", "progress": None},
            ),
            one(
                lambda **given: api.characterise_costs(**given, pattern="^none$"),
                {"liberty": [LIBERTY], "out": folder / "costs", "node_nm": 7.0, "recipe": None},
            ),
        ]
    )


@door
def environment(draw: random.Random, folder: Path) -> Callable[[], object]:
    """Where things are kept."""
    value = draw.choice(
        [own for own in WORDS if ".." not in own] + ["/dev/null", "/proc/1", str(folder / "t.safetensors")]
    )
    value = value.replace("\0", "").encode("utf-8", "replace").decode()

    def use() -> None:
        before = os.environ.get(ENVIRONMENT)
        os.environ[draw.choice([ENVIRONMENT, "XDG_CACHE_HOME"])] = value
        try:
            api.explain_mapping(folder / "tiny.safetensors", "a", overrides=["pes=1"])
        finally:
            os.environ[ENVIRONMENT] = before or ""
            os.environ.pop("XDG_CACHE_HOME", None)

    return use


@pytest.mark.slow
@pytest.mark.parametrize("name", door)
def test_every_door(name: str, good: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    check_door(name, door[name], good)
