"""A mapped block as nets and cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accelsim.characterise.block import Block
from accelsim.characterise.cells import Cell
from accelsim.characterise.library import Library
from accelsim.errors import AccelsimError

ZERO, ONE = 0, 1
UNCONNECTED = -1


@dataclass(frozen=True)
class Instance:
    """A cell and the net of each of its pins; outputs may be UNCONNECTED."""

    cell: Cell
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Netlist:
    """Nets are numbered; ZERO and ONE are the constants. inputs and outputs: a net per port bit, ports in the
    block's order, low bits first. clock: its net, or UNCONNECTED."""

    nets: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    clock: int
    instances: tuple[Instance, ...]

    @property
    def area_um2(self) -> float:
        return sum(instance.cell.area_um2 for instance in self.instances)

    @property
    def leakage_nw(self) -> float:
        return sum(instance.cell.leakage_nw for instance in self.instances)


def netlist_of(block: Block, module: Mapping[str, Any], library: Library) -> Netlist:
    """From the module of Yosys' `write_json`."""
    numbers: dict[Any, int] = {"0": ZERO, "x": ZERO, "1": ONE}

    def net(bit: Any) -> int:
        return numbers.setdefault(bit, len(numbers) - 1)

    ports = {port.name: [net(bit) for bit in module["ports"][port.name]["bits"]] for port in block.ports}
    clock = net(module["ports"]["clk"]["bits"][0]) if block.clocked else UNCONNECTED
    instances = []
    for found in module["cells"].values():
        cell = library.cells.get(found["type"])
        if cell is None:
            raise AccelsimError(
                f"yosys: {block.name}: a {found['type']} is left, no library cell does its work"
            )
        pins = found["connections"]
        inputs = [net(pins[pin][0]) if pins.get(pin) else ZERO for pin in cell.inputs]
        outputs = [net(pins[pin][0]) if pins.get(pin) else UNCONNECTED for pin in cell.outputs]
        instances.append(Instance(cell, tuple(inputs), tuple(outputs)))
    return Netlist(
        nets=len(numbers) - 1,
        inputs=tuple(n for port in block.inputs for n in ports[port.name]),
        outputs=tuple(n for port in block.outputs for n in ports[port.name]),
        clock=clock,
        instances=tuple(instances),
    )
