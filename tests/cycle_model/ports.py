"""docs/timing.md: the ports of the crossbar and between PEs, their queues, things on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cycle_model.program import Fetch
from cycle_model.tiles import Piece

CLASS = {"psum": 0, "output": 1, "input": 2, "weight": 3}
# Cycle of request, class, leader or PE, layer, index. In the class of inputs the index of a fetch is (0, its
# number), that of a node's operand (1, output tile, operand), and in DRAM's queue of outputs (output tile,
# written tensor).
Key = tuple[int, int, int, int, tuple[int, ...]]


class Delay:
    """Things on their way: put in with the cycle at which they become visible, taken out in that cycle."""

    def __init__(self) -> None:
        self.items: dict[int, list] = {}

    def put(self, visible_at: int, item: object) -> None:
        self.items.setdefault(visible_at, []).append(item)

    def due(self, now: int) -> Sequence:
        return self.items.pop(now, ())


@dataclass(eq=False)
class Port:
    name: str
    busy: int = 0  # cycles that the present transfer still holds it
    queue: list[Transfer] = field(default_factory=list)


@dataclass(eq=False)
class OutputTile:
    layer: int
    pe: int
    index: int
    values: int
    bits: int
    entries: int
    operands: tuple[int, ...] = ()  # bits of its shares of the spilled operands
    writes: tuple[int, ...] = ()  # and of the written tensors
    arrived: bool = False  # in the global buffer
    operands_missing: int = 0
    writes_missing: int = 0

    @property
    def staged_bits(self) -> int:
        """Its room in the activation region: the first share that is written is taken for its own bits."""
        return self.bits + sum(self.operands) + sum(self.writes[1:])


@dataclass(eq=False)
class Transfer:
    kind: str  # "output", "input", "weight" on the crossbar; "psum" between PEs
    layer: int
    key: Key
    ports: list[Port]
    duration: int
    item: Fetch | OutputTile | Piece
    remaining: int = 0

    def __str__(self) -> str:
        ports = ", ".join(f"{port.name} (busy {port.busy}, queue {len(port.queue)})" for port in self.ports)
        return f"{self.kind} {self.key} on {ports}"
