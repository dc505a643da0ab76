"""What prices of synthesized logic have in common: tables, laws between rows, scaling to a technology."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from accelsim.costs import tables
from accelsim.costs.activity import ActivityLaws
from accelsim.costs.component import BlockCost, ComponentCost
from accelsim.costs.dot import CHANGING, HELD, DotProducts
from accelsim.costs.fast import FastLane
from accelsim.costs.format_blocks import FormatBlocks
from accelsim.costs.logic import LogicBlocks
from accelsim.costs.ppu import PpuStages
from accelsim.costs.scaling import LogicScaling
from accelsim.costs.tables import Datapath, Row, read_table, sources
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


class LogicPrices:
    """Blocks of the tables in `directory` at one technology. Raises AccelsimError for wrong tables."""

    def __init__(self, technology: Technology, directory: Path) -> None:
        self.technology = technology
        self._tables: dict[str, list[Row]] = {
            "datapath": read_table(tables.DATAPATH, directory),
            "activity": read_table(tables.ACTIVITY, directory),
            "clock_cells": read_table(tables.CLOCK_CELLS, directory),
            "sram": read_table(tables.SRAM, directory),
            "sram_area": read_table(tables.SRAM_AREA, directory),
            "bitcell": read_table(tables.BITCELL, directory),
            "logic_scaling": read_table(tables.LOGIC_SCALING, directory),
            "system": read_table(tables.SYSTEM, directory),
        }
        self._system = {row.text["key"]: row for row in self._tables["system"]}
        missing = [key for key in SYSTEM_KEYS if key not in self._system]
        if missing:
            raise AccelsimError(f"cost table {directory / tables.SYSTEM.file}: row '{missing[0]}' is missing")
        self._datapath = Datapath(self._tables["datapath"])
        self._dots = DotProducts(self._datapath)
        self._activity = ActivityLaws(self._tables["activity"])
        self._logic = LogicBlocks(self._datapath)
        self._ppu_stages = PpuStages(self._datapath)
        self._fast = FastLane(self._datapath)
        self._logic_scaling = LogicScaling(self._tables["logic_scaling"], self._system)

    @cached_property
    def _formats(self) -> FormatBlocks:
        """Only machines of block formats need rows of them."""
        return FormatBlocks(self._datapath)

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
