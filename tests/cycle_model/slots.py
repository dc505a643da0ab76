"""docs/timing.md, Issue: the order in which a block takes its steps, slot by slot."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.machine.arch import Arch
from cycle_model.tiles import runs


@dataclass(frozen=True)
class StepOrder:
    """One step of a block: its pixel, its vector, and where its psum comes from and goes to."""

    pixel: int  # entry of the psum tile
    vector: int  # in the block, from 0
    in_pass: int  # the vector in its pass, from 0
    starts: bool  # takes the psum from the collector or buffer, not from the local accumulator
    stops: bool  # gives it back
    first_pass: bool  # of the block; in os-lws and ws every vector is a pass
    last: bool  # step of the block


def slots_of(arch: Arch, dataflow: str, pixels: int, vectors: int) -> list[StepOrder | None]:
    """None is a pad slot."""
    al, lal = arch.accumulate_latency, arch.local_accumulate_latency
    slots: list[StepOrder | None] = []
    last = (pixels - 1, vectors - 1)
    if dataflow in ("os-lws", "ws"):
        for g in range(vectors):
            for p in range(pixels):
                slots.append(StepOrder(p, g, g, True, True, g == 0, (p, g) == last))
            slots += [None] * (al - pixels)
        return slots
    depth = arch.weight_collector_depth if dataflow == "ws-los" else vectors
    for number, gs in enumerate(runs(list(range(vectors)), depth)):
        steps = [
            StepOrder(p, g, i, i == 0, i == len(gs) - 1, number == 0, (p, g) == last)
            for p in range(pixels)
            for i, g in enumerate(gs)
        ]
        for step in steps:
            slots += [step] + [None] * (lal - 1)
        # A next pass (or block) may have as little as one vector, and then comes back to the last pixel
        # sooner than it took to get there: the pads must do for that.
        slots += [None] * (al - pixels * lal)
    return slots
