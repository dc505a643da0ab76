"""Whole PEs, synthesised from the emitted RTL, against the sum of their parts: area, without SRAM.

    python benchmarks/whole_pe.py --liberty AO.lib.gz --liberty OA.lib.gz ... [--scheme 4/4/4/4 ...]

Prints rows of benchmarks/whole_pe.csv, um2 of one PE of magnet16 at the node and supply of the tables. Yosys
keeps the hierarchy, so that a difference has a place, and maps with the script of the tables, without its
SAT-based steps. The arithmetic of lanes and PPU is that of the tables on both sides: whole lanes are in
flat_lanes.py, and Yosys' own multipliers are another circuit. Two more structures are known to differ, and
are put right with figures of the tables: a multiplexer at every flip-flop against clock gates (rows
ff32_muxen and ff32_icgen), and flip-flops against latches in collector and FIFO (arr_ff and arr_latch).
Rows of registers with clock gates have an inverter behind each flip-flop, whose own output is the
complement; neither a multiplexer before it nor the read multiplexer of an array needs one. What is left is
wiring between parts, and what no part has.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from accelsim.api import emit_rtl
from accelsim.characterise.library import read_library
from accelsim.characterise.recipe import Recipe, load_recipe
from accelsim.characterise.roles import find_roles
from accelsim.characterise.synthesis import (
    ABC_REDUCE_PLAIN_ADDERS,
    ABC_SCRIPT,
    find_yosys,
    mapping_library,
)
from accelsim.costs import CostLibrary, Technology
from accelsim.costs.tables import DATAPATH, TABLES_DIR, Row, read_table
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.report.inventory import CLOCK_TREES, Part, build_inventory
from accelsim.rtl.emit import TESTBENCH, TOP
from accelsim.rtl.synth import MEMORY, Synthesised, rows_of_stat

SCHEMES = ("8/8/-/-", "4/4/-/-", "4/4/4/4", "4/4/4/6", "4/8/6/10", "6/8/-/10")
AT_TABLE = ("node_nm=7", "voltage_v=0.7")
# Modules of a lane that are the tables' on both sides.
ARITHMETIC = ("dot_product", "scale_product", "scale_multiply", "accumulator")
PPU_ARITHMETIC = (
    "ppu_product", "ppu_shift", "ppu_bias", "ppu_static", "ppu_magnitude", "ppu_vector_max",
    "ppu_vector_scale", "ppu_reciprocal", "ppu_quantize",
)  # fmt: skip
PPU_PARTS = ("ppu", "ppu_vector_scale")
OUTSIDE = ("weight_buffer", "input_buffer", "accumulation_buffer", "ppu_constants", "psum_adder")
STORES = ("accumulation_collector", "out_fifo")
COLUMNS = (
    "scheme", "arithmetic_um2", "other_rtl_um2", "parts_um2", "rtl_over_parts", "ppu_arithmetic_um2",
    "enables_um2", "storage_um2", "left_um2", "left_over_parts", "flip_flops", "source",
)  # fmt: skip


def mapped(folder: Path, recipe: Recipe) -> list[Synthesised]:
    """An emitted PE on the cells of `cells.lib` there, hierarchy kept, memories and arithmetic left out."""
    sources = sorted(file.name for file in folder.glob("*.sv") if file.name != f"{TESTBENCH}.sv")
    abc = ABC_SCRIPT.format(reduce=ABC_REDUCE_PLAIN_ADDERS, fanout=recipe.max_fanout)
    script = [
        f"read_verilog -sv {' '.join(sources)}",
        f"hierarchy -check -top {TOP}",
        f"blackbox *{MEMORY}* " + " ".join(f"*{name}*" for name in ARITHMETIC),
        f"synth -noabc -top {TOP}",
        "dfflibmap -liberty cells.lib",
        f"abc -liberty cells.lib -D {recipe.target_ps:g} -script +{abc}",
        "opt_clean -purge",
        "tee -o stat.txt stat -liberty cells.lib",
    ]
    (folder / "whole.ys").write_text("\n".join(script) + "\n")
    subprocess.run(["yosys", "-q", "whole.ys"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return rows_of_stat((folder / "stat.txt").read_text())


def compared(
    arch: Arch,
    scheme: Scheme,
    library: CostLibrary,
    rows: Sequence[Synthesised],
    inverter_um2: float,
    source: str,
) -> dict[str, str]:
    """A row of the table: arithmetic and RTL less the three differences is what is left, beside the parts."""
    inventory = {part.name: part for part in build_inventory(arch, scheme, library)}
    parts_um2 = sum(_um2(part, arch) for part in inventory.values() if _logic(part))
    arithmetic_um2 = sum(_um2(inventory[name], arch) for name in ARITHMETIC if name in inventory)
    pe, own = rows[0], {row.module: row for row in rows}
    table = {row.text["block"]: row for row in read_table(DATAPATH, TABLES_DIR)}
    multiplexed_um2, gated_um2 = (table[block]["area_um2"] / 32 for block in ("ff32_muxen", "ff32_icgen"))
    of_ppu = [row for row in rows if row.parent == "ppu" and row.module in PPU_ARITHMETIC]
    ppu_um2 = sum(
        row.instances * ((row.area or 0.0) - row.flip_flops * multiplexed_um2) for row in of_ppu
    ) - sum(_um2(inventory[name], arch) for name in PPU_PARTS if name in inventory)
    stored = sum(own[name].flip_flops * own[name].instances for name in STORES)
    enables_um2 = pe.flip_flops * (multiplexed_um2 - gated_um2) + stored * inverter_um2
    storage_um2 = stored * _latch_saving_um2(table)
    rtl_um2 = (pe.area or 0.0) + arithmetic_um2
    left_um2 = rtl_um2 - ppu_um2 - enables_um2 - storage_um2
    figures = {
        "arithmetic_um2": f"{arithmetic_um2:.0f}",
        "other_rtl_um2": f"{pe.area:.0f}",
        "parts_um2": f"{parts_um2:.0f}",
        "rtl_over_parts": f"{rtl_um2 / parts_um2:.3f}",
        "ppu_arithmetic_um2": f"{ppu_um2:.0f}",
        "enables_um2": f"{enables_um2:.0f}",
        "storage_um2": f"{storage_um2:.0f}",
        "left_um2": f"{left_um2:.0f}",
        "left_over_parts": f"{left_um2 / parts_um2:.3f}",
        "flip_flops": str(pe.flip_flops),
    }
    return {"scheme": str(scheme), **figures, "source": source}


def _logic(part: Part) -> bool:
    """Of a PE, with a module in the RTL (docs/rtl.md says what is outside): neither memory nor clock tree."""
    return part.scope in ("datapath", "pe") and part.name not in (*CLOCK_TREES.values(), *OUTSIDE)


def _um2(part: Part, arch: Arch) -> float:
    return part.instances * part.cost.area_um2 / arch.pes


def _latch_saving_um2(table: dict[str, Row]) -> float:
    """A flip-flop over a latch of an array of 16 words of 256 bits."""
    return (table["arr_ff_256x16"]["area_um2"] - table["arr_latch_256x16"]["area_um2"]) / (16 * 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--liberty", action="append", required=True)
    parser.add_argument("--scheme", action="append")
    own = parser.parse_args()
    recipe = load_recipe("asap7")
    cells = read_library(own.liberty, recipe.avoid)
    source = f"{find_yosys()} with abc, {recipe.library}; emitted RTL of magnet16, hierarchy kept, no SRAM"
    inverter_um2 = find_roles(cells, recipe).inverter.area_um2
    arch, library = load_arch("magnet16", list(AT_TABLE)), CostLibrary(Technology(7, 0.7))
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    with tempfile.TemporaryDirectory() as folder:
        for index, text in enumerate(own.scheme or SCHEMES):
            out = emit_rtl(Path(folder) / str(index), arch, text)
            (out / "cells.lib").write_text(mapping_library(cells))
            rows = mapped(out, recipe)
            writer.writerow(compared(arch, Scheme.parse(text), library, rows, inverter_um2, source))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
