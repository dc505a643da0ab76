"""The dataflows a PE can run (after MAGNet, ICCAD 2019, section 3): one module each."""

from __future__ import annotations

from accelsim.machine.arch import Dataflow
from accelsim.machine.dataflows.base import Nest
from accelsim.machine.dataflows.os import OutputStationary
from accelsim.machine.dataflows.os_lws import OutputStationaryLocalWeight
from accelsim.machine.dataflows.ws import WeightStationary
from accelsim.machine.dataflows.ws_los import WeightStationaryLocalOutput

NESTS: dict[Dataflow, Nest] = {
    "os-lws": OutputStationaryLocalWeight(),
    "os": OutputStationary(),
    "ws-los": WeightStationaryLocalOutput(),
    "ws": WeightStationary(),
}

__all__ = ["NESTS", "Nest"]
