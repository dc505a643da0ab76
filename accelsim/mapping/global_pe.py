"""What a layer asks of the global PE on one machine (docs/timing.md, Global PE)."""

from __future__ import annotations

from typing import NamedTuple

from accelsim.formats.operand import Operand
from accelsim.machine.arch import Arch
from accelsim.workload.layer import LayerSpec, NodeWork
from accelsim.workload.storage import formats_of


class NodeTraffic(NamedTuple):
    """Of one node: elements that it makes or reads, each format of its result counted; bits that it reads
    and writes, rounded up to words of the global buffer's banks."""

    elements: int
    words_read: int
    words_written: int


class GlobalPeLoad(NamedTuple):
    """Of work that overlaps the layer its elements, of work that needs whole rows the cycles after it; of all
    work together what `NodeTraffic` says of one."""

    streaming_elements: int
    row_cycles: int
    elements: int
    words_read: int
    words_written: int


def node_traffic(arch: Arch, work: NodeWork, own: Operand, bits: int) -> NodeTraffic:
    """own: the format of its result where nodes have none of their own; bits: that a code in it is booked as.

    The global PE rounds to each format of its result at once: a second one takes energy, not time.
    """
    residual = arch.residual_operand
    formats = formats_of(own, residual, work.use)
    return NodeTraffic(
        work.elements + (len(formats) - 1) * work.written,
        -(-work.read * (bits if residual is None else residual.bits) // arch.gb_bank_bits),
        sum(-(-work.written * (bits if x is own else x.bits) // arch.gb_bank_bits) for x in formats),
    )


def global_pe_load(arch: Arch, layer: LayerSpec) -> GlobalPeLoad:
    rate = arch.global_pe_elements_per_cycle
    own, bits = layer.output_operand, layer.scheme.activation.bits
    traffic = [node_traffic(arch, item, own, bits) for item in layer.global_pe]
    return GlobalPeLoad(
        streaming_elements=sum(item.elements for item in layer.global_pe if not item.needs_rows),
        row_cycles=sum(-(-item.elements // rate) for item in layer.global_pe if item.needs_rows),
        elements=sum(item.elements for item in traffic),
        words_read=sum(item.words_read for item in traffic),
        words_written=sum(item.words_written for item in traffic),
    )
