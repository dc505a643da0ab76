"""The table of actions against what the docs list, what the models count and what the inventory prices."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from machines import random_run, simulate, with_gating

from accelsim.costs import CostLibrary
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.actions import ACTIONS, COUNTED_BY, charged_to, named
from accelsim.machine.arch_file import load_arch
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.mapping.search.parameters import count_names
from accelsim.report.inventory import CLOCK_TREES, build_inventory, technology_of

ROOT = Path(__file__).resolve().parents[1]


def names_in_docs() -> set[str]:
    """What the tables of docs/counts.md have as "component.action": rows of component, action and when.

    A component may say in brackets which dataflows have it, an action stand beside others; `dram` stands for
    the two directions by name.
    """
    text = (ROOT / "docs/counts.md").read_text("utf-8")
    found = set()
    for table in text.split("| component | action | counted |\n")[1:]:
        for row in table.split("\n\n")[0].splitlines()[1:]:
            component, actions = (cell.strip() for cell in row.strip("|").split("|")[:2])
            component = component.partition(" (")[0]
            found |= {f"{component}.{action.strip()}" for action in actions.split(",")}
    return found


def test_the_table_is_the_list_of_counts_in_the_docs() -> None:
    assert names_in_docs() == set(ACTIONS)


def test_what_happens_is_in_the_table_and_what_is_in_the_table_happens() -> None:
    """On random machines with every feature; those that count are who the table says, as far as one can see:
    `values` adds to what the timing has counted."""
    counted: Counter[str] = Counter()
    by_values: set[str] = set()
    for seed in range(80):
        arch, layers, mappings, _ = random_run(seed, "all" if seed < 60 else "plain")
        if seed >= 60:
            gating = with_gating(arch, seed)
            assert gating is not None
            arch = gating
        try:
            activities = simulate(arch, layers, mappings)
        except AccelsimError:
            continue
        for own in activities:
            counted += own.counts
            by_values |= set(own.counts) - set(own.timing.counts)
    assert set(counted) == set(ACTIONS)
    assert by_values == {name for name, row in ACTIONS.items() if row.counted_by == ("values",)}


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_the_mapper_counts_rows(dataflow: str) -> None:
    row = DATAFLOWS[dataflow]
    assert len(set(count_names(row))) == len(count_names(row))
    assert set(count_names(row)) | set(row.block_actions) <= set(ACTIONS)


def test_who_counts_is_a_module() -> None:
    for row in ACTIONS.values():
        assert row.counted_by and set(row.counted_by) <= set(COUNTED_BY), row.name
    assert all((ROOT / "accelsim" / module).is_file() for module in COUNTED_BY.values())


def test_what_prices_is_a_part_with_that_cost() -> None:
    """On a machine that has everything but gating, one that has that, and one with several blocks a word."""
    everything = "lanes=8", "ppu_lanes=4", "operand_wires=true"
    arch = load_arch("magnet16", [f"dataflows=[{', '.join(DATAFLOWS)}]", *everything])
    gating = load_arch("magnet16", ["gate_on_scale_product=dot"])
    parts = {}
    formats, blocks = load_arch("magnet16"), load_arch("magnet16", ["vector_size=64"])
    for machine, text in (
        (formats, "nvfp4"),
        (blocks, "nvfp4"),
        (gating, "4/4/4/4:sp6"),
        (arch, "4/4/4/4:sp6"),
    ):
        library, scheme = CostLibrary(technology_of(machine)), Scheme.parse(text)
        parts |= {(part.name, machine): part for part in build_inventory(machine, scheme, library)}
    priced = set()
    for (name, machine), part in parts.items():
        for action, names in part.actions.items():
            if name in CLOCK_TREES.values():
                # What clocks a part behind its gates, in place of a price of its own.
                of = parts[action, machine]
                assert of.cost.clock and names == of.actions.get(of.cost.clock.action, ()), (name, action)
                continue
            assert action in part.cost.energy_pj, (name, action)
            assert set(names) <= set(charged_to(name)[action])
            priced |= {(counted, name, action) for counted in names}
    assert priced == {(row.name, *price) for row in ACTIONS.values() for price in row.priced_by}


def test_nobody_else_spells_an_action() -> None:
    for path in sorted((ROOT / "accelsim").rglob("*.py")):
        if path.name == "actions.py":
            continue
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & set(ACTIONS), path


def test_a_component_without_the_action_is_refused() -> None:
    assert named("accumulation_buffer", "read") == "accumulation_buffer.read"
    with pytest.raises(KeyError):
        named("psum_adder", "read")
