"""Whole PEs, synthesised from the emitted RTL, against the sum of their parts: area, without SRAM.

    python benchmarks/whole_pe.py --liberty AO.lib.gz --liberty OA.lib.gz ... [--scheme 4/4/4/4 ...]

Prints rows of benchmarks/whole_pe.csv, um2 of one PE of magnet16 at the node and supply of the tables. Yosys
keeps the hierarchy, so that a difference has a place. Between the RTL as Yosys maps it and what is priced
stand structures that are known beforehand; they are put right one by one, with figures of the cost tables:

- multipliers: Yosys' own in the RTL, carry-save arrays in the tables, whose area modules of lanes take;
- enables: a multiplexer at every flip-flop against clock gates (rows ff32_muxen and ff32_icgen);
- storage: collector and FIFO are flip-flops against latches (rows arr_ff and arr_latch).

What is left is wiring between parts, what no part has, and the PPU, whose multipliers are Yosys' still.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from accelsim.api import emit_rtl
from accelsim.characterise.library import read_library
from accelsim.characterise.recipe import load_recipe
from accelsim.characterise.synthesis import find_yosys, mapping_library
from accelsim.costs import CostLibrary, Technology
from accelsim.costs.tables import DATAPATH, TABLES_DIR, Row, read_table
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch, load_arch
from accelsim.report.inventory import CLOCK_TREES, Part, build_inventory
from accelsim.rtl.synth import Synthesised, compare_area, synth

SCHEMES = ("8/8/-/-", "4/4/-/-", "4/4/4/4", "4/4/4/6", "4/8/6/10", "6/8/-/10")
AT_TABLE = ("node_nm=7", "voltage_v=0.7")
# Modules of a lane whose netlist in the tables is another.
ARITHMETIC = ("dot_product", "scale_product", "scale_multiply", "accumulator")
STORES = ("accumulation_collector", "out_fifo")
COLUMNS = (
    "scheme", "rtl_um2", "parts_um2", "rtl_over_parts", "multipliers_um2", "enables_um2", "storage_um2",
    "left_over_parts", "lanes_left_over_parts", "ppu_rtl_over_parts", "flip_flops", "source",
)  # fmt: skip


def compared(
    arch: Arch, scheme: Scheme, library: CostLibrary, rows: Sequence[Synthesised], source: str
) -> dict[str, str]:
    """A row of the table: rtl_um2 less the three differences, over the sum of parts, is `left_over_parts`."""
    inventory = build_inventory(arch, scheme, library)
    parts_um2 = sum(_um2(part, arch) for part in inventory if _logic(part))
    pe = rows[0]
    modules = compare_area(list(rows), arch, scheme, library).set_index("module")
    arithmetic = modules.loc[[name for name in ARITHMETIC if name in modules.index]]
    multipliers_um2 = float((arithmetic["synthesised_um2"] - arithmetic["modelled_um2"]).sum())
    own = {row.module: row for row in rows}
    flip_flops = pe.flip_flops
    table = {row.text["block"]: row for row in read_table(DATAPATH, TABLES_DIR)}
    enables_um2 = flip_flops * _enable_um2(table)
    stored = sum(own[name].flip_flops * own[name].instances for name in STORES)
    storage_um2 = stored * _latch_saving_um2(table)
    left_um2 = (pe.area or 0.0) - multipliers_um2 - enables_um2 - storage_um2
    lanes = own["vector_mac"]
    lanes_um2 = (lanes.area or 0.0) * lanes.instances - multipliers_um2
    lanes_um2 -= lanes.flip_flops * lanes.instances * _enable_um2(table)
    figures = {
        "rtl_um2": f"{pe.area:.0f}",
        "parts_um2": f"{parts_um2:.0f}",
        "rtl_over_parts": f"{(pe.area or 0.0) / parts_um2:.3f}",
        "multipliers_um2": f"{multipliers_um2:.0f}",
        "enables_um2": f"{enables_um2:.0f}",
        "storage_um2": f"{storage_um2:.0f}",
        "left_over_parts": f"{left_um2 / parts_um2:.3f}",
        "lanes_left_over_parts": f"{lanes_um2 / modules.loc['vector_mac', 'modelled_um2']:.3f}",
        "ppu_rtl_over_parts": f"{modules.loc['ppu', 'ratio']:.3f}",
        "flip_flops": str(flip_flops),
    }
    return {"scheme": str(scheme), **figures, "source": source}


def _logic(part: Part) -> bool:
    """Of a PE, with a module in the RTL: neither memory nor clock tree."""
    outside = (*CLOCK_TREES.values(), "weight_buffer", "input_buffer", "accumulation_buffer")
    return part.scope in ("datapath", "pe") and part.name not in outside


def _um2(part: Part, arch: Arch) -> float:
    return part.instances * part.cost.area_um2 / arch.pes


def _enable_um2(table: dict[str, Row]) -> float:
    """A multiplexer at a flip-flop over its share of a clock gate."""
    return (table["ff32_muxen"]["area_um2"] - table["ff32_icgen"]["area_um2"]) / 32


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
    arch, library = load_arch("magnet16", list(AT_TABLE)), CostLibrary(Technology(7, 0.7))
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    with tempfile.TemporaryDirectory() as folder:
        liberty = Path(folder) / "cells.lib"
        liberty.write_text(mapping_library(cells))
        for index, text in enumerate(own.scheme or SCHEMES):
            out = emit_rtl(Path(folder) / str(index), arch, text)
            rows = synth(out, liberty)
            writer.writerow(compared(arch, Scheme.parse(text), library, rows, source))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
