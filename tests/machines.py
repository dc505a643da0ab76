"""Small random machines, layers and mappings: queues that fill, tight buffers, ragged tiles.

Machines come with features "plain" (OS-LWS, no chains, the default bank groups) or "all"; their layers are a
chain. A third kind of run, "graph", has machines of both kinds and a random graph on the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
from cycle_model.placement import Placement, place_run, placements_of
from cycle_model.program import refusal
from cycle_model.sizes import layer_bits, region_bits
from graphs import random_graph
from hand_machine import node_work
from numpy.random import Generator
from pick import pick

from accelsim.compute.activity import LayerActivity, join
from accelsim.compute.values import ComputeRequest, compute
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import integer_operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.program import build_program
from accelsim.mapping.plan import LayerMapping, step_order
from accelsim.mapping.residency import chain_of, decide_run, in_stored_formats
from accelsim.sim.run import TimeRequest, time_layers
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph
from accelsim.workload.layer import Layer, LayerSpec, OutputFormat, QuantizedLayer
from accelsim.workload.wiring import Wiring, wire

MOST_STEPS = 700  # of one layer, over all PEs
MOST_BITS = 24_000  # of the operands and the output of one layer
SCHEMES = (
    "8/8/-/-",
    "4/8/-/-",
    "4/4/4/4",
    "4/4/4/4:sp4",
    "4/8/6/10:sp8",
    "3/5/4/-",
    "2/8/-/6",
    "6/3/3/-",
)
GLOBAL_PE_WORK = ("max_pool", "add", "gelu", "softmax", "layer_norm")


DATAFLOWS = ("os-lws", "os", "ws-los", "ws")
Features = Literal["plain", "all"]
Runs = Literal["plain", "all", "graph", "residual", "blocks"]


class NoValidMapping(Exception):
    """The tries ran out; draw another layer."""


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def random_arch(rng: Generator, features: Features = "plain") -> Arch:
    v, lanes = pick(rng, 1, 2, 4, 4, 8), pick(rng, 1, 2, 2, 4, 8)
    depth = int(rng.integers(1, 7)) if rng.random() < 0.8 else 1
    staged_entries = depth * max(1, v // lanes)
    stages = rng.spawn(1)[0]  # draws of its own: those after it stay what they are
    values: dict[str, object] = dict(
        name="random",
        psum_chain=False,
        vector_size=v,
        lanes=lanes,
        pes=pick(rng, 1, 2, 3, 4, 4, 5, 6, 6, 10),
        weight_buffer_words=2 * int(rng.integers(1, 25)),
        input_buffer_words=2 * int(rng.integers(1, 40)),
        accumulation_collector_depth=depth,
        accumulator_bits=pick(rng, "auto", "auto", 10, 14, 18),
        product_shift=pick(rng, 0, 0, 1, 3),
        overflow=pick(rng, "saturate", "wrap"),
        accumulate_latency=int(rng.integers(1, 5)),
        dot_stages=pick(stages, 1, 1, 2, 3, 4),
        scale_stages=pick(stages, 1, 1, 2, 3),
        ppu_latency_cycles={"static": int(rng.integers(1, 9)), "per_vector": int(rng.integers(1, 12))},
        out_fifo_words=pick(rng, depth, staged_entries, staged_entries, 2 * staged_entries + 1, 64),
        global_buffer_kb=pick(rng, 1, 1, 1, 1, 2, 2, 3, 8),
        gb_banks=int(rng.integers(3, 14)),
        gb_bank_bits=pick(rng, 8, 16, 32, 64, 128, 256),
        pe_port_bits=pick(rng, 8, 16, 32, 64, 128, 256),
        noc_latency_cycles=int(rng.integers(0, 6)),
        dram_bits_per_cycle=pick(rng, 16, 32, 64, 256, 256),
        dram_efficiency=pick(rng, 0.7, 0.8, 1.0),
        dram_latency_cycles=pick(rng, 0, 1, 5, 20, 60),
        global_pe_elements_per_cycle=int(rng.integers(1, 17)),
        clock_ghz=0.1,
        voltage_v=0.8,
        node_nm=16.0,
        placement_utilization=0.7,
        output_staging_tiles=pick(rng, 1, 2, 3, 8),
        fold=pick(rng, "auto", "auto", "never"),
    )
    if features == "all":
        values |= _features(rng, values["gb_banks"], values["global_buffer_kb"])
    # Drawn apart: what the seeds of many tests stand for stays as it was.
    widths = [w for w in range(1, lanes + 1) if lanes % w == 0 and max(v, w) % min(v, w) == 0]
    apart = np.random.default_rng([*values["ppu_latency_cycles"].values(), values["input_buffer_words"]])
    values["ppu_lanes"] = pick(apart, None, *widths)
    return Arch(**values)


def _features(rng: Generator, banks: int, buffer_kb: int) -> dict[str, object]:
    """What a plain machine leaves at its default."""
    values: dict[str, object] = dict(
        dataflows=tuple(rng.permutation(DATAFLOWS)[: int(rng.integers(1, 5))].tolist()),
        weight_collector_depth=pick(rng, 1, 2, 2, 3, 3, 5, 16),
        accumulation_buffer_words=2 * int(rng.integers(1, 14)),
        local_accumulate_latency=pick(rng, 1, 1, 2, 3, 4),
        psum_chain=rng.random() < 0.75,
        psum_port_bits=pick(rng, None, None, 8, 32, 128, 256),
    )
    if rng.random() < 0.3:
        values["gb_weight_banks"] = weights = int(rng.integers(1, banks - 1))
        values["gb_output_banks"] = int(rng.integers(1, banks - weights))
    elif rng.random() < 0.5:
        # A small weight region: few weight tiles ahead, or none.
        values |= dict(gb_banks=int(rng.integers(16, 41)), gb_weight_banks=1)
        values["weight_buffer_words"] = 2 * int(rng.integers(8, 33))
    if buffer_kb >= 2 and rng.random() < 0.5:
        values["gb_weight_kb"] = int(rng.integers(1, buffer_kb))
    return values


def with_gating(arch: Arch, seed: int) -> Arch | None:
    """The same machine, gating zero scale products; None where it cannot."""
    if arch.dataflows != ("os-lws",):
        return None
    value = ("multiply", "dot")[seed % 2]
    return arch.model_copy(update={"gate_on_scale_product": value, "accumulate_latency": 2})


def random_scheme(rng: Generator, arch: Arch, schemes: Sequence[str] = SCHEMES) -> Scheme:
    """A scheme that the machine accepts."""
    while True:
        scheme = Scheme.parse(pick(rng, *schemes))
        try:
            arch.check_scheme(scheme)
            arch.accumulator_width(scheme)
        except AccelsimError:
            continue
        return scheme


def random_geometry(rng: Generator, v: int) -> Geometry:
    kind = pick(rng, "conv", "conv", "conv", "pointwise", "linear", "groups", "depthwise", "shallow")
    if kind == "linear":
        n, c, k = (int(rng.integers(1, most)) for most in (30, 6 * v + 2, 40))
        return Geometry(N=n, C=c, H=1, W=1, K=k)
    groups = 1
    c, k = int(rng.integers(1, 3 * v + 2)), int(rng.integers(1, 30))
    if kind == "shallow":
        c = int(rng.integers(1, 4))
    elif kind == "groups":
        groups = int(rng.integers(2, 4))
        c, k = groups * int(rng.integers(1, v + 3)), groups * int(rng.integers(1, 9))
    elif kind == "depthwise":
        groups = c = int(rng.integers(2, 8))
        k = groups * int(rng.integers(1, 3))
    r, s = (1, 1) if kind == "pointwise" else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))

    def around() -> tuple[int, ...]:
        """Every other time not alike on both sides."""
        top, left = int(rng.integers(0, 3)), int(rng.integers(0, 3))
        return (top, left, left, top) if (top + left) % 2 else (top, left)

    return Geometry(
        N=pick(rng, 1, 1, 2),
        C=c,
        H=int(rng.integers(1, 8)),
        W=int(rng.integers(1, 8)),
        K=k,
        R=r,
        S=s,
        stride=(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        padding=around(),
        dilation=(pick(rng, 1, 1, 2), pick(rng, 1, 1, 2)),
        groups=groups,
    )


def _codes(rng: Generator, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Codes with whole vectors (last axis) of zeros here and there."""
    codes = rng.integers(low, high + 1, size=shape)
    return codes * (rng.random(shape[:-1]) < 0.85)[..., None]


def random_layer(rng: Generator, arch: Arch, scheme: Scheme, name: str, first: bool) -> QuantizedLayer:
    """Random codes and scales, with zero vectors, zero scales and the padding of the last vector zero."""
    while True:
        layer = _try_layer(rng, arch, scheme, name, first)
        if layer is not None:
            return layer


def _try_layer(rng: Generator, arch: Arch, scheme: Scheme, name: str, first: bool) -> QuantizedLayer | None:
    v = scheme.block or arch.vector_size
    try:
        geometry = random_geometry(rng, arch.vector_size)
    except AccelsimError:
        return None
    g_count = geometry.vectors(v, arch.fold)
    lane_groups = geometry.groups * ceil_div(geometry.outputs_per_group, arch.lanes)
    if geometry.pixels * lane_groups * g_count > MOST_STEPS:
        return None
    packed_im2col = geometry.packed_im2col(v, arch.fold)
    cv = ceil_div(geometry.channels_per_group, v)
    reduction = geometry.channels_per_group * (geometry.R * geometry.S if packed_im2col else 1)
    per_position = g_count if packed_im2col else cv
    positions = geometry.pixels if packed_im2col else geometry.N * geometry.H * geometry.W
    inside = (np.arange(per_position * v) < reduction).reshape(per_position, v)

    input_signed = rng.random() < 0.5
    input_words = _codes(
        rng,
        (positions * geometry.groups, per_position, v),
        scheme.activation.of_sign(input_signed).qmin,
        scheme.activation.of_sign(input_signed).qmax,
    )
    input_words = (input_words * inside).reshape(-1, v)
    weight_words = _codes(rng, (geometry.K, g_count, v), -scheme.weight.qmax, scheme.weight.qmax)
    weight_words *= np.tile(inside, (g_count // per_position, 1))

    def scales(bits: int, shape: tuple[int, ...]) -> np.ndarray | None:
        return rng.integers(0, 1 << bits, size=shape).astype(np.uint16) if bits else None

    out_signed = rng.random() < 0.5
    staged_fits = arch.out_fifo_words >= arch.accumulation_collector_depth * v // arch.lanes
    # A block is the word of what is stored; the machine takes its own words of that.
    out_scale_bits = scheme.activation.scale.bits if rng.random() < 0.7 else pick(rng, 0, 4)
    if v > arch.lanes and not staged_fits:
        out_scale_bits = 0
    is_matmul = geometry.R * geometry.S == 1 and rng.random() < 0.4
    is_plain = geometry.stride == geometry.dilation == (1, 1) and geometry.padding == (0, 0)
    weight_scales = scales(scheme.weight.scale.bits, (geometry.K, g_count))
    weight_gamma = rng.uniform(1e-4, 1e-2, geometry.K)
    input_scales = scales(scheme.activation.scale.bits, (len(input_words),))
    input_gamma = float(rng.uniform(1e-3, 1e-2))
    bias = rng.normal(size=geometry.K).astype(np.float32) if rng.random() < 0.5 else None
    activation = pick(rng, "none", "relu")
    out_bits = scheme.activation.bits if rng.random() < 0.8 else 5
    output_gamma = float(rng.uniform(0.01, 0.1))
    spec = LayerSpec(
        layer=Layer(
            name=name,
            op="matmul" if is_matmul and is_plain else "conv",
            geometry=geometry,
            activation=activation,
            input_signed=input_signed,
            weight_is_activation=is_matmul and not first,
        ),
        scheme=scheme,
        vector_size=v,
        fold=arch.fold,
        global_pe=tuple(
            node_work(pick(rng, *GLOBAL_PE_WORK), int(rng.integers(1, pick(rng, 100, 1000))))
            for _ in range(pick(rng, 0, 0, 1, 2, 3))
        ),
        output=OutputFormat(integer_operand(out_bits, out_scale_bits, signed=out_signed, block=scheme.block)),
    )
    layer = QuantizedLayer(
        spec=spec,
        weight_words=weight_words.astype(np.int8),
        weight_scales=weight_scales,
        weight_gamma=weight_gamma,
        input_words=input_words.astype(np.int8 if input_signed else np.uint8),
        input_scales=input_scales,
        input_gamma=input_gamma,
        bias=bias,
        output_gamma=output_gamma,
    )
    layer = layer.in_vectors(arch.vector_size)
    return layer if sum(layer_bits(layer)) <= MOST_BITS else None


def random_mapping(rng: Generator, arch: Arch, layer: QuantizedLayer, placement: Placement) -> LayerMapping:
    """A mapping that is not refused. Raises NoValidMapping."""
    pixels = layer.geometry.pixels
    channels = arch.unit_channels(layer.spec.written_block)
    units = layer.geometry.groups * ceil_div(layer.geometry.outputs_per_group, channels)
    most_parts = min(arch.pes, layer.spec.pieces)
    plain = not arch.psum_chain and arch.dataflows == ("os-lws",)
    # Of its own stream: what else is drawn stays as it was without.
    of_d_tiles = rng.spawn(1)[0]
    dtile_pixels = pick(of_d_tiles, 0, int(of_d_tiles.integers(1, 9)))
    for attempt in range(60):
        # Later attempts draw smaller tiles.
        shrink = 1 + attempt // 6
        dataflow, c_split = "os-lws", 1
        if not plain:
            dataflow = pick(rng, *arch.dataflows)
            if arch.psum_chain and most_parts > 1 and rng.random() < 0.8:
                c_split = int(rng.integers(2, most_parts + 1))
        chains = arch.pes // c_split
        k_split = min(int(rng.integers(1, chains + 1)), units + 1)
        pixel_split = int(rng.integers(1, chains // k_split + 1))
        chunked = rng.random() < 0.5 or attempt > 40
        most_pixels = max(1, min(pixels, 24) // shrink)
        most_vectors = max(1, layer.spec.G // shrink)
        # Tiles of weights that the weight region need not hold are not small.
        least_vectors = most_vectors if placement.weights == "gb" else 1
        mapping = LayerMapping(
            k_split=k_split,
            pixel_split=pixel_split,
            order=pick(rng, "KP", "PK"),
            tile_pixels=int(rng.integers(1, most_pixels + 1)),
            units_per_tile=0 if chunked else int(rng.integers(1, max(2, 5 - shrink))),
            chunk_vectors=_whole_blocks(layer, int(rng.integers(least_vectors, most_vectors + 1)))
            if chunked
            else layer.spec.G,
            chunk_inputs=chunked and rng.random() < 0.5,
            c_split=c_split,
            dataflow=dataflow,
            dtile_pixels=dtile_pixels,
        )
        if refusal(arch, layer, mapping, placement) is None:
            return mapping
    raise NoValidMapping


def _whole_blocks(layer: QuantizedLayer, vectors: int) -> int:
    together = layer.spec.words_per_block
    return ceil_div(vectors, together) * together


Run = tuple[Arch, list[QuantizedLayer], list[LayerMapping], Graph | None]


def random_run(seed: int, features: Runs = "plain") -> Run:
    """One to three layers on one machine, as a chain; with "graph" two to five, and a graph on them; with
    "residual" such a graph on a machine that has a format for residuals."""
    arch, layers, mappings, graph = _drawn_run(seed, features)
    return arch, list(layers), list(mappings), graph


@cache
def _drawn_run(seed: int, features: Runs) -> Run:
    """Drawing takes a fair part of the time that a test has for a run, and many tests have the same runs."""
    rng = np.random.default_rng(seed)
    is_graph = features in ("graph", "residual")
    while True:
        arch = (
            _arch_of_graph(rng) if is_graph else random_arch(rng, "plain" if features == "plain" else "all")
        )
        if features == "residual":
            arch = _with_residuals(rng, arch)
        schemes: Sequence[str] = SCHEMES
        if features == "blocks":
            arch, schemes = _in_blocks(rng, arch)
        scheme = random_scheme(rng, arch, schemes)
        layers: list[QuantizedLayer] = []
        draws = pick(rng, 1, 40)  # of which the one with the largest of something is taken
        for i in range(pick(rng, 2, 3, 4, 4, 5) if is_graph else pick(rng, 1, 2, 2, 3)):
            if rng.random() < 0.2:
                scheme = random_scheme(rng, arch, schemes)
            if is_graph:
                draws = pick(rng, 1, 3, 25)
            drawn = [_layer_of_run(rng, arch, scheme, i, is_graph) for _ in range(draws)]
            sizes = [
                (*layer_bits(layer), layer.weight_is_activation * layer_bits(layer)[2]) for layer in drawn
            ]
            largest = int(rng.integers(4))  # input, output, weights, weights that a layer made
            layers.append(drawn[max(range(draws), key=lambda i: sizes[i][largest])])
        for _ in range(20):
            # Where data live depends on all layers, and with it which mappings are refused.
            graph = random_graph(rng, layers) if is_graph else None
            placements = placements_of(arch, layers, graph)
            mappings: list[LayerMapping] = []
            try:
                for layer, placement in zip(layers, placements, strict=True):
                    mappings.append(random_mapping(rng, arch, layer, placement))
            except NoValidMapping:
                i = len(mappings)
                layers[i] = _layer_of_run(rng, arch, scheme, i, is_graph)
                continue
            return arch, layers, mappings, graph


def _arch_of_graph(rng: Generator) -> Arch:
    """Of both kinds; with a small activation region here and there, or a weight region for a few words."""
    arch = random_arch(rng, pick(rng, "plain", "all"))
    chance = rng.random()
    if chance < 0.15:
        return arch.model_copy(update={"global_buffer_kb": 2, "gb_weight_kb": 1})
    if chance < 0.4:
        small: dict[str, object] = {"gb_banks": 40, "gb_weight_banks": 1, "gb_output_banks": None}
        small |= {"gb_weight_kb": None, "weight_buffer_words": 64, "global_buffer_kb": pick(rng, 1, 1, 2)}
        return arch.model_copy(update=small)
    return arch


def _in_blocks(rng: Generator, arch: Arch) -> tuple[Arch, list[str]]:
    """Schemes of blocks of several words, or of several blocks a word; a FIFO for a d-tile of them."""
    size = pick(rng, *(n for n in (1, 2, 4, 8, 16, 32) if n != arch.vector_size))
    entries = arch.accumulation_collector_depth * max(1, size // arch.lanes)
    arch = arch.model_copy(update={"out_fifo_words": max(arch.out_fifo_words, entries)})
    schemes = [scheme for scheme in SCHEMES if "/-/-" not in scheme and ":" not in scheme]
    return arch, [*(f"{scheme}@{size}" for scheme in schemes), "8/8/-/-"]


def _with_residuals(rng: Generator, arch: Arch) -> Arch:
    """A format of its own for what nodes read, and a FIFO for d-tiles in two formats."""
    entries = 2 * arch.accumulation_collector_depth * max(1, arch.vector_size // arch.lanes)
    residual = pick(rng, "8/-", "8/-", "6/-", "4/-", "8/8", "8/4", "4/4")
    return arch.model_copy(update={"residual": residual, "out_fifo_words": entries * pick(rng, 1, 1, 2)})


def _layer_of_run(rng: Generator, arch: Arch, scheme: Scheme, i: int, is_graph: bool) -> QuantizedLayer:
    """In a graph the first layer too may have weights that are an activation, and nodes are the graph's."""
    layer = random_layer(rng, arch, scheme, f"layer{i}", first=i == 0 and not is_graph)
    return replace(layer, spec=replace(layer.spec, global_pe=())) if is_graph else layer


def describe(
    arch: Arch, layers: list[QuantizedLayer], mappings: list[LayerMapping], graph: Graph | None = None
) -> str:
    """What a failing test prints."""
    lines = [str(arch), f"regions {region_bits(arch)}"]
    if graph is not None:
        lines += [f"inputs {graph.inputs}", *map(str, graph.steps), f"outputs {graph.outputs}"]
    placed = place_run(arch, layers, graph)
    lines += [f"after step {i}: {sorted(names)}" for i, names in enumerate(placed.residents)]
    lines += [str(step) for step in placed.prologue]
    for layer, mapping, placement in zip(layers, mappings, placed.layers, strict=True):
        lines.append(
            f"{layer.name} {layer.scheme} G={layer.spec.G} "
            f"packed_im2col={layer.spec.packed_im2col} {layer.geometry}"
        )
        lines.append(f"  bits {layer_bits(layer)} out {layer.output} global_pe {layer.spec.global_pe}")
        lines.append(f"  {placement}")
        lines.append(f"  weight_is_activation {layer.weight_is_activation} {mapping}")
    return "\n".join(lines)


def specs_of(arch: Arch, layers: list[QuantizedLayer], graph: Graph | None) -> tuple[list[LayerSpec], Wiring]:
    """The layers with the work that they host in the graph; None: the chain of the layers as they are."""
    specs = [layer.spec for layer in layers]
    if graph is None:
        return specs, chain_of(specs)
    wiring = wire(graph, [layer.layer for layer in layers])
    hosts = [replace(spec, global_pe=wiring.work[spec.name]) for spec in specs]
    return list(in_stored_formats(arch, hosts, wiring)), wiring


def placed_by_mapping(
    arch: Arch, layers: list[QuantizedLayer], graph: Graph | None = None
) -> list[tuple[str, str, bool, int]]:
    """Of every layer, as accelsim.mapping has it: weights, input, whether something is written, bits kept."""
    residencies = decide_run(arch, *specs_of(arch, layers, graph)).layers
    return [(s.weights, s.input, s.output_to_dram, s.kept_bits) for s in residencies]


def simulate(
    arch: Arch, layers: list[QuantizedLayer], mappings: list[LayerMapping], graph: Graph | None = None
) -> list[LayerActivity]:
    """Compute and time `layers` on the event model, one after another, with the given mappings.

    Raises AccelsimError when a layer overflows with `overflow: error`.
    """
    specs, wiring = specs_of(arch, layers, graph)
    placed = decide_run(arch, specs, wiring)
    programs = [build_program(arch, *own) for own in zip(specs, mappings, placed.layers, strict=True)]
    computed = [
        compute(ComputeRequest(arch, layer, step_order(arch, layer.spec, mapping), keep_tensors=True))
        for layer, mapping in zip(layers, mappings, strict=True)
    ]
    timings = time_layers(TimeRequest(arch, programs, placed.prologue))
    return [join(arch, *parts) for parts in zip(timings, computed, strict=True)]
