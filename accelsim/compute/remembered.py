"""What was counted in values, kept on disk: a layer that was computed once is not computed again.

A file holds of one layer what a run without tensors knows of its values: zeros, overflows, errors, toggles.
Its name is a digest of all that they depend on: the sources that draw, read, quantize and compute, the
workload's content, the layer whose tensors they are, scheme, options, what the mapping decides of values, and
the machine but for what only decides when and where something happens. So a network on another number of
PEs, or at another DRAM, is timed anew and not computed anew.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Hashable
from dataclasses import asdict
from typing import Any

import numpy as np

from accelsim.compute.computed import Computed, StepToggles, ZeroCounts
from accelsim.machine.arch import PRICE_KEYS, Arch
from accelsim.system.kept import Kept, sources_digest

KIND = "values"
SOURCES = ("compute", "formats", "machine", "network.py", "quantize", "synthetic", "trace", "workload")
WHERE_AND_WHEN = PRICE_KEYS | {
    "accumulate_latency", "accumulation_buffer_words", "accumulation_collector_depth", "dataflows",
    "dot_stages", "dram_bits_per_cycle", "dram_efficiency", "dram_latency_cycles", "gb_bank_bits", "gb_banks",
    "gb_output_banks", "gb_weight_banks", "gb_weight_kb", "global_buffer_kb", "global_pe_elements_per_cycle",
    "input_buffer_words", "local_accumulate_latency", "mapping", "noc_latency_cycles", "out_fifo_words",
    "output_staging_tiles", "pe_port_bits", "pes", "ppu_latency_cycles", "psum_chain", "psum_port_bits",
    "scale_stages", "weight_buffer_words", "weight_collector_depth",
}  # fmt: skip
"""Parameters of an arch on which values depend through the order of steps alone."""


class KeptValues:
    """Those of the layers of one run. depends_on: what is the same for all of them beside the machine."""

    def __init__(self, arch: Arch, depends_on: Hashable) -> None:
        machine = json.dumps(arch.model_dump(mode="json", exclude=set(WHERE_AND_WHEN)), sort_keys=True)
        # Ranges and draws are NumPy's arithmetic.
        code = sources_digest(SOURCES, ("accelsim_kernels",)), np.__version__
        self._facts = repr((code, machine, depends_on))
        self._kept = Kept(KIND)

    def of(self, depends_on: Hashable, compute: Callable[[], Computed]) -> Computed:
        """What is kept of a layer, or what `compute` makes, which is kept then. It holds no tensors."""
        name = hashlib.sha256(f"{self._facts}\n{depends_on!r}".encode()).hexdigest()[:40]
        data = self._kept.read(name)
        found = None if data is None else _from_bytes(data)
        if found is None:
            data = _to_bytes(compute())
            self._kept.write(name, data)
            found = _from_bytes(data)
            assert found is not None
        return found


def _to_bytes(found: Computed) -> bytes:
    facts = {
        "zeros": [int(count) for count in found.zeros],
        "overflows": found.overflows,
        "sqnr_db": found.sqnr_db,
        "ppu_sqnr_db": found.ppu_sqnr_db,
        "narrow_overflows": found.narrow_overflows,
        "narrow_sqnr_db": found.narrow_sqnr_db,
        "toggles": None if found.toggles is None else asdict(found.toggles),
    }
    return zlib.compress(json.dumps(facts, separators=(",", ":")).encode(), 1)


def _from_bytes(data: bytes) -> Computed | None:
    """None for a file that is damaged, or that something else has written."""
    try:
        facts: dict[str, Any] = json.loads(zlib.decompress(data))
        toggles = facts.pop("toggles")
        return Computed(
            ZeroCounts(*facts.pop("zeros")),
            toggles=None if toggles is None else StepToggles(**toggles),
            **facts,
        )
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError):
        return None
