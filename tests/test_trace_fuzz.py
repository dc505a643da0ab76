"""Whatever the bytes, opening a trace either works or raises AccelsimError with one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.quantize.layers import quantize_layer
from accelsim.trace.file import Trace
from accelsim.trace.info import workload_info
from accelsim.trace.write import write_trace
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import FloatLayer, Layer

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    weight, inputs = rng.standard_normal((2, 3, 2, 1)), rng.standard_normal((1, 3, 2, 2))
    layer = FloatLayer(
        Layer("a", "conv", Geometry(1, 3, 2, 2, 2, 2, 1)),
        weight.astype(np.float32),
        inputs.astype(np.float32),
    )
    words = [quantize_layer(layer, Scheme.parse(text), 4) for text in ("4/4/4/4", "nvfp4")]
    return write_trace(
        tmp_path_factory.mktemp("fuzz") / "t.safetensors", "m", [layer], {"seed": 0}, quantized=words
    )


def open_or_refuse(path: Path) -> bool:
    """Open and use everything; True when the file was accepted."""
    try:
        trace = Trace.open(path)
    except AccelsimError as error:
        text = str(error)
        assert "\n" not in text and text.startswith(f"trace {path}: ")
        text.encode()
        return False
    for info in trace.manifest.layers:
        for variant in info.quantized.values():
            trace.quantized_layer(info.name, variant.scheme, variant.vector_size)
        if info.has_floats:
            trace.float_layer(info.name)
    json.dumps(workload_info(trace)[1], allow_nan=False)
    return True


@FUZZ
@given(data=st.data())
def test_flipped_bytes(valid: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(valid.read_bytes())
    header = int.from_bytes(content[:8], "little")
    # Most of the interesting bytes are in the header; the hashes catch every change of the data.
    place = st.one_of(st.integers(0, 9), st.integers(8, 8 + header), st.integers(0, len(content) - 1))
    for index in data.draw(st.lists(place, min_size=1, max_size=4)):
        content[index] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b'{}[]",:019-eE\\n')))
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    open_or_refuse(path)


@FUZZ
@given(start=st.integers(0, 10_000), length=st.integers(0, 200), filler=st.binary(max_size=40))
def test_cut_and_spliced(valid: Path, tmp_path: Path, start: int, length: int, filler: bytes) -> None:
    content = valid.read_bytes()
    start %= len(content)
    path = tmp_path / "t.safetensors"
    path.write_bytes(content[:start] + filler + content[start + length :])
    accepted = open_or_refuse(path)
    path.write_bytes(content[:start])
    assert not open_or_refuse(path)
    if content[start : start + length] != filler and start >= len(content) - 8:
        assert not accepted


@FUZZ
@given(content=st.binary(max_size=300), prefix=st.booleans())
def test_arbitrary_bytes(tmp_path: Path, content: bytes, prefix: bool) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes((len(content).to_bytes(8, "little") if prefix else b"") + content)
    assert not open_or_refuse(path)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every position within a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 20),
        st.sampled_from([2**31, 2**62, 2**64, 10**30, -(10**400), 1e308, 5e-324, 1e-320, float("inf")]),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(
            ["4/4/4/4", "8/8/-/-", "4/4/4/4:sp4", "mxfp4", "conv", "relu", "auto", "a", "\ud800", "0" * 64]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@FUZZ
@given(data=st.data())
def test_changed_manifest(valid: Path, tmp_path: Path, data: st.DataObject) -> None:
    with safe_open(valid, framework="numpy") as file:
        manifest = json.loads(file.metadata()["accelsim"])
    for _ in range(data.draw(st.integers(1, 2))):
        options = places(manifest)
        if not options:
            break
        *parents, last = data.draw(st.sampled_from(options))
        holder = manifest
        for key in parents:
            holder = holder[key]
        action = data.draw(st.sampled_from(["set", "set", "delete", "rename"]))
        if action == "set":
            holder[last] = data.draw(JSON)
        elif action == "delete":
            del holder[last]
        elif isinstance(holder, dict):
            holder[data.draw(st.text(max_size=4))] = holder.pop(last)
    path = tmp_path / "t.safetensors"
    save_file(load_file(valid), path, metadata={"accelsim": json.dumps(manifest)})
    open_or_refuse(path)


@FUZZ
@given(data=st.data())
def test_changed_tensor_table(valid: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = valid.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    options = [path for path in places(header) if path[0] != "__metadata__"]
    *parents, last = data.draw(st.sampled_from(options))
    holder = header
    for key in parents:
        holder = holder[key]
    holder[last] = data.draw(
        st.one_of(st.integers(-1, 200), st.sampled_from([2**62, 2**64, "F16", "BOOL"]), JSON)
    )
    encoded = json.dumps(header).encode()
    path = tmp_path / "t.safetensors"
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])
    open_or_refuse(path)


def test_the_untouched_file_is_accepted(valid: Path) -> None:
    assert open_or_refuse(valid)
