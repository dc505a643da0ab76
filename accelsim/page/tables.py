"""Tables and summaries read back from folders that anyone may have made, and how a page holds them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.trace.json_fields import load_json

_MOST_BYTES = 64 << 20
_MOST_ROWS = 500_000
_MOST_COLUMNS = 500
_MOST_CHARACTERS = 20_000  # of a cell
LARGEST = 1e30  # number that a run may have written
_DIGITS = 10  # of a number that is not whole

Number = int | float
Cell = str | Number | None


@dataclass
class Files:
    """What a page was made from: the SHA-256 of every file that was read."""

    folder: Path
    hashes: dict[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A file's text. Raises AccelsimError."""
        path = self.folder / name
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError(f"larger than {_MOST_BYTES >> 20} MB")
            data = path.read_bytes()
            text = data.decode("utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise AccelsimError(f"report {path}: cannot be read: {reason}") from None
        self.hashes[name] = hashlib.sha256(data).hexdigest()
        return text

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object. Raises AccelsimError."""
        found = load_json(self.text(name), f"report {self.folder / name}")
        if not isinstance(found, dict):
            raise AccelsimError(f"report {self.folder / name}: expected an object")
        return found

    def table(self, name: str, *, numbers: Iterable[str] = (), texts: Iterable[str] = ()) -> Table:
        """A table with these columns and any others. A column holds numbers, None where a cell is empty, if
        all its cells are; `numbers` must, and without empty cells. Raises AccelsimError."""
        path, texts, numbers = self.folder / name, tuple(texts), tuple(numbers)
        try:
            rows = list(csv.reader(io.StringIO(self.text(name)), strict=True))
        except csv.Error as error:
            raise AccelsimError(f"report {path}: is no table ({error})") from None
        if not 2 <= len(rows) <= _MOST_ROWS:
            raise AccelsimError(
                f"report {path}: {max(0, len(rows) - 1):,} rows, expected 1 to {_MOST_ROWS:,}"
            )
        head = rows[0]
        for column in (*texts, *numbers):
            if column not in head:
                raise AccelsimError(f"report {path}: column {column} is missing")
        if len(head) > _MOST_COLUMNS or len(set(head)) != len(head):
            raise AccelsimError(f"report {path}: expected at most {_MOST_COLUMNS} columns, no two of a name")
        for row, own in enumerate(rows[1:], start=1):
            if len(own) != len(head) or max(map(len, own), default=0) > _MOST_CHARACTERS:
                raise AccelsimError(f"report {path}: row {row}: expected {len(head)} cells of one line each")
        columns: dict[str, list[Any]] = {}
        for column, cells in zip(head, zip(*rows[1:], strict=True), strict=True):
            values = None if column in texts else _numbers(cells)
            if column in numbers and (values is None or None in values):
                raise AccelsimError(f"report {path}: column {column}: expected a number in every row")
            columns[column] = list(cells) if values is None else values
        return Table(columns)


@dataclass(frozen=True)
class Table:
    """Columns of equal length by name: texts, or numbers with None where there is none."""

    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column: str) -> list[Any]:
        return self.columns[column]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def is_text(self, column: str) -> bool:
        return any(isinstance(value, str) for value in self[column])

    def is_empty(self, column: str) -> bool:
        return all(value in (None, "") for value in self[column])

    def payload(self, shown: Sequence[str] = ()) -> dict[str, Any]:
        """As JSON: columns in order, texts that repeat once. shown: what a reader sees at first, by default
        all, without empty columns; these come first."""
        first = [name for name in shown if name in self]
        seen = {name for name in first or self.columns if not self.is_empty(name)}
        return {
            "rows": len(self),
            "columns": [
                {"name": name, "shown": name in seen, **_coded(self[name], self.is_text(name))}
                for name in dict.fromkeys([*first, *self.columns])
            ],
        }


def _coded(values: list[Any], is_text: bool) -> dict[str, Any]:
    if not is_text:
        return {"values": [short(value) for value in values]}
    texts = {text: number for number, text in enumerate(dict.fromkeys(values))}
    if 2 * len(texts) > len(values):
        return {"text": True, "values": values}
    return {"text": True, "texts": list(texts), "values": [texts[text] for text in values]}


def short(value: Number | None) -> Number | None:
    """A number of at most ten significant digits; whole numbers stay as they are. None for what is none."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _numbers(cells: Sequence[str]) -> list[Number | None] | None:
    """None for a column of texts."""
    found: list[Number | None] = []
    for cell in cells:
        if not cell:
            found.append(None)
            continue
        # Python takes more for a number than a table writes: 1_000, inf, digits of other scripts.
        if not cell.isascii() or "_" in cell or len(cell) > 40:
            return None
        try:
            value: Number = int(cell)
        except ValueError:
            try:
                value = float(cell)
            except ValueError:
                return None
        if not abs(value) <= LARGEST:
            return None
        found.append(value)
    return found


def inert(data: object) -> str:
    """JSON that no HTML parser takes for markup, whatever names are in it."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
