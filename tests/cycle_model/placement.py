"""docs/machine.md sections 3 and 4: regions of the global buffer, and where the data of a run live."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from accelsim.machine.arch import Arch
from accelsim.workload.layer import QuantizedLayer

LONGEST_RUN = 16  # all 2^(n-1) choices are tried


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class Placement:
    """Where the data of one layer live, and the bits that the layer keeps in the activation region."""

    weights: str
    input: str
    output_to_dram: bool
    kept: int


def region_bits(arch: Arch) -> tuple[int, int]:
    """Bits of the (weight region, activation region) of the global buffer."""
    if arch.gb_weight_kb is None:
        weights = arch.global_buffer_bits * arch.bank_groups[0] // arch.gb_banks
    else:
        weights = arch.gb_weight_kb * 1024 * 8
    return weights, arch.global_buffer_bits - weights


def layer_bits(layer: QuantizedLayer) -> tuple[int, int, int]:
    """in_bits, out_bits, w_bits."""
    g, scheme, out = layer.geometry, layer.scheme, layer.output
    if layer.spec.folded:
        in_bits = g.N * g.H * g.W * g.C * scheme.activation.bits
    else:
        words = g.N * g.H * g.W * g.groups * ceil_div(g.C // g.groups, layer.vector_size)
        in_bits = words * (layer.vector_size * scheme.activation.bits + scheme.activation.scale.bits)
    per_group = g.K // g.groups
    out_bits = per_group * out.operand.bits + ceil_div(per_group, layer.vector_size) * out.operand.scale.bits
    out_bits *= g.N * g.P * g.Q * g.groups
    w_bits = g.K * layer.spec.G * (layer.vector_size * scheme.weight.bits + scheme.weight.scale.bits)
    return in_bits, out_bits, w_bits


def output_room(arch: Arch, layer: QuantizedLayer) -> int:
    """r: room for the output tiles of a layer on their way to DRAM."""
    channels, out = arch.unit_channels, layer.output
    pixel = channels * out.operand.bits + ceil_div(channels, arch.vector_size) * out.operand.scale.bits
    return arch.output_staging_tiles * arch.pes * arch.accumulation_collector_depth * pixel


def weights_are_heavy(arch: Arch, layer: QuantizedLayer) -> bool:
    """Neither the weight region nor all weight buffers together hold the weights of the layer."""
    scheme, w_bits = layer.scheme, layer_bits(layer)[2]
    word = arch.vector_size * scheme.weight.bits + scheme.weight.scale.bits
    buffers = arch.pes * arch.lanes * arch.weight_buffer_words * word
    return w_bits > region_bits(arch)[0] and w_bits > buffers


class RunSizes:
    """The sizes of a run: in_bits and out_bits of every layer, s of every tensor, r of every layer."""

    def __init__(self, arch: Arch, layers: list[QuantizedLayer]) -> None:
        self.region = region_bits(arch)[1]
        self.layers = range(len(layers))
        self.in_bits = [layer_bits(layer)[0] for layer in layers]
        self.out_bits = [layer_bits(layer)[1] for layer in layers]
        # Tensors 0 and n have one layer only.
        self.s = [max(pair) for pair in zip([*self.in_bits, 0], [0, *self.out_bits], strict=True)]
        self.r = [output_room(arch, layer) for layer in layers]
        self.heavy = [weights_are_heavy(arch, layer) for layer in layers]

    def allows(self, i: int, stays: tuple[bool, ...]) -> bool:
        """Layer i with the tensors that it reads and writes in the global buffer or not."""
        s_in, s_out = self.s[i], self.s[i + 1]
        if stays[i] and stays[i + 1]:
            return s_in + s_out <= self.region
        if stays[i]:
            return s_in + self.r[i] <= self.region
        if stays[i + 1]:
            return self.in_bits[i] + s_out <= self.region or 2 * s_out <= self.region
        return True

    def input_of(self, i: int, stays: tuple[bool, ...]) -> str:
        """Where the input of layer i lives: in the global buffer already, cached there, or streamed."""
        if stays[i]:
            return "gb"
        # What the output takes where the input may be cached: its whole tensor, or room to pass through.
        output = self.s[i + 1] if stays[i + 1] else self.r[i]
        return "cached" if self.in_bits[i] + output <= self.region else "streamed"

    def dram_bits(self, stays: tuple[bool, ...]) -> int:
        """What the choice costs: inputs streamed beside heavy weights count as if they were read twice."""
        read = 0
        for i in self.layers:
            where = self.input_of(i, stays)
            if where != "gb":
                read += self.in_bits[i] * (2 if where == "streamed" and self.heavy[i] else 1)
        written = sum(self.out_bits[i] for i in self.layers if not stays[i + 1])
        return read + written

    def stays(self) -> tuple[bool, ...]:
        """Which of the tensors 0 .. n live in the global buffer."""
        n = len(self.layers)
        assert 1 <= n <= LONGEST_RUN
        # The choices that keep tensor 1 come first, among them those that keep tensor 2, and so on.
        choices = [(False, *inner, False) for inner in product((True, False), repeat=n - 1)]
        allowed = [stays for stays in choices if all(self.allows(i, stays) for i in self.layers)]
        fewest = min(self.dram_bits(stays) for stays in allowed)
        return next(stays for stays in allowed if self.dram_bits(stays) == fewest)


def placements_of(arch: Arch, layers: list[QuantizedLayer]) -> list[Placement]:
    weight_region, activation_region = region_bits(arch)
    run = RunSizes(arch, layers)
    stays = run.stays()
    placements = []
    for i, layer in enumerate(layers):
        in_bits, _, w_bits = layer_bits(layer)
        inputs = run.input_of(i, stays)
        kept = {"gb": run.s[i], "cached": in_bits, "streamed": 0}[inputs]
        if stays[i + 1]:
            kept += run.s[i + 1]
        room = 0 if stays[i + 1] else run.r[i]
        fits = inputs != "streamed" and kept + w_bits + room <= activation_region
        if layer.weight_is_activation and i > 0 and fits:
            weights = "gb"
            kept += w_bits
        else:
            weights = "cached" if w_bits <= weight_region else "streamed"
        placements.append(Placement(weights, inputs, not stays[i + 1], kept))
    return placements
