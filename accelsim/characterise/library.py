"""Reads Liberty files to the cells that blocks can be made of, by function and attributes."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from accelsim.arguments import list_of, path_of
from accelsim.characterise.boolean import NotBooleanError, names_in, truth_table
from accelsim.characterise.cells import Cell, Grid, LibraryFile
from accelsim.characterise.liberty import Group, finite, read_liberty
from accelsim.characterise.verilog import is_identifier
from accelsim.errors import AccelsimError


@dataclass(frozen=True, eq=False)
class Library:
    """The cells of one or more files at one supply, by name."""

    cells: dict[str, Cell]
    files: tuple[str, ...]
    supply_v: float
    grid: Grid

    @cached_property
    def delays_grow(self) -> bool:
        """True where the delay of every gate grows with its load."""
        arcs = [arc for cell in self.usable("gate") for arc in cell.arcs.values()]
        return all((arc[:2, :, -1] > arc[:2, :, 0]).any() for arc in arcs)

    def usable(self, kind: str) -> list[Cell]:
        """Cells that may be chosen, smallest first."""
        cells = (cell for cell in self.cells.values() if cell.kind == kind and not cell.avoided)
        return sorted(cells, key=lambda cell: (cell.area_um2, cell.name))


def read_library(paths: Sequence[str | Path], avoid: Sequence[str] = (), grid: Grid | None = None) -> Library:
    """Cells of all files, ordered by the files as given. avoid: glob patterns of cells not to be chosen.

    Tri-state cells, scan and asynchronously cleared or preset storage are left out: no block needs them.
    """
    given = [path_of(path, "liberty") for path in list_of(paths, "liberty", "paths")]
    if not given:
        raise AccelsimError("characterise: no Liberty file given, expected at least one")
    trees = [(path, read_liberty(path)) for path in given]
    files = [_file(path, tree) for path, tree in trees]
    supplies = {file.supply_v for file in files}
    if len(supplies) > 1:
        raise AccelsimError(
            f"liberty: files at {', '.join(f'{v:g} V' for v in sorted(supplies))}, expected one corner"
        )
    chosen = grid or _native_grid(trees, files)
    cells: dict[str, Cell] = {}
    for file, (_, tree) in zip(files, trees, strict=True):
        for group in tree.all("cell"):
            if cell := _cell(group, file, chosen, avoid):
                if cell.name in cells:
                    raise AccelsimError(f"liberty {file.name}: cell {cell.name} is in an earlier file too")
                cells[cell.name] = cell
    library = Library(cells, tuple(path.name for path, _ in trees), supplies.pop(), chosen)
    if not library.usable("flip_flop"):
        names = ", ".join(library.files)
        raise AccelsimError(f"liberty {names}: no flip-flop cell without clear and preset, expected one")
    return library


def _file(path: Path, tree: Group) -> LibraryFile:
    def unit(name: str, text: str, known: dict[str, float]) -> float:
        match = re.fullmatch(r"\s*([0-9.]+)?\s*,?\s*([a-zA-Z]+)\s*", text)
        if match is None or match[2].lower() not in known:
            raise AccelsimError(f"liberty {path}: {name} is '{text}', expected one in {', '.join(known)}")
        return float(match[1] or 1) * known[match[2].lower()]

    def attribute(name: str) -> str:
        if name not in tree.attributes:
            raise AccelsimError(f"liberty {path}: {name} is missing from the library")
        return tree.attributes[name]

    ps = unit("time_unit", attribute("time_unit"), {"ps": 1.0, "ns": 1e3})
    load_unit = tree.lists.get("capacitive_load_unit", "").replace('"', "")
    ff = unit("capacitive_load_unit", load_unit, {"ff": 1.0, "pf": 1e3})
    leakage_unit = tree.attributes.get("leakage_power_unit", "1nW")
    nw = unit("leakage_power_unit", leakage_unit, {"pw": 1e-3, "nw": 1.0, "uw": 1e3, "mw": 1e6})
    volt = unit("voltage_unit", tree.attributes.get("voltage_unit", "1V"), {"v": 1.0, "mv": 1e-3})
    supply = _number(attribute("nom_voltage"), path, "nom_voltage") * volt
    templates = {group.argument: group for group in tree.groups if group.kind.endswith("_template")}
    return LibraryFile(path.name, ps, ff, nw, ff * volt**2, supply, _supply_pin(tree), templates)


def _supply_pin(tree: Group) -> str | None:
    """The supply pin whose rail's energies are read."""
    for cell in tree.all("cell"):
        for pin in cell.all("pg_pin"):
            if pin.attributes.get("pg_type") == "primary_power":
                return pin.argument
    return None


def _native_grid(trees: Sequence[tuple[Path, Group]], files: Sequence[LibraryFile]) -> Grid:
    """The axes of the libraries' first delay template."""
    for (_, tree), file in zip(trees, files, strict=True):
        for template in tree.all("lu_table_template"):
            axes = {
                template.attributes.get(f"variable_{k}", ""): template.numbers(f"index_{k}") for k in (1, 2)
            }
            slews, loads = axes.get("input_net_transition"), axes.get("total_output_net_capacitance")
            if slews and loads and len(slews) > 1 and len(loads) > 1:
                return Grid(tuple(x * file.ps for x in slews), tuple(x * file.ff for x in loads))
    raise AccelsimError(
        f"liberty {files[0].name}: no delay template over input_net_transition and "
        "total_output_net_capacitance with two or more points each"
    )


def _number(text: str, path: Path | str, what: str) -> float:
    try:
        return finite(text)
    except ValueError:
        raise AccelsimError(f"liberty {path}: {what} is '{text[:40]}', expected a number") from None


def _cell(group: Group, file: LibraryFile, grid: Grid, avoid: Sequence[str]) -> Cell | None:
    """None for a cell no block needs or whose function is not understood."""
    pins = {pin.argument: pin for pin in group.all("pin")}
    directions = {name: pin.attributes.get("direction") for name, pin in pins.items()}
    inputs = tuple(name for name, way in directions.items() if way == "input")
    outputs = tuple(name for name, way in directions.items() if way == "output")
    if not outputs or any("three_state" in pin.attributes for pin in pins.values()):
        return None
    if not all(is_identifier(name) for name in (*inputs, *outputs)):
        return None  # a bus
    where = f"{file.name}, cell {group.argument}"

    def capacitance(name: str) -> float:
        attributes = pins[name].attributes
        edges = [
            attributes.get(f"{edge}_capacitance", attributes.get("capacitance", "0"))
            for edge in ("rise", "fall")
        ]
        return 0.5 * sum(_number(edge, where, "capacitance") for edge in edges) * file.ff

    try:
        behaviour = _behaviour(group, pins, inputs, outputs)
    except NotBooleanError:
        return None
    if behaviour is None:
        return None
    return Cell(
        name=group.argument,
        area_um2=_number(group.attributes.get("area", "0"), where, "area"),
        leakage_nw=_leakage(group, file, where) * file.nw,
        inputs=inputs,
        outputs=outputs,
        capacitances_ff=tuple(capacitance(name) for name in inputs),
        avoided=group.attributes.get("dont_use") == "true"
        or any(fnmatch.fnmatchcase(group.argument, pattern) for pattern in avoid),
        file=file,
        group=group,
        grid=grid,
        **behaviour,
    )


def _leakage(group: Group, file: LibraryFile, where: str) -> float:
    """The figure without a condition, or the mean over the conditions, of the supply rail."""
    states = [
        (part.attributes.get("when"), _number(part.attributes.get("value", "0"), where, "leakage_power"))
        for part in group.all("leakage_power")
        if part.attributes.get("related_pg_pin", file.supply_pin) == file.supply_pin
    ]
    always = [value for when, value in states if not when]
    if always:
        return always[0]
    if states:
        return sum(value for _, value in states) / len(states)
    return _number(group.attributes.get("cell_leakage_power", "0"), where, "cell_leakage_power")


def _behaviour(
    group: Group, pins: dict[str, Group], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> dict | None:
    """`kind` and the fields of Cell that go with it; None for storage that no block needs."""
    if "clock_gating_integrated_cell" in group.attributes:
        return _clock_gate(group, pins, inputs, outputs)
    for kind, inner, data, clock in (
        ("flip_flop", "ff", "next_state", "clocked_on"),
        ("latch", "latch", "data_in", "enable"),
    ):
        storage = group.first(inner)
        if storage is None:
            continue
        attributes = storage.attributes
        if "clear" in attributes or "preset" in attributes or not {data, clock} <= set(attributes):
            return None
        used, clocks = names_in(attributes[data]), names_in(attributes[clock])
        if len(used) != 1 or len(clocks) != 1 or not {*used, *clocks} <= set(inputs):
            return None
        state_names = [name.strip().strip('"') for name in storage.argument.replace('"', "").split(",")]
        flips = truth_table(attributes[data], used) == 0b01
        shown = []
        for output in outputs:
            # Row 1 of the table: the first state name is 1, the second, its complement, 0.
            table = truth_table(pins[output].attributes.get("function", ""), state_names)
            shown.append(bool(table >> 1 & 1) == flips)
        return {
            "kind": kind,
            "data_pin": inputs.index(used[0]),
            "clock_pin": inputs.index(clocks[0]),
            "active": truth_table(attributes[clock], clocks) == 0b10,
            "inverted": tuple(shown),
        }
    if group.first("statetable", "ff_bank", "latch_bank") is not None:
        return None
    functions = tuple(truth_table(pins[output].attributes.get("function", ""), inputs) for output in outputs)
    return {"kind": "gate", "functions": functions}


def _clock_gate(
    group: Group, pins: dict[str, Group], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> dict | None:
    """Positive-edge gates with a latch: the output is the clock where the enable was 1 before its edge."""
    roles = {
        role: [name for name in inputs if pins[name].attributes.get(f"clock_gate_{role}_pin") == "true"]
        for role in ("clock", "enable", "test")
    }
    if not group.attributes["clock_gating_integrated_cell"].startswith("latch_posedge"):
        return None
    if len(roles["clock"]) != 1 or len(roles["enable"]) != 1 or len(outputs) != 1:
        return None
    return {
        "kind": "clock_gate",
        "clock_pin": inputs.index(roles["clock"][0]),
        "data_pin": inputs.index(roles["enable"][0]),
        "inverted": (False,),
        "test_pins": tuple(roles["test"]),
    }
