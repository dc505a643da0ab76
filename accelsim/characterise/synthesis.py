"""One block through Yosys and abc: Verilog to a netlist of library cells."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from accelsim.characterise.block import Block
from accelsim.characterise.cells import DELAY_TABLES, Cell
from accelsim.characterise.library import Library
from accelsim.characterise.netlist import Netlist, netlist_of
from accelsim.characterise.recipe import Recipe
from accelsim.characterise.roles import FANOUT, PLAIN_ADDERS, PLAIN_FULL_ADDER, PLAIN_HALF_ADDER, Roles
from accelsim.system.tools import find_tool, run_tool

# Map for area under the target delay, buffer nets of many loads, then size up and down.
ABC_SCRIPT = (
    "strash;{reduce}dc2;strash;&get,-n;&dch,-f;&nf,{{D}};&put;"
    "buffer,-c,-N,{fanout};topo;upsize,{{D}};dnsize,{{D}};stime,-p"
)
# What a block is mapped for. Of one for delay the structure is kept (the script for area turns prefix adders
# into ripple adders); of one for depth the depth that abc finds, and cells are sized up as far as they can.
# Both have a target shorter by a factor.
ABC_SCRIPTS = {
    "area": ABC_SCRIPT,
    "delay": (
        "strash;ifraig;{choices}{mapper};buffer,-c,-N,{fanout};topo;upsize,{{D}};dnsize,{{D}};stime,-p"
    ),
    "depth": (
        "strash;&get,-n;&dch;&nf,{{D}};&put;buffer,-c,-N,{fanout};topo;upsize,{{D}};dnsize,{{D}};stime,-p"
    ),
}
SHORTER_TARGET = 1 / 3
# abc's mapper for delay takes delays that grow with the load, and stops at a cell whose delay does not.
ABC_MAPPER, ABC_MAPPER_WITHOUT_LOADS = "map,{D}", "&get,-n;&nf,{D};&put"
ABC_REDUCE = "&get,-n;&fraig,-x;&put;scorr;"
# Without adder cells whole multipliers reach abc, and its SAT-based steps do not finish on them.
ABC_REDUCE_PLAIN_ADDERS = "ifraig;"
# A delay target when none is given, in delays of an inverter that drives FANOUT of its kind.
TARGET_INVERTERS = 40
MAPPING_LOAD_INVERTERS = 3
# What flip-flops and latches do; other attributes of theirs are not for the mapper.
STORAGE_FUNCTIONS = ("next_state", "clocked_on", "data_in", "enable")
DEFAULT_MAX_LOAD = "50"  # library units


def find_yosys() -> str:
    """Its version. Raises AccelsimError when it is not installed."""
    said = run_tool([find_tool("yosys", "yosys"), "-V"], Path(os.path.sep), 60, "yosys -V").split()
    return " ".join(said[:2]) or "Yosys"


@dataclass(frozen=True)
class Synthesiser:
    """Maps blocks to the cells of one library, in `folder`, which `prepare` fills."""

    library: Library
    roles: Roles
    recipe: Recipe
    folder: Path

    def prepare(self) -> None:
        """Files that all blocks share."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "cells.lib").write_text(mapping_library(self.library))
        (self.folder / "cells.v").write_text(self._black_boxes())
        (self.folder / "latches.v").write_text(self._latch_map())
        (self.folder / "abc.constr").write_text(
            f"set_driving_cell {self.roles.driving_cell.name}\n"
            f"set_load {self.mapping_load_ff} [all_outputs]\n"
        )

    @cached_property
    def target_ps(self) -> float:
        inverter = self.roles.inverter
        if self.recipe.target_ps is not None:
            return self.recipe.target_ps
        return float(f"{TARGET_INVERTERS * inverter.delay_ps(FANOUT * inverter.capacitances_ff[0]):.2g}")

    @cached_property
    def mapping_load_ff(self) -> float:
        if self.recipe.mapping_load_ff is not None:
            return self.recipe.mapping_load_ff
        return round(MAPPING_LOAD_INVERTERS * self.roles.inverter.capacitances_ff[0], 3)

    def __call__(self, block: Block) -> Netlist:
        """Raises AccelsimError when Yosys fails, takes too long or leaves anything unmapped."""
        base = self.folder / block.name
        Path(f"{base}.v").write_text(block.verilog)
        Path(f"{base}.ys").write_text("\n".join(self._script(block)) + "\n")
        run_tool(
            ["yosys", "-q", f"{block.name}.ys"], self.folder, self.recipe.timeout_s, f"yosys: {block.name}"
        )
        module = json.loads(Path(f"{base}.json").read_text())["modules"][block.name]
        for suffix in (".v", ".ys", ".json"):
            Path(f"{base}{suffix}").unlink()
        return netlist_of(block, module, self.library)

    def _script(self, block: Block) -> list[str]:
        lines = [
            f"read_verilog {block.name}.v cells.v",
            f"hierarchy -top {block.name}",
            "proc", "flatten", "opt", "wreduce", "peepopt", "opt_clean", "alumacc", "opt",
            "techmap", "opt -fast", "opt_clean",
        ]  # fmt: skip
        if block.clocked:
            lines += [
                "dfflegalize -cell $_DFF_P_ x -cell $_DLATCH_P_ x -cell $_DLATCH_N_ x",
                "opt", "dfflibmap -liberty cells.lib", "opt", "techmap -map latches.v", "opt_clean",
            ]  # fmt: skip
        plain = PLAIN_FULL_ADDER in (self.roles.full_adder, self.roles.half_adder)
        abc = ABC_SCRIPTS[block.mapped_for].format(
            reduce=ABC_REDUCE_PLAIN_ADDERS if plain else ABC_REDUCE,
            choices="" if plain else "dch;",
            mapper=ABC_MAPPER if self.library.delays_grow else ABC_MAPPER_WITHOUT_LOADS,
            fanout=self.recipe.max_fanout,
        )
        target_ps = self.target_ps * (1 if block.mapped_for == "area" else SHORTER_TARGET)
        return [
            *lines,
            f"abc -liberty cells.lib -constr abc.constr -D {target_ps:g} -script +{abc}",
            "opt_clean -purge",
            f"write_json {block.name}.json",
        ]

    def _black_boxes(self) -> str:
        roles = self.roles
        cells = [roles.full_adder.cell, roles.half_adder.cell, roles.clock_gate, roles.clock_buffer]
        named = {cell.name: cell for cell in (*cells, *roles.or_gates.values()) if cell is not None}
        lines = [
            f"(* blackbox *) module {cell.name} (input {', '.join(cell.inputs)}, "
            f"output {', '.join(cell.outputs)}); endmodule"
            for cell in named.values()
        ]
        plain = PLAIN_ADDERS if PLAIN_HALF_ADDER in (roles.full_adder, roles.half_adder) else ""
        if PLAIN_FULL_ADDER in (roles.full_adder, roles.half_adder):
            plain = PLAIN_ADDERS
        return "\n".join(lines) + "\n" + plain

    def _latch_map(self) -> str:
        """Yosys' latches as library cells; a missing polarity is the other one behind an inverter."""
        lines = []
        for letter, own, other in (
            ("P", self.roles.latch_high, self.roles.latch_low),
            ("N", self.roles.latch_low, self.roles.latch_high),
        ):
            cell = own or other
            if cell is None:
                continue
            enable, inverter = (
                ("E", "") if cell is own else ("low", "wire low; \\$_NOT_ i (.A(E), .Y(low)); ")
            )
            shown = cell.outputs[cell.inverted.index(False)]
            pins = f".{cell.inputs[cell.data_pin]}(D), .{cell.inputs[cell.clock_pin]}({enable}), .{shown}(Q)"
            lines.append(
                f"module \\$_DLATCH_{letter}_ (input E, input D, output Q); "
                f"{inverter}{cell.name} _TECHMAP_REPLACE_ ({pins}); endmodule"
            )
        return "\n".join(lines) + "\n"


def mapping_library(library: Library) -> str:
    """The cells the mapper may choose as one small Liberty text, one table per arc on the common grid."""
    slews, loads = (
        ", ".join(f"{x:.10g}" for x in axis) for axis in (library.grid.slews_ps, library.grid.loads_ff)
    )
    lines = [
        "library (merged) {",
        "  delay_model : table_lookup;",
        '  time_unit : "1ps"; voltage_unit : "1V"; current_unit : "1mA"; leakage_power_unit : "1nW";',
        '  pulling_resistance_unit : "1kohm"; capacitive_load_unit (1,ff);',
        f"  nom_process : 1; nom_voltage : {library.supply_v}; nom_temperature : 25;",
        "  input_threshold_pct_rise : 50; input_threshold_pct_fall : 50;",
        "  output_threshold_pct_rise : 50; output_threshold_pct_fall : 50;",
        "  slew_lower_threshold_pct_rise : 10; slew_upper_threshold_pct_rise : 90;",
        "  slew_lower_threshold_pct_fall : 10; slew_upper_threshold_pct_fall : 90;",
        "  lu_table_template (grid) {",
        "    variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;",
        f'    index_1 ("{slews}"); index_2 ("{loads}");',
        "  }",
    ]
    for cell in library.cells.values():
        if not cell.avoided and cell.kind != "clock_gate":
            lines += _mapping_cell(cell)
    return "\n".join([*lines, "}"]) + "\n"


def _mapping_cell(cell: Cell) -> list[str]:
    lines = [
        f"  cell ({cell.name}) {{",
        f"    area : {cell.area_um2}; cell_leakage_power : {cell.leakage_nw};",
    ]
    for kind in ("ff", "latch"):
        storage = cell.group.first(kind)
        if storage is not None:
            # Functions and names have been read, and stay what they were; nothing else is handed on.
            attributes = " ".join(
                f'{key} : "{value}";' for key, value in storage.attributes.items() if key in STORAGE_FUNCTIONS
            )
            lines.append(f"    {kind} ({storage.argument}) {{ {attributes} }}")
    for name, capacitance in zip(cell.inputs, cell.capacitances_ff, strict=True):
        clock = " clock : true;" if cell.pins[name].attributes.get("clock") == "true" else ""
        lines.append(f"    pin ({name}) {{ direction : input;{clock} capacitance : {capacitance}; }}")
    for output in cell.outputs:
        function = cell.pins[output].attributes.get("function", "")
        lines.append(
            f'    pin ({output}) {{ direction : output; function : "{function}"; '
            f"max_capacitance : {cell.max_load_ff(output, DEFAULT_MAX_LOAD)};"
        )
        if cell.kind == "gate":
            for name in cell.inputs:
                lines += _mapping_arc(cell, output, name)
        lines.append("    }")
    return [*lines, "  }"]


def _mapping_arc(cell: Cell, output: str, name: str) -> list[str]:
    """One arc: the mapper knows no conditions."""
    groups = cell.related(output, name)
    if not groups:
        return []
    arc = next((group for group in groups if "when" not in group.attributes), groups[0])
    sense = arc.attributes.get("timing_sense", "")
    sense = sense if sense in ("positive_unate", "negative_unate") else "non_unate"
    lines = [f'      timing () {{ related_pin : "{name}"; timing_sense : {sense};']
    for kind in DELAY_TABLES:
        table = arc.first(kind)
        if table is not None:
            rows = cell.file.table(table, cell.grid, cell.file.ps)
            values = ", ".join('"' + ", ".join(f"{value:.5g}" for value in row) + '"' for row in rows)
            lines.append(f"        {kind} (grid) {{ values ( {values} ); }}")
    return [*lines, "      }"]
