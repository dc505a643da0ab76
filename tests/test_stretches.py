"""Which iterations of a long layer's loops are alike."""

from __future__ import annotations

import pytest
from test_periods import assert_same, layer_of, time_short

from accelsim.machine.arch_file import load_arch
from accelsim.mapping.layout.program import build_program
from accelsim.mapping.layout.shorten import Kept
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import decide_residency
from accelsim.sim import periods
from accelsim.sim.run import TimeRequest, time_layers
from accelsim.sim.stretches import alike
from accelsim.workload.geometry import Geometry


@pytest.mark.parametrize(
    ("row", "period", "found"),
    [
        ("aaaaaaaa", 4, (0, 8, 1)),
        ("abababab", 4, (0, 8, 2)),
        ("abbbabbb", 4, (0, 8, 4)),
        ("xababababy", 4, (1, 9, 2)),
        ("aabaabaab", 6, (0, 9, 3)),
        ("abcabcabc", 3, (0, 9, 3)),
        ("aaa", 4, (0, 3, 4)),
        ("abc", 8, (0, 3, 8)),
    ],
)
def test_the_least_period_divides_that_of_the_layout(
    row: str, period: int, found: tuple[int, int, int]
) -> None:
    assert alike(list(row), period) == found


def test_tiles_that_divide_rows_are_alike_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """DRAM's 37 bits a cycle end with a cycle after 37 iterations at most, of which a row has 8: only in 37
    rows would as many come again that are a whole number of rows."""
    arch = load_arch("magnet16", ["pes=4", "dram_bits_per_cycle=37", "dram_efficiency=1"])
    layer = layer_of(Geometry(1, 64, 402, 34, 64, 3, 3))
    mapping = LayerMapping(1, 4, "KP", 4, 1, 99)
    residency = decide_residency(arch, [layer])[0]
    looked: list[int] = []
    look = periods.Periods._look
    monkeypatch.setattr(periods.Periods, "_look", lambda self, at: (looked.append(1), look(self, at))[1])
    program = build_program(arch, layer, mapping, residency, Kept(50, 10, 10))
    assert program.short is not None and program.short.pixels.period == 8
    timing, used = time_short(arch, program)
    assert used is program
    assert len(looked) < 37 * 8
    whole = build_program(arch, layer, mapping, residency)
    assert_same(timing, time_layers(TimeRequest(arch, [whole]))[0], "")
