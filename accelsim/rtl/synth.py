"""Synthesis of an emitted PE with Yosys: cells and, with a Liberty file, area by module (docs/rtl.md)."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.arguments import path_of
from accelsim.characterise.liberty import liberty_text, parse_liberty
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.rtl.emit import SYNTHESISED, TOP, check_one_scheme, modules
from accelsim.system.tools import find_tool, run_tool
from accelsim.system.whole import scratch_folder, writing

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.costs import CostLibrary

# Becomes an SRAM macro: neither counted nor mapped.
MEMORY = "single_port_memory"
_SECTION = re.compile(r"^=== (.+) ===$", re.MULTILINE)
_CELL = re.compile(r"^ {5}(\S+) +(\d+)$", re.MULTILINE)
_AREA = re.compile(r"Chip area for (?:top )?module '\\?(.+)': ([0-9.]+)")


@dataclass(frozen=True)
class Synthesised:
    """One module at one parametrisation, with everything below it.

    instances: in the PE; cells and flip_flops of one instance, without memories; area: of one instance in the
    unit of the Liberty file (um2 as a rule), None without one.
    """

    module: str
    parent: str
    instances: int
    cells: int
    flip_flops: int
    area: float | None


@dataclass
class _Module:
    cells: Counter[str] = field(default_factory=Counter)
    area: float | None = None


def synth(out: str | Path, liberty: str | Path | None = None, timeout_s: float = 3600) -> list[Synthesised]:
    """Synthesise the PE that `emit` wrote into folder `out`, keeping its hierarchy, top first.

    Without `liberty` cells are Yosys' generic gates. Raises AccelsimError when Yosys is absent or fails.
    """
    yosys = find_tool("yosys", "yosys")
    out = path_of(out, "rtl")
    sources = [name for name in sorted([*modules(), f"{TOP}.sv"]) if (out / name).is_file()]
    if f"{TOP}.sv" not in sources:
        raise AccelsimError(f"synth {out}: no {TOP}.sv, expected a folder written by `accelsim rtl`")
    script = [
        f"read_verilog -sv {' '.join(sources)}",
        f"hierarchy -check -top {TOP}",
        f"blackbox *{MEMORY}*",
        f"synth -top {TOP}",
    ]
    library = ""
    if liberty is not None:
        library = " -liberty cells.lib"
        script += [f"dfflibmap{library}", f"abc{library}", "opt_clean -purge"]
    script += [f"tee -o synth_stat.txt stat{library}", "write_verilog -noattr synth.v"]
    with writing("synth", out), scratch_folder(out) as work:
        for name in sources:
            shutil.copyfile(out / name, work / name)
        if liberty is not None:
            text = liberty_text(liberty)
            parse_liberty(text, str(liberty))  # refuses names that are none to Yosys
            (work / "cells.lib").write_text(text, encoding="utf-8")
        (work / "synth.ys").write_text("\n".join(script) + "\n")
        run_tool([yosys, "-q", "synth.ys"], work, timeout_s, "yosys")
        rows = rows_of_stat((work / "synth_stat.txt").read_text())
        for name in SYNTHESISED:
            (work / name).replace(out / name)
    return rows


def rows_of_stat(text: str) -> list[Synthesised]:
    """From the text of `stat`; its JSON is not valid where module names hold backslashes."""
    parts = _SECTION.split(text)
    modules: dict[str, _Module] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name == "design hierarchy":
            continue
        module = modules[name] = _Module()
        module.cells.update({cell: int(count) for cell, count in _CELL.findall(body)})
        area = _AREA.search(body)
        module.area = float(area[2]) if area else None
    mapped = any(module.area is not None for module in modules.values())

    @cache
    def total(name: str) -> tuple[int, int, float]:
        cells = flip_flops = 0
        area = modules[name].area or 0.0
        for cell, count in modules[name].cells.items():
            if cell in modules:
                below = total(cell)
                cells += count * below[0]
                flip_flops += count * below[1]
                area += count * below[2]
            elif MEMORY not in cell:
                cells += count
                flip_flops += count * _is_flip_flop(cell)
        return cells, flip_flops, area

    rows: list[Synthesised] = []

    def visit(name: str, parent: str, instances: int) -> None:
        cells, flip_flops, area = total(name)
        shown = _plain(name)
        rows.append(Synthesised(shown, parent, instances, cells, flip_flops, area if mapped else None))
        for cell, count in modules[name].cells.items():
            if cell in modules:
                visit(cell, shown, instances * count)

    visit(TOP, "", 1)
    return rows


def _is_flip_flop(cell: str) -> bool:
    return re.match(r"\$_S?DFF|.*(DFF|SDF)", cell, re.IGNORECASE) is not None


def _plain(name: str) -> str:
    """`vector_mac` of `$paramod$1234\\vector_mac` or `$paramod\\vector_mac\\LANES=...`."""
    if not name.startswith("$paramod"):
        return name
    return name.split("\\")[1]


def synth_frame(rows: list[Synthesised]) -> pd.DataFrame:
    """One row a module; those of one name and parent, such as pipeline registers, are added up."""
    import pandas as pd

    frame = pd.DataFrame([vars(row) for row in rows])
    for column in ("cells", "flip_flops", "area"):
        frame[column] = frame[column] * frame["instances"]
    keys = ["parent", "module"]
    added = frame.groupby(keys, sort=False, as_index=False).agg(
        instances=("instances", "sum"), cells=("cells", "sum"), flip_flops=("flip_flops", "sum"),
        area=("area", lambda area: area.sum(min_count=1)),
    )  # fmt: skip
    return added if added["area"].notna().any() else added.drop(columns="area")


# Module -> parts of the inventory it holds.
MODELLED: Mapping[str, tuple[str, ...]] = {
    "dot_product": ("dot_product",),
    "scale_product": ("scale_product",),
    "scale_multiply": ("scale_multiply",),
    "element_decode": ("weight_decode", "input_decode"),
    "scale_sum": ("scale_sum",),
    "align": ("align",),
    "block_sum": ("block_sum", "block_sum_register"),
    "accumulator": ("accumulator",),
    "vector_mac": (
        "dot_product", "scale_product", "scale_multiply", "accumulator", "weight_decode", "scale_sum",
        "align", "weight_zero_detect", "weight_register", "pipeline_register", "scale_zero_detect",
        "operand_register", "block_sum", "block_sum_register",
    ),
    "input_register": ("input_register", "input_zero_detect", "input_decode"),
    "accumulation_collector": ("accumulation_collector",),
    "ppu": (
        "ppu", "ppu_select", "ppu_register", "ppu_vector_scale", "ppu_vector_register", "ppu_hold",
        "ppu_block_scale", "ppu_block_quantize", "ppu_staging", "ppu_staging_max",
    ),
    "ppu_staging": ("ppu_staging", "ppu_staging_max"),
    "out_fifo": ("out_fifo",),
    "sequencers": ("control",),
}  # fmt: skip
_SEQUENCERS = ("os_lws_sequencer", "drain_sequencer")


def compare_area(rows: list[Synthesised], arch: Arch, scheme: Scheme, library: CostLibrary) -> pd.DataFrame:
    """Modelled against synthesised area of one PE by module, um2, SRAM left out.

    `library` should be of the Liberty file's node. Without areas (no Liberty) only cells stand beside it.
    """
    import pandas as pd

    from accelsim.report.inventory import build_inventory

    check_one_scheme(arch)
    parts = {part.name: part for part in build_inventory(arch, scheme, library)}
    table = []
    for module, names in MODELLED.items():
        own = [row for row in rows if row.module in (_SEQUENCERS if module == "sequencers" else (module,))]
        if not own:
            continue
        modelled = sum(
            parts[name].cost.area_um2 * parts[name].instances / arch.pes for name in names if name in parts
        )
        if not modelled and not any(row.cells for row in own):
            continue  # a module that only passes on
        areas = [row.area * row.instances for row in own if row.area is not None]
        table.append(
            {
                "module": module,
                "cells": sum(row.cells * row.instances for row in own),
                "modelled_um2": modelled,
                "synthesised_um2": sum(areas) if areas else None,
                "ratio": sum(areas) / modelled if areas and modelled else None,
            }
        )
    return pd.DataFrame(table)
