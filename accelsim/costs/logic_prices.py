"""What prices of synthesized logic have in common: tables, laws between rows, scaling to a technology."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

from accelsim.costs import tables
from accelsim.costs.activity import ActivityLaws
from accelsim.costs.block_sums import BlockSums
from accelsim.costs.component import BlockCost, ComponentCost
from accelsim.costs.dot import CHANGING, HELD, DotProducts
from accelsim.costs.fast import FastLane
from accelsim.costs.format_blocks import FormatBlocks
from accelsim.costs.logic import LogicBlocks
from accelsim.costs.ppu import PpuStages
from accelsim.costs.scaling import LogicScaling
from accelsim.costs.tables import Datapath, Row, digest_of, read_table, sources
from accelsim.costs.technology import Technology
from accelsim.errors import AccelsimError

SYSTEM_KEYS = (
    "dram_lpddr4",
    "wire_capacitance",
    "wire_activity",
    "clock_wire_capacitance",
    "cacti_cell_area",
    "sram_energy_node_exponent",
    "sram_leakage_node_exponent",
    "sram_finfet_leakage",
    "area_exponent_below_7nm",
    "energy_exponent_below_7nm",
)

_READ = {
    "datapath": tables.DATAPATH,
    "activity": tables.ACTIVITY,
    "clock_cells": tables.CLOCK_CELLS,
    "sram": tables.SRAM,
    "sram_area": tables.SRAM_AREA,
    "bitcell": tables.BITCELL,
    "logic_scaling": tables.LOGIC_SCALING,
    "system": tables.SYSTEM,
}


class DatapathLaws:
    """The synthesis rows and the laws between them, which no technology changes."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.datapath = Datapath(rows)
        self.dots = DotProducts(self.datapath)
        self.logic = LogicBlocks(self.datapath)
        self.ppu_stages = PpuStages(self.datapath)
        self.fast = FastLane(self.datapath)

    @cached_property
    def formats(self) -> FormatBlocks:
        """Only machines of block formats need rows of them."""
        return FormatBlocks(self.datapath)


# Reading and fitting take longer than all else of pricing a machine, and who tries other tables changes
# one of them at a time. digest: of what the file holds.


@lru_cache(maxsize=4 * len(_READ))
def _rows(name: str, directory: Path, digest: str | None) -> list[Row]:
    return read_table(_READ[name], directory)


@lru_cache(maxsize=4)
def _datapath_laws(directory: Path, digest: str | None) -> DatapathLaws:
    return DatapathLaws(_rows("datapath", directory, digest))


@lru_cache(maxsize=4)
def _activity_laws(directory: Path, digest: str | None) -> ActivityLaws:
    return ActivityLaws(_rows("activity", directory, digest))


class LogicPrices:
    """Blocks of the tables in `directory` at one technology. Raises AccelsimError for wrong tables."""

    def __init__(self, technology: Technology, directory: Path) -> None:
        self.technology = technology
        digests = {name: digest_of(spec, directory) for name, spec in _READ.items()}
        self._tables = {name: _rows(name, directory, digest) for name, digest in digests.items()}
        self._system = {row.text["key"]: row for row in self._tables["system"]}
        missing = [key for key in SYSTEM_KEYS if key not in self._system]
        if missing:
            raise AccelsimError(f"cost table {directory / tables.SYSTEM.file}: row '{missing[0]}' is missing")
        self._laws = laws = _datapath_laws(directory, digests["datapath"])
        self._datapath, self._dots, self._logic = laws.datapath, laws.dots, laws.logic
        self._ppu_stages, self._fast = laws.ppu_stages, laws.fast
        self._activity = _activity_laws(directory, digests["activity"])
        self._logic_scaling = LogicScaling(self._tables["logic_scaling"], self._system)

    @property
    def _formats(self) -> FormatBlocks:
        return self._laws.formats

    @cached_property
    def _block_sums(self) -> BlockSums:
        """Only lanes with several blocks a word need rows of them."""
        return BlockSums(self._datapath)

    def _logic_cost(
        self,
        component: str,
        block: BlockCost,
        rows: Sequence[Row],
        *,
        notes: Sequence[str] = (),
        stimulus: str = "dnn",
    ) -> ComponentCost:
        return self._logic_scaling.price(
            component, block, self.technology, self._datapath.node_nm, self._datapath.vdd_v,
            source=sources(rows), evidence="synthesis", stimulus=stimulus, notes=notes,
        )  # fmt: skip


def stimulus_of(held: bool) -> str:
    return HELD if held else CHANGING


def require_positive(component: str, name: str, value: float, high: float) -> None:
    if not math.isfinite(value) or not 0 < value <= high:
        limit = f" and at most {high:g}" if math.isfinite(high) else ""
        raise AccelsimError(f"cost of {component}: {name} is {value}, expected a number above 0{limit}")
