"""A netlist as flat arrays with static timing: what the compiled simulator reads.

Gate and pin tables are ragged, so each has a start array: the pins of instance g are entries
input_start[g] .. input_start[g + 1] of `input_net`, and so on. Arcs, per instance, are output-major.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from accelsim.characterise.cells import Cell
from accelsim.characterise.library import Library
from accelsim.characterise.netlist import Netlist

GATE, FLIP_FLOP, LATCH, CLOCK_GATE = range(4)
KINDS = {"gate": GATE, "flip_flop": FLIP_FLOP, "latch": LATCH, "clock_gate": CLOCK_GATE}


class Circuit(NamedTuple):
    """int32 unless said otherwise. `t_` arrays are indexed by cell type, the others by instance or net."""

    nets: int
    clock: int
    supply_v: float
    inputs: np.ndarray
    outputs: np.ndarray
    load_ff: np.ndarray  # float64[net]
    # instances
    type_of: np.ndarray
    input_start: np.ndarray
    input_net: np.ndarray
    output_start: np.ndarray
    output_net: np.ndarray
    arc_start: np.ndarray
    # nets
    driver: np.ndarray  # instance, or -1
    driver_output: np.ndarray
    fan_start: np.ndarray
    fan_instance: np.ndarray
    fan_pin: np.ndarray
    # cell types
    t_kind: np.ndarray
    t_data_pin: np.ndarray
    t_clock_pin: np.ndarray
    t_active: np.ndarray
    t_output_start: np.ndarray
    t_inverted: np.ndarray  # [t_output_start + output]
    t_truth_start: np.ndarray  # [t_output_start + output]
    t_truth: np.ndarray  # uint8
    t_arc_start: np.ndarray
    t_has_arc: np.ndarray  # uint8[t_arc_start + output * inputs + input]
    t_sense: np.ndarray  # int8: 1 rising makes rising, -1 falling, 0 either
    t_table: np.ndarray  # float32[arc, 6, slew, load]
    t_input_start: np.ndarray
    t_passive_start: np.ndarray  # [t_input_start + input] -> entries
    t_states_start: np.ndarray  # [entry]
    t_states: np.ndarray  # uint8
    t_passive_table: np.ndarray  # float32[entry, 2, slew]
    slews_ps: np.ndarray  # float64
    loads_ff: np.ndarray  # float64
    input_slew_ps: float


def circuit_of(netlist: Netlist, library: Library, output_load_ff: float, input_slew_ps: float) -> Circuit:
    types = list(dict.fromkeys(instance.cell for instance in netlist.instances))
    number = {cell: t for t, cell in enumerate(types)}
    instances = netlist.instances
    load = np.zeros(netlist.nets)
    driver = np.full(netlist.nets, -1, np.int32)
    driver_output = np.zeros(netlist.nets, np.int32)
    fan: list[list[tuple[int, int]]] = [[] for _ in range(netlist.nets)]
    for g, instance in enumerate(instances):
        for pin, net in enumerate(instance.inputs):
            load[net] += instance.cell.capacitances_ff[pin]
            fan[net].append((g, pin))
        for o, net in enumerate(instance.outputs):
            if net >= 0:
                driver[net], driver_output[net] = g, o
    for net in netlist.outputs:
        load[net] += output_load_ff
    return Circuit(
        nets=netlist.nets,
        clock=netlist.clock,
        supply_v=library.supply_v,
        inputs=_int32(netlist.inputs),
        outputs=_int32(netlist.outputs),
        load_ff=load,
        type_of=_int32([number[instance.cell] for instance in instances]),
        input_start=_starts([len(instance.inputs) for instance in instances]),
        input_net=_int32([net for instance in instances for net in instance.inputs]),
        output_start=_starts([len(instance.outputs) for instance in instances]),
        output_net=_int32([net for instance in instances for net in instance.outputs]),
        arc_start=_starts([len(i.inputs) * len(i.outputs) for i in instances]),
        driver=driver,
        driver_output=driver_output,
        fan_start=_starts([len(pins) for pins in fan]),
        fan_instance=_int32([g for pins in fan for g, _ in pins]),
        fan_pin=_int32([pin for pins in fan for _, pin in pins]),
        slews_ps=np.array(library.grid.slews_ps),
        loads_ff=np.array(library.grid.loads_ff),
        input_slew_ps=input_slew_ps,
        **_type_tables(types, library),
    )


def _type_tables(types: list[Cell], library: Library) -> dict[str, np.ndarray]:
    arcs = [(cell, o, i) for cell in types for o in range(len(cell.outputs)) for i in range(len(cell.inputs))]
    shape = (len(library.grid.slews_ps), len(library.grid.loads_ff))
    nothing = np.zeros((6, *shape))
    entries = [entry for cell in types for pin in cell.passive for entry in pin]
    state_counts = [
        1 << (len(cell.inputs) + len(cell.outputs)) for cell in types for pin in cell.passive for _ in pin
    ]
    truths = [
        (cell.functions[o] if cell.functions else 0, 1 << len(cell.inputs))
        for cell in types
        for o in range(len(cell.outputs))
    ]
    return {
        "t_kind": _int32([KINDS[cell.kind] for cell in types]),
        "t_data_pin": _int32([cell.data_pin for cell in types]),
        "t_clock_pin": _int32([cell.clock_pin for cell in types]),
        "t_active": _int32([cell.active for cell in types]),
        "t_output_start": _starts([len(cell.outputs) for cell in types]),
        "t_inverted": _int32([x for c in types for x in (c.inverted or (False,) * len(c.outputs))]),
        "t_truth_start": _starts([rows for _, rows in truths]),
        "t_truth": _bits(truths),
        "t_arc_start": _starts([len(cell.inputs) * len(cell.outputs) for cell in types]),
        "t_has_arc": np.array([(o, i) in cell.arcs for cell, o, i in arcs], np.uint8),
        "t_sense": np.array([_sense(cell, o, i) for cell, o, i in arcs], np.int8),
        "t_table": np.array(
            [cell.arcs.get((o, i), nothing) for cell, o, i in arcs], np.float32
        ).reshape(-1, 6, *shape),
        "t_input_start": _starts([len(cell.inputs) for cell in types]),
        "t_passive_start": _starts([len(pin) for cell in types for pin in cell.passive]),
        "t_states_start": _starts(state_counts),
        "t_states": _bits([(entry.states, n) for entry, n in zip(entries, state_counts, strict=True)]),
        "t_passive_table": np.array(
            [(entry.rise_fj, entry.fall_fj) for entry in entries], np.float32
        ).reshape(-1, 2, shape[0]),
    }  # fmt: skip


def _sense(cell: Cell, o: int, i: int) -> int:
    if not cell.functions:
        return 0
    table = cell.functions[o]
    pairs = [
        (table >> k & 1, table >> (k | 1 << i) & 1) for k in range(1 << len(cell.inputs)) if not k >> i & 1
    ]
    rises, falls = any(low < high for low, high in pairs), any(low > high for low, high in pairs)
    return 0 if rises and falls else 1 if rises else -1


def _int32(values: Iterable[int]) -> np.ndarray:
    return np.array(list(values), np.int32)


def _starts(counts: Iterable[int]) -> np.ndarray:
    return np.array(list(accumulate(counts, initial=0)), np.int32)


def _bits(tables: list[tuple[int, int]]) -> np.ndarray:
    """uint8: the truth tables, each given as (bits, rows), one after the other."""
    return np.array([table >> k & 1 for table, rows in tables for k in range(rows)], np.uint8)
