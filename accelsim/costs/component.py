"""What one component costs: at its table's node (`BlockCost`) and at the chosen one (`ComponentCost`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral

from accelsim.costs.curve import ActivityLaw
from accelsim.errors import AccelsimError


@dataclass(frozen=True)
class Branch:
    """Bits that one action clocks, behind their clock gates; bit_area_um2: what each takes of the cells."""

    bits: float
    bit_area_um2: float


@dataclass(frozen=True)
class ClockSinks:
    """What a clock tree leads to.

    gates: clock-gate pins, which see every edge and whose energy the component's own price has. macros: clock
    pins of memories, whose energy nothing else has. branch: what `action` clocks behind the gates.
    """

    gates: float = 0.0
    macros: float = 0.0
    branch: Branch | None = None
    action: str = "write"

    def times(self, count: int) -> ClockSinks:
        branch = self.branch and replace(self.branch, bits=count * self.branch.bits)
        return replace(self, gates=count * self.gates, macros=count * self.macros, branch=branch)


@dataclass(frozen=True)
class ComponentCost:
    """One instance at the library's technology.

    `energy_pj[action]` is the energy of one action of one instance. Where `idle` exists it is the energy of
    one clock cycle whatever happens in it, and `read` and `write` are what an access adds on top, so
    cycles * idle + reads * read + writes * write is the total. `evidence` says what the figure rests on:
    synthesis, cacti, primary, secondary, assumption or derived (a mixture, named in `source`).
    `activity[action]`, where there is one, says how that energy follows the bits that change. `clock`: of one
    instance, None of what has no clock. netlist: where there are several to choose from, what the chosen one
    is mapped for (`netlists.AREA` or `FAST`) and the stages it is cut into; registers pass its result on for
    the component's other stages.
    """

    component: str
    area_um2: float
    leakage_uw: float
    energy_pj: Mapping[str, float]
    delay_ps: float | None
    source: str
    evidence: str
    scaling: tuple[str, ...]
    stimulus: str
    activity: Mapping[str, ActivityLaw] = field(default_factory=dict)
    clock: ClockSinks | None = None
    netlist: tuple[str, int] | None = None

    def times(self, count: int, note: str) -> ComponentCost:
        """`count` of them side by side as one, all acting at once; note: for the log of the price."""
        energy_pj = {action: count * pj for action, pj in self.energy_pj.items()}
        return replace(
            self,
            area_um2=count * self.area_um2,
            leakage_uw=count * self.leakage_uw,
            energy_pj=energy_pj,
            scaling=(*self.scaling, note),
            activity={action: law.times(count) for action, law in self.activity.items()},
            clock=None if self.clock is None else self.clock.times(count),
        )


@dataclass(frozen=True)
class BlockCost:
    """A block at the node and supply of its table: um2, nW, fJ per action, ps."""

    area_um2: float
    leakage_nw: float
    energy_fj: Mapping[str, float]
    delay_ps: float = 0.0

    def times(self, count: float) -> BlockCost:
        """`count` such blocks side by side, all acting at once; a fraction of one is a narrower block."""
        energy_fj = {action: count * fj for action, fj in self.energy_fj.items()}
        return BlockCost(count * self.area_um2, count * self.leakage_nw, energy_fj, self.delay_ps)

    def then(self, other: BlockCost, *, pipelined: bool = False) -> BlockCost:
        """This block feeding the other: everything adds, action by action. Delays add too, unless a register
        stands between the blocks: then the delay is the slower one's."""
        actions = [*self.energy_fj, *(a for a in other.energy_fj if a not in self.energy_fj)]
        delays_ps = (self.delay_ps, other.delay_ps)
        return BlockCost(
            self.area_um2 + other.area_um2,
            self.leakage_nw + other.leakage_nw,
            {a: self.energy_fj.get(a, 0.0) + other.energy_fj.get(a, 0.0) for a in actions},
            max(delays_ps) if pipelined else sum(delays_ps),
        )


NOTHING = BlockCost(0.0, 0.0, {"op": 0.0})


def require_count(component: str, name: str, value: int, low: int, high: int) -> int:
    """`value` if it is a whole number within [low, high]; one-line AccelsimError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        raise AccelsimError(
            f"cost of {component}: {name} is {value!r}, expected a whole number {low} to {high}"
        )
    return value
