"""Layers computed a part at a time hold the integers of the whole layer (docs/workloads.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import accelsim
import accelsim.network
from accelsim.compute.lanes import ZeroCounts, accumulate_layer, count_zeros
from accelsim.compute.toggles import StepToggles, mean_toggles
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import integer_operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.residency import in_stored_formats
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.synthetic import parts
from accelsim.synthetic.distributions import KINDS, Distribution, Stream, generator
from accelsim.synthetic.networks import Request, network
from accelsim.synthetic.recipe import Recipe, RecipeLayer
from accelsim.synthetic.workload import SyntheticWorkload
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph
from accelsim.workload.layer import Layer, QuantizedLayer

PARAMETERS = {"low": -0.5, "zero_fraction": 0.5, "outlier_share": 0.3, "outlier_gain": 5.0}
GEOMETRIES = {
    "rows": Geometry(N=2, C=8, H=13, W=7, K=6, R=3, S=3, padding=1),
    "strided": Geometry(N=1, C=20, H=23, W=9, K=4, R=3, S=2, stride=(3, 2), padding=(2, 0, 1, 1)),
    "gaps": Geometry(N=1, C=16, H=30, W=4, K=3, stride=4),
    "padded": Geometry(N=1, C=16, H=5, W=12, K=3, R=3, S=3, padding=8, dilation=2),
    "packed": Geometry(N=3, C=3, H=12, W=12, K=5, R=3, S=3, padding=1),
    "grouped": Geometry(N=1, C=32, H=14, W=6, K=32, R=3, S=3, groups=32, padding=1),
    "images": Geometry(N=40, C=8, H=3, W=3, K=6, R=2, S=2),
    "linear": Geometry(N=1, C=48, H=1, W=61, K=130),
    "causal": Geometry(N=1, C=96, H=1, W=24, K=12, groups=4),
}


def workload(geometry: Geometry, kind: str = "rectified", *, bias: bool = True) -> SyntheticWorkload:
    def of(kind: str) -> Distribution:
        return Distribution(kind, {name: PARAMETERS.get(name, 1.0) for name in KINDS[kind]})

    matmul = geometry.groups == 4
    layer = Layer("one", "matmul" if matmul else "conv", geometry, weight_is_activation=matmul)
    shapes = {"weight": of("gaussian"), "bias": of("gaussian"), "input": of("softmax" if matmul else kind)}
    own = RecipeLayer(layer, "weight", "input", "bias" if bias and not matmul else None)
    recipe = Recipe("small", 3, {}, shapes, Graph.chain([layer], {}), (own,))
    return SyntheticWorkload(recipe, Path("small"))


@pytest.fixture
def small_parts(monkeypatch):
    """Every layer is large, and parts are of some hundred values."""
    monkeypatch.setattr(parts, "WHOLE_VALUES", 100)
    monkeypatch.setattr(parts, "PART_WEIGHTS", 1500)
    monkeypatch.setattr(parts, "PART_VALUES", 700)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, 2])
def test_stream_is_one_draw(kind, axis):
    own = Distribution(kind, {name: PARAMETERS.get(name, 1.0) for name in KINDS[kind]})
    shape = (23, 4, 15)
    whole = own.draw(generator(1, "x", "input"), shape, axis)
    stream = Stream(own, generator(1, "x", "input"), shape, axis)
    stream.skip(2)
    drawn = [stream.take(count) for count in (1, 5, 0, 15)]
    np.testing.assert_array_equal(np.concatenate(drawn), whole[2:])


def assembled(words: list[QuantizedLayer], found: list[np.ndarray], pixels: int) -> np.ndarray:
    """[pixels, K] of parts: all pixels of some channels, then of the next."""
    columns: list[list[np.ndarray]] = [[]]
    for own, layer in zip(found, words, strict=True):
        if sum(map(len, columns[-1])) == pixels:
            columns.append([])
        assert own.shape == (layer.geometry.pixels, layer.geometry.K)
        columns[-1].append(own)
    return np.concatenate([np.concatenate(own) for own in columns], axis=1)


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("scheme", ["8/8/-/-", "4/4/4/6", "nvfp4", "mxint8"])
def test_parts_are_the_whole(name, scheme, small_parts):
    """Psums, overflows and what can be gated, also where a chain of PEs cuts the reduction."""
    arch, own, trace = load_arch("magnet16"), Scheme.parse(scheme), workload(GEOMETRIES[name])
    whole = trace.quantized_layer("one", own, arch.vector_size)
    told: list[tuple[str, int, int]] = []
    words = list(trace.quantized_parts("one", own, arch.vector_size, tell=lambda *what: told.append(what)))
    assert len(words) > 1
    passes = {"values of one": len(words)}
    if scheme != "mxint8":  # whose scales need nothing known of the whole tensor
        passes["scales of one"] = next(of for what, _, of in told if what == "scales of one")
    assert {what for what, _, _ in told} == set(passes)
    if whole.bias is not None:  # each part has that of its channels
        for layer in words:
            at = [i for i, own in enumerate(whole.weight_words) if (own == layer.weight_words[0]).all()]
            first = at[0]
            assert (layer.bias == whole.bias[first : first + layer.geometry.K]).all()
    for what, count in passes.items():
        assert [own for own in told if own[0] == what] == [(what, n + 1, count) for n in range(count)]
    for c_split in range(1, min(2, whole.spec.pieces) + 1):
        for bits in (None, 12):
            expected = accumulate_layer(arch, whole, bits, c_split)
            found = [accumulate_layer(arch, layer, bits, c_split) for layer in words]
            for wanted, parts_of in zip(expected, zip(*found, strict=True), strict=True):
                np.testing.assert_array_equal(assembled(words, list(parts_of), whole.geometry.pixels), wanted)
        zeros = [count_zeros(layer, c_split) for layer in words]
        assert ZeroCounts(*map(sum, zip(*zeros, strict=True))) == count_zeros(whole, c_split)


@pytest.mark.parametrize("options", [
    {"activation_calibration": "mse", "gamma_calibration": "mse"},
    {"activation_calibration": "percentile", "activation_percentile": 90.0,
     "gamma_calibration": "percentile", "gamma_percentile": 90.0},
])  # fmt: skip
@pytest.mark.parametrize("scheme", ["4/4/-/-", "4/4/4/4"])
def test_calibration_does_not_depend_on_parts(options, scheme, small_parts):
    arch, own, trace = load_arch("magnet16"), Scheme.parse(scheme), workload(GEOMETRIES["rows"])
    made = QuantizeOptions.from_dict(options)
    whole = trace.quantized_layer("one", own, arch.vector_size, made)
    plain = trace.quantized_layer("one", own, arch.vector_size)
    assert "mse" in options.values() or whole.input_gamma < plain.input_gamma
    for part in trace.quantized_parts("one", own, arch.vector_size, made):
        assert part.input_gamma == whole.input_gamma


def test_one_range_over_weights_in_parts_is_refused(small_parts):
    trace, own = workload(GEOMETRIES["linear"]), QuantizeOptions(weight_granularity="tensor")
    with pytest.raises(AccelsimError, match="layer one: has 6240 weights, expected at most 100 with"):
        list(trace.quantized_parts("one", Scheme.parse("4/4/4/4"), 16, own))


def test_run_in_parts(small_parts, monkeypatch):
    """A run that keeps nothing computes in parts, tells of each, and counts what one that keeps all does."""
    trace, told = workload(GEOMETRIES["rows"]), []
    kept = accelsim.run(trace, scheme="4/4/4/6")
    monkeypatch.setattr(
        SyntheticWorkload, "drawn_layer", lambda *_: pytest.fail("the whole layer has been drawn")
    )
    found = accelsim.run(trace, scheme="4/4/4/6", keep_tensors=False, progress=lambda *own: told.append(own))
    parts_told = [own for own in told if own[0] == "4/4/4/6 values of one"]
    assert len(parts_told) > 2
    assert [own[1] for own in parts_told] == list(range(1, parts_told[0][2] + 1))
    one, other = found.activities[0], kept.activities[0]
    assert one.counts == other.counts and one.overflows == other.overflows
    # Both sample the bits that change, each in its own places.
    mine, theirs = one.computed.toggles, other.computed.toggles
    assert mine.by_part == pytest.approx(theirs.by_part, rel=0.1)
    assert mine.of == theirs.of == other.lane_steps
    assert found.summary["energy_pj"] == pytest.approx(kept.summary["energy_pj"], rel=0.01)


def test_toggles_of_parts_are_means_by_steps():
    parts_of = [
        StepToggles({"dot_product": 4.0}, 0.5, 10, 100),
        StepToggles({"dot_product": 8.0}, 1.0, 20, 300),
    ]
    assert mean_toggles(parts_of) == StepToggles({"dot_product": 7.0}, 0.875, 30, 400)


def test_the_same_tensors_written_in_another_format_are_computed_anew(monkeypatch):
    def stored(arch, outlines, wiring):
        *others, last = in_stored_formats(arch, outlines, wiring)
        return (*others, replace(last, stored=(integer_operand(8),)))

    monkeypatch.setattr(accelsim.network, "in_stored_formats", stored)
    found = accelsim.run(SyntheticWorkload(shared(), Path("three")), scheme="4/4/4/6")
    assert found.summary["layers_computed"] == 3
    _, second, third = found.activities
    np.testing.assert_array_equal(third.psums, second.psums)
    assert third.computed.values.output_scales is None and second.computed.values.output_scales is not None


def shared(**changes):
    g = GEOMETRIES["linear"]
    layers = [Layer(name, "linear", g) for name in ("first", "second", "third")]
    shapes = {
        "weight": Distribution(
            "gaussian", dict.fromkeys(KINDS["gaussian"], 0.0) | {"std": 1.0, "outlier_gain": 1.0}
        )
    }
    own = [
        RecipeLayer(layer, "weight", "weight", None, "second" if layer.name == "third" else None)
        for layer in layers
    ]
    own[2] = replace(own[2], **changes)
    return Recipe("three", 0, {}, shapes, Graph.chain(layers, {}), tuple(own))


def test_layers_with_the_same_tensors():
    trace = SyntheticWorkload(shared(), Path("three"))
    recipe = Recipe.from_json(trace.recipe.text)
    assert recipe.text == trace.recipe.text and '"version":3' in recipe.text
    drawn = {name: trace.drawn_layer(name).weight for name in ("first", "second", "third")}
    np.testing.assert_array_equal(drawn["second"], drawn["third"])
    assert (drawn["first"] != drawn["second"]).any()
    found = accelsim.run(trace, scheme="4/4/4/6")
    assert found.summary["layers_computed"] == 2
    first, second, third = found.activities
    assert third.computed.operands.name == "third" and second.computed.operands.name == "second"
    np.testing.assert_array_equal(third.psums, second.psums)
    assert (second.psums != first.psums).any()
    assert accelsim.run(trace, gated_fraction=0.1).summary["layers_computed"] is None


@pytest.mark.parametrize("tensors, expected", [
    ("none", "tensors is 'none', expected the name of an earlier layer"),
    ("third", "tensors is 'third', expected the name of an earlier layer"),
])  # fmt: skip
def test_tensors_of_no_earlier_layer(tensors, expected):
    with pytest.raises(AccelsimError, match=expected):
        shared(tensors=tensors)


def test_tensors_of_another_size():
    other = replace(GEOMETRIES["linear"], W=7)
    with pytest.raises(
        AccelsimError, match="layer third: tensors is 'second', expected a layer of the same sizes"
    ):
        shared(layer=Layer("third", "linear", other))


def test_blocks_of_a_decoder_have_the_tensors_of_the_first():
    recipe = network("llama-2-7b-decode", Request())
    own = {layer.name: layer.tensors for layer in recipe.layers}
    assert own["layer0.gate"] is None and own["head"] is None
    assert own["layer31.attention.scores"] == "layer0.attention.scores"
    assert sum(tensors is None for tensors in own.values()) == 10
    assert '"version":2' in network("resnet50", Request()).text


def test_of_encoders_only_the_large_one_has_the_tensors_of_its_first_block():
    own = {layer.name: layer.tensors for layer in network("bert-large", Request()).layers}
    assert own["layer0.query"] is None and own["layer23.ffn_down"] == "layer0.ffn_down"
    assert sum(tensors is None for tensors in own.values()) == 8
    assert all(layer.tensors is None for layer in network("bert-base", Request()).layers)
