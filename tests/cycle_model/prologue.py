"""docs/timing.md, Steps without a layer: nodes on the global PE before the first layer, one after another."""

from __future__ import annotations

from accelsim.machine.arch import Arch
from cycle_model.dram import Dram, DramTransfer
from cycle_model.placement import PrologueStep
from cycle_model.ports import CLASS
from cycle_model.sizes import ceil_div

FIRST = -1  # before every leader and PE


class Prologue:
    def __init__(self, arch: Arch, steps: list[PrologueStep], dram: Dram) -> None:
        self.rate, self.dram = arch.global_pe_elements_per_cycle, dram
        self.steps = steps
        self.current = 0
        self.doing = "waits"  # "waits", "reads", "works" or "writes"
        self.reads_missing = 0
        self.worked_at = -1
        self.writes_missing = 0
        self.ends: list[int] = []

    @property
    def over(self) -> bool:
        return self.current == len(self.steps)

    def has_read(self) -> None:
        """One of its tensors is in the global buffer."""
        self.reads_missing -= 1

    def has_written(self) -> None:
        self.writes_missing -= 1

    def becomes_visible(self, now: int) -> None:
        """Go as far as one can get at the begin of this cycle."""
        while not self.over:
            step = self.steps[self.current]
            if self.doing == "waits":
                self.doing, self.reads_missing = "reads", len(step.reads)
                for number, moved in enumerate(step.reads):
                    self._request("read", "input", number, moved.stored, step, now)
            if self.doing == "reads" and self.reads_missing == 0:
                self.doing, self.worked_at = "works", now + ceil_div(step.work.elements, self.rate)
            if self.doing == "works" and now == self.worked_at:
                self.doing, self.writes_missing = "writes", len(step.written)
                for number, moved in enumerate(step.written):
                    self._request("write", "output", number, moved.stored, step, now)
            if self.doing != "writes" or self.writes_missing:
                return
            self.ends.append(now)
            self.current, self.doing = self.current + 1, "waits"

    def _request(
        self, kind: str, sorted_as: str, number: int, bits: int, step: PrologueStep, now: int
    ) -> None:
        key = (now, CLASS[sorted_as], FIRST, FIRST, (number,))
        self.dram.request(DramTransfer(kind, 0, key, bits, step))
