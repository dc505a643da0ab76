"""The least cycles a layer can take on a machine, whatever its mapping: a roofline of all that is shared."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.machine.arch import Arch
from accelsim.mapping.global_pe import global_pe_load
from accelsim.mapping.residency import Residency, input_bits, output_bits, positions_seen, weight_bits
from accelsim.workload.layer import LayerSpec


@dataclass(frozen=True)
class Bound:
    """cycles: the largest of `parts`, with the work that can only follow; by: which part that is."""

    cycles: int
    by: str
    parts: dict[str, int]


def layer_bound(arch: Arch, layer: LayerSpec, residency: Residency) -> Bound:
    """Each part is the time one resource is busy when every bit crosses it once.

    compute: every lane step, channels padded to vectors and outputs to lanes, spread evenly over the PEs;
    dram: weights and input that DRAM holds, and what goes with outputs to and from it; banks: weights, input
    (of a packed im2col layer the words built from it) and output through their banks; global_pe: elementwise
    work.
    Of the input only positions that a tap sees count. Row work (softmax, norms) follows the rest.
    """
    geometry = layer.geometry
    lane_groups = geometry.groups * -(-geometry.outputs_per_group // arch.lanes)
    weights, outputs = weight_bits(layer), output_bits(layer)
    seen, positions = positions_seen(layer), geometry.N * geometry.H * geometry.W
    inputs = input_bits(layer) * seen // positions
    dram = (
        (residency.weights != "gb") * weights
        + (residency.input != "gb") * inputs
        + sum(residency.written_bits)
        + sum(residency.spilled_bits)
    )
    weight_banks, input_banks, output_banks = arch.bank_groups
    rate, width = arch.global_pe_elements_per_cycle, arch.crossbar_bits
    load = global_pe_load(arch, layer)
    sent = inputs
    if layer.packed_im2col:
        sent = geometry.pixels * geometry.groups * layer.run_bits(layer.input_operand, layer.G)
    parts = {
        "compute": -(-geometry.pixels * lane_groups * layer.G // arch.pes),
        "dram": -(-dram // arch.dram_bits),
        "weight_banks": -(-weights // (width * weight_banks)),
        "input_banks": -(-sent // (width * input_banks)),
        "output_banks": -(-outputs // (width * output_banks)),
        "global_pe": -(-load.streaming_elements // rate),
    }
    by = max(parts, key=lambda name: parts[name])
    rows = load.row_cycles
    return Bound(parts[by] + rows, "global_pe rows" if rows > parts[by] else by, parts)
