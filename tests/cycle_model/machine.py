"""docs/machine.md sections 2, 3, 5 and 6: the state of the machine and what it does in one cycle.

A cycle has three phases. `_becomes_visible` applies what finished earlier, `_act` lets PEs drain and issue,
asks for outputs to be sent and launches fetches, `_end_of_cycle` ages the ports and grants those that are
free in the next cycle.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from accelsim.config import Arch
from accelsim.mapping.plan import Mapping
from accelsim.workload import QuantizedLayer
from cycle_model.program import (
    Block,
    Fetch,
    InputTile,
    LayerProgram,
    PsumTile,
    WeightTile,
    ceil_div,
    compile_run,
    output_tile_bits,
)

BUCKETS = ("compute", "accumulate_stall", "output_wait", "weight_wait", "input_wait", "drain", "idle")
COMPUTE, STALL, OUTPUT_WAIT, WEIGHT_WAIT, INPUT_WAIT, DRAIN, IDLE = range(len(BUCKETS))
CLASS = {"output": 0, "input": 1, "weight": 2}
ROW_WORK = ("softmax", "layer_norm")
LARGEST_RUN = 200_000


class Deadlock(Exception):
    """max_cycles passed; the message says who waits for what."""


@dataclass
class LayerResult:
    cycles: int
    end: int
    buckets: NDArray[np.int64]  # [pes, 7] in the order of BUCKETS
    counts: Counter[str]
    psums: NDArray[np.int64]  # [pixels, K], as the drain read them
    overflows: int


class Delay:
    """Things on their way: put in with the cycle at which they become visible, taken out in that cycle."""

    def __init__(self) -> None:
        self.items: list[tuple[int, object]] = []

    def put(self, visible_at: int, item: object) -> None:
        self.items.append((visible_at, item))

    def due(self, now: int) -> list:
        if not self.items:
            return []
        due = [item for at, item in self.items if at == now]
        self.items = [(at, item) for at, item in self.items if at != now]
        return due


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


@dataclass(eq=False)
class Transfer:
    kind: str  # "output", "input", "weight" on the crossbar; "read", "write" at the DRAM
    key: tuple[int, int, int, int, int]
    ports: list[Port]
    duration: int
    item: Fetch | OutputTile
    needs_space: int = 0
    remaining: int = 0

    def __str__(self) -> str:
        ports = ", ".join(f"{port.name} (busy {port.busy}, queue {len(port.queue)})" for port in self.ports)
        return f"{self.kind} {self.key} on {ports}"


@dataclass(eq=False)
class Half:
    """One half of an operand buffer: the tile it holds and the words in it."""

    tile_key: tuple | None = None
    words: dict = field(default_factory=dict)


@dataclass(eq=False)
class Bank:
    """One collector bank: D entries of L psums, and the tile that was last given the bank."""

    entries: list[list[int]]
    tile: PsumTile | None = None


@dataclass(eq=False)
class Step:
    """One step on its way through the pipeline."""

    layer: int
    bank: Bank
    entry: int
    products: list[int]
    accumulates: bool  # False at g = 0
    tile: PsumTile
    last_of_tile: bool
    old: list[int] | None = None


@dataclass(eq=False)
class Pe:
    index: int
    blocks: list[Block]
    banks: list[Bank]
    halves: dict[str, list[Half]]
    released: dict[str, int]  # positions released so far; they are released in order
    next_block: int = 0
    block: Block | None = None  # the block that is being issued
    g: int = 0
    slot: int = 0
    weight_register: list[tuple[list[int], int]] = field(default_factory=list)
    reading: Delay = field(default_factory=Delay)
    writing: Delay = field(default_factory=Delay)
    releasing: Delay = field(default_factory=Delay)
    to_drain: list[PsumTile] = field(default_factory=list)  # begun, their drain has not started
    draining: PsumTile | None = None
    drain_cycle: int = 0
    drained: list[int] = field(default_factory=list)
    fifo_used: int = 0
    in_ppu: Delay = field(default_factory=Delay)
    complete: list[OutputTile] = field(default_factory=list)  # in the FIFO, not yet requested
    unwritten: int = 0  # requested, DRAM write not done
    outputs_made: dict[int, int] = field(default_factory=dict)
    outputs_to_leave: dict[int, int] = field(default_factory=dict)


def run(
    arch: Arch, layers: list[QuantizedLayer], mappings: list[Mapping], max_cycles: int = LARGEST_RUN
) -> list[LayerResult]:
    """Run the layers one after another. Raises Deadlock when they take more than max_cycles."""
    machine = Machine(arch, layers, mappings)
    while machine.current < len(layers):
        if machine.now >= max_cycles:
            raise Deadlock(machine.dump())
        machine.cycle()
    return machine.results()


class Machine:
    def __init__(self, arch: Arch, layers: list[QuantizedLayer], mappings: list[Mapping]) -> None:
        self.arch = arch
        self.program = program = compile_run(arch, layers, mappings)
        self.layers = program.layers
        self.now = 0
        self.current = 0  # the layer whose [previous end, end) holds this cycle
        self.ends: list[int | None] = [None] * len(layers)
        self.buckets = [np.zeros((arch.pes, len(BUCKETS)), np.int64) for _ in layers]
        self.counts: list[Counter[str]] = [Counter() for _ in layers]
        self.psums = [np.zeros((layer.geometry.pixels, layer.geometry.K), np.int64) for layer in layers]
        self.psum_done = [np.zeros((layer.geometry.pixels, layer.geometry.K), bool) for layer in layers]
        self.overflows = [0] * len(layers)
        self.outputs_to_write = [sum(layer.outputs.values()) for layer in self.layers]
        # Elements in the global buffer that wait for the global PE, times pixels * K to be whole numbers.
        self.streaming_backlog = [0] * len(layers)

        self.dram = Port("dram")
        self.banks = [Port(f"bank {b}") for b in range(arch.gb_banks)]
        self.in_ports = [Port(f"in-port {pe}") for pe in range(arch.pes)]
        self.out_ports = [Port(f"out-port {pe}") for pe in range(arch.pes)]
        self.weight_space = arch.global_buffer_bits * arch.bank_groups[0] // arch.gb_banks
        self.active: list[Transfer] = []
        self.dram_to_buffer = Delay()
        self.crossbar_arrivals = Delay()
        self.written = Delay()

        lanes, depth = arch.lanes, arch.accumulation_collector_depth
        self.pes = [
            Pe(
                index=pe,
                blocks=program.blocks[pe],
                banks=[Bank([[0] * lanes for _ in range(depth)]) for _ in range(2)],
                halves={"weight": [Half(), Half()], "input": [Half(), Half()]},
                released={"weight": 0, "input": 0},
                outputs_made={layer.index: 0 for layer in self.layers},
                outputs_to_leave={layer.index: layer.outputs[pe] for layer in self.layers},
            )
            for pe in range(arch.pes)
        ]
        self.gathered = []  # [layer][group][pixel][g]
        for layer in layers:
            pixels = np.arange(layer.geometry.pixels)
            self.gathered.append([layer.gather(g, pixels).tolist() for g in range(layer.geometry.groups)])

    def results(self) -> list[LayerResult]:
        results = []
        previous = 0
        for program, end in zip(self.layers, self.ends, strict=True):
            i = program.index
            assert end is not None and self.psum_done[i].all()
            counts = self.counts[i]
            counts["control.cycle"] += self.arch.pes * (end - previous)
            for work in program.layer.global_pe:
                words = ceil_div(work.elements * program.layer.scheme.activation_bits, self.arch.gb_bank_bits)
                counts["global_pe.element"] += work.elements
                counts["global_buffer.read"] += words
                counts["global_buffer.write"] += words
            kept = Counter({name: count for name, count in counts.items() if count})
            results.append(
                LayerResult(end - previous, end, self.buckets[i], kept, self.psums[i], self.overflows[i])
            )
            previous = end
        return results

    def cycle(self) -> None:
        self._becomes_visible()
        if self.current < len(self.layers):
            self._act()
            self._end_of_cycle()
            self.now += 1

    # ---------------------------------------------------------------------------------------------- phase 1

    def _becomes_visible(self) -> None:
        now = self.now
        for fetch in self.dram_to_buffer.due(now):
            self._request_crossbar_fetch(fetch)
        for kind, item in self.crossbar_arrivals.due(now):
            if kind == "output":
                self._bring_streaming_work(item)
                if self.layers[item.layer].placement.output_to_dram:
                    self._request_dram_write(item)
                else:
                    self.outputs_to_write[item.layer] -= 1
            else:
                self._fill_halves(item)
        for output in self.written.due(now):
            self.pes[output.pe].unwritten -= 1
            self.outputs_to_write[output.layer] -= 1
        for pe in self.pes:
            for operand in pe.releasing.due(now):
                pe.released[operand] += 1
            for step in pe.writing.due(now):
                self._write_collector(step)
            for step in pe.reading.due(now):
                step.old = list(step.bank.entries[step.entry])
            pe.complete += pe.in_ppu.due(now)
        i = self.current
        if self.ends[i] is None and self.outputs_to_write[i] == 0 and self.streaming_backlog[i] == 0:
            rate = self.arch.global_pe_elements_per_cycle
            work = self.layers[i].layer.global_pe
            self.ends[i] = now + sum(ceil_div(w.elements, rate) for w in work if w.op in ROW_WORK)
        if self.ends[i] == now:
            self.current += 1

    def _bring_streaming_work(self, output: OutputTile) -> None:
        work = self.layers[output.layer].layer.global_pe
        elements = sum(w.elements for w in work if w.op not in ROW_WORK)
        self.streaming_backlog[output.layer] += elements * output.values

    def _fill_halves(self, fetch: Fetch) -> None:
        layer = self.layers[fetch.layer].layer
        words: dict = {}
        if isinstance(fetch.tile, WeightTile):
            assert fetch.tile.macro_words <= self.arch.weight_buffer_words // 2
            scales = layer.weight_scales
            for k, g in fetch.tile.words:
                words[k, g] = (layer.weight_words[k, g].tolist(), 1 if scales is None else int(scales[k, g]))
        else:
            assert len(fetch.tile.words) <= self.arch.input_buffer_words // 2
            scales = layer.input_scales
            for word in fetch.tile.words:
                words[word] = (layer.input_words[word].tolist(), 1 if scales is None else int(scales[word]))
        for pe, position in fetch.positions.items():
            half = self.pes[pe].halves[fetch.operand][position % 2]
            assert half.tile_key is None, "a tile arrives in a half that was not given up"
            half.tile_key, half.words = fetch.tile.key, words
            self._count(fetch.layer, f"{fetch.operand}_buffer.write", len(words))

    def _write_collector(self, step: Step) -> None:
        old = step.old if step.accumulates else [0] * len(step.products)
        assert old is not None
        entry = step.bank.entries[step.entry]
        for lane, product in enumerate(step.products):
            entry[lane] = self._accumulate(step.layer, old[lane], product)
        self._count(step.layer, "accumulation_collector.write")
        if step.last_of_tile:
            step.tile.last_write = self.now

    def _accumulate(self, i: int, psum: int, product: int) -> int:
        width = self.arch.accumulator_width(self.layers[i].layer.scheme)
        low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
        exact = psum + product
        if low <= exact <= high:
            return exact
        self.overflows[i] += 1
        if self.arch.overflow == "error":
            raise OverflowError(f"layer {i}: {exact} does not fit {width} bits")
        if self.arch.overflow == "wrap":
            return (exact - low) % (1 << width) + low
        return high if exact > high else low

    # ---------------------------------------------------------------------------------------------- phase 2

    def _act(self) -> None:
        for pe in self.pes:
            # The drain first: a block may start in the cycle in which the drain that frees its bank starts.
            self._drain(pe)
            bucket = self._issue(pe)
            self.buckets[self.current][pe.index, bucket] += 1
            self._request_outputs(pe)
        for program in self.layers:
            self._launch(program)
        geometry = self.layers[self.current].layer.geometry
        done = self.arch.global_pe_elements_per_cycle * geometry.pixels * geometry.K
        self.streaming_backlog[self.current] = max(0, self.streaming_backlog[self.current] - done)

    def _drain(self, pe: Pe) -> None:
        if pe.draining is None:
            if not pe.to_drain:
                return
            tile = pe.to_drain[0]
            entries = 0 if tile.staged_away else len(tile.pixels) * tile.pieces
            written = tile.last_write is not None and tile.last_write < self.now
            if not written or pe.fifo_used + entries > self.arch.out_fifo_words:
                return
            pe.fifo_used += entries
            pe.draining = pe.to_drain.pop(0)
            pe.draining.drain_start = self.now
            pe.drain_cycle = 0
        tile = pe.draining
        i = tile.layer
        layer = self.layers[i].layer
        pixel, piece = divmod(pe.drain_cycle, tile.pieces)
        if piece == 0:
            entry = pe.banks[tile.number % 2].entries[pixel]
            for lane, k in enumerate(tile.channels):
                assert not self.psum_done[i][tile.pixels[pixel], k]
                self.psum_done[i][tile.pixels[pixel], k] = True
                self.psums[i][tile.pixels[pixel], k] = entry[lane]
            self._count(i, "accumulation_collector.read")
            self._count(i, "ppu.op", len(tile.channels))
            if tile.staged_away:
                self._count(i, "ppu_staging.write")
            else:
                self._count(i, "ppu_staging.read", tile.pieces - 1)
                if layer.output.scale_bits:
                    self._count(i, "ppu_vector_scale.op", ceil_div(tile.output_channels, layer.vector_size))
        pe.drain_cycle += 1
        if pe.drain_cycle < len(tile.pixels) * tile.pieces:
            return
        pe.draining = None
        if not tile.staged_away:
            latency = self.arch.ppu_latency_cycles
            cycles = latency.per_vector if layer.output.scale_bits else latency.static
            entries = len(tile.pixels) * tile.pieces
            output = OutputTile(
                layer=i,
                pe=pe.index,
                index=pe.outputs_made[i],
                values=len(tile.pixels) * tile.output_channels,
                bits=output_tile_bits(layer, tile),
                entries=entries,
            )
            pe.outputs_made[i] += 1
            pe.in_ppu.put(self.now + cycles, output)
            self._count(i, "out_fifo.write", entries)

    def _issue(self, pe: Pe) -> int:
        """Issue one slot if there is one; return the bucket of this cycle."""
        if pe.block is None:
            if pe.next_block == len(pe.blocks) or pe.blocks[pe.next_block].layer != self.current:
                return DRAIN if self._drains(pe) else IDLE
            block = pe.blocks[pe.next_block]
            if block.first_chunk and not self._bank_is_free(pe, block):
                return OUTPUT_WAIT
            if self._half(pe, block, "weight").tile_key != block.weight_tile.key:
                return WEIGHT_WAIT
            if self._half(pe, block, "input").tile_key != block.input_tile.key:
                return INPUT_WAIT
            pe.block = block
            pe.next_block += 1
            pe.g, pe.slot = block.g_range.start, 0
            if block.first_chunk:
                pe.banks[block.psum_tile.number % 2].tile = block.psum_tile
                pe.to_drain.append(block.psum_tile)
        block = pe.block
        depth = len(block.psum_tile.pixels)
        is_step = pe.slot < depth
        if is_step:
            self._step(pe, block)
        pe.slot += 1
        if pe.slot == max(depth, self.arch.accumulate_latency):
            pe.slot = 0
            pe.g += 1
            if pe.g == block.g_range.stop:
                pe.block = None
        return COMPUTE if is_step else STALL

    def _drains(self, pe: Pe) -> bool:
        return pe.outputs_to_leave[self.current] > 0

    def _bank_is_free(self, pe: Pe, block: Block) -> bool:
        before = pe.banks[block.psum_tile.number % 2].tile
        if before is None:
            return True
        first_write = self.now + self._write_latency(block.layer)
        return before.drain_start is not None and before.last_read < first_write

    def _write_latency(self, i: int) -> int:
        return 4 if self.layers[i].layer.scheme.has_scales else 3

    def _half(self, pe: Pe, block: Block, operand: str) -> Half:
        position = block.weight_position if operand == "weight" else block.input_position
        return pe.halves[operand][position % 2]

    def _step(self, pe: Pe, block: Block) -> None:
        i, g, tile = block.layer, pe.g, block.psum_tile
        program = self.layers[i]
        depth = len(tile.pixels)
        last_g = g == block.g_range.stop - 1
        if pe.slot == 0:
            words = self._half(pe, block, "weight").words
            pe.weight_register = [words[k, g] for k in tile.channels]
            self._count(i, "weight_buffer.read", len(tile.channels))
            self._count(i, "weight_register.write", len(tile.channels))
            if last_g and block.releases_weight:
                pe.releasing.put(self.now + 1, "weight")
        word = self.gathered[i][block.group][tile.pixels[pe.slot]][g]
        if word >= 0:
            codes, scale = self._half(pe, block, "input").words[word]
            self._count(i, "input_buffer.read")
            self._count(i, "input_register.write")
        else:
            codes, scale = [0] * program.layer.vector_size, 0
        if last_g and pe.slot == depth - 1 and block.releases_input:
            pe.releasing.put(self.now + 1, "input")

        products = [self._multiply(i, *weights, codes, scale) for weights in pe.weight_register]
        step = Step(
            layer=i,
            bank=pe.banks[tile.number % 2],
            entry=pe.slot,
            products=products,
            accumulates=g > 0,
            tile=tile,
            last_of_tile=block.last_chunk and last_g and pe.slot == depth - 1,
        )
        write_latency = self._write_latency(i)
        if step.accumulates:
            # The old psum is read accumulate_latency before the new one is written, so that a pad slot too
            # few would lose an accumulation.
            wait = max(0, write_latency - self.arch.accumulate_latency)
            if wait:
                pe.reading.put(self.now + wait, step)
            else:
                step.old = list(step.bank.entries[step.entry])
            self._count(i, "accumulation_collector.read")
        pe.writing.put(self.now + write_latency, step)
        self._count(i, "accumulator.add", len(products))

    def _multiply(self, i: int, weights: list[int], w_scale: int, codes: list[int], a_scale: int) -> int:
        """The product of one lane, and its counts."""
        scheme = self.layers[i].layer.scheme
        gated = not any(weights) or not any(codes) or w_scale == 0 or a_scale == 0
        scale = w_scale * a_scale
        if scheme.scale_product_bits:
            shift = scheme.weight_scale_bits + scheme.activation_scale_bits - scheme.scale_product_bits
            scale = min((scale + (1 << (shift - 1))) >> shift, (1 << scheme.scale_product_bits) - 1)
        if gated:
            self._count(i, "dot_product.gated")
            return 0
        self._count(i, "dot_product.op")
        self._count(i, "pipeline_register.write")
        if scheme.weight_scale_bits and scheme.activation_scale_bits:
            self._count(i, "scale_product.op")
        if scheme.weight_scale_bits or scheme.activation_scale_bits:
            self._count(i, "scale_multiply.op")
        product = sum(w * a for w, a in zip(weights, codes, strict=True)) * scale
        shift = self.arch.product_shift
        return (product + (1 << (shift - 1))) >> shift if shift else product

    def _request_outputs(self, pe: Pe) -> None:
        while pe.complete:
            output = pe.complete[0]
            to_dram = self.layers[output.layer].placement.output_to_dram
            if to_dram and pe.unwritten >= 2:
                return
            pe.complete.pop(0)
            pe.unwritten += to_dram
            weights, inputs, outputs = self.arch.bank_groups
            bank = self.banks[weights + inputs + pe.index % outputs]
            self._request(
                Transfer(
                    kind="output",
                    key=(self.now, CLASS["output"], pe.index, output.layer, output.index),
                    ports=[bank, self.out_ports[pe.index]],
                    duration=self._crossbar_cycles(output.bits),
                    item=output,
                )
            )

    def _launch(self, program: LayerProgram) -> None:
        i = program.index
        before = self.layers[i - 1] if i else None
        begun = before is None or (self.ends[i - 1] is not None and self.now >= self.ends[i - 1])
        if begun:
            self._launch_streams(program, "input")
        elif program.layer.weight_is_activation:
            return
        if before is not None:
            waits = any(before.streams["weight"].values())
            if waits or before.last_weight_launch is None or before.last_weight_launch >= self.now:
                return
        self._launch_streams(program, "weight")

    def _launch_streams(self, program: LayerProgram, operand: str) -> None:
        for fetches in program.streams[operand].values():
            while fetches and self._may_launch(fetches[0]):
                self._launch_one(fetches.pop(0))

    def _may_launch(self, fetch: Fetch) -> bool:
        # Positions 0 .. position - 2 must have been released: position - 1 of them.
        released = [self.pes[pe].released[fetch.operand] for pe in fetch.positions]
        return all(r >= position - 1 for r, position in zip(released, fetch.positions.values(), strict=True))

    def _launch_one(self, fetch: Fetch) -> None:
        if fetch.operand == "weight":
            self.layers[fetch.layer].last_weight_launch = self.now
        for pe, position in fetch.positions.items():
            # Nobody may use the old tile any more; an early launch shows as a missing word.
            self.pes[pe].halves[fetch.operand][position % 2] = Half()
        if not fetch.reads_dram:
            self._request_crossbar_fetch(fetch)
            return
        self._request(
            Transfer(
                kind="read",
                key=self._fetch_key(fetch),
                ports=[self.dram],
                duration=self._dram_cycles(fetch.dram_bits),
                item=fetch,
                needs_space=fetch.tile.bits if fetch.operand == "weight" else 0,
            )
        )

    def _fetch_key(self, fetch: Fetch) -> tuple[int, int, int, int, int]:
        return (self.now, CLASS[fetch.operand], fetch.leader, fetch.layer, fetch.index)

    def _request_crossbar_fetch(self, fetch: Fetch) -> None:
        weights, inputs, _ = self.arch.bank_groups
        if fetch.operand == "weight":
            bank = fetch.stream % weights
        else:
            bank = weights + fetch.stream % inputs
        self._request(
            Transfer(
                kind=fetch.operand,
                key=self._fetch_key(fetch),
                ports=[self.banks[bank], *(self.in_ports[pe] for pe in fetch.positions)],
                duration=self._crossbar_cycles(fetch.tile.bits),
                item=fetch,
            )
        )

    def _request_dram_write(self, output: OutputTile) -> None:
        self._request(
            Transfer(
                kind="write",
                key=(self.now, CLASS["output"], output.pe, output.layer, output.index),
                ports=[self.dram],
                duration=self._dram_cycles(output.bits),
                item=output,
            )
        )

    def _request(self, transfer: Transfer) -> None:
        for port in transfer.ports:
            port.queue.append(transfer)
            port.queue.sort(key=lambda waiting: waiting.key)

    def _crossbar_cycles(self, bits: int) -> int:
        return max(1, ceil_div(bits, min(self.arch.gb_bank_bits, self.arch.pe_port_bits)))

    def _dram_cycles(self, bits: int) -> int:
        width = math.floor(self.arch.dram_bits_per_cycle * self.arch.dram_efficiency)
        return max(1, ceil_div(bits, width))

    # ---------------------------------------------------------------------------------------------- phase 3

    def _end_of_cycle(self) -> None:
        still_active = []
        for transfer in self.active:
            transfer.remaining -= 1
            for port in transfer.ports:
                port.busy -= 1
            if transfer.remaining:
                still_active.append(transfer)
            else:
                self._finish(transfer)
        self.active = still_active
        heads = []
        for port in (self.dram, *self.banks):
            if port.queue:
                transfer = port.queue[0]
                if all(other.queue[0] is transfer and other.busy == 0 for other in transfer.ports):
                    heads.append(transfer)
        for transfer in heads:
            if transfer.needs_space > self.weight_space:
                continue
            self.weight_space -= transfer.needs_space
            for port in transfer.ports:
                assert port.queue.pop(0) is transfer
                port.busy = transfer.duration
            transfer.remaining = transfer.duration
            self.active.append(transfer)
            self._count_transfer(transfer)

    def _finish(self, transfer: Transfer) -> None:
        """The last cycle in which the transfer holds its ports has passed."""
        free_at = self.now + 1
        item = transfer.item
        if transfer.kind == "read":
            self.dram_to_buffer.put(free_at + self.arch.dram_latency_cycles, item)
            return
        if transfer.kind == "write":
            self.written.put(free_at, item)
            return
        self.crossbar_arrivals.put(free_at + self.arch.noc_latency_cycles, (transfer.kind, item))
        if isinstance(item, OutputTile):
            pe = self.pes[item.pe]
            pe.fifo_used -= item.entries
            pe.outputs_to_leave[item.layer] -= 1
        elif item.operand == "weight":
            kind = self.layers[item.layer].placement.weights
            if kind == "streamed" or (kind == "cached" and item.last_of_tile):
                self.weight_space += item.tile.bits

    # ----------------------------------------------------------------------------------------------- counts

    def _count(self, i: int, name: str, amount: int = 1) -> None:
        self.counts[i][name] += amount

    def _count_transfer(self, transfer: Transfer) -> None:
        item, i = transfer.item, transfer.item.layer
        if isinstance(item, Fetch):
            tile: WeightTile | InputTile = item.tile
            bits = item.dram_bits if transfer.kind == "read" else tile.bits
            destinations = list(item.positions)
        else:
            bits, destinations = item.bits, [item.pe]
        words = ceil_div(bits, self.arch.gb_bank_bits)
        if transfer.kind == "read":
            self._count(i, "dram.read_bit", bits)
            self._count(i, "global_buffer.write", words)
        elif transfer.kind == "write":
            self._count(i, "dram.write_bit", bits)
            self._count(i, "global_buffer.read", words)
        else:
            self._count(i, "noc.bit_hop", bits * self._hops(destinations))
            if isinstance(item, OutputTile):
                self._count(i, "global_buffer.write", words)
                self._count(i, "out_fifo.read", item.entries)
            else:
                self._count(i, "global_buffer.read", words)

    def _hops(self, pes: list[int]) -> int:
        side = math.isqrt(self.arch.pes - 1) + 1
        links = {"into the grid"}
        for pe in pes:
            links |= {f"row 0 to column {x}" for x in range(1, pe % side + 1)}
            links |= {f"column {pe % side} to row {y}" for y in range(1, pe // side + 1)}
        return len(links)

    # ----------------------------------------------------------------------------------------------- errors

    def dump(self) -> str:
        """Who waits for what."""
        lines = [f"cycle {self.now}: layer {self.current} goes on, {self.weight_space} bits of weight space"]
        for pe in self.pes:
            if pe.next_block < len(pe.blocks):
                block = pe.blocks[pe.next_block]
                lines.append(
                    f"PE {pe.index}: next block {pe.next_block} of layer {block.layer}, "
                    f"bank free {not block.first_chunk or self._bank_is_free(pe, block)}, "
                    f"weights {self._half(pe, block, 'weight').tile_key} want {block.weight_tile.key}, "
                    f"inputs {self._half(pe, block, 'input').tile_key} want {block.input_tile.key}, "
                    f"fifo {pe.fifo_used}, unwritten {pe.unwritten}, to drain {len(pe.to_drain)}"
                )
        for program in self.layers:
            for operand, streams in program.streams.items():
                for stream, fetches in streams.items():
                    if fetches:
                        lines.append(
                            f"layer {program.index} {operand} stream {stream}: {len(fetches)} not launched, "
                            f"next to positions {fetches[0].positions}"
                        )
        for port in (self.dram, *self.banks, *self.in_ports, *self.out_ports):
            lines += [f"{port.name}: {transfer}" for transfer in port.queue]
        return "\n".join(lines)
