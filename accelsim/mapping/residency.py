"""Where a layer's operands live while it runs: global buffer or DRAM (docs/residency.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from accelsim.formats.operand import Operand
from accelsim.machine.arch import Arch
from accelsim.mapping.placement import Mode, Passage, Placed, StepNeeds, best_placement
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph
from accelsim.workload.layer import LayerSpec, NodeWork
from accelsim.workload.storage import formats_of
from accelsim.workload.wiring import Tensor, Wiring, wire


@dataclass(frozen=True)
class Residency:
    """gb: already there; cached: read from DRAM once; streamed: read from DRAM at every fetch.

    written_bits: of each tensor of the step that goes to DRAM, whole; spilled_bits: of each tensor that the
    layer's nodes read from DRAM, whole; kept_bits: of the activation region, by what stays in it for the
    whole layer.
    """

    weights: Mode
    input: Mode
    written_bits: tuple[int, ...] = ()
    spilled_bits: tuple[int, ...] = ()
    kept_bits: int = 0

    @property
    def output_to_dram(self) -> bool:
        return bool(self.written_bits)

    @property
    def beside_bits(self) -> tuple[int, ...]:
        """Of what waits beside output tiles, whose place the first tensor that is written takes."""
        return (*self.spilled_bits, *self.written_bits[1:])

    @property
    def stages_outputs(self) -> bool:
        """True where output tiles wait in the global buffer for DRAM, one way or the other."""
        return bool(self.written_bits or self.spilled_bits)


@dataclass(frozen=True)
class PrologueStep:
    """A node that runs before the first layer. spilled_bits, written_bits: as of Residency."""

    work: NodeWork
    spilled_bits: tuple[int, ...]
    written_bits: tuple[int, ...]


@dataclass(frozen=True)
class RunResidency:
    """Of a whole run: its steps without a layer, then its layers."""

    prologue: tuple[PrologueStep, ...]
    layers: tuple[Residency, ...]


def input_bits(layer: LayerSpec) -> int:
    geometry, operand = layer.geometry, layer.input_operand
    positions = geometry.N * geometry.H * geometry.W
    if layer.packed_im2col:
        return positions * geometry.C * operand.bits
    return positions * geometry.groups * layer.run_bits(operand, layer.words_per_position)


def output_bits(layer: LayerSpec) -> int:
    """Of a layer's output in all the formats that the PPU writes."""
    geometry = layer.geometry
    per_group = sum(operand.bits_of(geometry.outputs_per_group) for operand in layer.written_operands)
    return geometry.pixels * geometry.groups * per_group


def weight_bits(layer: LayerSpec) -> int:
    return layer.geometry.K * layer.run_bits(layer.weight_operand, layer.G)


def most_share_bits(stored_bits: int, count: int, outputs: int) -> int:
    """The most that goes with any `count` of them."""
    return -(-stored_bits * count // outputs)


def output_staging_bits(
    arch: Arch, layer: LayerSpec, residency: Residency | None = None, tile_pixels: int | None = None
) -> int:
    """Room in the global buffer for output tiles on their way to or from DRAM, and what goes with them.

    residency: None leaves out what goes with them; tile_pixels: of a tile, at most D.
    """
    depth = arch.accumulation_collector_depth
    pixels = depth if tile_pixels is None else min(depth, tile_pixels)
    channels = arch.unit_channels(layer.written_block)
    slot = pixels * sum(operand.bits_of(channels) for operand in layer.written_operands)
    if residency is not None:
        outputs = layer.geometry.pixels * layer.geometry.K
        count = min(outputs, pixels * channels)
        slot += sum(most_share_bits(stored, count, outputs) for stored in residency.beside_bits)
    return arch.output_staging_tiles * arch.pes * slot


def in_stored_formats(arch: Arch, layers: Sequence[LayerSpec], wiring: Wiring) -> tuple[LayerSpec, ...]:
    """The layers with the formats in which their outputs are stored, by who reads them."""
    residual = arch.residual_operand
    if residual is None:
        return tuple(layers)
    stored = []
    for layer in layers:
        own = layer.output.operand
        waiting = residual.of_sign(own.element.signed)
        stored.append(replace(layer, stored=formats_of(own, waiting, wiring.uses[layer.name])))
    return tuple(stored)


def decide_residency(
    arch: Arch, layers: Sequence[LayerSpec], wiring: Wiring | None = None
) -> list[Residency]:
    """Residency of each layer of a run. wiring: None takes the layers for a chain."""
    return list(decide_run(arch, layers, chain_of(layers) if wiring is None else wiring).layers)


def chain_of(layers: Sequence[LayerSpec]) -> Wiring:
    """The layers one after another, each followed by the work it hosts."""
    own = [layer.layer for layer in layers]
    work = {layer.name: [(item.op, item.elements) for item in layer.global_pe] for layer in layers}
    return wire(Graph.chain(own, work), own)


def decide_run(arch: Arch, layers: Sequence[LayerSpec], wiring: Wiring) -> RunResidency:
    """The placement of the run's tensors that moves the fewest bits through DRAM, step by step."""
    sizes = _Sizes(arch, layers, wiring)
    tensors = [sizes.placed(number) for number in range(len(sizes.tensors))]
    steps = [sizes.step(number) for number in range(len(wiring.prologue) + len(layers))]
    path = best_placement(tensors, steps, arch.activation_region_bits)

    def stored(numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple(tensors[number].stored_bits for number in numbers)

    count = len(wiring.prologue)
    return RunResidency(
        tuple(
            PrologueStep(work, stored(passage.spilled), stored(passage.written))
            for work, passage in zip(wiring.prologue, path[:count], strict=True)
        ),
        tuple(
            Residency(
                _weights_from(arch, layer, needs, passage, sizes),
                passage.mode,
                stored(passage.written),
                stored(passage.spilled),
                passage.kept_bits,
            )
            for layer, needs, passage in zip(layers, steps[count:], path[count:], strict=True)
        ),
    )


def _weights_from(arch: Arch, layer: LayerSpec, needs: StepNeeds, passage: Passage, sizes: _Sizes) -> Mode:
    if needs.weights is not None and passage.before & sizes.bit(needs.weights):
        return "gb"
    return "cached" if weight_bits(layer) <= arch.weight_region_bits else "streamed"


class _Sizes:
    """The tensors and steps of a run, in bits. tensors: each copy by itself; stored: bits of each."""

    def __init__(self, arch: Arch, layers: Sequence[LayerSpec], wiring: Wiring) -> None:
        self.arch, self.layers = arch, layers
        self.first = len(wiring.prologue)  # step of the first layer
        copies = [copy for tensor in wiring.tensors for copy in self._copies(tensor)]
        self.tensors = [tensor for tensor, _ in copies]
        self.stored = [self._stored_bits(tensor, operand) for tensor, operand in copies]

    def bit(self, tensor: int) -> int:
        return 1 << (len(self.tensors) - 1 - tensor)

    def _copies(self, tensor: Tensor) -> list[tuple[Tensor, Operand]]:
        """A tensor by its formats; a copy for layers goes out of the run where one does."""
        host = self._layer(tensor.made_in)
        if host is None:
            own = self.layers[0].scheme.activation.in_blocks(self.arch.vector_size)
        else:
            own = host.output_operand
        formats = formats_of(own, self.arch.residual_operand, tensor.use)
        if len(formats) == 1:
            return [(tensor, formats[0])]
        for_layers = replace(tensor, operand_of=())
        for_nodes = replace(tensor, input_of=(), weights_of=(), for_host=False, output=False)
        copies = zip((for_layers, for_nodes), formats, strict=True)
        return [(copy, operand) for copy, operand in copies if copy.readers or copy.output]

    def _layer(self, step: int) -> LayerSpec | None:
        return self.layers[step - self.first] if step >= self.first else None

    def placed(self, number: int) -> Placed:
        tensor, stored = self.tensors[number], self.stored[number]
        needed = [input_bits(self.layers[step - self.first]) for step in tensor.input_of]
        needed += [weight_bits(self.layers[step - self.first]) for step in tensor.weights_of]
        if not tensor.in_dram or tensor.operand_of or tensor.for_host:
            needed.append(stored)
        return Placed(
            max(needed, default=0),
            stored,
            tensor.made_in,
            tensor.in_dram,
            tensor.output,
            tensor.readers,
        )

    @staticmethod
    def _stored_bits(tensor: Tensor, operand: Operand) -> int:
        n, c, h, w = tensor.shape
        return n * h * w * tensor.groups * operand.bits_of(c // tensor.groups)

    def step(self, number: int) -> StepNeeds:
        tensors, layer = self.tensors, self._layer(number)
        operands = tuple(i for i, own in enumerate(tensors) if number in own.operand_of)
        made = tuple(i for i, own in enumerate(tensors) if own.made_in == number and not own.in_dram)
        if layer is None:
            return StepNeeds(operands=operands, made=made)
        g = layer.geometry
        outputs = g.pixels * g.K
        tile = min(
            outputs, self.arch.accumulation_collector_depth * self.arch.unit_channels(layer.written_block)
        )
        slots = self.arch.output_staging_tiles * self.arch.pes
        words = self.arch.pes * self.arch.lanes * self.arch.weight_buffer_words
        words -= words % layer.words_per_block
        held = max(self.arch.weight_region_bits, layer.run_bits(layer.weight_operand, words))
        return StepNeeds(
            input=next(i for i, own in enumerate(tensors) if number in own.input_of),
            input_bits=input_bits(layer),
            input_passes=1 if weight_bits(layer) <= held else 2,
            may_stay=positions_seen(g) == g.N * g.H * g.W,
            weights=next((i for i, own in enumerate(tensors) if number in own.weights_of), None),
            weight_bits=weight_bits(layer),
            operands=operands,
            made=made,
            staging_bits=output_staging_bits(self.arch, layer),
            share_bits=tuple(
                (i, slots * most_share_bits(self.stored[i], tile, outputs)) for i in (*operands, *made)
            ),
        )


def positions_seen(g: Geometry) -> int:
    """Input positions under at least one tap of one pixel: strides can leap over some."""

    def along(size: int, out: int, taps: int, axis: int) -> int:
        start, step, reach = -g.padding[axis], g.stride[axis], g.dilation[axis]
        # Under one tap lies every step-th place; under those of one phase a later tap reaches further.
        seen, ends = 0, dict[int, int]()
        for tap in range(taps):
            first, phase = divmod(start + tap * reach, step)
            stop = min(first + out, -((phase - size) // step))
            end = ends.get(phase, 0)
            seen += max(0, stop - max(first, end))
            ends[phase] = max(stop, end)
        return seen

    return g.N * along(g.H, g.P, g.R, 0) * along(g.W, g.Q, g.S, 1)
