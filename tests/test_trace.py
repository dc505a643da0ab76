"""Traces: round trips, the same bytes twice, and one clear line for everything that can be wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.open import open_workload
from accelsim.quantize.arrays import PERCENTILES, QuantizeOptions
from accelsim.quantize.layers import quantize_layer
from accelsim.trace import find as trace_files
from accelsim.trace.file import Trace
from accelsim.trace.find import find_trace
from accelsim.trace.info import workload_info
from accelsim.trace.write import quantize_trace, write_trace
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph, LayerStep, Node
from accelsim.workload.layer import FloatLayer, Layer, NodeWork, QuantizedLayer
from accelsim.workload.storage import Use

S4, S8 = Scheme.parse("4/4/4/4"), Scheme.parse("8/8/-/-")
FOR_LAYERS = Use(by_layers=True, by_nodes=False)
OPTIONS = QuantizeOptions(gamma_calibration="max", elements="float_scale")


def make_layers() -> list[FloatLayer]:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    conv = Geometry(1, 3, 5, 4, 4, 3, 3, (2, 1), (1, 1))
    matmul = Geometry(1, 12, 1, 3, 4, groups=2)
    return [
        FloatLayer(
            Layer("conv1", "conv", conv, "relu"),
            draw(4, 3, 3, 3), draw(1, 3, 5, 4), draw(4), calibration_input=draw(2, 3, 5, 4),
        ),
        FloatLayer(Layer("fc", "linear", Geometry(1, 20, 1, 2, 3), input_signed=False),
                   draw(3, 20, 1, 1), abs(draw(1, 20, 1, 2))),
        FloatLayer(
            Layer("qk.0", "matmul", matmul, weight_is_activation=True), draw(4, 6, 1, 1), draw(1, 12, 1, 3),
            calibration_input=draw(1, 24, 1, 3), calibration_weight=draw(8, 6, 1, 1),
        ),
    ]  # fmt: skip


GRAPH = Graph(
    (("image", (1, 3, 5, 4)), ("queries", (1, 12, 1, 3)), ("keys", (4, 6, 1, 1))),
    (
        LayerStep("conv1", ("image",)),
        Node("pool", "max_pool", ("conv1",), (1, 4, 2, 5)),
        LayerStep("fc", ("pool",)),
        LayerStep("qk.0", ("queries", "keys")),
    ),
    ("fc", "qk.0"),
)


def same(a: object, b: object) -> None:
    """Every field of two layers is equal, arrays bit for bit and of one dtype."""
    for name, value in vars(a).items():
        other = getattr(b, name)
        if name == "spec":  # a layer by itself hosts no work
            value, other = replace(value, global_pe=()), replace(other, global_pe=())
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype and np.array_equal(value, other), name
        else:
            assert value == other, name


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace with floats and two stored variants of every layer."""
    layers = make_layers()
    quantized = [quantize_layer(layer, scheme, 8, OPTIONS) for scheme in (S4, S8) for layer in layers]
    path = tmp_path_factory.mktemp("trace") / "small.safetensors"
    facts = {"license": "MIT", "seed": 1}
    return write_trace(path, "small model", layers, facts, graph=GRAPH, quantized=quantized)


# --- round trips ------------------------------------------------------------------------------------------


def test_round_trip(valid: Path) -> None:
    trace = Trace.open(valid)
    assert (trace.name, trace.model, trace.synthetic) == ("small", "small model", False)
    assert trace.provenance == {"license": "MIT", "seed": 1}
    assert trace.has_floats and trace.variants == ("4/4/4/4@8", "8/8/-/-@8")
    assert trace.sha256 == hashlib.sha256(valid.read_bytes()).hexdigest()
    for layer, info in zip(make_layers(), trace.manifest.layers, strict=True):
        assert (info.name, info.geometry, info.has_floats) == (layer.name, layer.geometry, True)
        same(trace.float_layer(layer.name), layer)
        for scheme in (S4, S8):
            same(trace.quantized_layer(layer.name, scheme, 8), quantize_layer(layer, scheme, 8, OPTIONS))


def test_stored_or_made_from_floats(valid: Path) -> None:
    trace, layer = Trace.open(valid), make_layers()[0]
    rounded = Scheme.parse("4/4/4/4:sp5")
    same(trace.quantized_layer("conv1", rounded, 8), quantize_layer(layer, rounded, 8, OPTIONS))
    for scheme, size, options in (
        (S4, 16, None),
        (S4, 8, QuantizeOptions()),
        (Scheme.parse("4/8/-/10"), 8, None),
    ):
        same(
            trace.quantized_layer("conv1", scheme, size, options),
            quantize_layer(layer, scheme, size, options),
        )


def test_quantized_only(valid: Path, tmp_path: Path) -> None:
    path = quantize_trace(valid, tmp_path / "words.safetensors", [S4], 4, OPTIONS, keep_floats=False)
    trace = Trace.open(path)
    assert not trace.has_floats and trace.variants == ("4/4/4/4@4", "4/4/4/4@8", "8/8/-/-@8")
    layer = make_layers()[0]
    same(trace.quantized_layer("conv1", S4, 4, OPTIONS), quantize_layer(layer, S4, 4, OPTIONS))
    with pytest.raises(AccelsimError, match=r"layer conv1 has no float tensors, only 4/4/4/4@4, "):
        trace.float_layer("conv1")
    with pytest.raises(AccelsimError, match=r"layer fc is not stored as 4/4/4/4@32 and has no floats"):
        trace.quantized_layer("fc", S4, 32)
    with pytest.raises(AccelsimError, match=r"layer fc is stored as 4/4/4/4@8 with other quantize options"):
        trace.quantized_layer("fc", S4, 8, QuantizeOptions())
    words = [quantize_layer(layer, S4, 8, OPTIONS) for layer in make_layers()]
    alone = Trace.open(write_trace(tmp_path / "alone.safetensors", "m", [], {}, quantized=words))
    for layer in words:
        same(alone.quantized_layer(layer.name, S4, 8), layer)


def test_rounded_scale_products_share_the_stored_words(tmp_path: Path) -> None:
    layer, rounded = make_layers()[1], Scheme.parse("4/4/4/4:sp5")
    words = quantize_layer(layer, rounded, 8, OPTIONS)
    path = write_trace(tmp_path / "t.safetensors", "m", [layer], {}, quantized=[words], keep_floats=False)
    trace = Trace.open(path)
    assert trace.variants == ("4/4/4/4@8",)
    same(trace.quantized_layer("fc", rounded, 8), words)


def made_elsewhere(layer: FloatLayer, scheme: Scheme = S4) -> QuantizedLayer:
    """Words as another program hands them over: no options, and NumPy scalars for gammas."""
    words = quantize_layer(layer, scheme, 8, OPTIONS)
    gammas = np.float32(words.input_gamma), np.float32(words.output_gamma)
    return replace(words, input_gamma=gammas[0], output_gamma=gammas[1], provenance={})


def test_words_made_elsewhere_are_recorded_as_such(tmp_path: Path) -> None:
    layers = make_layers()
    fc = layers[1]
    words = [made_elsewhere(layer) for layer in layers]
    own = [quantize_layer(layer, S8, 8, OPTIONS) for layer in layers]
    path = write_trace(tmp_path / "t.safetensors", "m", layers, {}, graph=GRAPH, quantized=[*words, *own])
    trace = Trace.open(path)
    assert trace.info("fc").quantized["4/4/4/4@8"].options is None
    assert (
        json.loads(trace.manifest.to_json())["layers"][1]["quantized"]["4/4/4/4@8"]["options"] == "external"
    )
    for stored in (trace, Trace.open(quantize_trace(path, tmp_path / "copy.safetensors", [S4], 4))):
        same(stored.quantized_layer("fc", S4, 8), words[1])
        frame, summary = workload_info(stored)
        assert "4/4/4/4@8 (external) 8/8/-/-@8" in frame["variants"].tolist()[1]
        assert "4/4/4/4@8 (external)" in summary["variants"] and "8/8/-/-@8" in summary["variants"]
    # Whoever asks for options, even the usual ones, gets the floats quantized with them.
    for options in (OPTIONS, QuantizeOptions()):
        same(trace.quantized_layer("fc", S4, 8, options), quantize_layer(fc, S4, 8, options))


def test_external_words_alone_cannot_follow_options(tmp_path: Path) -> None:
    words = made_elsewhere(make_layers()[1])
    trace = Trace.open(write_trace(tmp_path / "t.safetensors", "m", [], {}, quantized=[words]))
    same(trace.quantized_layer("fc", S4, 8), words)
    fails(
        # A long path takes the place of some of its middle.
        r"^trace \S*t.safetensors: layer fc is stored as 4/4/4/4@8 in words made .*"
        r"quantize options describe, and has no floats to quantize; "
        r"expected no --quantize, and a machine with fold: auto and scale_rounding: up$",
        lambda: trace.quantized_layer("fc", S4, 8, QuantizeOptions()),
    )


def test_a_variant_keeps_its_own_bias(tmp_path: Path) -> None:
    """Bias correction: beside float tensors, in a copy, without floats, and where the layer has no bias."""
    conv, fc, _ = make_layers()
    words = [quantize_layer(layer, scheme, 8, OPTIONS) for layer in (conv, fc) for scheme in (S4, S8)]
    corrected = [
        replace(words[0], bias=conv.bias + np.float32(0.25)),
        words[1],
        replace(words[2], bias=np.float32([1, -2, 3])),
        words[3],
    ]
    path = write_trace(tmp_path / "t.safetensors", "m", [conv, fc], {}, quantized=corrected)
    dropped = write_trace(
        tmp_path / "d.safetensors", "m", [conv, fc], {}, quantized=corrected, keep_floats=False
    )
    alone = write_trace(tmp_path / "a.safetensors", "m", [], {}, quantized=corrected)
    copy = quantize_trace(path, tmp_path / "c.safetensors", [S4], 4, keep_floats=False)
    for written in (path, dropped, alone, copy):
        trace = Trace.open(written)
        for layer in corrected:
            same_but_for_no_bias(trace.quantized_layer(layer.name, layer.scheme, 8), layer)
    trace = Trace.open(path)
    same(trace.float_layer("conv1"), conv)
    held = {name: info.quantized for name, info in ((n, trace.info(n)) for n in ("conv1", "fc"))}
    assert ["bias" in held[n][k].tensors for n in held for k in held[n]] == [True, False, True, False]


def same_but_for_no_bias(a: QuantizedLayer, b: QuantizedLayer) -> None:
    """The same layer, a bias of zeros taken for none."""
    if b.bias is None and a.bias is not None:
        assert a.bias.dtype == np.float32 and not a.bias.any()
        a = replace(a, bias=None)
    same(a, b)


def test_a_variant_without_the_layers_bias(tmp_path: Path) -> None:
    conv = make_layers()[0]
    words = replace(quantize_layer(conv, S4, 8, OPTIONS), bias=None)
    path = write_trace(tmp_path / "t.safetensors", "m", [conv], {}, quantized=[words])
    same_but_for_no_bias(Trace.open(path).quantized_layer("conv1", S4, 8), words)
    # Replaced by words with the layer's own bias, nothing of it stays behind.
    again = quantize_trace(path, tmp_path / "again.safetensors", [S4], 8, OPTIONS)
    plain = quantize_layer(conv, S4, 8, OPTIONS)
    assert again.read_bytes() == write_trace(path, "m", [conv], {}, quantized=[plain]).read_bytes()
    same(Trace.open(again).quantized_layer("conv1", S4, 8), plain)


def test_a_bad_bias_of_a_variant(tmp_path: Path) -> None:
    conv = make_layers()[0]
    words = quantize_layer(conv, S4, 8)
    for bias, message in (
        (np.float32([0, np.nan, 0, 0]), "4/4/4/4@8/bias holds NaN or infinity, expected finite numbers$"),
        (np.zeros(3, np.float32), r"tensor conv1/4/4/4/4@8/bias has shape \[3\], expected \[4\]$"),
        (np.array([0, 1e39, 0, 0]), r"bias holds 1e\+39, expected magnitudes up to"),
    ):
        bad = replace(words, bias=bias)
        fails(f"layer conv1: .*{message}|layer conv1: {message}",
              lambda b=bad: write_trace(tmp_path / "t", "m", [conv], {}, quantized=[b]))  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_quantize_in_place_equals_writing_at_once(valid: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    layers = make_layers()
    write_trace(path, "small model", layers, {"license": "MIT", "seed": 1}, graph=GRAPH)
    assert quantize_trace(path, path, [S4, S8], 8, OPTIONS) == path
    assert path.read_bytes() == valid.read_bytes()
    quantize_trace(path, path, [S4], 8)
    same(Trace.open(path).quantized_layer("fc", S4, 8), quantize_layer(layers[1], S4, 8))


def test_same_content_same_bytes(valid: Path, tmp_path: Path) -> None:
    layers = make_layers()
    quantized = [quantize_layer(layer, scheme, 8, OPTIONS) for layer in layers for scheme in (S8, S4)]
    again = write_trace(
        tmp_path / "again.safetensors",
        "small model",
        layers,
        {"seed": 1, "license": "MIT"},
        graph=GRAPH,
        quantized=quantized,
    )
    assert again.read_bytes() == valid.read_bytes()


def test_file_is_what_the_safetensors_library_writes(valid: Path, tmp_path: Path) -> None:
    with safe_open(valid, framework="numpy") as file:
        metadata = file.metadata()
    save_file(load_file(valid), tmp_path / "library.safetensors", metadata=metadata)
    assert (tmp_path / "library.safetensors").read_bytes() == valid.read_bytes()
    assert list(metadata) == ["accelsim"]


def test_pickled_trace_opens_again(valid: Path) -> None:
    same(pickle.loads(pickle.dumps(Trace.open(valid))).float_layer("fc"), make_layers()[1])


def test_replaced_file_does_not_disturb_an_open_trace(valid: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(valid.read_bytes())
    trace = Trace.open(path)
    write_trace(path, "other", [replace(make_layers()[1], weight=np.ones((3, 20, 1, 1), np.float32))], {})
    same(trace.float_layer("fc"), make_layers()[1])


def test_trace_info(valid: Path) -> None:
    frame, summary = workload_info(Trace.open(valid))
    assert frame["layer"].tolist() == ["conv1", "fc", "qk.0"]
    assert frame["macs"].tolist() == [3 * 4 * 4 * 27, 2 * 60, 3 * 4 * 6]
    assert frame["stride"].tolist()[0] == "2x1"
    assert summary["macs"] == frame["macs"].sum() and summary["weights"] == 108 + 60 + 24
    assert json.loads(json.dumps(summary)) == summary


def test_unknown_layer(valid: Path) -> None:
    with pytest.raises(
        AccelsimError, match=r"small.safetensors: has no layer 'x', expected one of conv1, fc, qk"
    ):
        Trace.open(valid).float_layer("x")


# --- finding ----------------------------------------------------------------------------------------------


def test_an_outline_is_the_layer_without_its_tensors(tmp_path: Path) -> None:
    """Where operands live, and the mapping, are decided by outlines: they must say what the layer will be."""
    scheme, never = Scheme.parse("4/4/4/4"), QuantizeOptions(fold="never")
    floats = Trace.open(find_trace("digits"))
    stored = tmp_path / "stored.safetensors"
    quantize_trace(floats, stored, [scheme], 16, never)
    for trace, options in (
        (floats, None),
        (floats, never),
        (Trace.open(stored), None),
        (Trace.open(stored), QuantizeOptions()),
        (open_workload("bert-base"), None),
    ):
        for layer in trace.layers[:8]:
            outline = trace.outline(layer.name, scheme, 16, options)
            assert outline == trace.quantized_layer(layer.name, scheme, 16, options).spec


def test_the_graph_is_kept_and_version_1_opens_as_a_chain(valid: Path, tmp_path: Path) -> None:
    trace = Trace.open(valid)
    assert trace.graph == GRAPH
    copy = quantize_trace(valid, tmp_path / "copy.safetensors", [S4], 4)
    assert Trace.open(copy).graph == GRAPH
    old = craft(valid, tmp_path / "old.safetensors", lambda manifest, _: as_version_1(manifest))
    chain = Trace.open(old)
    assert chain.graph.is_chain and chain.layers == trace.layers
    assert [step.reads for step in chain.graph.steps] == [
        ("input",), ("conv1",), ("conv1.max_pool",), ("fc", "qk.0.weight"),
    ]  # fmt: skip
    assert chain.outline("conv1", S8, 8).global_pe == (NodeWork("max_pool", 40, 40, 40, FOR_LAYERS),)
    assert trace.outline("conv1", S8, 8).global_pe == (NodeWork("max_pool", 48, 48, 40, FOR_LAYERS),)
    assert Trace.open(quantize_trace(old, tmp_path / "new.safetensors", [S4], 4)).graph == chain.graph


def test_one_percentile_was_that_of_all_three_and_one_rounding_of_both(valid: Path, tmp_path: Path) -> None:
    old = Trace.open(craft(valid, tmp_path / "old.safetensors", one_percentile()))
    one_rounding = {"activation_scale_rounding": OPTIONS.scale_rounding}
    wanted = replace(OPTIONS, **dict.fromkeys(PERCENTILES, 99.5), **one_rounding)
    assert old.info("fc").quantized["4/4/4/4@8"].options == wanted
    same(old.quantized_layer("fc", S4, 8, wanted), old.quantized_layer("fc", S4, 8))
    new = Trace.open(quantize_trace(old, tmp_path / "new.safetensors", [S4], 4))
    assert new.info("fc").quantized["8/8/-/-@8"].options == wanted


def test_find_trace(valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in (("a/model", "one"), ("a", "two"), ("b", "one"), ("b", "three")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"{name}.safetensors").write_bytes(b"")
    monkeypatch.setattr(trace_files, "trace_folders", lambda: (tmp_path / "a", tmp_path / "b"))
    assert find_trace(valid) == valid
    assert find_trace("one") == tmp_path / "a" / "model" / "one.safetensors"
    assert find_trace("three") == tmp_path / "b" / "three.safetensors"
    with pytest.raises(AccelsimError, match=r"is a folder, expected a file or a bundled trace's name$"):
        find_trace(tmp_path)
    for name in ("four", "a\0b", "x" * 5000):
        with pytest.raises(AccelsimError, match=r"no such file or bundled trace; bundled: one, three, two$"):
            find_trace(name)


def test_find_trace_looks_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traces" / "mine").mkdir(parents=True)
    (tmp_path / "traces" / "mine" / "here.safetensors").write_bytes(b"")
    assert find_trace("here") == Path("traces/mine/here.safetensors")


# --- writing ----------------------------------------------------------------------------------------------


def fails(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(AccelsimError, match=message) as error:
        call()
    assert "\n" not in str(error.value) and str(error.value).isprintable()


def test_bad_content_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    conv, fc, _ = make_layers()
    nan = replace(fc, weight=np.full((3, 20, 1, 1), np.nan, np.float32))
    fails("layer fc: weight holds NaN or infinity", lambda: write_trace(path, "m", [nan], {}))
    fails("layer fc: is given twice", lambda: write_trace(path, "m", [fc, fc], {}))
    fails(
        "layer 'a/b': expected a name",
        lambda: write_trace(path, "m", [replace(fc, layer=replace(fc.layer, name="a/b"))], {}),
    )
    fails(
        "layer '../x': expected a name",
        lambda: write_trace(path, "m", [replace(fc, layer=replace(fc.layer, name="../x"))], {}),
    )
    fails("layers is empty", lambda: write_trace(path, "m", [], {}))
    fails(r"model is 'a\\nb'", lambda: write_trace(path, "a\nb", [fc], {}))
    fails("provenance is not plain JSON", lambda: write_trace(path, "m", [fc], {"x": float("nan")}))
    fails("provenance is not plain JSON", lambda: write_trace(path, "m", [fc], {"x": object()}))
    fails("provenance is not plain JSON", lambda: write_trace(path, "m", [fc], {"x": "\ud800"}))
    fails("layer fc: has neither floats", lambda: write_trace(path, "m", [fc], {}, keep_floats=False))
    other = quantize_layer(replace(conv, layer=replace(conv.layer, name="fc")), S4, 8)
    fails("layer fc: variant 4/4/4/4@8 describes another layer",
          lambda: write_trace(path, "m", [fc], {}, quantized=[other]))  # fmt: skip
    bad = quantize_layer(fc, S4, 8)
    bad.weight_words[0, 0, 0] = -8
    fails(r"^trace \S*/t.safetensors: layer fc: 4/4/4/4@8/weight_words holds -8, expected -7 to 7$",
          lambda: write_trace(path, "m", [fc], {}, quantized=[bad]))  # fmt: skip
    wide = quantize_layer(fc, S4, 8)
    wide = replace(wide, weight_words=wide.weight_words.astype(np.int64))
    fails("^layer fc: variant 4/4/4/4@8 weight_words has dtype int64, expected one of float32, ",
          lambda: write_trace(path, "m", [fc], {}, quantized=[wide]))  # fmt: skip
    odd = replace(quantize_layer(fc, S4, 8), provenance={"options": "mine"})
    fails("^layer fc: variant 4/4/4/4@8 options are 'mine', expected those it was quantized with, or none",
          lambda: write_trace(path, "m", [fc], {}, quantized=[odd]))  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("error")
def test_a_number_beyond_float32_is_not_written(tmp_path: Path) -> None:
    path, fc = tmp_path / "t.safetensors", make_layers()[1]
    wanted = r"expected magnitudes up to 3\.40282e\+38, the largest float32$"
    for tensor, shape in (("weight", (3, 20, 1, 1)), ("bias", (3,)), ("input", (1, 20, 1, 2))):
        values = np.ones(shape)
        values.flat[1] = 1e39
        wide = replace(fc, **{tensor: values})
        fails(rf"^layer fc: {tensor} holds 1e\+39, {wanted}", lambda w=wide: write_trace(path, "m", [w], {}))
    words = replace(quantize_layer(fc, S4, 8), bias=np.array([0, -1e300, 0]))
    fails(rf"^layer fc: bias holds -1e\+300, {wanted}",
          lambda: write_trace(path, "m", [], {}, quantized=[words]))  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    exact = replace(words, bias=np.array([0.5, 1, 2]))  # float64 is stored as what it is worth in float32
    stored = Trace.open(write_trace(path, "m", [], {}, quantized=[exact])).quantized_layer("fc", S4, 8)
    assert stored.bias.dtype == np.float32 and stored.bias.tolist() == [0.5, 1, 2]


def test_unwritable_places(tmp_path: Path) -> None:
    fc = make_layers()[1]
    missing = tmp_path / "no" / "t.safetensors"
    fails(f"trace {missing}: cannot be written .No such file", lambda: write_trace(missing, "m", [fc], {}))
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    fails("cannot be written .Is a directory", lambda: write_trace(folder, "m", [fc], {}))
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file(
    valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(valid.read_bytes())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    fails("cannot be written .No space left on device", lambda: write_trace(path, "m", make_layers()[:1], {}))
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == valid.read_bytes()


def test_interrupt_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_trace(tmp_path / "t.safetensors", "m", make_layers()[:1], {})
    assert list(tmp_path.iterdir()) == []


# --- reading bad files ------------------------------------------------------------------------------------

Tensors = dict[str, np.ndarray]
Edit = Callable[[dict[str, Any], Tensors], None]


def craft(valid: Path, target: Path, edit: Edit, *, rehash: bool = True) -> Path:
    """A copy of a valid trace after `edit(manifest, tensors)`, hashes made right again."""
    with safe_open(valid, framework="numpy") as file:
        manifest = json.loads(file.metadata()["accelsim"])
    tensors = load_file(valid)
    edit(manifest, tensors)
    if rehash:
        for layer in (entry for entry in manifest["layers"] if isinstance(entry, dict)):
            holders = [(layer, layer["name"])]
            holders += [(v, f"{layer['name']}/{key}") for key, v in layer.get("quantized", {}).items()]
            for holder, prefix in holders:
                for name in holder["tensors"]:
                    if f"{prefix}/{name}" in tensors:
                        data = tensors[f"{prefix}/{name}"].tobytes()
                        holder["tensors"][name] = hashlib.sha256(data).hexdigest()
    save_file(tensors, target, metadata={"accelsim": json.dumps(manifest, sort_keys=True)})
    return target


def put(*path: Any, value: Any) -> Edit:
    def edit(manifest: dict[str, Any], _: Tensors) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return edit


def drop(*path: Any) -> Edit:
    def edit(manifest: dict[str, Any], _: Tensors) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return edit


def poke(name: str, index: tuple[int, ...], value: float) -> Edit:
    def edit(_: dict[str, Any], tensors: Tensors) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name][index] = value

    return edit


def change(name: str, how: Callable[[np.ndarray], np.ndarray]) -> Edit:
    def edit(_: dict[str, Any], tensors: Tensors) -> None:
        tensors[name] = np.ascontiguousarray(how(tensors[name]))

    return edit


def version_1(edit: Edit) -> Edit:
    """The edit on the same trace as version 1 would have it: work beside the layers, and no graph."""

    def both(manifest: dict[str, Any], tensors: Tensors) -> None:
        as_version_1(manifest)
        edit(manifest, tensors)

    return both


def as_version_1(manifest: dict[str, Any]) -> None:
    manifest["version"] = 1
    del manifest["graph"]
    for layer in manifest["layers"]:
        layer["global_pe"] = [{"op": "max_pool", "elements": 40}] if layer["name"] == "conv1" else []


def swap_steps(manifest: dict[str, Any], _: Tensors) -> None:
    steps = manifest["graph"]["steps"]
    steps.append(steps.pop(2))


def repeat_layer(manifest: dict[str, Any], _: Tensors) -> None:
    manifest["layers"].append(manifest["layers"][0])


def one_percentile(*options: str) -> Edit:
    """Options as traces had them before there was a percentile for each calibration and a rounding for each
    operand, with these beside it."""

    def edit(manifest: dict[str, Any], _: Tensors) -> None:
        for layer in manifest["layers"]:
            for variant in layer["quantized"].values():
                for name in PERCENTILES:
                    if name not in options:
                        del variant["options"][name]
                del variant["options"]["activation_scale_rounding"]
                variant["options"]["percentile"] = 99.5

    return edit


V4, V8 = ("layers", 0, "quantized", "4/4/4/4@8"), ("layers", 1, "quantized", "8/8/-/-@8")
BAD: list[tuple[Edit, str]] = [
    (put("format", value="other"), "manifest: format is 'other', expected 'accelsim-trace'"),
    (put("version", value=3), "manifest: version is 3, this accelsim reads versions 1 to 2"),
    (put("version", value=True), "manifest: version is True, this accelsim reads versions 1 to 2"),
    (put("extra", value=0), "manifest: unknown key 'extra', expected format, version"),
    (drop("synthetic"), "manifest: key 'synthetic' is missing"),
    (put("synthetic", value=0), "manifest: synthetic is 0, expected true or false"),
    (put("model", value=["a"]), r"manifest: model is \['a'\], expected text"),
    (put("provenance", value=[]), r"manifest: provenance is \[\], expected an object"),
    (put("layers", value=[]), "manifest: layers is empty"),
    (put("layers", 0, value=5), "layer 0: is 5, expected an object"),
    (repeat_layer, "layer conv1: is given twice, expected unique layer names"),
    (put("layers", 0, "name", value="a b"), "layer 'a b': expected a name of up to 128 letters"),
    (put("layers", 0, "name", value="x\ny"), r"layer 'x\\ny': expected a name"),
    (put("layers", 0, "color", value=1), "layer conv1: unknown key 'color'"),
    (drop("layers", 0, "op"), "layer conv1: key 'op' is missing"),
    (put("layers", 0, "op", value="pool"), "layer conv1: op is 'pool', expected one of conv, linear, matmul"),
    (put("layers", 0, "activation", value="gelu"), "conv1: activation is 'gelu', expected one of none"),
    (put("layers", 0, "input_signed", value="no"), "conv1: input_signed is 'no', expected true or false"),
    (put("layers", 0, "input_signed", value=False), "tensor .*/input_words has dtype 'I8', expected U8"),
    (put("layers", 1, "input_signed", value=True), "fc: tensor .*/input_words has dtype 'U8', expected I8"),
    (put("layers", 0, "global_pe", value=[]), "layer conv1: unknown key 'global_pe'"),
    (version_1(put("layers", 0, "global_pe", value=[3])), "layer conv1: global_pe holds 3, expected objects"),
    (version_1(put("layers", 0, "global_pe", 0, "elements", value=-1)), "conv1: global_pe: elements is -1"),
    (version_1(put("layers", 0, "global_pe", 0, "op", value="\n")), r"global_pe op is '\\n', expected print"),
    (version_1(put("graph", value={})), "manifest: unknown key 'graph'"),
    (drop("graph"), "manifest: key 'graph' is missing"),
    (put("graph", value=[]), r"manifest: graph is \[\], expected an object"),
    (put("graph", "chain", value=1), "graph: chain is 1, expected true or false"),
    (put("graph", "color", value=1), "graph: unknown key 'color'"),
    (put("graph", "inputs", 0, "shape", value=[1, 0, 1, 1]), r"graph input image: shape is \[1, 0, 1, 1\]"),
    (put("graph", "inputs", 1, "name", value="conv1"), "graph: layer conv1 is named twice"),
    (put("graph", "steps", 0, "layer", value="other"), "graph: layer other is not a layer of the network"),
    (put("graph", "steps", 0, "reads", value=["fc"]), "graph: layer conv1 reads 'fc', expected an input"),
    (put("graph", "steps", 0, "reads", value=[]), "graph: layer conv1 reads nothing"),
    (put("graph", "steps", 0, "reads", value=["image", "image"]), "graph: layer conv1 reads 2 tensors"),
    (put("graph", "steps", 1, "unit", value="gpu"), "node pool: unit is 'gpu', expected one of global"),
    (put("graph", "steps", 1, "elements", value=-1), "graph: node pool: elements is -1, exp"),
    (put("graph", "steps", 1, "shape", value=[1, 2, 3]), r"node pool: shape is \[1, 2, 3\], expected four"),
    (put("graph", "steps", 1, "shape", value=[1, 4, 5, 5]), "layer fc takes .pool. of 100 elements"),
    (put("graph", "steps", 1, "op", value=""), "graph: node pool: op is '', expected 1 to 200 printable"),
    (swap_steps, "graph: its layers are not those of the network in their order, first at qk.0"),
    (put("graph", "outputs", value=[]), "graph: outputs are none or one twice"),
    (put("graph", "outputs", value=["nothing"]), "graph: output 'nothing' is no tensor of it"),
    (put("graph", "outputs", value=["qk.0"]), "graph: tensor 'fc' is read by nobody"),
    (put("layers", 0, "geometry", "C", value=0), "layer conv1: geometry: C is 0, expected an integer from 1"),
    (put("layers", 0, "geometry", "C", value=10**400), r"geometry: C is 10+\.\.\., expected an integer"),
    (put("layers", 0, "geometry", "C", value=True), "layer conv1: geometry: C is True, expected an integer"),
    (put("layers", 0, "geometry", "stride", value=[1]), r"geometry stride is \[1\], expected two integers"),
    (put("layers", 0, "geometry", "stride", value=[0, 1]), r"conv1: geometry: stride is \(0, 1\)"),
    (put("layers", 0, "geometry", "padding", value=[2**31 - 1] * 2), "output pixels, expected at most"),
    (put("layers", 0, "geometry", "groups", value=2), "conv1: geometry: groups is 2, expected a divisor"),
    (put("layers", 1, "geometry", "C", value=10), "layer fc takes 'pool' of 40 elements as its input, exp"),
    (put("layers", 0, "geometry", "R", value=5), r"conv1/weight has shape .* expected \[4, 3, 5, 3\]"),
    (drop("layers", 0, "tensors", "input"), "layer conv1: tensors has only one of weight and input"),
    (drop("layers", 0, "tensors", "bias"), "tensor 'conv1/bias' is in the file but not in the manifest"),
    (put("layers", 1, "tensors", "bias", value="0" * 64), "layer fc: tensor fc/bias is missing"),
    (put("layers", 1, "tensors", "offset", value="0" * 64), "fc: tensors has 'offset', expected only weight"),
    (put("layers", 1, "tensors", "calibration_weight", value="0" * 64), "tensors has calibration_weight"),
    (put(*V4, "scheme", value="4/4"), "conv1: variant '4/4/4/4@8': scheme '4/4': expected W/A/ws/as"),
    (put(*V4, "scheme", value="5/4/4/4"), "variant '4/4/4/4@8': holds scheme '5/4/4/4' at vector size 8"),
    (put(*V4, "scheme", value="4/4/4/4:sp4"), "variant '4/4/4/4@8': holds scheme '4/4/4/4:sp4'"),
    (put(*V4, "vector_size", value=0), "variant '4/4/4/4@8': vector_size is 0, expected an integer from 1"),
    (put(*V4, "fold", value="maybe"), "variant '4/4/4/4@8': fold is 'maybe', expected one of auto, never"),
    (put(*V4, "fold", value="never"), r"4/4/4/4@8/weight_words has shape \[4, 4, 8\], expected \[4, 9, 8\]"),
    (put(*V4, "input_gamma", value=0), "variant '4/4/4/4@8': input_gamma is 0, expected a finite number"),
    (put(*V4, "input_gamma", value=float("inf")), "manifest: holds Infinity, expected finite numbers"),
    (put(*V4, "input_gamma", value=float("nan")), "manifest: holds NaN, expected finite numbers"),
    (put(*V4, "input_gamma", value=10**400), r"input_gamma is 10+\.\.\., expected a finite number"),
    (put(*V4, "output", "gamma", value=-1.0), "output: gamma is -1.0, expected a finite number above 0"),
    (put(*V4, "output", "bits", value=9), "output: bits is 9, expected an integer from 2 to 8"),
    (put(*V4, "output", "scale_bits", value="x"), "output: scale_bits is 'x', expected an integer"),
    (put(*V4, "output", "zero_point", value=1), "output: unknown key 'zero_point'"),
    (put(*V4, "options", value={}), "options: key 'weight_calibration' is missing"),
    (put(*V4, "options", value="mine"), "options is 'mine', expected an object or 'external'"),
    (put(*V4, "options", value=None), "options is None, expected an object or 'external'"),
    (put(*V4, "options", "elements", value="x"), "quantize options: elements is 'x', expected one of"),
    (put(*V4, "options", "gamma_percentile", value=0), "quantize options: gamma_percentile is 0, expected m"),
    (one_percentile("weight_percentile"), "options: unknown key 'percentile', expected gamma_percentile, we"),
    (drop(*V4, "tensors", "weight_scales"), "variant '4/4/4/4@8': tensors lacks 'weight_scales'"),
    (put(*V4, "tensors", "bias", value="0" * 64), "layer conv1: tensor conv1/4/4/4/4@8/bias is missing"),
    (put(*V8, "tensors", "weight_scales", value="0" * 64), "8/8/-/-@8': tensors has 'weight_scales', ex"),
    (poke("conv1/weight", (0, 0, 0, 0), np.nan), "layer conv1: weight holds NaN or infinity"),
    (poke("conv1/bias", (0,), np.inf), "layer conv1: bias holds NaN or infinity"),
    (poke("fc/input", (0, 0, 0, 0), -1), "layer fc: input holds -1, expected no negative value"),
    (poke("conv1/4/4/4/4@8/weight_words", (0, 0, 0), 9), "4/4/4/4@8/weight_words holds 9, expected -7 to 7"),
    (poke("conv1/4/4/4/4@8/weight_words", (0, 0, 0), -8), "weight_words holds -8, expected -7 to 7"),
    (poke("conv1/4/4/4/4@8/input_words", (0, 0), -8), "input_words holds -8, expected -7 to 7"),
    (poke("fc/4/4/4/4@8/input_words", (0, 0), 16), "fc: 4/4/4/4@8/input_words holds 16, expected 0"),
    (poke("conv1/8/8/-/-@8/input_words", (0, 0), -128), "input_words holds -128, expected -127 to 127"),
    (poke("conv1/4/4/4/4@8/input_scales", (3,), 16), "4/4/4/4@8/input_scales holds 16, expected 0 to 15"),
    (poke("conv1/4/4/4/4@8/weight_scales", (0, 0), 999), "weight_scales holds 999, expected 0 to 15"),
    (poke("conv1/4/4/4/4@8/weight_gamma", (1,), 0.0), "weight_gamma holds 0, expected finite numbers"),
    (poke("conv1/4/4/4/4@8/weight_gamma", (1,), np.nan), "weight_gamma holds nan, expected finite"),
    (poke("conv1/4/4/4/4@8/weight_words", (2, 3, 7), 1), "weight_words holds 1 in the padding of a vector"),
    (poke("conv1/4/4/4/4@8/input_words", (3, 3), -1), "input_words holds -1 in the padding of a vector"),
    (poke("fc/8/8/-/-@8/input_words", (2, 4), 1), "input_words holds 1 in the padding of a vector"),
    (change("fc/weight", lambda a: a.astype(np.float64)), "fc/weight has dtype 'F64', expected F32"),
    (change("fc/weight", lambda a: a[:2]), r"fc/weight has shape \[2, 20, 1, 1\], expected \[3, 20, 1, 1\]"),
    (change("fc/weight", lambda a: a.reshape(-1)), r"fc/weight has shape \[60\], expected \[3, 20, 1, 1\]"),
    (change("qk.0/calibration_input", lambda a: a[:0]), r"has shape \[0, 24, 1, 3\], expected \[any, any"),
    (change("conv1/calibration_input", lambda a: a[:, :2]), r"has shape .*, expected \[any, 3, any, any\]"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), BAD, ids=[re.sub(r"\W+", " ", message) for _, message in BAD])
def test_bad_trace(valid: Path, tmp_path: Path, edit: Edit, message: str) -> None:
    path = craft(valid, tmp_path / "bad.safetensors", edit)
    fails(f"^trace {path}: .*{message}", lambda: Trace.open(path))


def test_crafted_but_unchanged_is_accepted(valid: Path, tmp_path: Path) -> None:
    Trace.open(craft(valid, tmp_path / "fine.safetensors", lambda manifest, tensors: None))


def test_damaged_data(valid: Path, tmp_path: Path) -> None:
    edit = put("layers", 1, "tensors", "weight", value="abc")
    path = craft(valid, tmp_path / "bad.safetensors", edit, rehash=False)
    fails("fc: tensors weight is 'abc', expected the SHA-256 of its bytes", lambda: Trace.open(path))
    path = craft(valid, tmp_path / "bad.safetensors", poke("fc/weight", (0, 0, 0, 0), 0.5), rehash=False)
    fails(r"layer fc: weight has SHA-256 \w+..., expected \w+...: file is damaged", lambda: Trace.open(path))
    old = int(load_file(valid)["fc/4/4/4/4@8/weight_words"][0, 0, 0])
    edit = poke("fc/4/4/4/4@8/weight_words", (0, 0, 0), 1 if old != 1 else 2)
    path = craft(valid, tmp_path / "bad.safetensors", edit, rehash=False)
    fails("layer fc: 4/4/4/4@8/weight_words has SHA-256 .* damaged", lambda: Trace.open(path))


def test_extra_tensor_and_metadata(valid: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    with safe_open(valid, framework="numpy") as file:
        metadata = file.metadata()
    tensors = load_file(valid)
    save_file({**tensors, "conv1/extra": np.zeros(3, np.float32)}, path, metadata=metadata)
    fails("tensor 'conv1/extra' is in the file but not in the manifest", lambda: Trace.open(path))
    save_file(tensors, path, metadata={**metadata, "note": "x"})
    fails("metadata has 2 keys, expected only 'accelsim'", lambda: Trace.open(path))
    save_file(tensors, path)
    fails("metadata has no key 'accelsim' with a manifest: not an accelsim trace", lambda: Trace.open(path))
    for text, message in (
        ("", "manifest: is not valid JSON"),
        ("[1]", r"manifest: format is \[1\], expected"),
        ("[" * 100_000, "manifest: is not valid JSON"),
        ('{"a": 1, "a": 2}', "manifest: key 'a' is repeated"),
        ('{"a": ' + "9" * 5000 + "}", "manifest: is not valid JSON"),
    ):
        save_file(tensors, path, metadata={"accelsim": text})
        fails(f"trace {path}: {message}", lambda: Trace.open(path))


def raw_file(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)
    return path


def test_bad_files(valid: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    fails("no such file", lambda: Trace.open(path))
    with pytest.raises(AccelsimError, match="without NUL bytes"):
        Trace.open(tmp_path / "a\0b")
    fails("is not a file", lambda: Trace.open(tmp_path))
    content = valid.read_bytes()
    header_bytes = int.from_bytes(content[:8], "little")
    for size, message in (
        (0, "file of 0 bytes is not a safetensors file"),
        (7, "file of 7 bytes is not a safetensors file"),
        (100, "header of .* only 92 follow: file is truncated"),
        (8 + header_bytes, "tensors take .* the file holds 0: file is truncated"),
        (len(content) - 1, "tensors take .*: file is truncated"),
    ):
        path.write_bytes(content[:size])
        fails(message, lambda: Trace.open(path))
    path.write_bytes(content + b"\0")
    fails("file has trailing bytes", lambda: Trace.open(path))
    raw_file(path, b"{}", length=2**63)
    fails("header of 9223372036854775808 bytes declared, expected at most", lambda: Trace.open(path))
    raw_file(path, b"{}", length=100_000_000)
    fails("expected at most", lambda: Trace.open(path))
    for header, message in (
        (b"\xff\xfe{}", "header is not UTF-8"),
        (b"[]", r"header is \[\], expected an object"),
        (b'{"__metadata__": 3}', "metadata has no key 'accelsim'"),
        (b"[" * 100_000, "header: is not valid JSON"),
        (b'{"__metadata__":{"accelsim":"{}"},"t":3}', "header: tensor 't' is 3, expected dtype, shape"),
        (
            b'{"__metadata__":{"accelsim":"{}"},"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
            "header: tensor 't'",
        ),
        (
            b'{"__metadata__":{"accelsim":"{}"},"t":{"dtype":"F32","shape":[1],"data_offsets":[4]}}',
            "header: tensor 't'",
        ),
    ):
        raw_file(path, header)
        fails(message, lambda: Trace.open(path))


@pytest.mark.parametrize("field", ["shape", "data_offsets"])
def test_bad_tensor_table(valid: Path, tmp_path: Path, field: str) -> None:
    """What our own checks pass on, such as overlapping tensors, the safetensors library refuses."""
    content = valid.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = header["fc/weight"]
    if field == "shape":
        entry["shape"] = [2**40, 2**40, 1, 1]
        message = r"fc/weight has shape \[1099511627776, .* expected \[3, 20, 1, 1\]"
    else:
        other = next(v for k, v in header.items() if k != "__metadata__" and v["data_offsets"][0] == 0)
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        entry["data_offsets"] = [other["data_offsets"][0], other["data_offsets"][0] + size]
        message = "is not a valid safetensors file"
    path = raw_file(tmp_path / "t.safetensors", json.dumps(header).encode(), content[8 + length :])
    fails(message, lambda: Trace.open(path))


def test_unreadable_file(valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", denied)
    fails("cannot be read .Permission denied", lambda: Trace.open(valid))


def test_layers_without_common_variants(tmp_path: Path) -> None:
    _, fc, qk = make_layers()
    words: list[QuantizedLayer] = [quantize_layer(fc, S4, 8), quantize_layer(qk, S8, 8)]
    trace = Trace.open(
        write_trace(tmp_path / "t.safetensors", "m", [fc], {}, quantized=words, synthetic=True)
    )
    assert trace.variants == () and not trace.has_floats and trace.synthetic
