"""Scalars and laws of a machine's time that more than one model goes by (docs/machine.md section 5)."""

from __future__ import annotations

from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import DATAFLOWS, DataflowName, Passes, passes_of


def passes(arch: Arch, dataflow: DataflowName) -> Passes:
    """A dataflow's passes on the machine."""
    return passes_of(
        DATAFLOWS[dataflow],
        collector_depth=arch.weight_collector_depth,
        accumulate_latency=arch.accumulate_latency,
        local_accumulate_latency=arch.local_accumulate_latency,
    )


def psum_store_pixels(arch: Arch, dataflow: DataflowName) -> int:
    """Entries of one bank of the collector, or half of the buffer: most pixels of a d-tile."""
    if DATAFLOWS[dataflow].psum_store == "accumulation_collector":
        return arch.accumulation_collector_depth
    return arch.accumulation_buffer_words // 2
