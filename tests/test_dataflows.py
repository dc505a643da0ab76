"""Dataflows as rows: the closed form of a block's slots and counts against its steps, one by one."""

from __future__ import annotations

from itertools import product

import pytest
from cycle_model.slots import slots_of
from hand_machine import hand_arch

from accelsim.errors import AccelsimError
from accelsim.machine import timing
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.machine.dataflows import DATAFLOWS, BlockCounts, BlockSlots, Dataflow, block_counts, block_slots
from accelsim.mapping import compiled

MACHINES = list(product(range(1, 5), range(1, 5), (1, 2, 3, 5, 16)))
SHAPES = list(product((1, 2, 3, 4, 5, 7, 16), (1, 2, 3, 5, 6, 7, 16, 17)))
LANES = 3


def spelled_out(arch: Arch, dataflow: str, pixels: int, vectors: int) -> tuple[BlockSlots, BlockCounts]:
    """What the cycle-stepped model's list of slots says; counts of a block that is not its tile's first."""
    slots = slots_of(arch, dataflow, pixels, vectors)
    taken = [(slot, step) for slot, step in enumerate(slots) if step is not None]
    last_step = taken[-1][0]
    # Without a local accumulator the weights of a step are in the registers once its first pixel has come.
    first_of_last = next(slot for slot, step in taken if step.vector == vectors - 1)
    collects, local = dataflow == "ws-los", dataflow in ("os", "ws-los")
    steps_taken, once_a_pass = len(taken) * LANES, sum(step.pixel == 0 for _, step in taken) * LANES
    counts = BlockCounts(
        weight_buffer_read=steps_taken if dataflow == "os" else once_a_pass,
        weight_register_write=steps_taken if local else once_a_pass,
        weight_collector_write=once_a_pass if collects else 0,
        weight_collector_read=steps_taken if collects else 0,
        local_accumulator_write=len(taken) if local else 0,
        psum_read=sum(step.starts for _, step in taken),
        psum_write=sum(step.stops for _, step in taken),
    )
    return BlockSlots(len(slots), last_step, last_step if local else first_of_last), counts


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_slots_and_counts_are_those_of_the_steps(dataflow: str) -> None:
    """Also as the mapper's model compiles them."""
    cases = 0
    for al, lal, depth in MACHINES:
        arch = hand_arch(accumulate_latency=al, local_accumulate_latency=lal, weight_collector_depth=depth)
        passes = timing.passes(arch, dataflow)
        for pixels, vectors in SHAPES:
            case = al, lal, depth, pixels, vectors
            slots, counts = spelled_out(arch, dataflow, pixels, vectors)
            assert block_slots(passes, pixels, vectors) == slots, case
            assert compiled.block_slots(passes, pixels, vectors) == slots, case
            assert block_counts(passes, pixels, vectors, LANES, False) == counts, case
            # A tile's first block takes each pixel's psum as zero once.
            first = counts._replace(psum_read=counts.psum_read - pixels)
            assert block_counts(passes, pixels, vectors, LANES, True) == first, case
            assert compiled.block_counts(passes, pixels, vectors, LANES, True) == first, case
            cases += 1
    assert cases == 4480


def test_a_row_that_would_lose_accumulations_is_refused() -> None:
    with pytest.raises(ValueError, match="dataflow wrong: passes of more than 1 vector without a local"):
        Dataflow("wrong", "collector", "accumulation_buffer", False)


def test_an_arch_names_rows() -> None:
    assert load_arch("magnet16", [f"dataflows=[{', '.join(DATAFLOWS)}]"]).dataflows == tuple(DATAFLOWS)
    with pytest.raises(AccelsimError, match="'os-lws', 'os', 'ws-los' or 'ws'"):
        load_arch("magnet16", ["dataflows=[rs]"])
    with pytest.raises(AccelsimError, match="'os-lws', 'os', 'ws-los' or 'ws'"):
        load_arch("magnet16", ["mapping.dataflow=rs"])
