"""What a layer asks of the global PE on one machine (docs/timing.md, Global PE)."""

from __future__ import annotations

from typing import NamedTuple

from accelsim.machine.arch import Arch
from accelsim.workload.layer import LayerSpec


class GlobalPeLoad(NamedTuple):
    """Of work that overlaps the layer its elements, of work that needs whole rows the cycles after it; of all
    work its elements, and the words of the global buffer's banks that it reads and that it writes."""

    streaming_elements: int
    row_cycles: int
    elements: int
    words_read: int
    words_written: int


def global_pe_load(arch: Arch, layer: LayerSpec) -> GlobalPeLoad:
    rate, bits = arch.global_pe_elements_per_cycle, layer.scheme.activation.bits
    return GlobalPeLoad(
        streaming_elements=sum(item.elements for item in layer.global_pe if not item.needs_rows),
        row_cycles=sum(-(-item.elements // rate) for item in layer.global_pe if item.needs_rows),
        elements=sum(item.elements for item in layer.global_pe),
        words_read=sum(-(-item.read * bits // arch.gb_bank_bits) for item in layer.global_pe),
        words_written=sum(-(-item.written * bits // arch.gb_bank_bits) for item in layer.global_pe),
    )
