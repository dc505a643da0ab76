"""What a dataflow decides: the order of a block's steps, hence its slots, and which storage they use."""

from __future__ import annotations

from collections import Counter
from typing import Literal, Protocol

from accelsim.machine.arch import Arch

PsumStore = Literal["accumulation_collector", "accumulation_buffer"]


class Nest(Protocol):
    """The steps of one block: `pixels` x `vectors`, counted from its first (docs/machine.md section 5)."""

    psum_store: PsumStore
    weight_operand_held: bool
    """The weight operand stays for several steps, so that only the other one of a multiplier changes."""

    def tile_pixels(self, arch: Arch) -> int:
        """Most pixels of a d-tile whose output is not staged."""
        ...

    def slots(self, arch: Arch, pixels: int, vectors: int) -> int:
        """Cycles until the next block may issue, pads included."""
        ...

    def last_step(self, arch: Arch, pixels: int, vectors: int) -> int:
        """Slot of the last step."""
        ...

    def weights_read(self, arch: Arch, pixels: int, vectors: int) -> int:
        """Slot of the last step that reads the weight buffer or holds its half."""
        ...

    def count(
        self, arch: Arch, counts: Counter[str], pixels: int, vectors: int, lanes: int, *, first: bool
    ) -> None:
        """Add what the block does to weight and psum storage. first: the psums start from zero."""
        ...


def collector_pixels(arch: Arch) -> int:
    return arch.accumulation_collector_depth


def buffer_pixels(arch: Arch) -> int:
    return arch.accumulation_buffer_words // 2


def pass_slots(arch: Arch, pixels: int, vectors: int) -> int:
    """Slots of a pass pixel by pixel in which each runs over `vectors` in the local accumulator.

    The last pixel ends the pass, and a next one of a single vector is back at it after pixels - 1 steps: pads
    keep accumulate_latency between the two.
    """
    local = arch.local_accumulate_latency
    return pixels * vectors * local + max(0, arch.accumulate_latency - pixels * local)
