"""OS-LWS: psums of a d-tile stay in the collector, each weight vector stays for the d-tile's pixels."""

from __future__ import annotations

from collections import Counter

from accelsim.machine.arch import Arch
from accelsim.machine.dataflows.base import PsumStore, collector_pixels


class OutputStationaryLocalWeight:
    """for g: for pixel, at least accumulate_latency slots for each g."""

    psum_store: PsumStore = "accumulation_collector"
    weight_operand_held = True

    def tile_pixels(self, arch: Arch) -> int:
        return collector_pixels(arch)

    def slots(self, arch: Arch, pixels: int, vectors: int) -> int:
        return vectors * max(pixels, arch.accumulate_latency)

    def last_step(self, arch: Arch, pixels: int, vectors: int) -> int:
        return (vectors - 1) * max(pixels, arch.accumulate_latency) + pixels - 1

    def weights_read(self, arch: Arch, pixels: int, vectors: int) -> int:
        return (vectors - 1) * max(pixels, arch.accumulate_latency)

    def count(
        self, arch: Arch, counts: Counter[str], pixels: int, vectors: int, lanes: int, *, first: bool
    ) -> None:
        steps = pixels * vectors
        counts["weight_buffer.read"] += vectors * lanes
        counts["weight_register.write"] += vectors * lanes
        counts[f"{self.psum_store}.write"] += steps
        counts[f"{self.psum_store}.read"] += steps - (pixels if first else 0)
