"""docs/timing.md, fetches: what is asked and sent in a cycle, and the space for weights."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.machine.arch import Arch
from cycle_model.layer_run import LayerRun
from cycle_model.pe import Half, Pe
from cycle_model.ports import CLASS
from cycle_model.program import Fetch, LayerProgram
from cycle_model.prologue import Prologue
from cycle_model.sizes import region_bits

INPUT_PREFETCH_DEPTH = 2  # tiles of an input stream between asking and the end of the crossbar transfer


@dataclass(eq=False)
class Stream:
    program: LayerProgram
    operand: str
    number: int
    fetches: list[Fetch]
    asked: int = 0  # fetches asked, and the next to be asked
    sent: int = 0
    dram_asked: int = -1  # the last cycle in which a fetch that reads DRAM was asked


class Fetching:
    def __init__(
        self,
        arch: Arch,
        programs: list[LayerProgram],
        runs: list[LayerRun],
        pes: list[Pe],
        prologue: Prologue,
    ) -> None:
        self.programs, self.runs, self.pes, self.prologue = programs, runs, pes, prologue
        self.streams = [
            Stream(program, operand, number, fetches)
            for program in programs
            for operand, streams in program.streams.items()
            for number, fetches in streams.items()
        ]
        self.to_ask = self.streams  # those that are not asked to the end
        self.space = region_bits(arch)[0]
        self.waiting: list[Fetch] = []  # asked, for space
        self.inputs_staged = 0  # bits of streamed inputs in the activation region, or on their way there

    def ask(self, now: int) -> list[Fetch]:
        """Ask all that can be asked in this cycle; return those that read DRAM."""
        reads = []
        may_ask: dict[tuple[int, str], bool] = {}
        self.to_ask = [stream for stream in self.to_ask if stream.asked < len(stream.fetches)]
        for stream in self.to_ask:
            # A layer's turn does not change within a cycle: it takes askings before this cycle.
            turn = stream.program.index, stream.operand
            if turn not in may_ask:
                may_ask[turn] = self._layer_may_ask(stream, now)
            if not may_ask[turn]:
                continue
            while stream.asked < len(stream.fetches) and self._may_ask(stream, now):
                fetch = stream.fetches[stream.asked]
                fetch.asked = now
                stream.asked += 1
                stream.dram_asked = now if fetch.reads_dram else stream.dram_asked
                if not fetch.reads_dram:
                    continue
                reads.append(fetch)
                if fetch.operand == "weight":
                    self.waiting.append(fetch)
                elif stream.program.placement.input == "streamed":
                    self.inputs_staged += fetch.tile.bits
        return reads

    def _layer_has_begun(self, i: int, now: int) -> bool:
        if i == 0:
            # It begins at the end of the last step without a layer.
            return self.prologue.over
        end = self.runs[i - 1].end
        return end is not None and now >= end

    def _layer_may_ask(self, stream: Stream, now: int) -> bool:
        i = stream.program.index
        if stream.operand == "input" or stream.program.layer.weight_is_activation:
            if not self._layer_has_begun(i, now):
                return False
        if stream.operand == "weight" and i > 0:
            # The last of a stream is asked last.
            lasts = [fetches[-1].asked for fetches in self.programs[i - 1].streams["weight"].values()]
            return all(asked is not None and asked < now for asked in lasts)
        return True

    def _may_ask(self, stream: Stream, now: int) -> bool:
        fetch = stream.fetches[stream.asked]
        if not fetch.reads_dram:
            return True
        if stream.dram_asked == now:
            return False
        ahead = stream.program.weight_prefetch_depth if stream.operand == "weight" else INPUT_PREFETCH_DEPTH
        if ahead == 0:
            return self._halves_released(fetch)
        return ahead is None or stream.asked < ahead or stream.fetches[stream.asked - ahead].ended

    def _halves_released(self, fetch: Fetch) -> bool:
        # Positions 0 .. position - 2 must have been released: position - 1 of them.
        for pe, position in fetch.positions.items():
            if self.pes[pe].released[fetch.operand] < position - 1:
                return False
        return True

    def send(self, now: int) -> list[Fetch]:
        """Fetches whose crossbar request is made in this cycle."""
        sent = []
        for stream in self.streams:
            while stream.sent < stream.asked:
                fetch = stream.fetches[stream.sent]
                if fetch.reads_dram and not fetch.in_buffer:
                    break
                if not self._halves_released(fetch):
                    break
                if fetch.operand == "weight":
                    # A stream's first tile may cross while the layer before runs, others in their own layer.
                    needed = fetch.layer if fetch.index > 0 else fetch.layer - 1
                    if needed >= 0 and not self._layer_has_begun(needed, now):
                        break
                stream.sent += 1
                for pe, position in fetch.positions.items():
                    # Nobody may use the old tile any more; a fetch too early shows as a missing word.
                    self.pes[pe].halves[fetch.operand][position % 2] = Half()
                sent.append(fetch)
        return sent

    def take_space(self, now: int) -> list[Fetch]:
        """Weights of layers that have begun and find space at the end of this cycle, in their order.

        The first that does not, or whose layer has not begun, holds up the others.
        """
        if not self.waiting:
            return []
        self.waiting.sort(key=lambda f: (f.asked, CLASS["weight"], f.leader, f.layer, f.index))
        found = []
        while (fetch := self._head_with_space()) and self._layer_has_begun(fetch.layer, now):
            found.append(self._leave_with_space())
        return found

    def take_space_early(self, now: int) -> Fetch | None:
        """The first that waits, if its layer has not begun, for a DRAM port that has nothing else to do."""
        fetch = self._head_with_space()
        if fetch is None or self._layer_has_begun(fetch.layer, now):
            return None
        return self._leave_with_space()

    def _head_with_space(self) -> Fetch | None:
        return self.waiting[0] if self.waiting and self.waiting[0].tile.bits <= self.space else None

    def _leave_with_space(self) -> Fetch:
        fetch = self.waiting.pop(0)
        self.space -= fetch.tile.bits
        return fetch

    def ended(self, fetch: Fetch) -> None:
        """The last cycle of its crossbar transfer has passed."""
        fetch.ended = True
        placement = self.programs[fetch.layer].placement
        if fetch.operand == "input":
            if placement.input == "streamed":
                self.inputs_staged -= fetch.tile.bits
        elif placement.weights == "streamed" or (placement.weights == "cached" and fetch.last_of_tile):
            self.space += fetch.tile.bits

    def dump(self) -> list[str]:
        lines = [f"{self.space} bits of weight space"]
        for fetch in self.waiting:
            lines.append(f"layer {fetch.layer} weight fetch {fetch.index} waits for {fetch.tile.bits} bits")
        for stream in self.streams:
            if stream.sent < len(stream.fetches):
                lines.append(
                    f"layer {stream.program.index} {stream.operand} stream {stream.number}: "
                    f"{stream.asked} of {len(stream.fetches)} asked, {stream.sent} sent, "
                    f"next to positions {stream.fetches[stream.sent].positions}"
                )
        return lines
