"""Prices of the PPU: its width, its stages, and the netlists that a clock period lets it have."""

from __future__ import annotations

import itertools

import pytest

from accelsim.costs import CostLibrary, Technology
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.report.inventory import Part, build_inventory, technology_of


@pytest.fixture(scope="module")
def library() -> CostLibrary:
    return CostLibrary(technology_of(load_arch("magnet16")))


def parts_of(library: CostLibrary, scheme: str, *overrides: str) -> dict[str, Part]:
    inventory = build_inventory(load_arch("magnet16", list(overrides)), Scheme.parse(scheme), library)
    return {part.name: part for part in inventory}


def test_registers_are_those_of_the_rtl(library: CostLibrary) -> None:
    """4/4/4/4: psums of 28 bits. Bits of a lane and of a vector, register by register (docs/rtl.md, PPU)."""
    bias, shift = 24, 6
    a = 28 + 16 + shift + bias
    m = 4 * (28 + 8 + 1) + shift + bias
    n = 28 + 16 + shift + bias
    b, c = 24 + 1 + bias, 24
    x, y, d, s, e, f = 24 + 23 / 2, 24, 24, 24, 24, 24
    p, g, q = 4 * (24 + 8 + 1), 24 + 16, 4 + 2 + 1
    fine = parts_of(library, "4/4/4/4")
    of_lane = round(sum((a, m, n, b, c, x, y, d, s, e, f, p, g, q)) + 0.5)
    assert fine["ppu_register"].cost == library.register(of_lane)
    assert fine["ppu_register"].instances == 16 * 4
    of_vector = [23, 23, 24, 4, 4 + 16 + 4, 4 + 4, 4 + 4, 4]  # y, d, s, e, f, p, g, q
    assert fine["ppu_vector_register"].cost == library.register(sum(of_vector))
    short = parts_of(library, "4/4/4/4", "ppu_latency_cycles={static: 6, per_vector: 6}")
    assert short["ppu_register"].cost == library.register(a + m + n + b + c)
    longer = parts_of(library, "4/4/4/4", "ppu_latency_cycles={static: 6, per_vector: 17}")
    assert longer["ppu_register"].cost == library.register(of_lane + 2 * 4)
    coarse = parts_of(library, "8/8/-/-", "ppu_stages=coarse", "ppu_latency_cycles.static=4")
    assert coarse["ppu_register"].cost == library.register(29 + 46 + 49 + 24)


@pytest.mark.parametrize("scheme", ["8/8/-/-", "4/4/4/4", "4/8/6/10"])
def test_a_narrower_ppu_is_smaller_and_does_the_same_work(library: CostLibrary, scheme: str) -> None:
    parts = {width: parts_of(library, scheme, f"ppu_lanes={width}") for width in (1, 2, 4, 8, 16)}
    for narrow, wide in itertools.pairwise(parts.values()):
        areas = [
            sum(p.instances * p.cost.area_um2 for p in of.values() if p.name.startswith("ppu"))
            for of in (narrow, wide)
        ]
        assert areas[0] < areas[1]
        assert narrow["ppu"].cost.energy_pj == wide["ppu"].cost.energy_pj
        if "ppu_vector_scale" in narrow:
            energies = [of["ppu_vector_scale"].cost.energy_pj["op"] for of in (narrow, wide)]
            assert energies[0] == pytest.approx(energies[1], rel=0.01)
    assert "ppu_hold" not in parts[16] and ("ppu_hold" in parts[4]) == ("ppu_vector_scale" in parts[4])


def test_the_netlist_follows_the_clock() -> None:
    """A shorter period takes larger netlists, and none is taken that a smaller one would do for."""
    library = CostLibrary(Technology(16, 0.8))
    for price in (
        lambda period: library.ppu(4, 28, 4, stages="fine", period_ps=period),
        lambda period: library.ppu_vector_scale(16, 4, 4, 4, stages="fine", period_ps=period),
    ):
        smallest, relaxed = price(None), price(1e6)
        assert relaxed == smallest
        costs = [price(period) for period in (1e6, 2000, 1500, 1200, 1000, 800, 100)]
        assert [c.area_um2 for c in costs] == sorted(c.area_um2 for c in costs)
        assert costs[0].area_um2 < costs[4].area_um2
        for period, cost in zip((2000, 1500, 1200, 1000), costs[1:5], strict=True):
            assert cost.delay_ps <= period
        assert costs[-1].delay_ps > 100  # the fastest there is, and slower
    with pytest.raises(AccelsimError, match=r"ppu: stages is 'finer', expected coarse or fine"):
        library.ppu(4, 28, 4, stages="finer")
    with pytest.raises(AccelsimError, match=r"ppu: period_ps is -1"):
        library.ppu(4, 28, 4, stages="fine", period_ps=-1)


def test_fine_stages_leave_room_for_their_registers(library: CostLibrary) -> None:
    """Clock to output of a flip-flop and setup are in the delay; the period decides at the machine's node."""
    fine = library.ppu(1, 24, 4, stages="fine")
    registers = library.register(1).delay_ps
    bare = library.ppu(1, 24, 4).delay_ps
    assert fine.delay_ps > registers and fine.delay_ps < bare
    parts = parts_of(library, "4/4/4/4")
    assert max(parts[name].cost.delay_ps for name in ("ppu", "ppu_vector_scale")) <= 1000
    assert parts_of(library, "4/4/4/4", "clock_ghz=0.5")["ppu"].cost.area_um2 < parts["ppu"].cost.area_um2


def test_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AccelsimError, match=r"ppu_lanes is 3, expected a divisor of lanes = 16"):
        load_arch("magnet16", ["ppu_lanes=3"])
    with pytest.raises(AccelsimError, match=r"ppu_lanes is 6, expected to divide vector_size = 4 or be a"):
        load_arch("magnet16", ["ppu_lanes=6", "lanes=12", "vector_size=4"])
