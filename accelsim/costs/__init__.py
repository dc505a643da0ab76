"""Prices of the modelled hardware: tables of facts, laws between their rows, and node scaling.

Imports nothing from the simulator. Every constant is a row of `tables/*.csv` with unit, node, supply and
source; Python holds only the algebra between rows.
"""

from accelsim.costs.component import ComponentCost
from accelsim.costs.laws import Law
from accelsim.costs.library import CostLibrary
from accelsim.costs.technology import SRAM_DEVICES, Technology

__all__ = ["SRAM_DEVICES", "ComponentCost", "CostLibrary", "Law", "Technology"]
