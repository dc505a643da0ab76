"""WS-LOS: a few weight vectors stay in the weight collector for all pixels of a tile.

Each pixel runs over them in its local accumulator; between passes psums are in the accumulation buffer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from accelsim.machine.arch import Arch
from accelsim.machine.dataflows.base import PsumStore, buffer_pixels, pass_slots


class WeightStationaryLocalOutput:
    """for pass of weight_collector_depth vectors: for pixel: for g of the pass."""

    psum_store: PsumStore = "accumulation_buffer"
    weight_operand_held = False

    def tile_pixels(self, arch: Arch) -> int:
        return buffer_pixels(arch)

    def slots(self, arch: Arch, pixels: int, vectors: int) -> int:
        return sum(pass_slots(arch, pixels, size) for size in _passes(arch, vectors))

    def last_step(self, arch: Arch, pixels: int, vectors: int) -> int:
        *before, last = _passes(arch, vectors)
        start = sum(pass_slots(arch, pixels, size) for size in before)
        return start + (pixels * last - 1) * arch.local_accumulate_latency

    weights_read = last_step

    def count(
        self, arch: Arch, counts: Counter[str], pixels: int, vectors: int, lanes: int, *, first: bool
    ) -> None:
        steps, passes = pixels * vectors, -(-vectors // arch.weight_collector_depth)
        counts["weight_buffer.read"] += vectors * lanes
        counts["weight_collector.write"] += vectors * lanes
        counts["weight_collector.read"] += steps * lanes
        counts["weight_register.write"] += steps * lanes
        counts["local_accumulator.write"] += steps
        counts[f"{self.psum_store}.write"] += passes * pixels
        counts[f"{self.psum_store}.read"] += (passes - first) * pixels


def _passes(arch: Arch, vectors: int) -> Iterator[int]:
    for start in range(0, vectors, arch.weight_collector_depth):
        yield min(arch.weight_collector_depth, vectors - start)
