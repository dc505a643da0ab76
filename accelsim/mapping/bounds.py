"""The least cycles of a layer and of a run, whatever the mappings: a roofline of all that is shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accelsim.machine.arch import Arch
from accelsim.mapping.global_pe import global_pe_load
from accelsim.mapping.residency import Residency, input_bits, output_bits, positions_seen, weight_bits
from accelsim.workload.layer import LayerSpec

PARTS = ("compute", "dram", "weight_banks", "input_banks", "output_banks", "global_pe")


@dataclass(frozen=True)
class Bound:
    """cycles: the largest of `parts`, with the work that can only follow; by: which part that is."""

    cycles: int
    by: str
    parts: dict[str, int]


def layer_bound(
    arch: Arch, layer: LayerSpec, residency: Residency, ask_cycles: int = 0, cross_cycles: int = 0
) -> Bound:
    """Each part is the time one resource is busy when every bit crosses it once.

    compute: every lane step, channels padded to vectors and outputs to lanes, spread evenly over the PEs;
    dram: weights and input that DRAM holds, and what goes with outputs to and from it; banks: weights, input
    (of a packed im2col layer the words built from it) and output through their banks; global_pe: elementwise
    work.
    Of the input only positions that a tap sees count. Row work (softmax, norms) follows the rest.

    ask_cycles, cross_cycles: before the layer's start, in which DRAM may bring its weights and the first of
    them cross to the PEs; what may be there by then is taken off.
    """
    parts = _fixed_parts(arch, layer)
    for name, flow in _flows(arch, layer, residency).items():
        early = ask_cycles if name == "dram" else cross_cycles
        ahead = min(flow.ahead_bits, flow.weight_bits, early * flow.bits_per_cycle)
        parts[name] = -(-(flow.bits - ahead) // flow.bits_per_cycle)
    parts = {name: parts[name] for name in PARTS}
    by = max(parts, key=lambda name: parts[name])
    rows = global_pe_load(arch, layer).row_cycles
    return Bound(max(1, parts[by]) + rows, "global_pe rows" if rows > parts[by] else by, parts)


@dataclass(frozen=True)
class RunLayer:
    """A layer as it ran. cycles: that it took."""

    layer: LayerSpec
    residency: Residency
    cycles: int


def run_bounds(arch: Arch, run: Sequence[RunLayer]) -> list[Bound]:
    """The layers' shares of the least cycles that the run can take; they add up to it.

    A share is never more than the layer's cycles: time in which a layer's weights came while others ran is in
    the shares of those. parts: of the layer by itself.
    """
    limits = _earliest_ends(arch, run)
    ends = [0, *(limit.end for limit in limits)]
    bounds: list[Bound] = []
    share_end, carried = ends[-1], ""
    for number in reversed(range(len(run))):
        own, limit = run[number], limits[number]
        begin = max(ends[number], share_end - own.cycles)
        if share_end == limit.end:
            carried = limit.by
        alone = layer_bound(arch, own.layer, own.residency)
        bounds.append(Bound(share_end - begin, carried, alone.parts))
        share_end = begin
    return bounds[::-1]


@dataclass(frozen=True)
class _Flow:
    """What crosses one resource for a layer. ahead_bits: the most of weights, of this layer and later ones,
    that may have crossed it when the layer begins; weight_bits: of this layer's own, those that may be."""

    bits: int
    bits_per_cycle: int
    weight_bits: int
    ahead_bits: int


@dataclass(frozen=True)
class _Limit:
    """end: before which no run has ended the layer; by: what it waits for."""

    end: int
    by: str


def _earliest_ends(arch: Arch, run: Sequence[RunLayer]) -> list[_Limit]:
    """Of each layer in turn: after the one before it at least what it takes with all weights ahead that there
    may be; and of any layers in a row, all that they move, less what was ahead of the first, in order."""
    limits: list[_Limit] = []
    end = 0
    moved: dict[str, int] = {}  # bits up to here
    most: dict[
        str, int
    ] = {}  # over the layers so far: bits of the port's time at the begin, less `moved`, ahead
    for number, own in enumerate(run):
        ever = 1 << 40 if number else 0
        alone = layer_bound(arch, own.layer, own.residency, ever, ever)
        begin, end, by = end, end + alone.cycles, alone.by
        rows = global_pe_load(arch, own.layer).row_cycles
        for name, flow in _flows(arch, own.layer, own.residency).items():
            before = moved.get(name, 0)
            start = begin * flow.bits_per_cycle - before - (flow.ahead_bits if number else 0)
            most[name] = max(most.get(name, start), start)
            moved[name] = before + flow.bits
            least = -(-(most[name] + moved[name]) // flow.bits_per_cycle) + rows
            if least > end:
                end, by = least, name
        limits.append(_Limit(end, by))
    return limits


def _fixed_parts(arch: Arch, layer: LayerSpec) -> dict[str, int]:
    """Cycles of what is done while the layer runs."""
    geometry = layer.geometry
    lane_groups = geometry.groups * -(-geometry.outputs_per_group // arch.lanes)
    _, input_banks, output_banks = arch.bank_groups
    sent = _input_bits_seen(layer)
    if layer.packed_im2col:
        sent = geometry.pixels * geometry.groups * layer.run_bits(layer.input_operand, layer.G)
    streaming = global_pe_load(arch, layer).streaming_elements
    return {
        "compute": -(-geometry.pixels * lane_groups * layer.G // arch.pes),
        "input_banks": -(-sent // (arch.crossbar_bits * input_banks)),
        "output_banks": -(-output_bits(layer) // (arch.crossbar_bits * output_banks)),
        "global_pe": -(-streaming // arch.global_pe_elements_per_cycle),
    }


def _flows(arch: Arch, layer: LayerSpec, residency: Residency) -> dict[str, _Flow]:
    """What weights may cross before their layer begins. On their way they are in the weight region; of each
    stream the first tile may be in its PEs."""
    weights = weight_bits(layer)
    early = 0 if layer.weight_is_activation else weights
    words = arch.pes * arch.lanes * (arch.weight_buffer_words // 2)
    in_pes = layer.run_bits(layer.weight_operand, words - words % layer.words_per_block)
    from_dram = residency.weights != "gb"
    dram = from_dram * weights + sum(residency.written_bits) + sum(residency.spilled_bits)
    if residency.input != "gb":
        dram += _input_bits_seen(layer)
    return {
        "dram": _Flow(dram, arch.dram_bits, early * from_dram, arch.weight_region_bits + in_pes),
        "weight_banks": _Flow(weights, arch.crossbar_bits * arch.bank_groups[0], early, min(early, in_pes)),
    }


def _input_bits_seen(layer: LayerSpec) -> int:
    """Of the input positions that some tap sees."""
    geometry = layer.geometry
    return input_bits(layer) * positions_seen(geometry) // (geometry.N * geometry.H * geometry.W)
