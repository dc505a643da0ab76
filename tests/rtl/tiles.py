"""Tiles for the co-simulation: of the bundled traces, random, adversarial (extreme codes, high then low)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.random import Generator

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.program import LayerProgram, build_program
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency
from accelsim.rtl.pe_run import PeRun, cut_program, run_pe
from accelsim.trace.file import Trace
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer, LayerSpec, OutputFormat, QuantizedLayer

TRACES = Path(__file__).parents[2] / "traces"
TRACE_LAYERS = {
    "digits/digits": ("conv1", "conv2", "depthwise3", "conv5", "fc"),
    "minilm/minilm_layer0": ("query", "scores", "ffn_down"),
}
SMALL_LAYERS = ("conv2", "depthwise3", "scores")
_traces: dict[str, Trace] = {}


def pick(rng: Generator, *choices):
    return choices[int(rng.integers(len(choices)))]


def trace_layers(arch: Arch, scheme: Scheme, *, small: bool = False) -> Iterator[QuantizedLayer]:
    """Layers of both traces, or a few `small` ones, that the machine's activation sign admits."""
    for name, layers in TRACE_LAYERS.items():
        if name not in _traces:
            _traces[name] = Trace.open(TRACES / f"{name}.safetensors")
        for layer in layers:
            if small and layer not in SMALL_LAYERS:
                continue
            signed = _traces[name].layer(layer).input_signed
            if arch.activation_sign in ("both", "signed" if signed else "unsigned"):
                yield _traces[name].quantized_layer(layer, scheme, arch.vector_size)


def random_layer(rng: Generator, arch: Arch, scheme: Scheme) -> QuantizedLayer:
    """A small layer with random, extreme or high-then-low codes, and PPU constants of every size."""
    v = scheme.block or arch.vector_size  # as the words are made; cut for the machine in the end
    geometry = random_geometry(rng, v, arch.lanes)
    groups, g_count = geometry.groups, geometry.vectors(v)
    packed_im2col = geometry.packed_im2col(v)
    per_position = g_count if packed_im2col else -(-geometry.channels_per_group // v)
    positions = geometry.pixels if packed_im2col else geometry.N * geometry.H * geometry.W
    signed = {"both": bool(rng.integers(2)), "signed": True, "unsigned": False}[arch.activation_sign]
    kind = pick(rng, "random", "random", "extreme", "high then low", "sparse")
    least, most = scheme.activation.of_sign(signed).qmin, scheme.activation.of_sign(signed).qmax
    weight_max = scheme.weight.qmax
    input_shape, weight_shape = (positions * groups * per_position, v), (geometry.K, g_count, v)
    if kind == "extreme":
        inputs = rng.choice([least, most], size=input_shape)
        weights = rng.choice([-weight_max, weight_max], size=weight_shape)
    elif kind == "high then low":
        inputs = np.full(input_shape, most)
        turn = rng.integers(1, g_count + 1, size=(geometry.K, 1, 1))
        sign = np.where(np.arange(g_count)[None, :, None] < turn, 1, -1) * rng.choice(
            [-1, 1], (geometry.K, 1, 1)
        )
        weights = np.broadcast_to(sign * weight_max, weight_shape)
    else:
        inputs = rng.integers(least, most + 1, size=input_shape)
        weights = rng.integers(-weight_max, weight_max + 1, size=weight_shape)
    if kind == "sparse":
        inputs = inputs * (rng.random(input_shape) < 0.2) * (rng.random(input_shape[0]) < 0.6)[:, None]
        weights = weights * (rng.random(weight_shape[:2]) < 0.6)[..., None]

    def scales(bits: int, shape: tuple[int, ...]) -> np.ndarray | None:
        if not bits:
            return None
        if kind in ("extreme", "high then low"):
            return np.full(shape, (1 << bits) - 1, np.uint16)
        return rng.integers(0, 1 << bits, size=shape).astype(np.uint16)

    output = OutputFormat(scheme.activation.of_sign(bool(rng.integers(2))))
    output_gamma = float(rng.uniform(0.01, 0.1))
    # PPU multipliers from far too small to far too large, most of them such that z uses its 24 bits.
    reach = arch.accumulator_width(scheme)
    low, high = 8.0 - reach, min(14.9, 27.0 - reach)
    if rng.random() < 0.7:  # near each other, so that vector scales of every size occur
        low = rng.uniform(low, high - 2)
        high = low + 2
    multiplier = np.exp2(rng.uniform(low, high, geometry.K))
    multiplier *= np.where(rng.random(geometry.K) < 0.05, 2.0**-40, 1)
    multiplier = np.where(rng.random(geometry.K) < 0.05, 2.0**14.9, multiplier)
    input_gamma = float(rng.uniform(1e-3, 1e-2))
    shift = scheme.scale_product_shift + arch.product_shift + output.fraction_bits
    # Half of the biases lie where a code changes, so that z being off by one shows.
    bias = rng.normal(size=geometry.K) * np.exp2(rng.uniform(0, 16, geometry.K))
    bias = np.where(rng.random(geometry.K) < 0.5, np.round(bias % 4) + 0.5, bias) * output_gamma
    scale = output.operand.scale
    if scale.bits:
        # A few channels rest just where the largest vector scale no longer suffices.
        edge = rng.random(geometry.K) < 2 / v
        beyond = scale.max_code + rng.uniform(-0.1, 1.1, geometry.K)
        bias = np.where(
            edge, beyond * output.operand.qmax * output_gamma * rng.choice([-1, 1], geometry.K), bias
        )
        multiplier = np.where(edge, 2.0**-40, multiplier)
    return QuantizedLayer(
        spec=LayerSpec(
            layer=Layer(
                name=f"random ({kind})",
                op="conv",
                geometry=geometry,
                input_signed=signed,
                activation=pick(rng, "none", "relu"),
            ),
            scheme=scheme,
            vector_size=v,
            fold="auto",
            output=output,
        ),
        weight_words=weights.astype(np.int8),
        weight_scales=scales(scheme.weight.scale.bits, (geometry.K, g_count)),
        weight_gamma=multiplier * output_gamma / (input_gamma * 2.0**shift),
        input_words=inputs.astype(np.int8 if signed else np.uint8),
        input_scales=scales(scheme.activation.scale.bits, (len(inputs),)),
        input_gamma=input_gamma,
        bias=bias.astype(np.float32) if rng.random() < 0.7 else None,
        output_gamma=output_gamma,
    ).in_vectors(arch.vector_size)


def random_geometry(rng: Generator, v: int, lanes: int) -> Geometry:
    while True:
        kind = pick(rng, "conv", "conv", "linear", "groups", "packed_im2col")
        unit = max(v, lanes)
        outputs = int(rng.integers(1, 2 * unit + 1))
        groups = int(rng.integers(2, 4)) if kind == "groups" else 1
        channels = (
            int(rng.integers(1, max(2, v))) if kind == "packed_im2col" else int(rng.integers(v, 3 * v + 1))
        )
        try:
            if kind == "linear":
                return Geometry(1, channels, 1, int(rng.integers(1, 40)), outputs)
            return Geometry(
                N=1,
                C=channels * groups,
                H=int(rng.integers(1, 7)),
                W=int(rng.integers(1, 7)),
                K=max(1, outputs // groups) * groups,
                R=int(rng.integers(1, 4)),
                S=int(rng.integers(1, 4)),
                stride=(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
                padding=(int(rng.integers(0, 3)), int(rng.integers(0, 3))),
                groups=groups,
            )
        except AccelsimError:
            continue


def random_program(rng: Generator, arch: Arch, layer: QuantizedLayer) -> LayerProgram:
    """The layer laid out by a random mapping that the machine takes."""
    pixels = layer.geometry.pixels
    per_unit = max(layer.spec.block, arch.lanes)
    units = layer.geometry.groups * -(-layer.geometry.outputs_per_group // per_unit)
    residency = Residency(weights="gb", input="gb")
    error: AccelsimError | None = None
    of_d_tiles = rng.spawn(1)[0]
    dtile_pixels = pick(of_d_tiles, 0, int(of_d_tiles.integers(1, arch.accumulation_collector_depth + 1)))
    for attempt in range(100):
        shrink = 1 + attempt // 3
        k_split = min(units, arch.pes, int(rng.integers(1, 9)))
        chunked = bool(rng.integers(2)) or attempt > 60
        most = max(1, min(pixels, 48) // shrink)
        mapping = LayerMapping(
            k_split=k_split,
            pixel_split=int(rng.integers(1, max(1, min(pixels, 4)) + 1)),
            order=pick(rng, "KP", "PK"),
            tile_pixels=int(rng.integers(max(1, most // 2), most + 1)),
            units_per_tile=0 if chunked else int(rng.integers(1, 4)),
            chunk_vectors=int(rng.integers(1, max(1, min(layer.spec.G, 96) // shrink) + 1))
            if chunked
            else layer.spec.G,
            chunk_inputs=chunked and bool(rng.integers(2)),
            dtile_pixels=dtile_pixels,
        )
        try:
            return build_program(arch, layer.spec, mapping, residency)
        except AccelsimError as refused:
            error = refused
    raise AssertionError(f"no mapping of {layer.name} on {arch}: {error}")


def random_run(rng: Generator, arch: Arch, layer: QuantizedLayer, max_steps: int) -> PeRun:
    """A piece of one PE's work, with operands that come at once, late or very late."""
    whole = random_program(rng, arch, layer)
    busy = [pe for pe in whole.pes if pe.blocks]
    program = pick(rng, *busy)
    units = sum(block.first and block.lane_group == 0 for block in program.blocks)
    skip = int(rng.integers(0, units)) if rng.random() < 0.7 else 0
    worst = [pick(rng, 0, 0, 5, 60) for _ in range(3)]
    seeds = rng.integers(1 << 30, size=3)

    def delay(which: int):
        return lambda index: int(np.random.default_rng((seeds[which], index)).integers(worst[which] + 1))

    return run_pe(
        arch,
        whole,
        cut_program(program, max_steps, skip),
        weight_delay=delay(0),
        input_delay=delay(1),
        output_delay=delay(2),
    )
