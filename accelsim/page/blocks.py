"""What a page is made of: sections of facts, tiles, charts and tables. A script draws charts and tables from
their data (static/page.js, static/charts.js), everything else is HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from accelsim.page.tables import Table


@dataclass(frozen=True)
class Tile:
    """A figure that stands out. source: the file and key it is from; rows: the role of a table, and the
    filter that leaves what the figure rests on."""

    label: str
    value: str
    source: str
    rows: tuple[str, str] | None = None


@dataclass(frozen=True)
class Chart:
    """kind: a function of static/charts.js; about: what is drawn, in which unit, and from which file."""

    kind: str
    title: str
    about: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A table to sort and filter. role: by which others refer to it in their section; shown: columns that are
    seen at first, by default all; extra: what else its script needs."""

    title: str
    about: str
    table: Table
    shown: tuple[str, ...] = ()
    role: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """inner: of a comparison, the runs; notes: what is missing, and how to have it."""

    title: str
    facts: list[tuple[str, str]]
    tiles: list[Tile]
    blocks: list[Chart | Grid]
    notes: list[str] = field(default_factory=list)
    inner: list[Section] = field(default_factory=list)


def files_grid(hashes: dict[str, str]) -> Grid:
    table = Table({"file": list(hashes), "sha256": list(hashes.values())})
    return Grid("Files read", "SHA-256 of each file that this section was made from.", table, folded=True)
