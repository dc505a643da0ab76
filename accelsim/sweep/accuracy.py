"""Accuracy that was measured elsewhere, for points of a space: a CSV table, or what a function says.

It is joined to points by network and scheme when they are looked at, and is not in the store: figures of a
point do not depend on it, and a table that was corrected is used at once.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.report.figures import NAMES

FROM = "accuracy_from"
"""The column that says where a point's accuracy came from."""
_TAKEN = frozenset(
    (*NAMES, "network", "scheme", "arch", "costs", "warning", "error", "feasible", "front", FROM)
)
_MOST_FILE_BYTES = 1 << 24
_MOST_CHARACTERS = 60


class AccuracyTable(BaseModel):
    """A CSV file with columns `network` and `scheme`.

    columns: of numbers, and what the table of points calls them; where: only rows that have these texts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    file: str = Field(min_length=1)
    columns: dict[str, str] = Field({"accuracy": "accuracy"}, min_length=1)
    where: dict[str, str | int | float | bool] = {}


@dataclass
class Measured:
    """values, sources: by network and by scheme, both as the space writes them."""

    values: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    sources: dict[tuple[str, str], str] = field(default_factory=dict)


def check_name(name: str) -> None:
    """Raises ValueError for one that a column of the table of points has already, or that cannot be one."""
    if name in _TAKEN:
        raise ValueError(f"accuracy: '{name}' is another column of the table, expected another name")
    if not name.isprintable() or not 0 < len(name) <= _MOST_CHARACTERS:
        raise ValueError(
            f"accuracy: a name is {name!r:.70}, expected 1 to {_MOST_CHARACTERS} printable characters"
        )


def read_table(table: AccuracyTable, networks: Sequence[str], schemes: Sequence[str]) -> Measured:
    """Rows of these networks, by name as the space writes it or by the name of its file where only one has
    that, and schemes.

    Rows of others, and cells that are empty, are none. Raises AccelsimError for a file that cannot be read,
    naming file, line and column, for a point that has two rows, and where no row is of the space.
    """
    path = Path(table.file)
    where = f"accuracy {table.file[:200]}"
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise AccelsimError(f"{where}: more than {_MOST_FILE_BYTES} bytes")
        data = path.read_bytes()
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AccelsimError(f"{where}: cannot be read as CSV: {str(reason)[:100]}") from None
    header = list(reader.fieldnames or ())
    for name in ("network", "scheme", *table.columns, *table.where):
        if header.count(name) != 1:
            has = ", ".join(header)[:120]
            raise AccelsimError(f"{where}: expected one column '{name[:40]}', its header is: {has}")
    short = [(name, own) for own in networks for name in {Path(own).name, Path(own).stem}]
    shared = Counter(name for name, _ in short)
    by_network = {name: own for name, own in short if shared[name] == 1} | {own: own for own in networks}
    by_scheme = {_plain(own): own for own in schemes}
    digest, found = hashlib.sha256(data).hexdigest()[:12], Measured()
    lines: dict[tuple[str, str], tuple[int, dict[str, str]]] = {}
    for line, row in rows:
        if any((row[name] or "") != str(wanted) for name, wanted in table.where.items()):
            continue
        network, scheme = by_network.get(row["network"] or ""), by_scheme.get(_plain(row["scheme"] or ""))
        if network is None or scheme is None:
            continue
        point = network, scheme
        if point in lines:
            before, other = lines[point]
            differ = ", ".join(name for name in header if row[name] != other[name])[:120] or "nothing"
            raise AccelsimError(
                f"{where}: lines {before} and {line} are both of {network} at {scheme}, expected one; "
                f"they differ in {differ}: `where` can choose"
            )
        lines[point] = line, row
        values = {
            name: _number(row[column], f"{where}: line {line}, {column}")
            for column, name in table.columns.items()
            if row[column]
        }
        if values:
            found.values.setdefault(network, {})[scheme] = values
            found.sources[point] = f"{path.name} line {line}, SHA-256 {digest}"
    if not found.values:
        raise AccelsimError(f"{where}: none of {len(rows):,} rows is of a network and a scheme of the space")
    return found


def checked(said: Any, where: str) -> dict[str, float]:
    """What a function says of one network at one scheme; {} for None. Raises AccelsimError."""
    if said is None:
        return {}
    if not isinstance(said, Mapping) or not all(isinstance(name, str) for name in said):
        raise AccelsimError(f"{where}: is {said!r:.60}, expected numbers by name or None")
    for name in said:
        try:
            check_name(name)
        except ValueError as error:
            raise AccelsimError(f"{where}: {error}") from None
    return {name: _number(value, f"{where}: {name}") for name, value in said.items()}


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise AccelsimError(f"{where}: is {value!r:.60}, expected a finite number")
    return number


def _plain(scheme: str) -> str:
    """As it is always written; what is no scheme, such as `float` or an unknown one of a point, as it is."""
    try:
        return str(Scheme.parse(scheme))
    except AccelsimError:
        return scheme
