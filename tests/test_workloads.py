"""Workloads without weights: published sizes, stated distributions, determinism, recipes, topology files."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Said

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.residency import decide_residency
from accelsim.open import open_workload
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.layers import calibrated_output_gamma, output_format
from accelsim.synthetic.distributions import Distribution, generator
from accelsim.synthetic.networks import NETWORKS
from accelsim.synthetic.recipe import Recipe
from accelsim.synthetic.workload import SyntheticWorkload, write_recipe, write_tensors
from accelsim.trace.file import Trace
from accelsim.workload.layer import NodeWork, OutputFormat
from accelsim.workload.storage import UNREAD, Use
from accelsim.workload.wiring import wire

SHIPPED = Path(__file__).resolve().parents[2] / "shared" / "data" / "workloads"
V = 16
S4, S8 = Scheme.parse("4/4/4/4"), Scheme.parse("8/8/-/-")
FOR_LAYERS = Use(by_layers=True, by_nodes=False)


def macs(trace: Trace) -> int:
    return sum(info.geometry.macs for info in trace.layers)


def weights(trace: Trace) -> int:
    stored = [info.geometry for info in trace.layers if not info.weight_is_activation]
    return sum(g.K * g.R * g.S * g.channels_per_group for g in stored)


def synthetic(name: str, **sizes: int) -> SyntheticWorkload:
    trace = open_workload(name, **sizes)
    assert isinstance(trace, SyntheticWorkload)
    return trace


# --- sizes ------------------------------------------------------------------------------------------------

# torchvision's model pages give GFLOPS (their word for 1e9 MACs) 4.09, 1.81, 0.30 and 17.56. Parameters there
# count batch norm; conv and fc weights alone are parameters minus 2 per BN channel minus the fc bias:
# ResNet-50 25,557,032 - 2 * 26,560 - 1000; ResNet-18 11,689,512 - 2 * 4,800 - 1000;
# MobileNetV2 3,504,872 - 2 * 17,056 - 1000.
# An encoder of width d and hidden 4 d has 12 d^2 weights a layer, used on every token, and attention does
# 2 seq^2 d MACs a layer and sequence: BERT-base 12 * (12 * 768^2 * 128 + 2 * 128^2 * 768),
# BERT-large 24 * (12 * 1024^2 * 384 + 2 * 384^2 * 1024), ViT-B/16 196 * 768 * 768 for the patches,
# 12 * (12 * 768^2 * 197 + 2 * 197^2 * 768) and 768 * 1000 for the head.
# Llama 2 7B: 4 * 4096^2 + 3 * 4096 * 11008 weights a block, times 512 tokens, and 2 * 512^2 * 4096.
# Llama 3 8B: 2 * 4096^2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 a block: with embedding, head and norms 8.03e9.
LLAMA_2_BLOCK = 4 * 4096**2 + 3 * 4096 * 11008
LLAMA_3_BLOCK = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336
PUBLISHED = {
    "resnet50": ({}, 4.09e9, 25_502_912),
    "resnet18": ({}, 1.81e9, 11_678_912),
    "mobilenet_v2": ({}, 0.30e9, 3_469_760),
    "bert-base": ({}, 12 * (12 * 768**2 * 128 + 2 * 128**2 * 768), 12 * 12 * 768**2),
    "bert-large": ({"seq": 384}, 24 * (12 * 1024**2 * 384 + 2 * 384**2 * 1024), 24 * 12 * 1024**2),
    "vit-b16": ({}, 17.56e9, 12 * 12 * 768**2 + 768 * 768 + 768 * 1000),
    "llama-block": (
        {},
        512 * (4 * 4096**2 + 3 * 4096 * 11008) + 2 * 512**2 * 4096,
        4 * 4096**2 + 3 * 4096 * 11008,
    ),
    "llama-block-decode": (
        {},
        LLAMA_2_BLOCK + 2 * 4096 * 4096,
        LLAMA_2_BLOCK,
    ),
    "llama-2-7b": (
        {},
        32 * (512 * LLAMA_2_BLOCK + 2 * 512**2 * 4096) + 4096 * 32000,
        32 * LLAMA_2_BLOCK + 4096 * 32000,
    ),
    "llama-2-7b-decode": (
        {},
        32 * (LLAMA_2_BLOCK + 2 * 4096 * 4096) + 4096 * 32000,
        32 * LLAMA_2_BLOCK + 4096 * 32000,
    ),
    "llama-3-8b": (
        {},
        32 * (512 * LLAMA_3_BLOCK + 2 * 512**2 * 4096) + 4096 * 128256,
        32 * LLAMA_3_BLOCK + 4096 * 128256,
    ),
    "llama-3-8b-decode": (
        {},
        32 * (LLAMA_3_BLOCK + 2 * 4096 * 4096) + 4096 * 128256,
        32 * LLAMA_3_BLOCK + 4096 * 128256,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_and_weights_are_the_published_ones(name: str) -> None:
    sizes, expected_macs, expected_weights = PUBLISHED[name]
    trace = synthetic(name, **sizes)
    assert macs(trace) == pytest.approx(expected_macs, rel=0.005)
    assert weights(trace) == expected_weights
    assert trace.synthetic and trace.floats(trace.layers[0].name) is None and trace.model == name


def test_bert_base_at_128_tokens_is_about_11_2e9() -> None:
    assert macs(synthetic("bert-base")) == pytest.approx(11.2e9, rel=0.005)


def test_resnet50_is_v1_5_with_pools_and_adds() -> None:
    trace = synthetic("resnet50")
    by_name = {info.name: info for info in trace.layers}
    assert len(by_name) == 54
    assert by_name["layer2.0.conv1"].geometry.stride == (1, 1)
    assert by_name["layer2.0.conv2"].geometry.stride == (2, 2)
    work = wire(trace.graph, trace.layers).work
    assert work["conv1"] == (NodeWork("max_pool", 112 * 112 * 64, 112 * 112 * 64, 56 * 56 * 64, FOR_LAYERS),)
    adds = [w for items in work.values() for w in items if w.op == "add_relu"]
    assert len(adds) == 16  # 3 + 4 + 6 + 3 blocks
    assert (
        sum(w.elements for w in adds) == 3 * 256 * 56**2 + 4 * 512 * 28**2 + 6 * 1024 * 14**2 + 3 * 2048 * 49
    )
    assert all(w.read == 2 * w.written for w in adds)
    assert work["layer4.2.conv3"][-1] == NodeWork("avg_pool", 49 * 2048, 49 * 2048, 2048, FOR_LAYERS)
    assert work["layer2.0.downsample.0"] and not work["layer2.0.conv3"]  # what comes last hosts the add
    assert {info.name for info in trace.layers if info.input_signed} == {"conv1"}
    plain = {name for name, info in by_name.items() if info.activation == "none"}
    assert plain == {n for n in by_name if n.endswith((".conv3", ".downsample.0"))} | {"fc"}


def test_every_layer_reads_as_many_channels_as_the_one_before_it_makes() -> None:
    for name in ("resnet18", "resnet50", "mobilenet_v2"):
        layers = synthetic(name).layers
        for before, after in itertools.pairwise(layers):
            if "downsample" not in after.name:
                assert after.geometry.C == before.geometry.K, after.name
    depthwise = [i for i in synthetic("mobilenet_v2").layers if i.geometry.groups > 1]
    assert len(depthwise) == 17
    assert all(i.geometry.groups == i.geometry.C == i.geometry.K and i.geometry.R == 3 for i in depthwise)


def test_a_bert_layer_is_laid_out_like_the_bundled_one() -> None:
    """MiniLM is 384 wide with 12 heads; op, signs and global-PE work are those of the real trace."""
    bert, minilm = synthetic("bert-base", seq=20, batch=4), open_workload("minilm_layer0")
    own = {info.name.removeprefix("layer0."): info for info in bert.layers[:8]}
    real = minilm.layers
    mine, theirs = wire(bert.graph, bert.layers).work, wire(minilm.graph, minilm.layers).work
    assert list(own) == [info.name for info in real]
    for info in real:
        made = own[info.name]
        for field in ("op", "activation", "input_signed", "weight_is_activation"):
            assert getattr(made, field) == getattr(info, field), info.name
        assert made.geometry.groups == info.geometry.groups
        assert (made.geometry.N, made.geometry.H, made.geometry.W) == (1, 1, info.geometry.W)
        wide = 1 if any(w.op == "softmax" for w in theirs[info.name]) else 2  # 768 over 384
        work = tuple(
            NodeWork(w.op, wide * w.elements, wide * w.read, wide * w.written) for w in theirs[info.name]
        )
        found = tuple(replace(w, use=UNREAD) for w in mine[f"layer0.{info.name}"])
        assert found == work, info.name


def test_batch_and_sequence_scale_what_they_should() -> None:
    assert macs(synthetic("resnet18", batch=3)) == 3 * macs(synthetic("resnet18"))
    assert macs(synthetic("bert-base", batch=3)) == 3 * macs(synthetic("bert-base"))
    one, two = synthetic("bert-base", seq=64), synthetic("bert-base", seq=128)
    linear = 12 * 12 * 768**2
    assert macs(two) - 2 * macs(one) == 12 * 2 * 768 * (128**2 - 2 * 64**2)
    assert macs(one) == 64 * linear + 12 * 2 * 64**2 * 768
    assert weights(synthetic("bert-base", batch=2)) == weights(one)
    assert synthetic("bert-base@seq=64,batch=2").recipe == synthetic("bert-base", seq=64, batch=2).recipe


# --- distributions ----------------------------------------------------------------------------------------


def draw(kind: str, shape: tuple[int, ...] = (64, 4096), axis: int = 0, **own: float) -> np.ndarray:
    return Distribution(kind, own).draw(generator(0, "layer", "input"), shape, axis)


CHANNELS = {"channel_spread": 0.3, "outlier_share": 0.02, "outlier_gain": 12.0}
SAMPLES = [
    Distribution("gaussian", {"std": 0.7, **CHANNELS}),
    Distribution("laplace", {"std": 0.7, "channel_spread": 0.3}),
    Distribution("rectified", {"std": 2.0, "zero_fraction": 0.4, "channel_spread": 0.0}),
    Distribution("half_gaussian", {"std": 2.0, "channel_spread": 0.2}),
    Distribution("sparse", {"std": 2.0, "zero_fraction": 0.7}),
    Distribution("clipped", {"std": 1.0, "low": -1.0, "high": 2.0}),
    Distribution("gelu", {"std": 1.5, **CHANNELS}),
    Distribution("gated_silu", {"std": 1.5, **CHANNELS}),
]


@pytest.mark.parametrize("own", SAMPLES, ids=lambda own: own.kind)
def test_mean_square_is_that_of_the_draws(own: Distribution) -> None:
    """Over 4096 channels; the tolerance is for which channels the outliers fall on."""
    x = own.draw(generator(0, "a", "b"), (200, 4096), 1)
    assert x.dtype == np.float32 and np.isfinite(x).all()
    assert float(np.square(x, dtype=np.float64).mean()) == pytest.approx(own.mean_square(4096), rel=0.12)
    assert (x.min() < 0) == own.signed


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
def test_zero_fraction_holds(fraction: float) -> None:
    x = draw("rectified", std=3.0, zero_fraction=fraction, channel_spread=0.3)
    assert np.mean(x == 0) == pytest.approx(fraction, abs=0.005)
    assert x.min() == 0


@pytest.mark.parametrize(("channels", "count"), [(768, 8), (64, 1), (4096, 41)])
def test_outlier_channels_hold_their_share_and_magnitude(channels: int, count: int) -> None:
    own = {"std": 1.0, "channel_spread": 0.0, "outlier_share": 0.01, "outlier_gain": 10.0}
    x = draw("gaussian", (3000, channels), 1, **own)
    rms = np.sqrt(np.square(x).mean(axis=0))
    assert (rms > 5).sum() == count
    assert rms[rms > 5] == pytest.approx(10.0, rel=0.1)
    assert rms[rms < 5] == pytest.approx(1.0, rel=0.1)


def test_laplace_has_its_kurtosis_and_both_signs() -> None:
    x = draw("laplace", std=0.5, channel_spread=0.0).astype(np.float64)
    assert np.mean(x > 0) == pytest.approx(0.5, abs=0.01)
    assert np.std(x) == pytest.approx(0.5, rel=0.01)
    assert np.mean(x**4) / np.mean(x**2) ** 2 == pytest.approx(6, rel=0.05)


def test_channel_spread_is_that_of_the_logarithm() -> None:
    x = draw("gaussian", (2000, 500), 0, std=1.0, channel_spread=0.4, outlier_share=0.0, outlier_gain=1.0)
    assert np.log(x.std(axis=1)).std() == pytest.approx(0.4, rel=0.1)


def test_probabilities_are_rows_that_sum_to_one() -> None:
    layer = synthetic("bert-base", seq=24, batch=2).drawn_layer("layer3.context")
    rows = layer.input.reshape(24, 24, 24)  # [groups, keys, queries]
    assert rows.min() > 0
    assert rows.sum(axis=1) == pytest.approx(1, abs=1e-5)
    causal = synthetic("llama-block", seq=16).drawn_layer("attention.context").input.reshape(32, 16, 16)
    assert causal.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for query in range(16):
        assert (causal[:, query + 1 :, query] == 0).all()
        assert (causal[:, : query + 1, query] > 0).all()


def test_heads_that_share_keys_are_one_group_whose_rows_see_the_past() -> None:
    """Llama 3's 32 heads of queries share 8 of keys: 4 rows a token, in the order of the tokens."""
    workload = synthetic("llama-3-8b", seq=16)
    rows = workload.drawn_layer("layer5.attention.context").input.reshape(
        8, 16, 64
    )  # [groups, keys, queries]
    assert rows.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for query in range(64):
        assert (rows[:, : query // 4 + 1, query] > 0).all() and (rows[:, query // 4 + 1 :, query] == 0).all()
    assert {"layer5.attention.key.rotary", "layer5.attention.value.requantize"} < set(workload.graph.outputs)


def test_a_decoded_token_reads_the_whole_cache_from_dram() -> None:
    """By hand: 4-bit codes and a 4-bit scale for 16; 2 * 8 heads * 128 * 4096 values of the cache a block."""
    workload = synthetic("llama-3-8b-decode", batch=2)
    assert (workload.drawn_layer("layer0.attention.context").input > 0).all()
    layers = {layer.name: layer for layer in workload.layers}
    scores, context = (
        layers["layer31.attention.scores"].geometry,
        layers["layer31.attention.context"].geometry,
    )
    assert (scores.groups, scores.pixels, scores.outputs_per_group, scores.channels_per_group) == (
        16,
        4,
        4096,
        128,
    )
    assert (context.groups, context.pixels, context.outputs_per_group) == (16, 4, 128)
    cached = math.prod(dict(workload.graph.inputs)["layer31.attention.key_cache"])
    assert cached == 2 * 8 * 128 * 4096 == scores.K * scores.channels_per_group
    scheme, arch = Scheme.parse("4/4/4/4"), load_arch("magnet16")
    outlines = [workload.outline(name, scheme, arch.vector_size) for name in layers]
    found = decide_residency(arch, outlines, wire(workload.graph, workload.layers))
    of = dict(zip(layers, found, strict=True))
    for name in ("layer31.attention.scores", "layer31.attention.context"):
        assert of[name].weights in ("cached", "streamed")
    assert of["layer31.attention.key"].written_bits == (2 * 8 * 128 * (4 + 4 / 16),)


def test_drawn_layers_of_a_network_hold_what_its_recipe_states() -> None:
    resnet = synthetic("resnet18")
    layer = resnet.drawn_layer("layer2.0.conv1")
    assert np.mean(layer.input == 0) == pytest.approx(0.5, abs=0.005)
    assert layer.weight.std() * math.sqrt(64 * 9) == pytest.approx(math.exp(0.3**2), rel=0.1)
    bert = synthetic("bert-base", seq=64).drawn_layer("layer5.ffn_up")
    words = resnet.quantized_layer("layer2.0.conv1", S8, V)
    assert words.output_gamma == resnet.output_gamma("layer2.0.conv1", S8) and not words.input_signed
    rms = np.sqrt(np.square(bert.input[0, :, 0]).mean(axis=1))
    assert (rms > 4 * np.median(rms)).sum() == 8  # 1 % of 768


def test_output_gamma_is_close_to_what_a_float_convolution_gives() -> None:
    """Not equal: sums of few products have heavier tails than the Gaussian of the formula."""
    for name, layers in {
        "resnet18": ("conv1", "layer3.0.conv1", "layer3.0.downsample.0", "fc"),
        "bert-base@seq=32": ("layer0.query", "layer0.scores", "layer0.context", "layer0.ffn_down"),
        "mobilenet_v2": ("features.8.conv.1.0", "features.8.conv.2"),
    }.items():
        trace = synthetic(name)
        for layer in layers:
            for scheme in (S4, S8):
                stated, drawn = trace.output_gamma(layer, scheme), trace.drawn_layer(layer)
                output = output_format(drawn.layer, scheme)
                measured = calibrated_output_gamma(drawn, output, V, QuantizeOptions())
                assert 0.5 < stated / measured < 1.5, (name, layer, str(scheme))
                assert math.ldexp(math.frexp(stated)[0], 24).is_integer()


def test_outlines_draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a tensor was drawn")

    monkeypatch.setattr(Distribution, "draw", refuse)
    trace = synthetic("bert-large")
    gammas = {trace.output_gamma(layer.name, S4) for layer in trace.layers}
    assert len(gammas) == 5  # width to width; scores; context; up; down
    assert {trace.outline(layer.name, S4, V).output for layer in trace.layers} == {
        OutputFormat(S4.activation)
    }
    with pytest.raises(AssertionError, match="drawn"):
        trace.quantized_layer("layer0.query", S4, V)


# --- determinism ------------------------------------------------------------------------------------------


def digest(trace: Trace, name: str, scheme: Scheme = S4) -> str:
    words = trace.quantized_layer(name, scheme, V)
    parts = (
        words.weight_words,
        words.weight_scales,
        words.weight_gamma,
        words.input_words,
        words.input_scales,
    )
    joined = b"".join(np.ascontiguousarray(p).tobytes() for p in (*parts, words.bias) if p is not None)
    return hashlib.sha256(joined + repr((words.output, words.input_gamma)).encode()).hexdigest()


FEW = ("layer0.context", "layer0.query", "layer0.ffn_down")


def test_layers_are_the_same_in_any_order_and_process(tmp_path: Path) -> None:
    trace = synthetic("bert-base", seq=16, seed=3)
    forward = {name: digest(trace, name) for name in FEW}
    again = synthetic("bert-base", seq=16, seed=3)
    assert {name: digest(again, name) for name in reversed(FEW)} == forward
    assert digest(pickle.loads(pickle.dumps(trace)), FEW[0]) == forward[FEW[0]]
    program = (
        "import sys; sys.path[:0] = [sys.argv[1]]; import test_workloads as t\n"
        "print(t.digest(t.synthetic('bert-base', seq=16, seed=3), 'layer0.query'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == forward["layer0.query"], done.stderr


def test_seed_and_layer_name_change_the_tensors() -> None:
    base, other = synthetic("bert-base", seq=8), synthetic("bert-base", seq=8, seed=1)
    digests = {digest(t, f"layer{i}.query") for t in (base, other) for i in range(2)}
    assert len(digests) == 4
    assert base.sha256 != other.sha256


def test_generator_version_1_keeps_its_tensors() -> None:
    """Another digest means another GENERATOR_VERSION, or a NumPy that draws or rounds differently."""
    x = draw("laplace", (8, 8), 0, std=1.0, channel_spread=0.0)
    assert hashlib.sha256(x.tobytes()).hexdigest()[:16] == "7117fe7e1fd132db"
    x = draw("rectified", (8, 8), 0, std=1.0, zero_fraction=0.5, channel_spread=0.0)
    assert hashlib.sha256(x.tobytes()).hexdigest()[:16] == "a9751072c724aec3"


# --- recipes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_recipe_round_trip(name: str, tmp_path: Path) -> None:
    trace = synthetic(name, seed=7)
    path = write_recipe(trace, tmp_path / "net.json")
    read = open_workload(path)
    assert isinstance(read, SyntheticWorkload)
    assert read.recipe == trace.recipe
    assert read.sha256 == trace.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.name == "net" and trace.name == f"{name}@seed=7"
    assert path.stat().st_size == read.size_bytes < 440 * len(trace.layers) + 2000
    assert read.layers == trace.layers
    assert list(tmp_path.iterdir()) == [path]


def test_a_recipe_file_gives_the_same_words(tmp_path: Path) -> None:
    trace = synthetic("bert-base", seq=16)
    read = open_workload(write_recipe(trace, tmp_path / "b.json"))
    assert {n: digest(read, n) for n in FEW} == {n: digest(trace, n) for n in FEW}


def changed(edit: Callable[[dict], None]) -> str:
    raw = json.loads(synthetic("resnet18").recipe.text)
    edit(raw)
    return json.dumps(raw)


BAD_RECIPES = {
    "format": (lambda r: r.update(format="other"), "format is 'other', expected 'accelsim-recipe'"),
    "version": (lambda r: r.update(generator_version=2), "generator_version is 2, this accelsim reads 1"),
    "seed": (lambda r: r.update(seed=-1), "seed is -1, expected an integer from 0"),
    "key": (lambda r: r.update(extra=1), "unknown key 'extra'"),
    "missing": (lambda r: r.pop("layers"), "key 'layers' is missing"),
    "empty": (lambda r: r.update(layers=[]), "layers is empty"),
    "kind": (
        lambda r: r["distributions"]["relu"].update(kind="uniform"),
        "distribution 'relu': kind is 'uniform', expected one of",
    ),
    "parameter": (
        lambda r: r["distributions"]["relu"].update(zero_fraction=1.5),
        "distribution 'relu': zero_fraction is 1.5, expected a number from",
    ),
    "unnamed": (lambda r: r["layers"][1].update(input="nothing"), "input is 'nothing', expected one of"),
    "geometry": (lambda r: r["layers"][1]["geometry"].update(K=0), "geometry: K is 0"),
    "groups": (lambda r: r["layers"][1]["geometry"].update(groups=7), "groups is 7, expected a divisor"),
    "huge": (lambda r: r["layers"][1]["geometry"].update(K=1 << 30, C=1 << 30), "has a tensor of"),
    "twice": (lambda r: r["layers"].append(r["layers"][0]), "layer conv1: is given twice"),
    "pixels": (lambda r: r["layers"][1]["geometry"].update(N=1 << 30), "output pixels"),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_corrupted_recipes_are_one_clear_line(case: str, tmp_path: Path, cli: Callable[..., Said]) -> None:
    edit, message = BAD_RECIPES[case]
    path = tmp_path / "bad.json"
    path.write_text(changed(edit))
    said = cli("trace", "info", path)
    assert said.status == 2
    assert message in said.err and "bad.json" in said.err and said.err.count("\n") == 1


def test_a_cut_recipe_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text(synthetic("resnet18").recipe.text[:-400])
    with pytest.raises(AccelsimError, match=r"cut\.json: recipe: is not valid JSON"):
        open_workload(path)
    path.write_bytes(b'{"a":"\xff"}  ')
    with pytest.raises(AccelsimError, match="is not UTF-8"):
        open_workload(path)
    path.write_text("hello, I am no recipe")
    with pytest.raises(AccelsimError, match="recipe: is not valid JSON"):
        open_workload(path)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("net.onnx", "is an ONNX model, expected a trace of it: `accelsim export` makes one"),
        ("net.PT2", "is a PyTorch model, expected"),
        ("net.pth", "is a PyTorch checkpoint, expected"),
        ("net.py", "is a Python script, expected"),
        ("problem.yaml", r"is no trace \(.safetensors\), no recipe \(.json\) and no SCALE-Sim topology"),
        ("net.m", "is no trace"),
        ("net.safetensors", "not a trace"),
        ("folder", "is a folder, expected a file"),
    ],
)
def test_other_files_are_refused_by_what_they_are(name: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    else:
        path.write_text("problem:\n  shape: {name: CNN-Layer}\n")
    with pytest.raises(AccelsimError, match=f"{name[:3]}.*: .*{expected}"):
        open_workload(path)


def test_a_trace_and_a_recipe_may_bear_any_name(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(trace.read_bytes())
    assert open_workload(tmp_path / "net.bin").model == Trace.open(trace).model
    for name, before in (("edited.json", "\ufeff\n "), ("edited.recipe", "\n ")):
        (tmp_path / name).write_text(before + synthetic("resnet18").recipe.text, "utf-8")
        assert open_workload(tmp_path / name).model == "resnet18"


def test_tensors_make_an_ordinary_trace(tmp_path: Path) -> None:
    topology = tmp_path / "small.csv"
    topology.write_text("Layer, M, N, K,\na, 5, 24, 40,\nb, 5, 10, 24,\n")
    trace = synthetic(str(topology))
    stored = Trace.open(write_tensors(trace, tmp_path / "small.safetensors"))
    assert stored.synthetic and stored.has_floats
    assert stored.provenance["recipe_sha256"] == trace.sha256
    for info in stored.layers:
        drawn, read = trace.drawn_layer(info.name), stored.float_layer(info.name)
        assert np.array_equal(drawn.weight, read.weight) and np.array_equal(drawn.input, read.input)
        ours, theirs = trace.quantized_layer(info.name, S8, V), stored.quantized_layer(info.name, S8, V)
        assert np.array_equal(ours.weight_words, theirs.weight_words)
        assert np.array_equal(ours.input_words, theirs.input_words)


# --- command line -----------------------------------------------------------------------------------------

BAD_ARGUMENTS = {
    "trace synth nothing --out x": "'nothing': no such file or bundled trace; bundled:",
    "trace synth nothing --seed 1 --out x": "'nothing': no such file or bundled trace; bundled:",
    "trace synth bert-base --seq 0 --out x": "seq is 0, expected a whole number from 1",
    "trace synth resnet50 --seed -1 --out x": "seed is -1, expected a whole number from 0",
    "trace synth llama-block --batch 0 --out x": "batch is 0, expected a whole number from 1",
    "trace synth resnet50 --seq 128 --out x": "network resnet50: seq is 128, expected none",
    "trace synth vit-b16 --seq 128 --out x": "network vit-b16: seq is 128, expected none",
    "trace synth bert-base --seq many --out x": "Invalid value for '--seq'",
    "trace synth bert-base@seq=5 --seq 4 --out x": "seq is given in the name and beside it",
    "trace synth digits --out x": "trace digits: holds tensors already",
    "trace synth bert-large --tensors --out x": "would hold",
    "trace synth resnet18 --out .": "cannot be written",
    "trace synth bert-base --batch 4096 --seq 65536 --out x": "expected an integer from 1 to 2147483647",
    "trace info resnet50@depth=3": "has 'depth=3', expected NAME@KEY=NUMBER",
    "trace info bert-base@seq=4,seq=5": "has 'seq=5', expected",
    "trace info bert-base@": "has ''",
    "trace quantize resnet18 --scheme 4/4/4/4 --out x": "is a recipe without tensors",
    "run resnet50@batch=0": "batch is 0",
}


@pytest.mark.parametrize("line", BAD_ARGUMENTS)
def test_bad_arguments_are_one_clear_line(line: str, cli: Callable[..., Said], tmp_path: Path) -> None:
    said = cli(*line.split())
    assert said.status == 2, said
    assert BAD_ARGUMENTS[line] in said.err and said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_synth_writes_a_recipe_that_info_reads_and_marks(cli: Callable[..., Said]) -> None:
    assert cli("trace", "synth", "bert-base", "--seq", 384, "--out", "b.json").status == 0
    said = cli("trace", "info", "b.json")
    assert said.status == 0
    lines = dict(line.split(None, 1) for line in said.out.splitlines() if len(line.split(None, 1)) == 2)
    assert lines["synthetic"].strip() == "yes"
    assert lines["provenance.seq"].strip() == "384"
    assert lines["sha256"].strip() == synthetic("bert-base", seq=384).sha256


def test_other_files_are_not_written_over(cli: Callable[..., Said], tmp_path: Path) -> None:
    for name, text in (("notes.txt", "mine"), ("package.json", '{"name": "mine"}')):
        mine = tmp_path / name
        mine.write_text(text)
        said = cli("trace", "synth", "resnet18", "--out", mine)
        assert said.status == 2 and "is a file but not a trace" in said.err
        assert mine.read_text() == text
    recipe = tmp_path / "r.json"
    for seed in (1, 2):
        assert cli("trace", "synth", "resnet18", "--seed", seed, "--out", recipe).status == 0
    assert Recipe.open(recipe).seed == 2


def test_a_topology_runs_end_to_end_without_sqnr(cli: Callable[..., Said], tmp_path: Path) -> None:
    header = "Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Strides,\n"
    (tmp_path / "two.csv").write_text(header + "a,8,8,3,3,3,16,1,\nb,6,6,1,1,16,24,2,\n")
    said = cli("run", "two.csv", "--no-plots")
    assert said.status == 0, said.err
    assert "synthetic tensors" in " ".join(said.out.split())
    summary = json.loads((tmp_path / "results" / "two-4_4_4_4" / "summary.json").read_text())
    assert summary["synthetic"] is True and summary["sqnr_db"] is None
    assert summary["macs"] == 36 * 16 * 27 + math.ceil(7 / 2) ** 2 * 24 * 16
    assert summary["trace_sha256"] == synthetic(str(tmp_path / "two.csv")).sha256
