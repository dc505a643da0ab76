"""docs/timing.md, DRAM port: so many bits in every cycle, to one transfer after another."""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelsim.machine.arch import Arch
from cycle_model.placement import PrologueStep
from cycle_model.ports import Key, OutputTile
from cycle_model.program import Fetch


@dataclass(eq=False)
class DramTransfer:
    kind: str  # "read" or "write"
    layer: int
    key: Key  # the first number is the cycle of the request
    bits: int
    item: Fetch | OutputTile | PrologueStep
    left: int = 0  # bits that have not gone through the port

    def __str__(self) -> str:
        return f"{self.kind} {self.key}, {self.left} of {self.bits} bits to go"


class Dram:
    def __init__(self, arch: Arch) -> None:
        self.width = math.floor(arch.dram_bits_per_cycle * arch.dram_efficiency)
        self.queue: list[DramTransfer] = []

    def request(self, transfer: DramTransfer) -> None:
        transfer.left = transfer.bits
        self.queue.append(transfer)
        self.queue.sort(key=lambda waiting: waiting.key)

    def pass_bits(self, now: int) -> list[DramTransfer]:
        """Use the bits of cycle `now`; return the transfers whose last bit went through.

        A transfer of 0 bits needs a cycle in which some bits are left to it.
        """
        bits = self.width
        done = []
        while bits and self.queue and self.queue[0].key[0] < now:
            head = self.queue[0]
            passed = min(bits, head.left)
            bits -= passed
            head.left -= passed
            if head.left == 0:
                done.append(self.queue.pop(0))
        return done

    def is_free(self) -> bool:
        """Nothing that is requested has bits to go: transfers of 0 bits leave the next cycle free."""
        return all(transfer.left == 0 for transfer in self.queue)
