"""OS: a pixel's psums stay in the local accumulators; weights are read anew for every pixel."""

from __future__ import annotations

from collections import Counter

from accelsim.machine.arch import Arch
from accelsim.machine.dataflows.base import PsumStore, collector_pixels, pass_slots


class OutputStationary:
    """for pixel: for g, local_accumulate_latency apart."""

    psum_store: PsumStore = "accumulation_collector"
    weight_operand_held = False

    def tile_pixels(self, arch: Arch) -> int:
        return collector_pixels(arch)

    def slots(self, arch: Arch, pixels: int, vectors: int) -> int:
        return pass_slots(arch, pixels, vectors)

    def last_step(self, arch: Arch, pixels: int, vectors: int) -> int:
        return (pixels * vectors - 1) * arch.local_accumulate_latency

    weights_read = last_step

    def count(
        self, arch: Arch, counts: Counter[str], pixels: int, vectors: int, lanes: int, *, first: bool
    ) -> None:
        steps = pixels * vectors
        counts["weight_buffer.read"] += steps * lanes
        counts["weight_register.write"] += steps * lanes
        counts["local_accumulator.write"] += steps
        counts[f"{self.psum_store}.write"] += pixels
        counts[f"{self.psum_store}.read"] += 0 if first else pixels
