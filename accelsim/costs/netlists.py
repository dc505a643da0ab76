"""Which of several netlists of one function is priced: a small one whose stages are short enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from accelsim.costs.component import BlockCost
from accelsim.costs.tables import Row

AREA, FAST = "for area", "for delay"


@dataclass(frozen=True)
class Netlist:
    """One netlist of a block, at the table's node, and the rows that its price rests on. made: what for."""

    made: str
    stages: int
    block: BlockCost
    rows: Sequence[Row]

    def in_stages(self, stages: int, register: BlockCost, registers_ps: float) -> Netlist:
        """The same in more cycles, its result in a row of registers for each of them: where a tree is cut
        into fewer stages than a machine has cycles, the others only pass it on.

        register: of one result. registers_ps: what registers take of a period, which delays of netlists made
        for area are without.
        """
        block = self.block
        if self.made == AREA:
            block = replace(block, delay_ps=block.delay_ps + registers_ps)
        rows = stages - self.stages
        if rows:
            energy_fj = {"op": register.energy_fj["write"], "idle": register.energy_fj["idle"]}
            row = BlockCost(register.area_um2, register.leakage_nw, energy_fj)
            block = block.then(row.times(rows), pipelined=True)
        return replace(self, block=block)

    def said(self, stages: int) -> str:
        """For the log of a price."""
        cut = "in one stage" if self.stages == 1 else f"cut into {self.stages} stages"
        rows = stages - self.stages
        more = "" if not rows else f" and {rows} row{'s' * (rows > 1)} of registers behind it"
        return f"netlist: mapped {self.made}, {cut}{more}"


def choose(netlists: Sequence[Netlist], period_ps: float | None) -> Netlist:
    """That for area, the first, if it meets the period or there is none; else the smallest that does, or the
    fastest where none does."""
    meeting = [own for own in netlists if period_ps is None or own.block.delay_ps <= period_ps]
    if netlists[0] in meeting:
        return netlists[0]
    if meeting:
        return min(meeting, key=lambda own: own.block.area_um2)
    return min(netlists, key=lambda own: own.block.delay_ps)
