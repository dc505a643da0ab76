"""A run as Chrome trace events: timeline.json, which opens in Perfetto (docs/results.md).

One cycle is written as one microsecond, the format's unit; DRAM transfers may begin and end within one.
Events go to a temporary file as they are told, in the order of the event model, which is the same every time;
memory stays that of a few thousand events.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelsim.machine.arch import Arch
from accelsim.machine.timing import OUTPUT, PSUM
from accelsim.mapping.layout.program import LayerProgram
from accelsim.mapping.layout.rows import Block, WeightTile
from accelsim.sim.ports import Key

# In a run of more blocks than this, blocks of one weight tile that follow without a break are one slice.
MAX_BLOCKS = 250_000
_CHUNK = 4096  # events held back until they are written together

_OPERANDS = ("psum", "output", "input", "weight")  # by the class in a transfer's key
_WAITS = ("output wait", "weight wait", "input wait")
_LAYERS, _DRAM, _BANKS, _PORTS, _FIRST_PE = 1, 2, 3, 4, 5
_COMPUTE, _STALL, _DRAIN = 1, 2, 3


class _OpenSlice:
    """A slice of blocks of one weight tile, issued without a break, that the next block may still join."""

    __slots__ = ("blocks", "end", "layer", "start", "steps", "tile")

    def __init__(self, layer: int, tile: WeightTile, start: int) -> None:
        self.layer, self.tile, self.start, self.end = layer, tile, start, start
        self.blocks = self.steps = 0


class Timeline:
    """A recorder (sim/recorder.py) of one run. `merges`: blocks are joined, see MAX_BLOCKS."""

    def __init__(
        self, arch: Arch, programs: Sequence[LayerProgram], *, title: str, max_blocks: int = MAX_BLOCKS
    ) -> None:
        self._layers = [_quoted(program.layer.name) for program in programs]
        self.merges = sum(len(pe.blocks) for program in programs for pe in program.pes) > max_blocks
        self._title = title
        self._file = tempfile.TemporaryFile()
        self._held: list[str] = []
        self._open: list[_OpenSlice | None] = [None] * arch.pes
        self._dram_bits = arch.dram_bits  # a cycle
        self._dram_used = 0  # bit of the port's time at which its last transfer ends
        self._ways = ("in", "out") if arch.psum_port_bits is None else ("in", "out", "psums in", "psums out")
        self._name_tracks(arch)

    def write(self, path: Path) -> None:
        """Write the whole timeline; may be called again."""
        self._flush()
        about = {
            "title": self._title,
            "time": "1 us here is 1 cycle",
            "blocks": "joined where they follow without a break" if self.merges else "one slice each",
        }
        with path.open("wb") as out:
            out.write(b'{"displayTimeUnit": "ms",\n"otherData": ' + json.dumps(about).encode() + b",\n")
            out.write(b'"traceEvents": [\n')
            self._file.seek(0)
            shutil.copyfileobj(self._file, out)
            # The last event has no comma after it, so that all others can.
            out.write(b'{"ph": "M", "pid": 1, "tid": 100000, "name": "process_sort_index", ')
            out.write(b'"args": {"sort_index": 1}}\n]}\n')
        self._file.seek(0, 2)

    def slices(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """(process, track) -> its slices in order of time: name, begin and end in cycles, and arguments."""
        self._flush()
        self._file.seek(0)
        events = json.loads(b"[" + self._file.read().rstrip(b",\n") + b"]")
        self._file.seek(0, 2)
        return slices_of(events)

    # What the recorder is told.

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
        cycle = begin
        for name, cycles in zip(_WAITS, waits, strict=True):
            self._stall(pe, layer, name, cycle, cycles)
            cycle += cycles
        if self.merges:
            self._join_block(pe, layer, block, cycle, steps, slots)
            return
        self._slice(
            _FIRST_PE + pe,
            _COMPUTE,
            cycle,
            slots,
            self._layers[layer],
            f'"steps": {steps}, "bubble": {slots - steps}, "pixels": "{block.p0}-{block.p1 - 1}", '
            f'"channels": "{block.k0}-{block.k1 - 1}", "vectors": "{block.g0}-{block.g1 - 1}"',
        )

    def _join_block(self, pe: int, layer: int, block: Block, start: int, steps: int, slots: int) -> None:
        joined = self._open[pe]
        if joined is None or joined.tile is not block.weight_tile or joined.end != start:
            self._close_slice(pe)
            joined = self._open[pe] = _OpenSlice(layer, block.weight_tile, start)
        joined.end += slots
        joined.steps += steps
        joined.blocks += 1

    def _close_slice(self, pe: int) -> None:
        joined, self._open[pe] = self._open[pe], None
        if joined is not None:
            cycles, tile = joined.end - joined.start, joined.tile
            self._slice(
                _FIRST_PE + pe,
                _COMPUTE,
                joined.start,
                cycles,
                self._layers[joined.layer],
                f'"steps": {joined.steps}, "bubble": {cycles - joined.steps}, '
                f'"blocks": {joined.blocks}, "channels": "{tile.k0}-{tile.k1 - 1}"',
            )

    def drain(self, pe: int, layer: int, start: int, duration: int, entries: int) -> None:
        args = f'"fifo_entries": {entries}'
        self._slice(_FIRST_PE + pe, _DRAIN, start, duration, self._layers[layer], args)

    def dram(self, key: Key, start: int, duration: int, bits: int) -> None:
        # Transfers that follow each other share a cycle: a slice covers the part of it that its bits take.
        first = max(start * self._dram_bits, self._dram_used)
        self._dram_used = first + bits
        begin, end = (round(bit / self._dram_bits, 3) for bit in (first, self._dram_used))
        track = 2 if key[0] == OUTPUT else 1
        if bits:
            self._slice(_DRAM, track, begin, round(end - begin, 3), *self._moved(key, bits))

    def crossbar(
        self, key: Key, bank: int, source: int, targets: list[int], start: int, duration: int, bits: int
    ) -> None:
        name, args = self._moved(key, bits)
        if targets:
            args += f', "to_pes": {len(targets)}'
        if bank >= 0:
            self._slice(_BANKS, bank + 1, start, duration, name, args)
        first = len(self._ways) - 2 if key[0] == PSUM else 0  # which of `_ways` is the way in
        if source >= 0:
            self._slice(_PORTS, len(self._ways) * source + first + 2, start, duration, name, args)
        for pe in targets:
            self._slice(_PORTS, len(self._ways) * pe + first + 1, start, duration, name, args)

    def filled(self, pe: int, kind: int, layer: int, position: int, begin: int, resident: int) -> None:
        pass  # the slice of the transfer shows it

    def released(self, pe: int, kind: int, layer: int, position: int, cycle: int) -> None:
        pass

    def layer(
        self, layer: int, start: int, row_work: int, end: int, issue_end: list[int], output_left: list[int]
    ) -> None:
        name = self._layers[layer]
        self._slice(_LAYERS, 1, start, end - start, name, f'"index": {layer}')
        if row_work:
            self._slice(_LAYERS, 2, end - row_work, row_work, name, f'"index": {layer}')
        for pe in range(len(issue_end)):
            self._close_slice(pe)
            # A PE without a block has neither issued nor sent anything.
            issued, left = max(issue_end[pe], start), max(output_left[pe], start)
            self._stall(pe, layer, "drain", issued, left - issued)
            self._stall(pe, layer, "idle", left, end - left)

    # What the file is made of.

    def _name_tracks(self, arch: Arch) -> None:
        processes = ["layers", "DRAM", "global buffer", "NoC ports", *(f"PE {pe}" for pe in range(arch.pes))]
        tracks: dict[int, list[str]] = {
            _LAYERS: ["layer", "global PE row work"],
            _DRAM: ["reads", "writes"],
            _BANKS: [f"bank {bank} ({_bank_use(arch, bank)})" for bank in range(arch.gb_banks)],
            _PORTS: [f"PE {pe} {way}" for pe in range(arch.pes) for way in self._ways],
        }
        for number, process in enumerate(processes, start=_LAYERS):
            self._metadata(number, 0, "process_name", f'"name": {_quoted(process)}')
            self._metadata(number, 0, "process_sort_index", f'"sort_index": {number}')
            for track, name in enumerate(tracks.get(number, ["compute", "stalls", "PPU drain"]), start=1):
                self._metadata(number, track, "thread_name", f'"name": {_quoted(name)}')
                self._metadata(number, track, "thread_sort_index", f'"sort_index": {track}')

    def _metadata(self, process: int, track: int, name: str, args: str) -> None:
        where = f'"pid": {process}, "tid": {_thread(process, track)}'
        self._event(f'{{"ph": "M", {where}, "name": "{name}", "args": {{{args}}}}},\n')

    def _stall(self, pe: int, layer: int, name: str, start: int, cycles: int) -> None:
        if cycles:
            args = f'"layer": {self._layers[layer]}'
            self._slice(_FIRST_PE + pe, _STALL, start, cycles, f'"{name}"', args)

    def _moved(self, key: Key, bits: int) -> tuple[str, str]:
        """Name and arguments of the slice of a transfer."""
        kind, leader, layer, index = key
        operand, name = _OPERANDS[kind], self._layers[layer]
        args = f'"layer": {name}, "operand": "{operand}", "bits": {bits}, "leader": {leader}'
        return f'"{operand} {name[1:]}', f'{args}, "index": {index}'

    def _slice(self, process: int, track: int, start: float, cycles: float, name: str, args: str) -> None:
        where = f'"pid": {process}, "tid": {_thread(process, track)}'
        when = f'"ts": {start}, "dur": {cycles}'
        self._event(f'{{"ph": "X", {where}, {when}, "name": {name}, "args": {{{args}}}}},\n')

    def _event(self, text: str) -> None:
        self._held.append(text)
        if len(self._held) == _CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._file.write("".join(self._held).encode())
        self._held.clear()


def slices_of(events: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """As `Timeline.slices`; events: `traceEvents` of a timeline.json."""
    processes, tracks = {}, {}
    for event in events:
        if event["name"] == "process_name":
            processes[event["pid"]] = event["args"]["name"]
        elif event["name"] == "thread_name":
            tracks[event["pid"], event["tid"]] = event["args"]["name"]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for event in sorted((event for event in events if event["ph"] == "X"), key=lambda event: event["ts"]):
        key = processes[event["pid"]], tracks[event["pid"], event["tid"]]
        end = round(event["ts"] + event["dur"], 3)
        own = {"name": event["name"], "begin": event["ts"], "end": end, **event["args"]}
        found.setdefault(key, []).append(own)
    return found


def _thread(process: int, track: int) -> int:
    """A number no thread of another process has: viewers mix up threads of equal numbers."""
    return process * 100_000 + track


def _quoted(text: str) -> str:
    return json.dumps(text)


def _bank_use(arch: Arch, bank: int) -> str:
    weights, inputs, _ = arch.bank_groups
    return "weights" if bank < weights else "inputs" if bank < weights + inputs else "outputs"
