"""Layers that come again and again are run three times and filled in; nothing else may differ."""

from __future__ import annotations

import numpy as np
import pytest
from hand_machine import node_work

from accelsim.formats.catalogue import integer_operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.layout.program import LayerProgram
from accelsim.mapping.residency import decide_residency
from accelsim.mapping.search.mapper import Mapper
from accelsim.sim import run as sim_run
from accelsim.sim.array import ArrayState
from accelsim.sim.repeats import Repeat, find_repeat
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer, LayerSpec, NodeWork, OutputFormat


def layer(name: str, geometry: Geometry, work: tuple[NodeWork, ...] = ()) -> LayerSpec:
    return LayerSpec(
        layer=Layer(name=name, op="conv", geometry=geometry, input_signed=True, activation="none"),
        scheme=Scheme.parse("4/4/4/4"),
        vector_size=16,
        fold="auto",
        output=OutputFormat(integer_operand(4, 4)),
        global_pe=work,
    )


def network(blocks: int) -> list[LayerSpec]:
    """A stem, so many blocks of three layers, and a head."""
    layers = [layer("stem", Geometry(1, 16, 8, 8, 64, 3, 3, padding=(1, 1)))]
    for block in range(blocks):
        layers += [
            layer(f"{block}.wide", Geometry(1, 64, 8, 8, 128)),
            layer(f"{block}.deep", Geometry(1, 128, 8, 8, 64, 3, 3, padding=(1, 1))),
            layer(f"{block}.add", Geometry(1, 64, 8, 8, 64), (node_work("add", 4096),)),
        ]
    return [*layers, layer("head", Geometry(1, 64, 1, 1, 10))]


def programs_of(arch: Arch, layers: list[LayerSpec]) -> list[LayerProgram]:
    mapper, residencies = Mapper(arch), decide_residency(arch, layers)
    choices = mapper.choices(layers, residencies)
    return [mapper.program(*own) for own in zip(choices, layers, residencies, strict=True)]


@pytest.mark.parametrize(
    "machine",
    [
        (),
        ("pes=4",),
        ("dram_bits_per_cycle=32",),
        ("global_buffer_kb=64", "gb_weight_kb=24"),
        ("psum_chain=false",),
    ],
)
def test_filled_in_layers_are_those_that_would_be_run(machine: tuple[str, ...]) -> None:
    arch = load_arch("magnet16", list(machine))
    layers = network(7)
    programs = programs_of(arch, layers)
    assert find_repeat([program.signature for program in programs]) is not None
    heard: list[int] = []
    short = sim_run.time_layers(sim_run.TimeRequest(arch, programs), heard.append)
    whole, *_ = sim_run._time(sim_run.TimeRequest(arch, programs), None, None, ())
    for own, run in zip(short, whole, strict=True):
        assert (own.layer.name, own.cycles, own.end) == (run.layer.name, run.cycles, run.end)
        assert own.counts == run.counts
        np.testing.assert_array_equal(own.stall_cycles, run.stall_cycles)
    assert heard == list(range(len(layers)))


def test_few_layers_are_run() -> None:
    """And no more blocks than three, however many there are."""
    arch, ends = load_arch("magnet16"), {}
    for blocks in (5, 9):
        layers = network(blocks)
        programs = programs_of(arch, layers)
        repeat = find_repeat([program.signature for program in programs])
        assert repeat is not None
        assert len(layers) - len(repeat.left_out) <= 1 + 3 * 4 + 2
        ends[blocks] = [own.cycles for own in sim_run.time_layers(sim_run.TimeRequest(arch, programs))]
    # The same head, the same tail, and between them what came before, again.
    assert ends[5][:9] == ends[9][:9] and ends[5][-4:] == ends[9][-4:]


def test_states_that_differ_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then everything is run: a state that never repeats must not change a number."""
    arch, layers = load_arch("magnet16"), network(6)
    programs = programs_of(arch, layers)
    whole, *_ = sim_run._time(sim_run.TimeRequest(arch, programs), None, None, ())
    monkeypatch.setattr(sim_run.Array, "state", lambda self, index: index)
    monkeypatch.setattr(sim_run, "_fill_in", None)
    assert [own.end for own in sim_run.time_layers(sim_run.TimeRequest(arch, programs))] == [
        own.end for own in whole
    ]


@pytest.mark.parametrize(
    ("text", "first", "period", "times"),
    [
        ("abcabcabcabc", 0, 3, 4),
        ("xabababababy", 1, 2, 5),
        ("aaaaa", 0, 1, 5),
        ("xaaaaayabcabcabcabcabcz", 7, 3, 5),
    ],
)
def test_find_repeat(text: str, first: int, period: int, times: int) -> None:
    repeat = find_repeat(text)
    assert repeat is not None
    assert (repeat.first, repeat.period, repeat.times) == (first, period, times)


def test_the_last_repetition_is_run() -> None:
    """Its end looks on to another layer than that of a middle one does."""
    repeat = find_repeat("xabababababy")
    assert repeat is not None and repeat.starts == (3, 5) and list(repeat.left_out) == [5, 6, 7, 8]


def test_weights_asked_beyond_the_last_repetition_are_noticed() -> None:
    """Of the last repetition's layers all may be asked for, and no more."""
    repeat = Repeat(1, 2, 5)
    for layers, known in ((1, True), (3, True), (4, False)):
        assert sim_run._looks_no_further(ArrayState([], [[]] * layers, [], ()), repeat) is known


def test_nothing_to_leave_out() -> None:
    assert find_repeat("abcabcabc") is None and find_repeat("") is None and find_repeat("abcdefgh") is None
