"""Dataflows as rows: in what passes a block takes its steps, and where its psums are kept meanwhile.

After MAGNet, ICCAD 2019, section 3. All are one nest, `for pass: for pixel: for vector of the pass`; they
differ in how many vectors a pass has, and in whether a pixel's steps within a pass follow each other in a
local accumulator. Slots and counts follow from that (docs/timing.md and docs/counts.md). The functions below
are plain arithmetic on integers: the event model calls them as they stand, the mapper's model compiles them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from accelsim.machine import actions

PsumStore = Literal["accumulation_collector", "accumulation_buffer"]


@dataclass(frozen=True)
class Dataflow:
    """One order of a block's steps.

    pass_vectors: vectors of a pass: 1, whose weights stay in the operand registers; as many as the weight
    collector holds; or all of the block, whose weights are read from their buffer at every step.
    psum_store: where psums wait between passes. local_accumulator: within a pass they wait beside the adder.
    """

    name: str
    pass_vectors: Literal[1, "collector", "all"]
    psum_store: PsumStore
    local_accumulator: bool

    def __post_init__(self) -> None:
        if self.pass_vectors != 1 and not self.local_accumulator:
            raise ValueError(
                f"dataflow {self.name}: passes of more than 1 vector without a local accumulator, expected "
                "one: a psum would be wanted again before it is back in its store"
            )

    @property
    def weight_operand_held(self) -> bool:
        """The weight operand stays for a pass's pixels: only the other one of a multiplier changes."""
        return self.pass_vectors == 1

    @property
    def weight_collector(self) -> bool:
        """The weights of a pass stay in the weight collector."""
        return self.pass_vectors == "collector"

    @property
    def psum_read(self) -> str:
        return actions.named(self.psum_store, "read")

    @property
    def psum_write(self) -> str:
        return actions.named(self.psum_store, "write")

    @property
    def block_actions(self) -> tuple[str, ...]:
        """The actions that `BlockCounts` counts, in its order."""
        return (
            actions.WEIGHT_BUFFER_READ,
            actions.WEIGHT_REGISTER_WRITE,
            actions.WEIGHT_COLLECTOR_WRITE,
            actions.WEIGHT_COLLECTOR_READ,
            actions.LOCAL_ACCUMULATOR_WRITE,
            self.psum_read,
            self.psum_write,
        )


DATAFLOWS = {
    row.name: row
    for row in (
        # name, pass_vectors, psum_store, local_accumulator
        Dataflow("os-lws", 1, "accumulation_collector", False),
        Dataflow("os", "all", "accumulation_collector", True),
        Dataflow("ws-los", "collector", "accumulation_buffer", True),
        Dataflow("ws", 1, "accumulation_buffer", False),
    )
}

if TYPE_CHECKING:
    DataflowName = str
else:
    # What an arch file may name: whatever has a row.
    DataflowName = Literal[tuple(DATAFLOWS)]

# Longer than any reduction: one pass is all of a block.
_ALL_VECTORS = 1 << 30


class Passes(NamedTuple):
    """A dataflow on one machine, in integers.

    vectors: of a whole pass; interval: cycles from a step to the next; gap: least cycles between two
    accumulations on a psum that go through its store; local, held, collected: 1 where there is a local
    accumulator, where the weight operand stays for a pass, where the weights of a pass are collected.
    """

    vectors: int
    interval: int
    gap: int
    local: int
    held: int
    collected: int


@cache
def passes_of(
    row: Dataflow, *, collector_depth: int, accumulate_latency: int, local_accumulate_latency: int
) -> Passes:
    return Passes(
        vectors={1: 1, "collector": collector_depth, "all": _ALL_VECTORS}[row.pass_vectors],
        interval=local_accumulate_latency if row.local_accumulator else 1,
        gap=accumulate_latency,
        local=int(row.local_accumulator),
        held=int(row.weight_operand_held),
        collected=int(row.weight_collector),
    )


class BlockSlots(NamedTuple):
    """Slots of a block, pads included, and in which of them, from 0, its last step is and the last step that
    reads its half of the weight buffer or keeps it from being refilled."""

    slots: int
    last_step: int
    weights_read: int


def block_slots(passes: Passes, pixels: int, vectors: int) -> BlockSlots:
    """The slots of a block of pixels x vectors steps (docs/timing.md, Issue).

    A pass of n vectors takes pixels * n * interval slots and the pads after it. A next pass of one vector is
    back at the last pixel after pixels - 1 steps: the pads keep `gap` cycles between the two.
    """
    pads = max(0, passes.gap - pixels * passes.interval)
    whole = -(-vectors // passes.vectors) - 1  # passes before the last
    slots = pixels * vectors * passes.interval + (whole + 1) * pads
    last_step = slots - pads - passes.interval
    # A local accumulator's passes hold their weights to the end; otherwise a vector's are read at once.
    last_pass = whole * (pixels * passes.vectors * passes.interval + pads)
    return BlockSlots(slots, last_step, last_step if passes.local else last_pass)


class BlockCounts(NamedTuple):
    """What a block does to weight and psum storage: macro words, entries of L psums."""

    weight_buffer_read: int
    weight_register_write: int
    weight_collector_write: int
    weight_collector_read: int
    local_accumulator_write: int
    psum_read: int
    psum_write: int


def block_counts(passes: Passes, pixels: int, vectors: int, lanes: int, first: bool) -> BlockCounts:
    """Counts of a block (docs/counts.md). lanes: valid ones; first: its psums start from zero."""
    steps, starts = pixels * vectors, pixels * -(-vectors // passes.vectors)
    kept = passes.held or passes.collected
    return BlockCounts(
        weight_buffer_read=(vectors if kept else steps) * lanes,
        weight_register_write=(vectors if passes.held else steps) * lanes,
        weight_collector_write=vectors * lanes if passes.collected else 0,
        weight_collector_read=steps * lanes if passes.collected else 0,
        local_accumulator_write=steps if passes.local else 0,
        psum_read=starts - (pixels if first else 0),
        psum_write=starts,
    )
