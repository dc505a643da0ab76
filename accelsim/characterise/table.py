"""Rows of the characterised tables and the folder they go to (whole, or not at all)."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from accelsim.characterise.block import Block
from accelsim.characterise.netlist import Netlist
from accelsim.characterise.simulator import Activity
from accelsim.costs.tables import ACTIVITY, ALL_TABLES, CLOCK_CELLS, DATAPATH, TABLES_DIR
from accelsim.errors import AccelsimError
from accelsim.system.whole import scratch_folder, whole_folder, writing

PARAMETERS = (
    "weight_bits", "activation_bits", "vector_size", "activation_signed", "weight_scale_bits",
    "activation_scale_bits", "scale_product_bits", "dot_bits", "width_bits", "kind", "accumulator_bits",
    "multiplier_bits", "input_bits", "output_bits", "format", "depth",
)  # fmt: skip
COLUMNS = (
    "block", "family", *PARAMETERS, "stimulus", "area_um2", "leakage_nw", "delay_ps", "energy_fj",
    "input_pin_energy_fj", "hidden_energy_fj", "zero_delay_energy_fj", "output_mismatches", "node_nm",
    "vdd_v", "source",
)  # fmt: skip
ACTIVITY_COLUMNS = (
    "block", "family", *PARAMETERS, "stimulus", "toggles", "energy_fj", "node_nm", "vdd_v", "source"
)  # fmt: skip
CLOCK_COLUMNS = (
    "role", "cell", "pin_ff", "load_ff", "energy_fj", "area_um2", "leakage_nw", "delay_ps", "node_nm",
    "vdd_v", "source",
)  # fmt: skip
_FILES = {spec.file for spec in ALL_TABLES}


@dataclass(frozen=True)
class Process:
    """What all rows of a table share."""

    node_nm: float
    vdd_v: float
    source: str


def row(
    block: Block, stimulus: str, netlist: Netlist, delay_ps: float, activity: Activity, process: Process
) -> dict[str, object]:
    """One line of the table. The outputs have been compared with the block's reference: none differs."""
    return {
        "block": block.name,
        "family": block.family,
        **block.columns,
        "stimulus": stimulus,
        "area_um2": f"{netlist.area_um2:.3f}",
        "leakage_nw": f"{netlist.leakage_nw:.2f}",
        "delay_ps": f"{delay_ps:.1f}",
        "energy_fj": f"{activity.total_fj:.3f}",
        "input_pin_energy_fj": f"{activity.input_pins_fj:.3f}",
        # Characterised tables may list slightly negative passive energies; the column is a magnitude.
        "hidden_energy_fj": f"{max(activity.hidden_fj, 0.0):.3f}",
        "zero_delay_energy_fj": f"{activity.zero_delay_fj:.3f}",
        "output_mismatches": 0,
        "node_nm": f"{process.node_nm:g}",
        "vdd_v": f"{process.vdd_v:g}",
        "source": process.source,
    }


def activity_row(
    block: Block, stimulus: str, toggles: float, energy_fj: float, process: Process
) -> dict[str, object]:
    """One line of the table of activities."""
    return {
        "block": block.name,
        "family": block.family,
        **block.columns,
        "stimulus": stimulus,
        "toggles": f"{toggles:.3f}",
        "energy_fj": f"{energy_fj:.3f}",
        "node_nm": f"{process.node_nm:g}",
        "vdd_v": f"{process.vdd_v:g}",
        "source": process.source,
    }


def write_tables(
    folder: Path,
    rows: Sequence[dict[str, object]],
    activity_rows: Sequence[dict[str, object]],
    clock_rows: Sequence[dict[str, object]],
    *,
    complete: bool,
) -> None:
    """The characterised tables; if they are complete, the package's other tables beside them."""
    made = {DATAPATH.file: (COLUMNS, rows), ACTIVITY.file: (ACTIVITY_COLUMNS, activity_rows)}
    if complete:
        made[CLOCK_CELLS.file] = (CLOCK_COLUMNS, clock_rows)
    for name, (columns, own) in made.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(own)
    if complete:
        for spec in ALL_TABLES:
            if spec.file not in made:
                shutil.copyfile(TABLES_DIR / spec.file, folder / spec.file)


def check_target(out: Path) -> None:
    """Refuse what cannot become a folder of tables or holds anything else."""
    if out.exists() and not out.is_dir():
        raise AccelsimError(f"costs {out}: is a file, expected a folder to write tables to")
    if out.is_dir():
        if out.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise AccelsimError(f"costs {out}: is the current folder, expected a new folder or one of tables")
        if not {path.name for path in out.iterdir()} <= _FILES:
            raise AccelsimError(f"costs {out}: holds other files, expected a new folder or one of tables")


@contextmanager
def table_folder(out: Path) -> Iterator[tuple[Path, Path]]:
    """Two new folders: of tables, which takes the place of `out` on success, and of scratch files."""
    check_target(out)
    with writing("costs", out), scratch_folder(out) as work, whole_folder(out) as tables:
        yield tables, work
        check_target(out)  # others may have written meanwhile
