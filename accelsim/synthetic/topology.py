"""SCALE-Sim topology files as people keep them: which column is what, and what is no layer.

Columns are found by their names, in any order. What is not read is said once, in `Topology.notes`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelsim.errors import AccelsimError
from accelsim.trace.json_fields import fail, show

MAX_BYTES = 4 << 20
MAX_SIZE = 1 << 24
MAX_LINES = 10_000
MAX_COLUMNS = 256
CONV = (
    *("ifmap height", "ifmap width", "filter height", "filter width"),
    *("channels", "num filter", "strides"),
)
GEMM = ("m", "n", "k")
EXPECTED = f"'Layer name, {', '.join(CONV)},' or 'Layer, M, N, K,'"
_NAME = "layer name"
_KIND, _BATCH, _SPARSITY = "layer type", "batch", "sparsity"
_STRIDES = ("stride height", "stride width")
_ALIASES = {
    "layer": _NAME, "name": _NAME, "num filters": "num filter", "number of filters": "num filter",
    "filters": "num filter", "stride": "strides", "batch size": _BATCH, "type": _KIND,
    "stride h": _STRIDES[0], "stride w": _STRIDES[1], "sparsity ratio": _SPARSITY, "sparse": _SPARSITY,
}  # fmt: skip
_KNOWN = {_NAME, *CONV, *GEMM, _KIND, _BATCH, _SPARSITY, *_STRIDES}
_KINDS = {
    "conv": "conv", "convolution": "conv", "conv2d": "conv", "fc": "conv", "gemm": "conv", "linear": "conv",
    "depthwise": "depthwise", "dw": "depthwise", "dp": "depthwise", "dwconv": "depthwise",
    "depthwise conv": "depthwise",
}  # fmt: skip
"""A product of matrices is a convolution of a 1x1 filter, or of one as large as its input, in this form."""
_COMMENT = re.compile(r"#|//")
_DENSE = re.compile(r"|-|dense|no|none|([1-9][0-9]*):\1")


@dataclass(frozen=True)
class Row:
    """One layer: sizes by column, with `strides` as (height, width); kind: where the file says it."""

    line: int
    name: str
    sizes: Mapping[str, int]
    strides: tuple[int, int]
    batch: int | None
    kind: str | None


@dataclass(frozen=True)
class Topology:
    """columns: CONV or GEMM; notes: what was not read, or read as what it does not say, a sentence each."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


Line = tuple[int, list[str]]


def read_file(path: Path) -> Topology:
    """Raises AccelsimError: line, what was found, what was expected."""
    try:
        if path.stat().st_size > MAX_BYTES:
            fail(f"is a topology of {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise AccelsimError("is not UTF-8 text, expected a SCALE-Sim topology") from None
    except OSError as error:
        raise AccelsimError(f"cannot be read ({error.strerror or error})") from None
    notes: list[str] = []
    lines = [(number, cells) for number, cells in _split(text, notes) if any(cells)]
    header, rest = _header(lines, notes)
    form = CONV if CONV[0] in header else GEMM
    return Topology(form, tuple(_rows(header, rest, form, notes)), tuple(notes))


def _split(text: str, notes: list[str]) -> Iterator[Line]:
    """Cells of every line; from a # or // at the start of one on, the rest is a comment."""
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        fail(f"is a topology of {len(lines):,} lines, expected at most {MAX_LINES:,}")
    first = next((line for line in lines if line.strip() and not _COMMENT.match(line.strip())), "")
    delimiter = max(",;\t", key=first.count)
    comments = []
    for number, line in enumerate(lines, 1):
        try:
            [cells] = _cells(line, delimiter) if line.strip() else [[]]
        except csv.Error:
            fail(f"line {number}: is {show(line[:60])}, expected cells separated by '{delimiter}'")
        if len(cells) > MAX_COLUMNS:
            fail(f"line {number}: has {len(cells):,} cells, expected at most {MAX_COLUMNS}")
        cells = [cell.strip() for cell in cells]
        start = next((index for index, cell in enumerate(cells) if _COMMENT.match(cell)), len(cells))
        if start < len(cells):
            comments.append(number)
        yield number, cells[:start]
    if comments:
        notes.append(f"comments are ignored, of {_lines(comments)}")


def _cells(line: str, delimiter: str) -> list[list[str]]:
    return list(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))


def _header(lines: Sequence[Line], notes: list[str]) -> tuple[list[str], Sequence[Line]]:
    """Known names of the columns, "?" for others, "" where there is none; and the lines after the header."""
    if not lines:
        fail(f"line 1: is '', expected the header {EXPECTED}")
    number, cells = lines[0]
    while cells and not cells[-1]:
        cells = cells[:-1]
    for form in (CONV, GEMM):
        if len(cells) == 1 + len(form) and all(_is_size(cell) for cell in cells[1:]):
            standard = ", ".join(["Layer name" if form is CONV else "Layer", *form])
            notes.append(f"there is no header: columns are taken for {standard}")
            return [_NAME, *form], lines
    header = [_column(cell) for cell in cells]
    missing = _missing(header)
    if missing:
        repaired = _without_repeats(header)
        if repaired is None:
            found = show(", ".join(cells))
            fail(f"line {number}: is {found}, expected the header {EXPECTED}; {missing[0]} is missing")
        notes.append(f"line {number}: a column's name is given twice, columns are taken in their usual order")
        header = repaired
    for name in sorted(_KNOWN & set(header)):
        if header.count(name) > 1:
            fail(f"line {number}: column {show(name)} is given twice, expected once")
    unread = [cell for cell, name in zip(cells, header, strict=True) if name and name not in _KNOWN]
    if unread:
        said = ", ".join(show(cell) for cell in unread[:6]) + (", ..." if len(unread) > 6 else "")
        notes.append(f"columns that are not known are ignored: {said}")
    return [name if name in _KNOWN or not name else "?" for name in header], lines[1:]


def _column(cell: str) -> str:
    name = re.sub(r"[\s_]+", " ", cell.lower()).strip(" \"'")
    return _ALIASES.get(name, name)


def _missing(header: Sequence[str]) -> list[str]:
    """Of the form that the header is closest to."""
    own = {*header, "strides"} if set(_STRIDES) <= set(header) else set(header)
    return min(([name for name in (_NAME, *form) if name not in own] for form in (CONV, GEMM)), key=len)


def _without_repeats(header: list[str]) -> list[str] | None:
    """The header with its first names in the usual order, where one of them stands twice for another."""
    for form in (CONV, GEMM):
        usual = [_NAME, *form]
        own = header[: len(usual)]
        wrong = [index for index, name in enumerate(own) if name != usual[index]]
        if len(own) == len(usual) and len(wrong) == 1 and own[wrong[0]] in usual:
            return usual + header[len(usual) :]
    return None


def _rows(
    header: Sequence[str], lines: Sequence[Line], form: Sequence[str], notes: list[str]
) -> Iterator[Row]:
    titles, more = [], []
    for number, cells in lines:
        where = f"line {number}"
        if not any(cells[1:]) or [_column(cell) for cell in cells[: len(header)]] == list(header):
            titles.append(number)
            continue
        unnamed = [cell for cell, name in zip(cells, [*header, *[""] * len(cells)], strict=False) if not name]
        if any(map(_is_size, unnamed)):
            fail(f"{where}: has {show(next(filter(_is_size, unnamed)))} in a column without a name")
        if any(unnamed):
            more.append(number)
        given = dict(zip(header, [*cells, *[""] * len(header)], strict=False))
        if not _DENSE.fullmatch(given.get(_SPARSITY, "").lower()):
            fail(f"{where}: sparsity is {show(given[_SPARSITY])}, expected a dense layer: it is not modelled")
        kind = None
        if given.get(_KIND):
            kind = _KINDS.get(re.sub(r"[\s_-]+", " ", given[_KIND].lower()))
            if kind is None:
                fail(f"{where}: layer type is {show(given[_KIND])}, expected one of {', '.join(_KINDS)}")
        sizes = {name: _size(given[name], name, where) for name in form if name != "strides"}
        strides = (1, 1)
        if "strides" in form:
            both = _STRIDES if set(_STRIDES) <= set(header) else ("strides", "strides")
            strides = (_size(given[both[0]], both[0], where), _size(given[both[1]], both[1], where))
        batch = _size(given[_BATCH], _BATCH, where) if _BATCH in given else None
        yield Row(number, given[_NAME], sizes, strides, batch, kind)
    if titles:
        notes.append(f"rows without sizes are ignored: {_lines(titles)}")
    if more:
        notes.append(f"notes in columns without a name are ignored, of {_lines(more)}")


def _is_size(cell: str) -> bool:
    return cell.isascii() and cell.isdigit()


def _size(cell: str, column: str, where: str) -> int:
    if not (_is_size(cell) and 1 <= int(cell[:20]) <= MAX_SIZE):
        fail(f"{where}: {column} is {show(cell)}, expected a whole number from 1 to {MAX_SIZE}")
    return int(cell)


def _lines(numbers: Sequence[int]) -> str:
    return f"line {', '.join(map(str, numbers[:6]))}" + (", ..." if len(numbers) > 6 else "")
