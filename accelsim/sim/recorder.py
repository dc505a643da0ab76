"""What an observer of a run is told: plain numbers, each once it is known, before or when it happens."""

from __future__ import annotations

from typing import Protocol

from accelsim.mapping.layout.rows import Block
from accelsim.sim.ports import Key


class Recorder(Protocol):
    """Implement it to see what the array does, in no promised order of cycles. Layers and PEs are indices."""

    def block(
        self,
        pe: int,
        layer: int,
        block: Block,
        begin: int,
        waits: tuple[int, int, int],
        steps: int,
        slots: int,
    ) -> None:
        """A block issues after waiting from `begin` so many cycles for output, weight and input, in turn."""
        ...

    def drain(self, pe: int, layer: int, start: int, duration: int, entries: int) -> None:
        """A PE drains psums into its PPU, having reserved so many entries of its out FIFO."""
        ...

    def dram(self, key: Key, start: int, duration: int, bits: int) -> None:
        """The DRAM port moves bits: outputs are written, all else is read."""
        ...

    def crossbar(
        self, key: Key, bank: int, source: int, targets: list[int], start: int, duration: int, bits: int
    ) -> None:
        """A transfer over the crossbar. bank: -1 between PEs; source: the PE that sends, or -1."""
        ...

    def filled(self, pe: int, kind: int, layer: int, position: int, begin: int, resident: int) -> None:
        """A tile goes into the buffer half of a position from `begin` and is resident at `resident`."""
        ...

    def released(self, pe: int, kind: int, layer: int, position: int, cycle: int) -> None:
        """The half of a position may be filled anew from `cycle`."""
        ...

    def layer(
        self, layer: int, start: int, row_work: int, end: int, issue_end: list[int], output_left: list[int]
    ) -> None:
        """A layer has ended; the global PE did row work in its last cycles. Of each PE: see LayerRun."""
        ...
