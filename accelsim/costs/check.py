"""How well the tables predict themselves: every row left out of its law, against what the rest predicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from accelsim.costs.block_sums import BlockSums
from accelsim.costs.dot import DotProducts
from accelsim.costs.fast import FastLane
from accelsim.costs.format_blocks import FormatBlocks
from accelsim.costs.laws import LeftOut
from accelsim.costs.listing import FAMILY_COMPONENTS
from accelsim.costs.logic import LogicBlocks
from accelsim.costs.sram import SramMacros
from accelsim.costs.tables import DATAPATH, SRAM, TABLES_DIR, Datapath, Row, read_table

# Words of quantities.
_KINDS = ("area", "leakage", "delay", "cycle_time", "energy")
_UNPRICED = "other_blocks"


def check_tables(directory: Path | None = None) -> list[dict[str, object]]:
    """One row a law and quantity, then one a kind of quantity over all of a table: rows, how many could be
    left out, their median and worst error in percent, and the worst row. Blocks without a law come with
    nothing checked.

    directory: a folder of cost tables, by default the package's. Raises AccelsimError for tables that cannot
    be read, or that no law fits.
    """
    directory = TABLES_DIR if directory is None else directory
    rows, macros = read_table(DATAPATH, directory), read_table(SRAM, directory)
    datapath = Datapath(rows)
    parts = (
        DotProducts(datapath), FastLane(datapath), LogicBlocks(datapath), FormatBlocks(datapath),
        BlockSums(datapath),
    )  # fmt: skip
    logic = [one for part in parts for one in part.left_out()]
    alone = _alone(rows, {one.row for one in logic})
    found = [*_by_law(logic), *alone, *_by_kind(f"all of {DATAPATH.file}", logic)]
    for device in dict.fromkeys(row.text["device"] for row in macros):
        own = list(SramMacros(macros, device).left_out())
        found += [*_by_law(own), *_by_kind(f"all of {SRAM.file}, {device}", own)]
    return found


def _by_law(left_out: Iterable[LeftOut]) -> list[dict[str, object]]:
    groups: dict[tuple[str, str], list[LeftOut]] = {}
    for one in left_out:
        groups.setdefault((one.law, one.quantity), []).append(one)
    return [_summary(law, quantity, own) for (law, quantity), own in groups.items()]


def _by_kind(table: str, left_out: Sequence[LeftOut]) -> Iterator[dict[str, object]]:
    for kind in _KINDS:
        own = [one for one in left_out if kind in one.quantity]
        if own:
            yield _summary(table, kind, own)


def _summary(law: str, quantity: str, own: Sequence[LeftOut]) -> dict[str, object]:
    errors = {one: one.error for one in own if one.error is not None}
    worst = max(errors, key=lambda one: errors[one]) if errors else None
    return {
        "law": law,
        "quantity": quantity,
        "rows": len(own),
        "checked": len(errors),
        "median_error_percent": 100 * median(errors.values()) if errors else None,
        "worst_error_percent": 100 * errors[worst] if worst else None,
        "worst_row": worst.row if worst else "",
        "note": "" if errors else "no more rows than terms of the law",
    }


def _alone(rows: Iterable[Row], checked: set[str]) -> Iterator[dict[str, object]]:
    """Blocks of priced components that are in no law: nothing but themselves says whether they are right."""
    families: dict[str, dict[str, None]] = {}
    for row in rows:
        family, block = row.text["family"], row.text["block"]
        if block not in checked and FAMILY_COMPONENTS.get(family, _UNPRICED) != _UNPRICED:
            families.setdefault(family, {})[block] = None
    for family, blocks in families.items():
        note = f"no law: {', '.join(blocks)}"
        yield {**_summary(FAMILY_COMPONENTS[family], "", ()), "rows": len(blocks), "note": note}
