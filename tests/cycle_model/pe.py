"""One PE of docs/timing.md: it issues slots, keeps psums and drains them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from accelsim.machine.arch import Arch
from accelsim.workload.layer import QuantizedLayer
from cycle_model.layer_run import BUBBLE, COMPUTE, DRAIN, IDLE, INPUT_WAIT, OUTPUT_WAIT, WEIGHT_WAIT, LayerRun
from cycle_model.ports import Delay, OutputTile
from cycle_model.sizes import block_written, ceil_div
from cycle_model.slots import StepOrder, slots_of
from cycle_model.tiles import Block, InputTile, Piece, PsumTile, WeightTile, output_tile_bits


def scales_of(layer: QuantizedLayer, scales: np.ndarray | None, word: object) -> list[int]:
    """Of a word, of each of its blocks; 1 without scales."""
    blocks = layer.spec.blocks_per_word
    return [1] * blocks if scales is None else np.reshape(scales[word], blocks).tolist()


@dataclass(eq=False)
class Half:
    """One half of an operand buffer: the tile it holds and the words in it."""

    tile_key: tuple | None = None
    words: dict = field(default_factory=dict)


@dataclass(frozen=True)
class PpuStep:
    """A cycle of a drain: what leaves the PPU, a slice of a lane group's entry in one format."""

    pixel: int
    format: int
    group: int  # of the lane groups that leave together
    slice: int

    @property
    def takes_psums(self) -> bool:
        """The tile's own psums come while the first of the groups leaves."""
        return self.group == 0


def ppu_steps(arch: Arch, piece: Piece) -> list[PpuStep]:
    tile = piece.tile
    return [
        PpuStep(pixel, format, group, part)
        for pixel in range(len(piece.pixels))
        for format in range(tile.formats)
        for group in range(tile.gathers)
        for part in range(0, arch.lanes, arch.ppu_lanes or arch.lanes)
    ]


@dataclass(eq=False)
class Step:
    """One step on its way through the pipeline."""

    run: LayerRun
    order: StepOrder
    tile: PsumTile
    products: list[int | None]  # None: this lane adds nothing
    source: str  # "zero", "entry" or "local": where the psum comes from
    last_of_tile: bool
    old: list[int] | None = None


class Pe:
    def __init__(self, arch: Arch, index: int, blocks: list[Block], runs: list[LayerRun]) -> None:
        self.arch, self.index, self.blocks, self.runs = arch, index, blocks, runs
        lanes = range(arch.lanes)
        depths = {
            "accumulation_collector": arch.accumulation_collector_depth,
            "accumulation_buffer": arch.accumulation_buffer_words // 2,
        }
        self.psum_store = {
            name: [[[0 for _ in lanes] for _ in range(depth)] for _ in range(2)]
            for name, depth in depths.items()
        }
        self.bank_tiles: list[PsumTile | None] = [None, None]  # the tile that was last given the bank
        self.halves = {"weight": [Half(), Half()], "input": [Half(), Half()]}
        self.released = {"weight": 0, "input": 0}  # positions released so far; they are released in order
        self.local = [0 for _ in lanes]
        self.next_block = 0
        self.block: Block | None = None  # the block that is being issued
        self.slots: list[StepOrder | None] = []  # its slots still to come
        self.weight_register: list[tuple[list[int], list[int]]] = []
        self.weight_collector: dict[int, list[tuple[list[int], list[int]]]] = {}  # by vector in the pass
        self.reading, self.writing, self.releasing = Delay(), Delay(), Delay()
        self.to_drain: list[Piece] = []  # of tiles begun, their drain into the PPU has not started
        self.to_chain: list[Piece] = []  # of tiles begun, their transfer is not requested
        self.draining: Piece | None = None
        self.ppu_steps: list[PpuStep] = []  # still to come of the drain
        self.fifo_used = 0
        self.in_ppu = Delay()
        self.complete: list[OutputTile] = []  # in the FIFO, not yet requested
        self.staged = 0  # requested and not done, where output tiles are staged
        self.outputs_made = [0 for _ in runs]
        self.to_leave = [run.program.leaving[index] for run in runs]

    def becomes_visible(self, now: int) -> None:
        for operand in self.releasing.due(now):
            self.released[operand] += 1
        for step in self.writing.due(now):
            self._write_psum(step, now)
        for step in self.reading.due(now):
            self._read_psum(step)
        self.complete += self.in_ppu.due(now)

    def fill_half(self, run: LayerRun, position: int, tile: WeightTile | InputTile) -> None:
        layer = run.layer
        words: dict = {}
        if isinstance(tile, WeightTile):
            operand = "weight"
            assert tile.macro_words <= self.arch.weight_buffer_words // 2
            scales = layer.weight_scales
            for k, g in tile.words:
                words[k, g] = (layer.weight_words[k, g].tolist(), scales_of(layer, scales, (k, g)))
        else:
            operand = "input"
            assert len(tile.words) <= self.arch.input_buffer_words // 2
            scales = layer.input_scales
            for word in tile.words:
                words[word] = (layer.input_words[word].tolist(), scales_of(layer, scales, word))
        half = self.halves[operand][position % 2]
        assert half.tile_key is None, "a tile arrives in a half that was not given up"
        half.tile_key, half.words = tile.key, words
        run.count(f"{operand}_buffer.write", len(words))

    # ------------------------------------------------------------------------------------------------ psums

    def _entry(self, tile: PsumTile, entry: int) -> list[int]:
        return self.psum_store[self.runs[tile.layer].psum_store][tile.number % 2][entry]

    def _read_psum(self, step: Step) -> None:
        if step.source == "zero":
            step.old = [0] * len(step.products)
        elif step.source == "local":
            step.old = list(self.local)
        else:
            step.old = list(self._entry(step.tile, step.order.pixel))
            self._count_by_lane(step, "read", sum(product is not None for product in step.products))

    def _write_psum(self, step: Step, now: int) -> None:
        run = step.run
        assert step.old is not None
        entry = self._entry(step.tile, step.order.pixel)
        # A psum that starts from zero is written whatever is added to it.
        new = [
            entry[lane] if product is None and step.source != "zero" else run.accumulate(old, product or 0)
            for lane, (old, product) in enumerate(zip(step.old, step.products, strict=False))
        ]
        added = sum(product is not None or step.source == "zero" for product in step.products)
        run.count("accumulator.add", added)
        if run.has_local:
            self.local[: len(new)] = new
            run.count("local_accumulator.write")
        if step.order.stops:
            entry[: len(new)] = new
            self._count_by_lane(step, "write", added)
        if step.last_of_tile:
            step.tile.last_write = now

    def _count_by_lane(self, step: Step, action: str, lanes: int) -> None:
        """An entry, or as many psums of it as there are lanes that add, where the machine gates additions."""
        if self.arch.gate_on_scale_product == "none":
            self._count_entry(step.run, action)
        else:
            step.run.count(f"{step.run.psum_store}.psum_{action}", lanes)

    def _count_entry(self, run: LayerRun, action: str) -> None:
        if self.arch.gate_on_scale_product == "none":
            run.count(f"{run.psum_store}.{action}")
        else:
            run.count(f"{run.psum_store}.psum_{action}", self.arch.lanes)

    def read_for_chain(self, piece: Piece) -> list[int]:
        """The next entry of a piece on its way to the next PE."""
        run = self.runs[piece.tile.layer]
        self._count_entry(run, "read")
        entry = self._entry(piece.tile, piece.first_entry + piece.sent)
        piece.sent += 1
        return entry[: len(piece.tile.channels)]

    def add_from_chain(self, piece: Piece, index: int, psums: list[int]) -> None:
        """Entry `index` of a piece arrives from the PE before."""
        run = self.runs[piece.tile.layer]
        entry = self._entry(piece.tile, piece.first_entry + index)
        for lane, psum in enumerate(psums):
            entry[lane] = run.accumulate(psum, entry[lane])
        self._count_entry(run, "read")
        self._count_entry(run, "write")
        run.count("psum_adder.add", len(psums))

    # ------------------------------------------------------------------------------------------------ drain

    def drain(self, now: int) -> None:
        if self.draining is None:
            if not self.to_drain:
                return
            piece = self.to_drain[0]
            tile = piece.tile
            entries = len(piece.pixels) * tile.fifo_entries
            summed = piece.summed is not None and piece.summed < now
            if not summed or self.fifo_used + entries > self.arch.out_fifo_words:
                return
            self.fifo_used += entries
            self.draining = self.to_drain.pop(0)
            piece.drain_start = now
            self.ppu_steps = ppu_steps(self.arch, piece)
            piece.last_read = now + max(i for i, step in enumerate(self.ppu_steps) if step.takes_psums)
        piece = self.draining
        run = self.runs[piece.tile.layer]
        step = self.ppu_steps.pop(0)
        if step.takes_psums:
            self._take_slice(run, piece, step)
        if not self.ppu_steps:
            self.draining = None
            if not piece.tile.staged_away:
                self._make_output(run, piece, now)

    def _take_slice(self, run: LayerRun, piece: Piece, step: PpuStep) -> None:
        tile, out = piece.tile, run.program.formats[step.format]
        entry, pixel = self._entry(tile, piece.first_entry + step.pixel), piece.pixels[step.pixel]
        width = self.arch.ppu_lanes or self.arch.lanes
        channels = tile.channels[step.slice : step.slice + width]
        for lane, k in enumerate(channels, step.slice):
            if step.format == 0:
                assert not run.psum_done[pixel, k]
                run.psum_done[pixel, k], run.psums[pixel, k] = True, entry[lane]
            assert run.psums[pixel, k] == entry[lane]  # nothing wrote to it between two formats
        run.count("ppu.op", len(channels))
        run.count("ppu_constants.read")
        if (
            out.scale.bits
            and not tile.staged_away
            and width < min(block_written(self.arch, run.program.formats), self.arch.lanes)
        ):
            run.count("ppu_hold.write")
        if step.slice:
            return
        if step.format == 0:
            self._count_entry(run, "read")  # the entry stays addressed while its slices are taken
        if tile.staged_away:
            run.count("ppu_staging.write")
            return
        run.count("ppu_staging.read", tile.gathers - 1)
        if out.scale.bits:
            run.count(
                "ppu_vector_scale.op",
                ceil_div(tile.output_channels, block_written(self.arch, run.program.formats)),
            )

    def _make_output(self, run: LayerRun, piece: Piece, now: int) -> None:
        latency = self.arch.ppu_latency_cycles
        scaled = any(out.scale.bits for out in run.program.formats)
        cycles = latency.static
        if scaled:
            # The first slice of a vector waits for its last, and leaves when that has come.
            together = min(block_written(self.arch, run.program.formats), self.arch.lanes)
            cycles = latency.per_vector + ceil_div(together, self.arch.ppu_lanes or self.arch.lanes) - 1
        layer, entries = piece.tile.layer, len(piece.pixels) * piece.tile.fifo_entries
        index, values = self.outputs_made[layer], len(piece.pixels) * piece.tile.output_channels
        first, placement = run.program.first_outputs[self.index][index], run.program.placement
        operands = tuple(run.share(moved.stored, first, values) for moved in placement.spilled)
        writes = tuple(run.share(moved.stored, first, values) for moved in placement.written)
        output = OutputTile(
            layer=layer,
            pe=self.index,
            index=index,
            values=values,
            bits=output_tile_bits(self.arch, run.program.formats, piece),
            entries=entries,
            operands=operands,
            writes=writes,
            operands_missing=sum(bits > 0 for bits in operands),
            writes_missing=sum(bits > 0 for bits in writes),
        )
        self.outputs_made[layer] += 1
        self.in_ppu.put(now + cycles, output)
        run.count("out_fifo.write", entries)

    def outputs_to_send(self) -> list[OutputTile]:
        """Output tiles whose request is made in this cycle."""
        sent = []
        while self.complete:
            staged = self.runs[self.complete[0].layer].program.placement.staged
            if staged and self.staged >= self.arch.output_staging_tiles:
                break
            self.staged += staged
            sent.append(self.complete.pop(0))
        return sent

    def psums_to_send(self, now: int) -> list[Piece]:
        """Pieces whose transfer to the next PE is requested in this cycle."""
        sent = []
        while self.to_chain:
            piece = self.to_chain[0]
            assert piece.after is not None
            mine, next_write = piece.summed, piece.after.tile.last_write
            if mine is None or next_write is None or max(mine, next_write) >= now:
                break
            sent.append(self.to_chain.pop(0))
        return sent

    # ------------------------------------------------------------------------------------------------ issue

    def issue(self, now: int, current: int) -> int:
        """Issue one slot if there is one; return the stall reason of this cycle."""
        if self.block is None:
            if self.next_block == len(self.blocks) or self.blocks[self.next_block].layer != current:
                return DRAIN if self.to_leave[current] else IDLE
            block = self.blocks[self.next_block]
            if block.first_chunk and not self.bank_is_free(block, now):
                return OUTPUT_WAIT
            if self.half(block, "weight").tile_key != block.weight_tile.key:
                return WEIGHT_WAIT
            if self.half(block, "input").tile_key != block.input_tile.key:
                return INPUT_WAIT
            self._begin(block)
        block = self.block
        assert block is not None
        order = self.slots.pop(0)
        if order is not None:
            self._step(block, order, now)
        if not self.slots:
            self.block = None
        return COMPUTE if order is not None else BUBBLE

    def bank_is_free(self, block: Block, now: int) -> bool:
        before = self.bank_tiles[block.psum_tile.number % 2]
        if before is None:
            return True
        last_read = before.pieces[-1].last_read
        return last_read is not None and last_read < now + self.runs[block.layer].write_latency

    def half(self, block: Block, operand: str) -> Half:
        position = block.weight_position if operand == "weight" else block.input_position
        return self.halves[operand][position % 2]

    def _begin(self, block: Block) -> None:
        run, tile = self.runs[block.layer], block.psum_tile
        self.block = block
        self.next_block += 1
        self.slots = slots_of(self.arch, run.dataflow, len(tile.pixels), len(block.vectors))
        if block.first_chunk:
            self.bank_tiles[tile.number % 2] = tile
            for piece in tile.pieces:
                (self.to_drain if piece.after is None else self.to_chain).append(piece)

    def _step(self, block: Block, order: StepOrder, now: int) -> None:
        run, tile = self.runs[block.layer], block.psum_tile
        g = block.vectors[order.vector]
        last_vector = order.vector == len(block.vectors) - 1
        weights = self._weights(run, block, order)
        gives_weight = order.last if run.has_local else last_vector and order.pixel == 0
        if gives_weight and block.releases_weight:
            self.releasing.put(now + 1, "weight")
        word = run.gathered[block.group][tile.pixels[order.pixel]][g]
        if word >= 0:
            codes, scale = self.half(block, "input").words[word]
            run.count("input_buffer.read")
            run.count("input_register.write")
        else:
            codes, scale = [0] * run.layer.vector_size, [0] * run.layer.spec.blocks_per_word
        if order.last and block.releases_input:
            self.releasing.put(now + 1, "input")

        if not order.starts:
            source, latency = "local", self.arch.local_accumulate_latency
        else:
            source, latency = "entry", self.arch.accumulate_latency
            if order.first_pass and block.first_chunk:
                source = "zero"
        step = Step(
            run=run,
            order=order,
            tile=tile,
            products=[run.multiply(*weight, codes, scale) for weight in weights],
            source=source,
            last_of_tile=order.last and block.last_chunk,
        )
        # The old psum is read its latency before the new one is written, so that a pad slot too few would
        # lose an accumulation.
        if latency < run.write_latency:
            self.reading.put(now + run.write_latency - latency, step)
        else:
            self._read_psum(step)
        self.writing.put(now + run.write_latency, step)

    def _weights(self, run: LayerRun, block: Block, order: StepOrder) -> list[tuple[list[int], list[int]]]:
        """The weight words and scales of the lanes in this step."""
        channels = block.psum_tile.channels
        g = block.vectors[order.vector]
        if run.dataflow == "ws-los":
            if order.pixel == 0:
                # The pass brings its words from the buffer at its first pixel and reuses them at the others.
                self.weight_collector[order.in_pass] = self._read_weights(run, block, g)
                run.count("weight_collector.write", len(channels))
                assert len(self.weight_collector) <= self.arch.weight_collector_depth
            run.count("weight_collector.read", len(channels))
            run.count("weight_register.write", len(channels))
            return self.weight_collector[order.in_pass]
        if run.dataflow == "os" or order.pixel == 0:
            self.weight_register = self._read_weights(run, block, g)
            run.count("weight_register.write", len(channels))
        return self.weight_register

    def _read_weights(self, run: LayerRun, block: Block, g: int) -> list[tuple[list[int], list[int]]]:
        channels = block.psum_tile.channels
        run.count("weight_buffer.read", len(channels))
        words = self.half(block, "weight").words
        return [words[k, g] for k in channels]
