"""docs/timing.md: the machine as a whole and what it does in one cycle.

A cycle has three phases. `_becomes_visible` applies what finished earlier, `_act` lets PEs drain and issue,
asks for outputs and psums to be sent, asks and sends fetches, `_end_of_cycle` gives out space for weights,
moves bits of DRAM, ages the ports and grants those that are free in the next cycle.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.machine.arch import Arch
from accelsim.mapping.plan import LayerMapping
from accelsim.workload.graph import Graph
from accelsim.workload.layer import QuantizedLayer
from cycle_model.dram import Dram, DramTransfer
from cycle_model.fetching import Fetching
from cycle_model.hops import hops_between, hops_into
from cycle_model.layer_run import LayerRun
from cycle_model.outputs import Outputs
from cycle_model.pe import Pe
from cycle_model.placement import PrologueStep
from cycle_model.ports import CLASS, Delay, Key, OutputTile, Port, Transfer
from cycle_model.program import Fetch, compile_run
from cycle_model.prologue import Prologue
from cycle_model.sizes import ceil_div, region_bits
from cycle_model.tiles import Piece

LARGEST_RUN = 200_000


class Deadlock(Exception):
    """max_cycles passed; the message says who waits for what."""


@dataclass
class LayerResult:
    cycles: int
    end: int
    stall_cycles: NDArray[np.int64]  # [pes, 7] in the order of STALL_REASONS
    counts: Counter[str]
    psums: NDArray[np.int64]  # [pixels, K], as the drain read them
    overflows: int


def run(
    arch: Arch,
    layers: list[QuantizedLayer],
    mappings: list[LayerMapping],
    graph: Graph | None = None,
    max_cycles: int = LARGEST_RUN,
) -> list[LayerResult]:
    """Run the layers one after another. graph: what reads what; None for a chain.

    Raises Deadlock when they take more than max_cycles.
    """
    return Machine(arch, layers, mappings, graph).run(max_cycles)


class Machine:
    def __init__(
        self,
        arch: Arch,
        layers: list[QuantizedLayer],
        mappings: list[LayerMapping],
        graph: Graph | None = None,
    ) -> None:
        self.arch = arch
        self.program = program = compile_run(arch, layers, mappings, graph)
        self.layers = program.layers
        self.runs = [LayerRun(arch, layer) for layer in program.layers]
        self.now = 0
        self.current = 0  # the layer whose [previous end, end) holds this cycle

        self.dram = Dram(arch)
        self.banks = [Port(f"bank {b}") for b in range(arch.gb_banks)]
        self.in_ports = [Port(f"in-port {pe}") for pe in range(arch.pes)]
        self.out_ports = [Port(f"out-port {pe}") for pe in range(arch.pes)]
        self.psum_in_ports, self.psum_out_ports = self.in_ports, self.out_ports
        self.psum_width = arch.pe_port_bits
        if arch.psum_port_bits is not None:
            self.psum_in_ports = [Port(f"psum in-port {pe}") for pe in range(arch.pes)]
            self.psum_out_ports = [Port(f"psum out-port {pe}") for pe in range(arch.pes)]
            self.psum_width = arch.psum_port_bits
        self.ports = [*self.banks, *self.in_ports, *self.out_ports]
        if arch.psum_port_bits is not None:
            self.ports += [*self.psum_in_ports, *self.psum_out_ports]
        self.active: list[Transfer] = []
        self.dram_to_buffer = Delay()
        self.crossbar_arrivals = Delay()
        self.chain_entries = Delay()  # single entries of psum transfers
        self.pes = [Pe(arch, pe, program.blocks[pe], self.runs) for pe in range(arch.pes)]
        self.prologue_writes = Delay()
        self.prologue = Prologue(arch, program.placed.prologue, self.dram)
        self.fetching = Fetching(arch, program.layers, self.runs, self.pes, self.prologue)
        self.outputs = Outputs(self.runs, self.dram, self.pes)

    def run(self, max_cycles: int = LARGEST_RUN) -> list[LayerResult]:
        """To the end, from a machine that has not run."""
        while self.current < len(self.layers):
            if self.now >= max_cycles:
                raise Deadlock(self.dump())
            self.cycle()
        return self.results()

    def results(self) -> list[LayerResult]:
        results = []
        previous = 0
        for run in self.runs:
            assert run.end is not None and run.psum_done.all()
            run.count("control.cycle", self.arch.pes * (run.end - previous))
            works = list(run.program.work)
            if run is self.runs[0]:
                works += [step.work for step in self.program.placed.prologue]
            for work in works:
                run.count("global_pe.element", work.elements + work.written * (len(work.written_bits) - 1))
                run.count("global_buffer.read", ceil_div(work.read * work.read_bits, self.arch.gb_bank_bits))
                for bits in work.written_bits:
                    run.count("global_buffer.write", ceil_div(work.written * bits, self.arch.gb_bank_bits))
            kept = Counter({name: count for name, count in run.counts.items() if count})
            stalls = np.array(run.stall_cycles, np.int64)
            results.append(LayerResult(run.end - previous, run.end, stalls, kept, run.psums, run.overflows))
            previous = run.end
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
        for item in self.dram_to_buffer.due(now):
            if isinstance(item, Fetch):
                item.in_buffer = True
            elif isinstance(item, OutputTile):
                item.operands_missing -= 1
            else:
                self.prologue.has_read()
        for piece, index, psums in self.chain_entries.due(now):
            self.pes[piece.tile.pe].add_from_chain(piece, index, psums)
        for item in self.crossbar_arrivals.due(now):
            if isinstance(item, Piece):
                item.arrived = now
            elif isinstance(item, Fetch):
                for pe, position in item.positions.items():
                    self.pes[pe].fill_half(self.runs[item.layer], position, item.tile)
            else:
                item.arrived = True
        for _ in self.prologue_writes.due(now):
            self.prologue.has_written()
        self.outputs.becomes_visible(now)
        self.prologue.becomes_visible(now)
        for pe in self.pes:
            pe.becomes_visible(now)
        run = self.runs[self.current]
        if run.end is None and run.outputs_to_come == 0 and run.streaming_backlog == 0:
            rate = self.arch.global_pe_elements_per_cycle
            run.end = now + sum(ceil_div(elements, rate) for elements in run.rows)
        if run.end == now:
            self.current += 1

    # ---------------------------------------------------------------------------------------------- phase 2

    def _act(self) -> None:
        run = self.runs[self.current]
        for pe in self.pes:
            # The drain first: a block may start in the cycle in which the drain that frees its bank starts.
            pe.drain(self.now)
            reason = pe.issue(self.now, self.current)
            run.stall_cycles[pe.index][reason] += 1
            if pe.complete:
                for output in pe.outputs_to_send():
                    self._request_output(output)
            if pe.to_chain:
                for piece in pe.psums_to_send(self.now):
                    self._request_psums(piece)
        for fetch in self.fetching.ask(self.now):
            if fetch.operand == "input":
                self._check_activation_region(fetch.layer)
                self._request_read(fetch)
        for fetch in self.fetching.send(self.now):
            self._request_crossbar_fetch(fetch)
        done = self.arch.global_pe_elements_per_cycle * run.outputs
        run.streaming_backlog = max(0, run.streaming_backlog - done)

    # --------------------------------------------------------------------------------------------- requests

    def _fetch_key(self, fetch: Fetch) -> Key:
        return (self.now, CLASS[fetch.operand], fetch.leader, fetch.layer, (0, fetch.index))

    def _check_activation_region(self, layer: int) -> None:
        """The rule that refuses a layer must be enough for whatever happens in it."""
        used = self.layers[layer].placement.kept + self.fetching.inputs_staged + self.outputs.staged
        assert used <= region_bits(self.arch)[1], f"{used} bits in the activation region"

    def _request_read(self, fetch: Fetch) -> None:
        self.dram.request(DramTransfer("read", fetch.layer, self._fetch_key(fetch), fetch.dram_bits, fetch))

    def _request_crossbar_fetch(self, fetch: Fetch) -> None:
        weights, inputs, _ = self.arch.bank_groups
        if fetch.operand == "weight":
            bank = fetch.stream % weights
        else:
            bank = weights + fetch.stream % inputs
        self._request(
            Transfer(
                kind=fetch.operand,
                layer=fetch.layer,
                key=self._fetch_key(fetch),
                ports=[self.banks[bank], *(self.in_ports[pe] for pe in fetch.positions)],
                duration=self._crossbar_cycles(fetch.tile.bits),
                item=fetch,
            )
        )

    def _request_output(self, output: OutputTile) -> None:
        self.outputs.is_requested(output)
        self._check_activation_region(output.layer)
        weights, inputs, outputs = self.arch.bank_groups
        self._request(
            Transfer(
                kind="output",
                layer=output.layer,
                key=(self.now, CLASS["output"], output.pe, output.layer, (output.index,)),
                ports=[self.banks[weights + inputs + output.pe % outputs], self.out_ports[output.pe]],
                duration=self._crossbar_cycles(output.bits),
                item=output,
            )
        )

    def _request_psums(self, piece: Piece) -> None:
        tile = piece.tile
        assert piece.after is not None
        self._request(
            Transfer(
                kind="psum",
                layer=tile.layer,
                key=(self.now, CLASS["psum"], tile.pe, tile.layer, (piece.index,)),
                ports=[self.psum_out_ports[tile.pe], self.psum_in_ports[piece.after.tile.pe]],
                duration=max(
                    len(piece.pixels),
                    ceil_div(len(piece.pixels) * self._entry_bits(piece), self.psum_width),
                ),
                item=piece,
            )
        )

    def _request(self, transfer: Transfer) -> None:
        for port in transfer.ports:
            port.queue.append(transfer)
            port.queue.sort(key=lambda waiting: waiting.key)

    def _crossbar_cycles(self, bits: int) -> int:
        return max(1, ceil_div(bits, min(self.arch.gb_bank_bits, self.arch.pe_port_bits)))

    def _entry_bits(self, piece: Piece) -> int:
        return len(piece.tile.channels) * self.runs[piece.tile.layer].psum_bits

    # ---------------------------------------------------------------------------------------------- phase 3

    def _end_of_cycle(self) -> None:
        # Before the transfers that end with this cycle, whose space is free from the next on.
        for fetch in self.fetching.take_space(self.now):
            self._request_read(fetch)
        for transfer in self.dram.pass_bits(self.now):
            self._finish_dram(transfer)
        if self.dram.is_free():
            early = self.fetching.take_space_early(self.now)
            if early is not None:
                self._request_read(early)
        self._move_crossbar()

    def _move_crossbar(self) -> None:
        still_active = []
        for transfer in self.active:
            transfer.remaining -= 1
            for port in transfer.ports:
                port.busy -= 1
            if isinstance(transfer.item, Piece):
                self._move_psums(transfer, transfer.item)
            if transfer.remaining:
                still_active.append(transfer)
            else:
                self._finish(transfer)
        self.active = still_active
        heads = []
        for port in self.ports:
            # A transfer is looked at once, at its first port.
            if port.queue and port.queue[0].ports[0] is port:
                transfer = port.queue[0]
                if all(other.queue[0] is transfer and other.busy == 0 for other in transfer.ports):
                    heads.append(transfer)
        for transfer in heads:
            for port in transfer.ports:
                assert port.queue.pop(0) is transfer
                port.busy = transfer.duration
            transfer.remaining = transfer.duration
            self.active.append(transfer)
            if isinstance(transfer.item, Piece):
                # It starts in the next cycle.
                transfer.item.drain_start = self.now + 1
                transfer.item.last_read = self.now + transfer.duration
            elif isinstance(transfer.item, OutputTile):
                self.outputs.starting.put(self.now + 1, transfer.item)
            self._count_transfer(transfer)

    def _move_psums(self, transfer: Transfer, piece: Piece) -> None:
        """The entry whose last bits went through the port in this cycle; no more than one."""
        moved = (transfer.duration - transfer.remaining) * self.psum_width
        if piece.sent < len(piece.pixels) and (piece.sent + 1) * self._entry_bits(piece) <= moved:
            index = piece.sent
            psums = self.pes[piece.tile.pe].read_for_chain(piece)
            self.chain_entries.put(self.now + 1 + self.arch.noc_latency_cycles, (piece.after, index, psums))

    def _finish_dram(self, transfer: DramTransfer) -> None:
        """Its last bits have passed in this cycle."""
        end = self.now + 1
        run, words = self.runs[transfer.layer], ceil_div(transfer.bits, self.arch.gb_bank_bits)
        if transfer.kind == "read":
            self.dram_to_buffer.put(end + self.arch.dram_latency_cycles, transfer.item)
            run.count("dram.read_bit", transfer.bits)
            run.count("global_buffer.write", words)
        else:
            if isinstance(transfer.item, PrologueStep):
                self.prologue_writes.put(end, transfer.item)
            else:
                self.outputs.written.put(end, transfer.item)
            run.count("dram.write_bit", transfer.bits)
            run.count("global_buffer.read", words)

    def _finish(self, transfer: Transfer) -> None:
        """The last cycle in which the transfer holds its ports has passed."""
        free_at = self.now + 1
        item = transfer.item
        arrives = free_at + self.arch.noc_latency_cycles
        if isinstance(item, Piece):
            self.crossbar_arrivals.put(arrives, item.after)
            self.pes[item.tile.pe].to_leave[item.tile.layer] -= 1
            return
        self.crossbar_arrivals.put(arrives, item)
        if isinstance(item, OutputTile):
            pe = self.pes[item.pe]
            pe.fifo_used -= item.entries
            pe.to_leave[item.layer] -= 1
        else:
            self.fetching.ended(item)

    # ----------------------------------------------------------------------------------------------- counts

    def _count_transfer(self, transfer: Transfer) -> None:
        item, run = transfer.item, self.runs[transfer.layer]
        if isinstance(item, Piece):
            assert item.after is not None
            bits = len(item.pixels) * self._entry_bits(item)
            run.count("noc.bit_hop", bits * hops_between(self.arch, item.tile.pe, item.after.tile.pe))
            return
        if isinstance(item, Fetch):
            bits, destinations = item.tile.bits, list(item.positions)
        else:
            bits, destinations = item.bits, [item.pe]
        words = ceil_div(bits, self.arch.gb_bank_bits)
        run.count("noc.bit_hop", bits * hops_into(self.arch, destinations))
        if isinstance(item, OutputTile):
            run.count("global_buffer.write", words)
            run.count("out_fifo.read", item.entries)
        else:
            run.count("global_buffer.read", words)

    # ----------------------------------------------------------------------------------------------- errors

    def dump(self) -> str:
        """Who waits for what."""
        lines = [f"cycle {self.now}: layer {self.current} goes on, prologue over {self.prologue.over}"]
        for pe in self.pes:
            if pe.next_block < len(pe.blocks):
                block = pe.blocks[pe.next_block]
                lines.append(
                    f"PE {pe.index}: next block {pe.next_block} of layer {block.layer}, "
                    f"bank free {not block.first_chunk or pe.bank_is_free(block, self.now)}, "
                    f"weights {pe.half(block, 'weight').tile_key} want {block.weight_tile.key}, "
                    f"inputs {pe.half(block, 'input').tile_key} want {block.input_tile.key}, "
                    f"fifo {pe.fifo_used}, staged {pe.staged}, to drain {len(pe.to_drain)}, "
                    f"to the next PE {len(pe.to_chain)}"
                )
        lines += self.fetching.dump()
        lines += [f"dram: {transfer}" for transfer in self.dram.queue]
        for port in self.ports:
            lines += [f"{port.name}: {transfer}" for transfer in port.queue]
        return "\n".join(lines)
