"""Reads `tables/*.csv`: the facts. Every fault is one AccelsimError naming file, line and column."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelsim.errors import AccelsimError

# In any unit: what lies beyond is a mistake, and would only overflow in a law.
_SMALLEST, _LARGEST = 1e-12, 1e12
_MOST_BYTES = 16 << 20
TABLES_DIR = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class TableSpec:
    """Columns a table must have: `positive` > 0 and `zero_or_more` >= 0 on every row, `signed` any number,
    `optional` empty or >= 0, `text` not empty, `labels` any text."""

    file: str
    positive: tuple[str, ...] = ()
    zero_or_more: tuple[str, ...] = ()
    signed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    text: tuple[str, ...] = ("source",)
    labels: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return self.positive + self.zero_or_more + self.signed + self.optional + self.text + self.labels


DATAPATH = TableSpec(
    "datapath.csv",
    positive=("node_nm", "vdd_v"),
    zero_or_more=("area_um2", "leakage_nw", "delay_ps", "energy_fj"),
    optional=(
        "weight_bits", "activation_bits", "vector_size", "activation_signed", "weight_scale_bits",
        "activation_scale_bits", "scale_product_bits", "dot_bits", "width_bits", "accumulator_bits",
        "multiplier_bits", "input_bits", "output_bits", "depth",
        "input_pin_energy_fj", "hidden_energy_fj", "zero_delay_energy_fj",
    ),
    text=("block", "family", "stimulus", "source"),
    labels=("kind", "format"),
)  # fmt: skip
ACTIVITY = TableSpec(
    "activity.csv",
    positive=("node_nm", "vdd_v"),
    zero_or_more=("toggles", "energy_fj"),
    optional=(
        "weight_bits", "activation_bits", "vector_size", "weight_scale_bits", "activation_scale_bits",
        "scale_product_bits", "dot_bits", "width_bits", "accumulator_bits", "input_bits",
    ),
    text=("block", "family", "stimulus", "source"),
)  # fmt: skip
SRAM = TableSpec(
    "sram_cacti22.csv",
    positive=(
        "capacity_kib", "words", "width_bits", "read_energy_pj", "write_energy_pj", "leakage_mw", "area_mm2",
        "access_time_ns", "cycle_time_ns", "node_nm", "vdd_v",
    ),
    text=("device", "source"),
)  # fmt: skip
SRAM_AREA = TableSpec(
    "sram_asap7_area.csv",
    positive=("words", "width_bits", "area_um2", "node_nm", "vdd_v"),
    text=("macro", "source"),
)
BITCELL = TableSpec("sram_bitcell.csv", positive=("node_nm", "area_um2"), text=("source", "status"))
LOGIC_SCALING = TableSpec(
    "logic_scaling.csv",
    positive=("node_nm", "area_relative"),
    signed=("energy_a2", "energy_a1", "energy_a0", "delay_d3", "delay_d2", "delay_d1", "delay_d0"),
    text=("source", "status"),
)
CLOCK_CELLS = TableSpec(
    "clock_cells.csv",
    positive=("pin_ff", "node_nm", "vdd_v"),
    optional=("load_ff", "energy_fj", "area_um2", "leakage_nw", "delay_ps"),
    text=("role", "cell", "source"),
)
SYSTEM = TableSpec(
    "system.csv",
    zero_or_more=("value",),
    optional=("node_nm", "vdd_v"),
    text=("key", "component", "quantity", "unit", "source", "status", "used"),
)
ALL_TABLES = (DATAPATH, ACTIVITY, CLOCK_CELLS, SRAM, SRAM_AREA, BITCELL, LOGIC_SCALING, SYSTEM)


@dataclass(frozen=True)
class Row:
    """One checked line of a table."""

    line: int
    text: dict[str, str]
    numbers: dict[str, float]

    def __getitem__(self, column: str) -> float:
        if column not in self.numbers:
            item = next(iter(self.text.values()), "")
            raise AccelsimError(f"cost table line {self.line} ({item}): {column} is empty, expected a number")
        return self.numbers[column]


def read_table(spec: TableSpec, tables_dir: Path) -> list[Row]:
    """Every row of one table, checked against its spec."""
    path = tables_dir / spec.file
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise AccelsimError(f"cost table {path}: is larger than {_MOST_BYTES >> 20} MB")
        content = path.read_text(encoding="utf-8")
        lines = list(_numbered(content))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AccelsimError(f"cost table {path}: cannot be read ({type(error).__name__})") from None
    header = lines[0][1] if lines else []
    missing = [column for column in spec.columns if column not in header]
    if missing:
        raise AccelsimError(f"cost table {path}: column '{missing[0]}' is missing from the header")
    if not content.endswith("\n"):
        raise AccelsimError(f"cost table {path}: truncated, the last line has no end")
    rows = [_checked_row(spec, path, line, header, fields) for line, fields in lines[1:]]
    if not rows:
        raise AccelsimError(f"cost table {path}: no rows, expected at least one")
    return rows


def digest_of(spec: TableSpec, tables_dir: Path) -> str | None:
    """Of the bytes of one table; None where it cannot be read, or is larger than a table may be."""
    try:
        with (tables_dir / spec.file).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError:
        return None
    return None if len(content) > _MOST_BYTES else hashlib.sha256(content).hexdigest()


def _numbered(content: str) -> Iterator[tuple[int, list[str]]]:
    """Lines of a CSV text, each with its number."""
    reader = csv.reader(io.StringIO(content, newline=""))
    for fields in reader:
        yield reader.line_num, fields


def _checked_row(spec: TableSpec, path: Path, line: int, header: list[str], fields: list[str]) -> Row:
    if len(fields) != len(header):
        raise AccelsimError(f"cost table {path} line {line}: {len(fields)} fields, expected {len(header)}")
    cells = dict(zip(header, fields, strict=True))
    for column in spec.text:
        if not cells[column].strip():
            raise AccelsimError(f"cost table {path} line {line}: {column} is empty, expected text")
    numbers: dict[str, float] = {}
    for column in (*spec.positive, *spec.zero_or_more, *spec.signed, *spec.optional):
        cell = cells[column].strip()
        if not cell and column in spec.optional:
            continue
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        least = _SMALLEST if column in spec.positive else 0.0
        if not abs(value) <= _LARGEST or (column not in spec.signed and value < least):
            kind = "a number" if column in spec.signed else "a number above 0"
            if column in spec.zero_or_more or column in spec.optional:
                kind = "a number of at least 0"
            raise AccelsimError(f"cost table {path} line {line}: {column} is '{cell[:40]}', expected {kind}")
        numbers[column] = value
    return Row(line, {c: cells[c] for c in (*spec.text, *spec.labels)}, numbers)


class Datapath:
    """The synthesis rows, found by family, stimulus and parameters."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            self._rows.setdefault((row.text["family"], row.text["stimulus"]), []).append(row)
        nodes = {(row["node_nm"], row["vdd_v"]) for row in rows}
        if len(nodes) != 1:
            raise AccelsimError(
                f"cost table {DATAPATH.file}: rows of {len(nodes)} nodes and supplies, expected one"
            )
        self.node_nm, self.vdd_v = next(iter(nodes))

    def find(self, family: str, stimulus: str, **parameters: float | str) -> list[Row]:
        """Rows of a family under a stimulus whose named columns have these values; never empty."""
        found = [row for row in self._rows.get((family, stimulus), ()) if self._matches(row, parameters)]
        if not found:
            wanted = "".join(f" {name}={value}" for name, value in parameters.items())
            raise AccelsimError(
                f"cost table {DATAPATH.file}: no row of family '{family}' stimulus '{stimulus}'{wanted}, "
                "expected at least one"
            )
        return found

    @staticmethod
    def _matches(row: Row, parameters: dict[str, float | str]) -> bool:
        return all(
            row.text.get(name) == value if isinstance(value, str) else row.numbers.get(name) == value
            for name, value in parameters.items()
        )


def sources(rows: Iterable[Row]) -> str:
    """The distinct sources of `rows`, in table order."""
    return "; ".join(dict.fromkeys(row.text["source"] for row in rows))
