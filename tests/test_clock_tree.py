"""Clock trees: wire against a tree that is drawn, buffers against one that is built, a machine's by hand."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

import accelsim
from accelsim.characterise.clock import clock_rows
from accelsim.characterise.library import read_library
from accelsim.characterise.recipe import Recipe, load_recipe
from accelsim.characterise.roles import find_roles
from accelsim.characterise.table import CLOCK_COLUMNS, Process
from accelsim.costs import CostLibrary, Technology
from accelsim.costs.clock import ClockCells, branch_mm, h_tree_mm
from accelsim.costs.component import Branch, ClockSinks
from accelsim.costs.tables import CLOCK_CELLS, TABLES_DIR, read_table
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.report.inventory import CLOCK_TREES, build_inventory

pytestmark = pytest.mark.kept

TINY = Path(__file__).parent / "data" / "tiny.lib"
PDK = Path(__file__).parents[2] / "shared" / "pdk" / "asap7"
AT_TABLE = Technology(node_nm=7, voltage_v=0.7)
WIRE_PF_PER_MM = 0.144549


def drawn(x: float, y: float, side: float, levels: int) -> tuple[float, list[tuple[float, float]]]:
    """(wire, leaves) of an H-tree over a square: a bar and two uprights, then the four quarters."""
    if levels == 0:
        return 0.0, [(x, y)]
    wire, leaves, quarter = 3 * side / 2, [], side / 4
    for dx in (-quarter, quarter):
        for dy in (-quarter, quarter):
            length, ends = drawn(x + dx, y + dy, side / 2, levels - 1)
            wire, leaves = wire + length, leaves + ends
    return wire, leaves


@pytest.mark.parametrize("levels", range(5))
def test_wire_is_that_of_a_tree_that_is_drawn(levels: int) -> None:
    wire_um, leaves = drawn(0, 0, 100.0, levels)
    assert len(set(leaves)) == 4**levels
    assert h_tree_mm(4**levels, 100.0**2) == pytest.approx(wire_um / 1e3)
    # Behind 4 ^ k bits are one bank up to 16; 64 are two banks of 32, each over its own half.
    if 1 <= levels <= 2:
        assert branch_mm(Branch(4**levels, 100.0**2 / 4**levels * 0.7), 0.7) == pytest.approx(wire_um / 1e3)
    if levels == 3:
        bit_um2 = 100.0**2 / 64
        assert branch_mm(Branch(64, bit_um2), 1.0) == pytest.approx(2 * h_tree_mm(32, 32 * bit_um2))


@pytest.mark.parametrize(("gates", "wire_ff"), [(1, 0.0), (40, 100.0), (300, 2500.0), (5000, 0.0)])
def test_buffers_are_those_of_a_tree_that_is_built(gates: int, wire_ff: float) -> None:
    """Level by level from the leaves, as many buffers as drive the load, until one is left."""
    cells = ClockCells(read_table(CLOCK_CELLS, TABLES_DIR))
    buffer = cells.buffer
    built, load_ff = 0, gates * cells.gate["pin_ff"] + wire_ff
    while True:
        level = math.ceil(load_ff / buffer["load_ff"])
        built += level
        if level == 1:
            break
        load_ff = level * buffer["pin_ff"]
    count, block = cells.buffered(ClockSinks(gates=gates), wire_ff)
    assert abs(count - built) <= 3, "but for what a level is rounded up by"
    each_fj = buffer["energy_fj"] + buffer["pin_ff"] * 0.7**2
    assert block.energy_fj == {"cycle": pytest.approx(count * each_fj)}
    macro = cells.buffered(ClockSinks(gates=gates - 1, macros=1), wire_ff)[1]
    pin_fj = cells.gate["pin_ff"] * 0.7**2
    assert macro.energy_fj["cycle"] - block.energy_fj["cycle"] == pytest.approx(pin_fj)


def test_the_trees_of_a_machine_by_hand() -> None:
    """8/8/-/- on magnet16, 7 nm, 0.7 V: clock gates counted from bits, memories' pins from macros."""
    library = CostLibrary(AT_TABLE)
    arch = load_arch("magnet16", ["node_nm=7", "voltage_v=0.7", "dot_stages=1", "clock_ghz=0.2"])
    parts = {part.name: part for part in build_inventory(arch, Scheme.parse("8/8/-/-"), library)}
    # Lanes: weights 128, dot product 21 and psum 29 bits; of the PE its input word.
    lanes = 16 * (128 + 21 + 29) / 32 + 128 / 32
    collectors, fifo = 2 * arch.accumulation_collector_depth, arch.out_fifo_words
    registers = [part for name, part in parts.items() if name.startswith("ppu") and part.cost.clock]
    ppu = sum(part.instances / 16 * part.cost.clock.gates for part in registers)
    assert 32 * ppu > arch.ppu_width * (29 + 46), "psum and constants of each of its lanes"
    counters = parts["control"].cost.clock.branch.bits
    pe = collectors + fifo + ppu + counters / 32 + 1
    macros = 2 * 16 + 2  # both halves of the weight buffers, the input buffer's
    inner = [
        part for part in parts.values() if part.scope == "datapath" and part.name != CLOCK_TREES["datapath"]
    ]
    area_um2 = sum(part.instances * part.cost.area_um2 for part in inner) / 16
    cells = ClockCells(read_table(CLOCK_CELLS, TABLES_DIR))
    length_mm = 1.5e-3 * math.sqrt(area_um2 / 0.7) * (math.sqrt(lanes) - 1)
    _, block = cells.buffered(ClockSinks(gates=lanes), 1e3 * WIRE_PF_PER_MM * length_mm)
    cycle_pj = block.energy_fj["cycle"] / 1e3 + WIRE_PF_PER_MM * 0.49 * length_mm
    tree = parts[CLOCK_TREES["datapath"]]
    assert tree.instances == 16 and tree.cost.area_um2 == pytest.approx(block.area_um2)
    assert tree.cost.energy_pj["cycle"] == pytest.approx(cycle_pj)
    assert f"{pe:.4g} clock gates and {macros} macros" in parts[CLOCK_TREES["pe"]].cost.scaling[0]
    ports = 2 * 16 * (arch.pe_port_bits + (arch.psum_port_bits or 0)) / 32
    banks = parts["global_buffer"].cost.clock.macros * arch.gb_banks
    said = f"{ports + 16:.4g} clock gates and {banks:.4g} macros"
    assert said in parts[CLOCK_TREES["array"]].cost.scaling[0]
    # Behind the gates of a weight register: four nets of 32 bits.
    per_bit = parts["weight_register"].cost.area_um2 / 128
    leaf_mm = 4 * 1.5e-3 * math.sqrt(32 * per_bit / 0.7) * (math.sqrt(32) - 1)
    assert tree.cost.energy_pj["weight_register"] == pytest.approx(WIRE_PF_PER_MM * 0.49 * leaf_mm)


def test_what_is_behind_clock_gates_switches_when_they_open() -> None:
    idle, busy = (accelsim.run("digits", scheme="8/8/-/-", gated_fraction=g).report for g in (1.0, 0.0))
    for report in (idle, busy):
        rows = report.components.groupby(["component", "action"])["count"].sum()
        tree = CLOCK_TREES["datapath"]
        assert rows[tree, "cycle"] == report.arch.pes * report.layers["cycles"].sum()
        for name in ("weight_register", "pipeline_register", "input_register"):
            assert rows[tree, name] == rows[name, "write"]
        assert rows[CLOCK_TREES["array"], "noc"] == rows["noc", "bit_hop"]
        assert rows[CLOCK_TREES["pe"], "ppu_constants"] == 0, "loading them is not counted"
    assert idle.components.loc[idle.components["action"] == "pipeline_register", "count"].sum() == 0


def test_wires_do_not_shrink_with_the_node() -> None:
    """Of one length: all that the node changes is what the buffers take."""
    sinks, area_um2 = ClockSinks(gates=200), 1e5
    at = [CostLibrary(Technology(node, 0.7)).clock_tree(sinks, {}, area_um2, 0.7) for node in (7, 16)]
    wires_pj = WIRE_PF_PER_MM * 0.49 * h_tree_mm(200, area_um2 / 0.7)
    small, large = (cost.energy_pj["cycle"] - wires_pj for cost in at)
    # Fewer times the buffers for the wires, each with more energy.
    assert small < large < 1.9 * small
    assert all(cost.evidence == "derived" and "setRC.tcl" in cost.source for cost in at)


def test_the_shipped_cells_are_made_from_the_library() -> None:
    if not PDK.is_dir():
        pytest.skip("the ASAP7 library is not beside the repository")
    files = [next(PDK.glob(f"*_{part}_*")) for part in ("AO", "OA", "SIMPLE", "INVBUF", "SEQ")]
    recipe = load_recipe("asap7")
    library = read_library(files, recipe.avoid)
    name = f"{recipe.library} ({', '.join(library.files)})"
    made = clock_rows(find_roles(library, recipe), Process(7, library.supply_v, ""), name)
    with (TABLES_DIR / CLOCK_CELLS.file).open(newline="") as file:
        assert list(csv.DictReader(file)) == made and tuple(made[0]) == CLOCK_COLUMNS


def test_cells_of_another_library() -> None:
    """By the figures that stand in tests/data/tiny.lib."""
    library = read_library([TINY])
    roles = find_roles(library, Recipe())
    buffer, gate = clock_rows(roles, Process(22, library.supply_v, ""), "tiny")
    enable = roles.latch_high.capacitances_ff[roles.latch_high.clock_pin]
    assert float(buffer["load_ff"]) == pytest.approx(32 * enable, rel=1e-3)
    assert buffer["cell"] == roles.clock_buffer.name and float(buffer["energy_fj"]) >= 0
    pin = roles.clock_gate.capacitances_ff[roles.clock_gate.clock_pin]
    assert gate["cell"] == roles.clock_gate.name and float(gate["pin_ff"]) == pytest.approx(pin, rel=1e-3)
