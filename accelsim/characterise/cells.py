"""Standard cells as Liberty describes them, in fixed units: um2, nW, fF, ps, fJ, volts.

Delay, slew and energy tables of all cells are brought to one (slew, load) grid, so that the simulator sees
plain arrays. Energies are those of the supply rail: libraries that list one charge on both rails are not
counted twice. Numbers keep the five digits that the mapper is given (`mapping_library`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from accelsim.characterise.boolean import NotBooleanError, truth_table
from accelsim.characterise.liberty import Group, finite
from accelsim.errors import AccelsimError

DELAY_TABLES = ("cell_rise", "cell_fall", "rise_transition", "fall_transition")
ENERGY_TABLES = ("rise_power", "fall_power")
# Timing groups that say nothing about when an output switches.
_CONSTRAINTS = ("setup", "hold", "min_", "clear", "preset", "three", "recovery", "removal", "skew", "non_seq")
_EXTRAPOLATE = 1.5  # intervals of a table, beyond its ends


@dataclass(frozen=True)
class Grid:
    """Axes of every delay and energy table; `typical` is the slew taken where none is known."""

    slews_ps: tuple[float, ...]
    loads_ff: tuple[float, ...]

    @property
    def typical(self) -> int:
        return len(self.slews_ps) // 3


@dataclass(frozen=True, eq=False)
class LibraryFile:
    """One file: its units as factors to ours, and its table templates."""

    name: str
    ps: float
    ff: float
    nw: float
    fj: float
    supply_v: float
    supply_pin: str | None
    templates: dict[str, Group] = field(repr=False)

    def table(self, group: Group, grid: Grid, factor: float) -> np.ndarray:
        """A table group on the grid, [slew, load], times `factor`."""
        values = np.array(group.numbers("values") or [0.0])
        shape = (len(grid.slews_ps), len(grid.loads_ff))
        if len(values) == 1:
            return np.full(shape, values[0] * factor)
        template = self.templates.get(group.argument)
        first = group.numbers("index_1") or (template.numbers("index_1") if template else None) or []
        second = group.numbers("index_2") or (template.numbers("index_2") if template else None) or []
        load_first = template is not None and "capacitance" in template.attributes.get("variable_1", "")
        if len(values) == len(first):
            if load_first:
                return (
                    np.tile(_weights([x * self.ff for x in first], grid.loads_ff) @ values, (shape[0], 1))
                    * factor
                )
            return (
                np.tile((_weights([x * self.ps for x in first], grid.slews_ps) @ values)[:, None], shape[1])
                * factor
            )
        if len(values) != len(first) * len(second):
            raise AccelsimError(
                f"liberty {self.name}: table {group.kind} ({group.argument}) has {len(values)} values, "
                f"expected {len(first)} x {len(second)}"
            )
        rows = values.reshape(len(first), len(second))
        if load_first:
            rows, first, second = rows.T, second, first
        slews = _weights([x * self.ps for x in first], grid.slews_ps)
        loads = _weights([x * self.ff for x in second], grid.loads_ff)
        return slews @ rows @ loads.T * factor

    def constraint(self, group: Group, slew_ps: float) -> float:
        """A table over two slews where both are `slew_ps`, in the file's unit."""
        template = self.templates.get(group.argument)
        axes = [
            group.numbers(f"index_{k}") or (template.numbers(f"index_{k}") if template else None) or [0.0]
            for k in (1, 2)
        ]
        values = np.array(group.numbers("values") or [0.0])
        if len(values) == 1:
            return float(values[0])
        if len(values) != len(axes[0]) * len(axes[1]):
            raise AccelsimError(
                f"liberty {self.name}: table {group.kind} ({group.argument}) has {len(values)} values, "
                f"expected {len(axes[0])} x {len(axes[1])}"
            )
        first, second = (_weights([x * self.ps for x in axis], [slew_ps])[0] for axis in axes)
        return float(first @ values.reshape(len(first), len(second)) @ second)


def _weights(known: Sequence[float], wanted: Sequence[float]) -> np.ndarray:
    """Linear interpolation as a matrix [wanted, known]; held at the low end, extrapolated a little above."""
    matrix = np.zeros((len(wanted), len(known)))
    for row, x in enumerate(wanted):
        if len(known) == 1:
            matrix[row, 0] = 1.0
            continue
        k = int(np.searchsorted(known[1:-1], x))
        share = min(max((x - known[k]) / (known[k + 1] - known[k]), 0.0), _EXTRAPOLATE)
        matrix[row, k : k + 2] = 1 - share, share
    return matrix


def five_digits(values: np.ndarray) -> np.ndarray:
    return np.array([float(f"{value:.5g}") for value in values.ravel()]).reshape(values.shape)


@dataclass(frozen=True, eq=False)
class PassiveEnergy:
    """Energy of an input edge that switches no output, where bit `state` of `states` is set.

    A state has the inputs in its low bits and the outputs above them. rise_fj, fall_fj: [slew].
    """

    states: int
    rise_fj: np.ndarray
    fall_fj: np.ndarray


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell. kind: gate, flip_flop, latch or clock_gate.

    functions: of a gate, one truth table per output (None for the others). Of the others: `data_pin` and
    `clock_pin` are indices into `inputs`, `active` is the level or edge that lets data through, and
    `inverted` says per output whether it shows the complement.
    """

    name: str
    kind: str
    area_um2: float
    leakage_nw: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    capacitances_ff: tuple[float, ...]
    functions: tuple[int, ...] = ()
    data_pin: int = 0
    clock_pin: int = 0
    active: bool = True
    inverted: tuple[bool, ...] = ()
    test_pins: tuple[str, ...] = ()
    avoided: bool = False
    file: LibraryFile = field(default=None, repr=False)  # type: ignore[assignment]
    group: Group = field(default=None, repr=False)  # type: ignore[assignment]
    grid: Grid = field(default=None, repr=False)  # type: ignore[assignment]

    @cached_property
    def pins(self) -> dict[str, Group]:
        return {pin.argument: pin for pin in self.group.all("pin")}

    def max_load_ff(self, output: str, default: str) -> float:
        """Raises AccelsimError for what is no number."""
        text = self.pins[output].attributes.get("max_capacitance", default)
        try:
            return finite(text) * self.file.ff
        except ValueError:
            raise AccelsimError(
                f"liberty {self.file.name}, cell {self.name}: max_capacitance is '{text[:40]}', expected a "
                "number"
            ) from None

    @cached_property
    def arcs(self) -> dict[tuple[int, int], np.ndarray]:
        """(output, input) -> [6, slew, load]: DELAY_TABLES in ps and ENERGY_TABLES in fJ, means over the
        conditions a library distinguishes."""
        found = {}
        for o, output in enumerate(self.outputs):
            for i, name in enumerate(self.inputs):
                timing = [
                    group
                    for group in self.related(output, name)
                    if not group.attributes.get("timing_type", "combinational").startswith(_CONSTRAINTS)
                ]
                if timing:
                    power = [
                        group
                        for group in self.pins[output].all("internal_power")
                        if name in group.attributes.get("related_pin", "").split() and self._supply(group)
                    ]
                    tables = [self._mean(timing, (key,), self.file.ps) for key in DELAY_TABLES]
                    tables += [self._mean(power, (key, "power"), self.file.fj) for key in ENERGY_TABLES]
                    found[o, i] = five_digits(np.array(tables))
        return found

    def setup_ps(self, slew_ps: float) -> float:
        """Of a flip-flop's data, the longest of both edges and all conditions, at a slew of data and clock; 0
        where the library lists none."""
        found = [0.0]
        for group in self.pins[self.inputs[self.data_pin]].all("timing"):
            if group.attributes.get("timing_type", "").startswith("setup"):
                for key in ("rise_constraint", "fall_constraint"):
                    table = group.first(key)
                    if table is not None:
                        found.append(self.file.constraint(table, slew_ps) * self.file.ps)
        return max(found)

    def delay_ps(self, load_ff: float) -> float:
        """Through the first arc, mean of both edges, at the grid's typical slew. Raises AccelsimError for a
        cell without one."""
        if not self.arcs:
            raise AccelsimError(f"liberty {self.file.name}, cell {self.name}: no timing, expected an arc")
        rise, fall = next(iter(self.arcs.values()))[:2, self.grid.typical]
        return float(np.interp(load_ff, self.grid.loads_ff, 0.5 * (rise + fall)))

    def related(self, output: str, name: str) -> list[Group]:
        """Timing groups from input `name` to `output`."""
        groups = self.pins[output].all("timing")
        return [group for group in groups if name in group.attributes.get("related_pin", "").split()]

    def _mean(self, groups: Sequence[Group], kinds: tuple[str, ...], factor: float) -> np.ndarray:
        tables = [self.file.table(table, self.grid, factor) for g in groups if (table := g.first(*kinds))]
        if not tables:
            return np.zeros((len(self.grid.slews_ps), len(self.grid.loads_ff)))
        return sum(tables[1:], tables[0]) / len(tables)

    def _supply(self, group: Group) -> bool:
        rail = group.attributes.get("related_pg_pin")
        return rail is None or self.file.supply_pin is None or rail == self.file.supply_pin

    @cached_property
    def passive(self) -> tuple[tuple[PassiveEnergy, ...], ...]:
        """Passive energies of each input, in the order of `inputs`."""
        return tuple(tuple(self._passive_of(name)) for name in self.inputs)

    def _passive_of(self, name: str) -> list[PassiveEnergy]:
        slews_only = Grid(self.grid.slews_ps, (0.0,))
        state_pins = (*self.inputs, *self.outputs)
        found = []
        for group in self.pins[name].all("internal_power"):
            if not self._supply(group):
                continue
            try:
                states = truth_table(group.attributes.get("when") or "1", state_pins)
            except NotBooleanError:
                continue
            edges = []
            for key in ENERGY_TABLES:
                table = group.first(key, "power")
                edges.append(
                    np.zeros(len(self.grid.slews_ps))
                    if table is None
                    else five_digits(self.file.table(table, slews_only, self.file.fj)[:, 0])
                )
            found.append(PassiveEnergy(states, *edges))
        return found
