"""What the testbench feeds the PE and expects from it, as hex memory files.

Expected values come from the plain kernels (accelsim_kernels.reference), expected cycles from the event
model's PE. One line of a file is one record; its fields are given lowest bits first below and in tb_pe.sv.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accelsim.compute.operands import psum_shift
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.rows import Block, InputTile, WeightTile
from accelsim.quantize.reference import ppu_constants
from accelsim.rtl.expected import Step, layer_constants, outputs
from accelsim.rtl.pe_run import PeRun
from accelsim.workload.layer import QuantizedLayer

Field = tuple[NDArray[np.integer], int]  # values [records, n] and the bits each takes


def hex_lines(*fields: Field) -> list[str]:
    """One line a record: the fields' values side by side, the first in the lowest bits, in hexadecimal."""
    parts = []
    for values, bits in fields:
        shifted = values.astype(np.int64)[:, :, None] >> np.arange(bits)
        parts.append((shifted & 1).astype(np.uint8).reshape(len(values), values.shape[1] * bits))
    record = np.concatenate(parts, axis=1)
    digits = -(-record.shape[1] // 4)
    rows = np.packbits(record, axis=1, bitorder="little")[:, ::-1]
    return [row.tobytes().hex()[-digits:] for row in rows]


@dataclass(frozen=True)
class Vectors:
    """Memory files by stem; `counts` is what counts.hex holds: the records of every file, then flags, and how
    often gated lanes load and access (docs/counts.md, Gating)."""

    files: dict[str, list[str]]
    counts: list[int]
    psums: int
    cycles: int

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for stem, lines in {**self.files, "counts": [f"{count:08x}" for count in self.counts]}.items():
            (folder / f"{stem}.hex").write_text("\n".join(lines) + "\n")


# Records in this order in counts.hex, then input_signed, out_signed, relu, the last cycle; then of lanes that
# gate: product registers loaded, psums read, psums written; then the layer's constants of block formats;
# steps whose input word is gated.
RECORDS = (
    "blocks",
    "steps",
    "weight_fetches",
    "weight_words",
    "weight_releases",
    "input_fetches",
    "input_words",
    "input_releases",
    "constants",
    "writes",
    "drains",
    "entries",
    "outputs",
)


def make_vectors(arch: Arch, run: PeRun, layer: QuantizedLayer) -> Vectors:
    """Everything of one PE run of a layer."""
    builder = _Builder(arch, run, layer)
    files = builder.files()
    # The testbench goes on for a while after the last expected event, to notice what should not come.
    last = max([*run.complete, *(t.done for t in run.outputs), *run.issues]) + 64
    counts = [len(files[stem]) for stem in RECORDS]
    counts += [layer.input_signed, layer.output.operand.element.signed, layer.activation == "relu", last]
    counts += [builder.live, builder.psum_reads, builder.psum_writes]
    counts += [constant & 0xFFFFFFFF for constant in layer_constants(arch, layer)]
    counts.append(builder.step.zero_words)
    return Vectors(files, counts, psums=len(files["writes"]) * arch.lanes, cycles=run.cycles)


class _Builder:
    def __init__(self, arch: Arch, run: PeRun, layer: QuantizedLayer) -> None:
        self.arch, self.run, self.layer = arch, run, layer
        self.step = Step(arch, layer)
        self.blocks = run.program.blocks
        self.constants: dict[int, int] = {}  # first channel of a lane group -> index
        for block in self.blocks:
            self.constants.setdefault(block.k0, len(self.constants))
        self.lanes_of = {block.k0: block.lanes for block in self.blocks}
        self.live = self.psum_reads = self.psum_writes = 0  # of lanes that gate

    def files(self) -> dict[str, list[str]]:
        run = self.run
        return {
            **self._blocks(),
            "weight_fetches": self._fetches(run.weight_fetches),
            "weight_words": self._weight_words(),
            "weight_releases": hex_lines(_columns([c for _, c in run.weight_releases], 32)),
            "input_fetches": self._fetches(run.input_fetches),
            "input_words": self._input_words(),
            "input_releases": hex_lines(_columns([c for _, c in run.input_releases], 32)),
            "constants": self._constants(),
            **self._expected(),
            "outputs": hex_lines(
                _columns(run.complete, 32),
                _columns([t.words for t in run.outputs], 16),
                _columns([t.delay for t in run.outputs], 16),
            ),
        }

    def _blocks(self) -> dict[str, list[str]]:
        """blocks: 9 fields of 16 bits and the first step of 32; steps: address (31 bits), padding."""
        run, arch = self.run, self.arch
        weight_ends = {p.last: i for i, p in enumerate(run.program.weight_positions)}
        input_ends = {p.last: i for i, p in enumerate(run.program.input_positions)}
        refilled = [{i for i, _ in r} for r in (run.weight_releases, run.input_releases)]
        fields, base, addresses = [], 0, []
        weight = inputs = 0
        for number, block in enumerate(self.blocks):
            tile, staged = block.weight_tile, run.layer_run.staged
            n_g = block.g1 - block.g0
            flags = (
                block.first,
                block.last,
                weight % 2,
                inputs % 2,
                weight_ends.get(number) in refilled[0],
                input_ends.get(number) in refilled[1],
                block.makes_output,
            )
            fields.append(
                [
                    block.pixels,
                    n_g,
                    sum(int(flag) << i for i, flag in enumerate(flags)),
                    (block.k0 - tile.k0) // arch.lanes * n_g,
                    block.lane_group if staged else 0,
                    block.spacing // arch.ppu_slices,
                    block.pixels * block.spacing // arch.ppu_slices,
                    self.constants[block.k0],
                    0,
                    base,
                ]
            )
            gather = _gather(block)
            addresses.append(gather.T.reshape(-1))
            base += gather.size
            weight += number in weight_ends
            inputs += number in input_ends
        table = np.array(fields, np.int64)
        step = np.concatenate(addresses).astype(np.int64)[:, None]
        return {
            "blocks": hex_lines((table[:, :9], 16), (table[:, 9:], 32)),
            "steps": hex_lines((np.maximum(step, 0), 31), ((step < 0).astype(np.int64), 1)),
        }

    def _fetches(self, fetches: list) -> list[str]:
        return hex_lines(
            _columns([t.words for t in fetches], 16),
            _columns([t.delay for t in fetches], 15),
            _columns([t.index % 2 for t in fetches], 1),
            _columns([t.done for t in fetches], 32),
        )

    def _weight_words(self) -> list[str]:
        """All words of all fetches; each holds the words of L lanes, zeros in idle ones."""
        layer, lanes, scheme = self.layer, self.arch.lanes, self.layer.scheme
        lines: list[str] = []
        made: dict[int, list[str]] = {}
        for fetch in self.run.weight_fetches:
            tile = self.run.program.weight_positions[fetch.index].tile
            assert isinstance(tile, WeightTile)
            if id(tile) not in made:
                groups = -(-(tile.k1 - tile.k0) // lanes)
                n_g = tile.g1 - tile.g0
                codes = np.zeros((groups * lanes, n_g, layer.vector_size), np.int64)
                held = np.s_[tile.k0 : tile.k1, tile.g0 : tile.g1]
                codes[: tile.k1 - tile.k0] = layer.weight_words[held]
                by_address = codes.reshape(groups, lanes, n_g, -1).transpose(0, 2, 1, 3)
                parts: list[Field] = []
                blocks = layer.spec.blocks_per_word
                scales = np.zeros((groups * lanes, n_g, blocks), np.int64)
                if layer.weight_scales is not None:
                    own = layer.weight_scales[held]
                    scales[: tile.k1 - tile.k0] = own.reshape(*own.shape[:2], blocks)
                scales_by_address = scales.reshape(groups, lanes, n_g, blocks).transpose(0, 2, 1, 3)
                for lane in range(lanes):
                    own = by_address[:, :, lane].reshape(groups * n_g, -1)
                    parts.append((own, scheme.weight.bits))
                    if scheme.weight.scale.bits:
                        own = scales_by_address[:, :, lane].reshape(-1, blocks)
                        parts.append((own, scheme.weight.scale.bits))
                made[id(tile)] = hex_lines(*parts)
            lines += made[id(tile)]
        return lines

    def _input_words(self) -> list[str]:
        layer, scheme = self.layer, self.layer.scheme
        lines: list[str] = []
        for fetch in self.run.input_fetches:
            tile = self.run.program.input_positions[fetch.index].tile
            assert isinstance(tile, InputTile)
            parts: list[Field] = [(layer.input_words[tile.word_index], scheme.activation.bits)]
            if layer.input_scales is not None:
                scales = layer.input_scales[tile.word_index]
                scales = scales.reshape(len(scales), layer.spec.blocks_per_word)
                parts.append((scales, scheme.activation.scale.bits))
            lines += hex_lines(*parts)
        return lines

    def _padded(self, values: NDArray[np.int64], k0: int, idle: int = 0) -> NDArray[np.int64]:
        """[n, lanes] of [n, K] at a lane group, `idle` in idle lanes."""
        full = np.full((len(values), self.arch.lanes), idle, np.int64)
        lanes = self.lanes_of[k0]
        full[:, :lanes] = values[:, k0 : k0 + lanes]
        return full

    def _constants(self) -> list[str]:
        """Per lane group: multiplier (16 bits) of every lane, shift (6), bias (24)."""
        m, t, bias = (c[None, :] for c in ppu_constants(self.layer, psum_shift(self.arch, self.layer)))
        groups = list(self.constants)
        return hex_lines(
            (np.concatenate([self._padded(m, k0) for k0 in groups]), 16),
            (np.concatenate([self._padded(t, k0, idle=1) for k0 in groups]), 6),
            (np.concatenate([self._padded(bias, k0) for k0 in groups]), 24),
        )

    def _expected(self) -> dict[str, list[str]]:
        """writes: cycle, overflow of every lane, psum of every lane; drains: cycle; entries: cycle, codes,
        scales."""
        lanes, latency = self.arch.lanes, self.run.layer_run.write_latency
        psums = np.zeros((0, lanes), np.int64)
        write_cycles: list[int] = []
        drains: list[int] = []
        overflows, written = [], []
        entries: list[list[int]] = []
        self.unit: list[NDArray[np.int64]] = []
        tiles = iter(self.run.tiles)
        for block, issue in zip(self.blocks, self.run.issues, strict=True):
            if block.first:
                psums = np.zeros((block.pixels, lanes), np.int64)
            slots = max(block.pixels, self.arch.accumulate_latency)
            for g in range(block.g0, block.g1):
                start = issue + (g - block.g0) * slots + latency
                psums, flags, live = self.step.after(block, g, psums)
                is_first = block.first and g == block.g0
                self.live += live
                self.psum_reads += 0 if is_first else live
                self.psum_writes += psums.size if is_first else live
                write_cycles += range(start, start + block.pixels)
                overflows.append(flags)
                written.append(psums)
            if not block.last:
                continue
            tile = next(tiles)
            slices = self.arch.ppu_slices
            drains += [
                tile.drain_start + i * tile.spacing + j for i in range(block.pixels) for j in range(slices)
            ]
            self.unit.append(psums)
            if tile.makes_output:
                entries += self._entries(block, tile.drain_start, tile.spacing)
                self.unit = []
        vectors = self._vectors_of_entry()
        table = np.array(entries, np.int64)
        parts: list[Field] = [
            (table[:, :1], 32),
            (table[:, 1 : 1 + lanes], self.layer.spec.output_operand.bits),
        ]
        if vectors:
            parts.append((table[:, 1 + lanes :], self.layer.spec.output_operand.scale.bits))
        return {
            "writes": hex_lines(
                _columns(write_cycles, 32),
                (np.concatenate(overflows).astype(np.int64), 1),
                (np.concatenate(written), self.arch.accumulator_width(self.layer.scheme)),
            ),
            "drains": hex_lines(_columns(drains, 32)),
            "entries": hex_lines(*parts),
        }

    def _vectors_of_entry(self) -> int:
        if not self.layer.spec.output_operand.scale.bits:
            return 0
        return max(1, self.arch.lanes // self.layer.spec.written_block)

    def _entries(self, block: Block, start: int, spacing: int) -> list[list[int]]:
        """[cycle, L codes, scales] of every FIFO entry of an output tile, in the order they leave."""
        layer, arch, staged = self.layer, self.arch, self.run.layer_run.staged
        groups = self.unit if staged else self.unit[-1:]
        first = block.unit_k0 if staged else block.k0
        lane_groups = [first + j * arch.lanes for j in range(len(groups))]
        m, t, bias = (
            np.concatenate([self._padded(c[None, :], k0, idle) for k0 in lane_groups], axis=1)[0]
            for c, idle in zip(ppu_constants(layer, psum_shift(arch, layer)), (0, 1, 0), strict=True)
        )
        codes, scales = outputs(arch, layer, np.concatenate(groups, axis=1), (m, t, bias))
        slices = arch.ppu_slices
        first_cycle = start + slices - 1 + self.run.layer_run.ppu_latency
        return [
            [
                first_cycle + i * spacing + j * slices,
                *codes[i, j * arch.lanes : (j + 1) * arch.lanes].tolist(),
                *scales[i].tolist(),
            ]
            for i in range(block.pixels)
            for j in range(len(groups))
        ]


def _gather(block: Block) -> NDArray[np.int32]:
    """int32[pixels, vectors]: address in the input half of every step of a block, -1 in padding."""
    tile = block.input_tile
    return tile.local_gather[block.p0 - tile.p0 : block.p1 - tile.p0, block.g0 - tile.g0 : block.g1 - tile.g0]


def _columns(values: list[int], bits: int) -> Field:
    return np.array(values, np.int64).reshape(-1, 1), bits
