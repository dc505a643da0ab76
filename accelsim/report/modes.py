"""Modes of a machine as prices see them (docs/costs.md, Modes): what they share, and what each has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from accelsim.costs import ComponentCost
from accelsim.costs.component import ClockSinks
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.modes import mode_of

IDLE = "idle"
# Of a component in each mode, in the order of its price's arguments; first those of the mode that runs.
Sizes = Sequence[tuple[int, ...]]
Price = Callable[..., ComponentCost]


class Mode(NamedTuple):
    """A scheme, and the machine as it runs it."""

    arch: Arch
    scheme: Scheme


def modes_served(arch: Arch, scheme: Scheme) -> list[Mode]:
    """The mode that runs, then the machine's others; the scheme alone on a machine without modes."""
    if not arch.modes:
        return [Mode(arch, scheme)]
    running = mode_of(scheme, arch.served, arch.name)
    others = [mode for mode in arch.served if mode != running]
    return [Mode(arch.in_mode(mode), mode) for mode in (running, *others)]


def shared(price: Price, sizes: Sizes) -> ComponentCost:
    """What all modes use: area, leakage, delay and idle clock of the widest in every size; energy of what
    happens, and the wires behind clock gates, of the mode that runs."""
    own, widest = price(*sizes[0]), tuple(map(max, zip(*sizes, strict=True)))
    if widest == tuple(sizes[0]):
        return own
    wide = price(*widest)
    clock = wide.clock
    if clock is not None and own.clock is not None:
        clock = replace(clock, branch=own.clock.branch)
    return replace(
        wide,
        energy_pj={**own.energy_pj, **_idle([wide])},
        activity=own.activity,
        clock=clock,
        scaling=(
            *wide.scaling,
            f"energy of actions: of the mode that runs, {_shown(sizes[0])} of {_shown(widest)}",
        ),
    )


def separate(price: Price, sizes: Sizes) -> ComponentCost:
    """What modes of different sizes have of their own: all of it is there and clocked, that of the mode that
    runs acts."""
    own, costs = price(*sizes[0]), [price(*each) for each in sorted(set(sizes))]
    if len(costs) == 1:
        return own
    clock = own.clock
    if clock is not None:
        clock = replace(clock, gates=sum((cost.clock or ClockSinks()).gates for cost in costs))
    still = ", ".join(_shown(each) for each in list(dict.fromkeys(sizes))[1:])
    return replace(
        own,
        area_um2=sum(cost.area_um2 for cost in costs),
        leakage_uw=sum(cost.leakage_uw for cost in costs),
        delay_ps=max(cost.delay_ps or 0.0 for cost in costs),
        energy_pj={**own.energy_pj, **_idle(costs)},
        clock=clock,
        scaling=(*own.scaling, f"{_shown(sizes[0])} runs; in area and leakage also {still}, still"),
    )


def _idle(costs: Sequence[ComponentCost]) -> dict[str, float]:
    """Energy of a clock cycle of all of them, where any has one."""
    known = [cost.energy_pj[IDLE] for cost in costs if IDLE in cost.energy_pj]
    return {IDLE: sum(known)} if known else {}


def _shown(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
