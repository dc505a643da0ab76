"""docs/timing.md, Output: output tiles, what their nodes read with them, and what goes on to DRAM."""

from __future__ import annotations

from cycle_model.dram import Dram, DramTransfer
from cycle_model.layer_run import LayerRun
from cycle_model.pe import Pe
from cycle_model.ports import CLASS, Delay, OutputTile


class Outputs:
    def __init__(self, runs: list[LayerRun], dram: Dram, pes: list[Pe]) -> None:
        self.runs, self.dram, self.pes = runs, dram, pes
        self.starting, self.written = Delay(), Delay()
        self.on_their_way: list[
            OutputTile
        ] = []  # in the crossbar, or waiting for what the nodes read with them
        self.staged = 0  # bits of tiles and their shares in the activation region, to come or to go

    def is_requested(self, tile: OutputTile) -> None:
        if self.runs[tile.layer].program.placement.staged:
            self.staged += tile.staged_bits

    def becomes_visible(self, now: int) -> None:
        for tile in self.starting.due(now):
            self.on_their_way.append(tile)
            for number, bits in enumerate(tile.operands):
                if bits:
                    self._request("read", "input", (1, tile.index, number), bits, tile, now)
        there = [tile for tile in self.on_their_way if tile.arrived and tile.operands_missing == 0]
        for tile in there:
            self.on_their_way.remove(tile)
            run = self.runs[tile.layer]
            run.streaming_backlog += run.streaming * tile.values
            for number, bits in enumerate(tile.writes):
                if bits:
                    self._request("write", "output", (tile.index, number), bits, tile, now)
            if tile.writes_missing == 0:
                self._done(tile)
        for tile in self.written.due(now):
            tile.writes_missing -= 1
            if tile.writes_missing == 0:
                self._done(tile)

    def _done(self, tile: OutputTile) -> None:
        run = self.runs[tile.layer]
        run.outputs_to_come -= 1
        if run.program.placement.staged:
            self.pes[tile.pe].staged -= 1
            self.staged -= tile.staged_bits

    def _request(
        self, kind: str, sorted_as: str, index: tuple[int, ...], bits: int, tile: OutputTile, now: int
    ) -> None:
        key = (now, CLASS[sorted_as], tile.pe, tile.layer, index)
        self.dram.request(DramTransfer(kind, tile.layer, key, bits, tile))
