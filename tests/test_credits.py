"""Nothing is ever held by two, or by more than there is room for: seen from outside, in random runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import pytest
from machines import Features, describe, random_run

from accelsim.machine.arch import Arch
from accelsim.machine.timing import INPUT, OUTPUT, PSUM, WEIGHT
from accelsim.mapping.layout.program import LayerProgram, build_program
from accelsim.mapping.residency import decide_residency
from accelsim.sim.ports import Key
from accelsim.sim.run import TimeRequest, time_layers

BATCH = 20


class Log:
    """A recorder that keeps what concerns room and ports."""

    def __init__(self) -> None:
        self.moves: list[
            tuple[Key, int, int, list[int], int, int]
        ] = []  # key, bank, source, targets, from, to
        self.dram_moves: dict[Key, tuple[int, int, int]] = {}  # from, to, bits
        self.fills: dict[tuple[int, int, int, int], int] = {}
        self.releases: dict[tuple[int, int, int, int], int] = {}
        self.drains: dict[int, list[tuple[int, int]]] = defaultdict(list)  # by PE: start, entries

    def block(self, *_: object) -> None:
        pass

    def layer(self, *_: object) -> None:
        pass

    def drain(self, pe: int, layer: int, start: int, duration: int, entries: int) -> None:
        if entries:
            self.drains[pe].append((start, entries))

    def dram(self, key: Key, start: int, duration: int, bits: int) -> None:
        self.dram_moves[key] = start, start + duration, bits

    def crossbar(
        self, key: Key, bank: int, source: int, targets: list[int], start: int, duration: int, bits: int
    ) -> None:
        self.moves.append((key, bank, source, targets, start, start + duration))

    def filled(self, pe: int, kind: int, layer: int, position: int, begin: int, resident: int) -> None:
        self.fills[pe, kind, layer, position] = begin

    def released(self, pe: int, kind: int, layer: int, position: int, cycle: int) -> None:
        self.releases[pe, kind, layer, position] = cycle


def most_at_once(stays: Iterable[tuple[int, int, int]]) -> int:
    """The most of (from, to, amount) that is there in any one cycle."""
    changes: dict[int, int] = defaultdict(int)
    for begin, end, amount in stays:
        changes[begin] += amount
        changes[end] -= amount
    there = most = 0
    for cycle in sorted(changes):
        there += changes[cycle]
        most = max(most, there)
    return most


def check_halves(log: Log, programs: list[LayerProgram], pes: int) -> None:
    for pe in range(pes):
        for kind, name in ((WEIGHT, "weight_positions"), (INPUT, "input_positions")):
            places = [
                (pe, kind, layer, index)
                for layer, program in enumerate(programs)
                for index in range(len(getattr(program.pes[pe], name)))
            ]
            for before, place in zip(places, places[2:], strict=False):
                if place in log.fills:
                    assert log.fills[place] >= log.releases[before], (before, place)


def check_ports(log: Log, arch: Arch) -> None:
    ports: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for key, bank, source, targets, begin, end in log.moves:
        own = "psum " if key[0] == PSUM and arch.psum_port_bits else ""
        if bank >= 0:
            ports["bank", bank].append((begin, end))
        if source >= 0:
            ports[f"{own}out", source].append((begin, end))
        for pe in targets:
            ports[f"{own}in", pe].append((begin, end))
    for port, held in ports.items():
        for (_, end), (begin, _) in pairwise(sorted(held)):
            assert begin >= end, port


def check_dram(log: Log, arch: Arch) -> None:
    """The port moves no more than its width, whatever shares its cycles."""
    moves = sorted(log.dram_moves.values())
    for first in range(len(moves)):
        bits, begin, end = 0, moves[first][0], 0
        for start, stop, size in moves[first : first + 12]:
            bits, end = bits + size, max(end, stop)
            if start < end and stop - start > 1:
                assert bits <= (end - begin) * arch.dram_bits, (begin, end)


def check_regions(log: Log, arch: Arch, programs: list[LayerProgram]) -> None:
    """Weights within their region; per stream and PE no more staged tiles than there is room for."""
    left = {key: end for key, _, _, _, _, end in log.moves}
    weights = []
    staged: dict[tuple[str, int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for layer, program in enumerate(programs):
        for stream in program.weight_streams:
            last: dict[int, int] = {}
            for index, fetch in enumerate(stream.fetches):
                last[id(fetch.tile)] = left[WEIGHT, stream.leader, layer, index]
            for index, fetch in enumerate(stream.fetches):
                key = WEIGHT, stream.leader, layer, index
                if fetch.reads_dram:
                    start, _, bits = log.dram_moves[key]
                    cached = program.residency.weights == "cached"
                    weights.append((start, last[id(fetch.tile)] if cached else left[key], bits))
        if program.residency.input == "streamed":
            for stream in program.input_streams:
                for index in range(len(stream.fetches)):
                    key = INPUT, stream.leader, layer, index
                    staged["input", stream.leader, layer].append((log.dram_moves[key][0], left[key], 1))
    for key, (_, end, _) in log.dram_moves.items():
        if key[0] == OUTPUT:
            staged["output", key[1], key[2]].append((left[key], end, 1))
    assert most_at_once(weights) <= arch.weight_region_bits
    for (kind, *_), stays in staged.items():
        assert most_at_once(stays) <= (2 if kind == "input" else arch.output_staging_tiles)


def check_fifos(log: Log, arch: Arch) -> None:
    left: dict[int, list[int]] = defaultdict(list)
    for key, _, _, _, _, end in log.moves:
        if key[0] == OUTPUT:
            left[key[1]].append(end)
    for pe, drains in log.drains.items():
        ends = sorted(left[pe])
        assert len(ends) == len(drains)
        stays = [(start, end, entries) for (start, entries), end in zip(drains, ends, strict=True)]
        assert most_at_once(stays) <= arch.out_fifo_words


@pytest.mark.parametrize("features", ["plain", "all"])
@pytest.mark.parametrize("first", range(7000, 7100, BATCH))
def test_no_buffer_and_no_port_holds_more_than_it_can(first: int, features: Features) -> None:
    for seed in range(first, first + BATCH):
        arch, layers, mappings, _ = random_run(seed, features)
        specs = [layer.spec for layer in layers]
        residencies = decide_residency(arch, specs)
        programs = [build_program(arch, *own) for own in zip(specs, mappings, residencies, strict=True)]
        log = Log()
        time_layers(TimeRequest(arch, programs), recorder=log)
        try:
            check_halves(log, programs, arch.pes)
            check_ports(log, arch)
            check_dram(log, arch)
            check_regions(log, arch, programs)
            check_fifos(log, arch)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}\n{describe(arch, layers, mappings)}") from error
