"""Registers and arrays of flip-flops or latches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelsim.characterise.block import Block, clocked, index_bits, output, port
from accelsim.characterise.roles import BRANCH_BITS, Roles


def clock_gate(roles: Roles, name: str, enable: str, gated: str) -> str:
    """`gated` follows clk where `enable` was 1 while clk was low."""
    cell = roles.clock_gate
    if cell is None:
        held = f"{name}_q"
        return f"reg {held}; always @* if (~clk) {held} = {enable}; assign {gated} = clk & {held};"
    pins = [f".{cell.inputs[cell.clock_pin]}(clk)", f".{cell.inputs[cell.data_pin]}({enable})"]
    pins += [f".{pin}(1'b0)" for pin in cell.test_pins]
    pins.append(f".{cell.outputs[0]}({gated})")
    return f"{cell.name} {name} ({', '.join(pins)});"


def register(roles: Roles, bits: int, kind: str) -> Block:
    """kind: `plain`; `muxen`, enable by multiplexer; `icgen`, one clock gate for all bits."""
    ports = [port("d", bits, "random"), port("en", 1, "enable"), output(bits)]
    edge, condition, lines = "clk", "", []
    if kind == "plain":
        del ports[1]
    elif kind == "muxen":
        condition = "if (en) "
    else:
        edge, lines = "g", [f"wire g; {clock_gate(roles, 'u_icg', 'en', 'g')}"]
    lines.append(f"reg [{bits - 1}:0] q; always @(posedge {edge}) {condition}q <= d; assign y = q;")

    def sequences(words: Mapping[str, Sequence[int]]) -> list[list[int | None]]:
        stored: int | None = None
        shown = []
        for data, enable in zip(words["d"], words.get("en", [1] * len(words["d"])), strict=True):
            shown.append(stored)
            stored = data if enable else stored
        return [shown]

    columns: dict[str, int | str] = {"width_bits": bits, "kind": kind}
    return clocked(f"ff{bits}_{kind}", "register", columns, ports, lines, sequences)


def array(roles: Roles, bits: int, depth: int, kind: str) -> Block:
    """One write and one read port, one clock gate per word, a clock buffer per BRANCH_BITS, AND-OR read.

    Write enable and address lead the data by one cycle: clock gates sample them while the clock is low, the
    pulse comes with the next high phase. kind: `latch` (transparent while the gated clock is high) or `ff`.
    """
    address = index_bits(depth)
    buffer = roles.clock_buffer
    lines = [f"wire [{bits - 1}:0] xm [0:{depth - 1}]; wire [{depth - 1}:0] xrs, xws;"]
    for word in range(depth):
        lines.append(
            f"assign xws[{word}] = we & (wa == {address}'d{word}); "
            f"assign xrs[{word}] = (ra == {address}'d{word});"
        )
        lines.append(f"wire xg{word}; {clock_gate(roles, f'xicg{word}', f'xws[{word}]', f'xg{word}')}")
        for low in range(0, bits, BRANCH_BITS):
            high = min(bits, low + BRANCH_BITS) - 1
            gated, state = f"xg{word}", f"xq{word}_{low}"
            if bits > BRANCH_BITS:
                gated = f"xb{word}_{low}"
                pins = f".{buffer.inputs[0]}(xg{word}), .{buffer.outputs[0]}({gated})"
                lines.append(f"wire {gated}; {buffer.name} xcb{word}_{low} ({pins});")
            if kind == "latch":
                capture = f"always @* if ({gated}) {state} = wd[{high}:{low}];"
            else:
                capture = f"always @(posedge {gated}) {state} <= wd[{high}:{low}];"
            lines.append(
                f"reg [{high - low}:0] {state}; {capture} assign xm[{word}][{high}:{low}] = {state};"
            )
    selected = " | ".join(f"({{{bits}{{xrs[{word}]}}}} & xm[{word}])" for word in range(depth))
    lines += [f"wire [{bits - 1}:0] rdat = {selected};", "assign y = rdat;"]

    def sequences(words: Mapping[str, Sequence[int]]) -> list[list[int | None]]:
        return [_contents(words, late) for late in ((True,) if kind == "latch" else (False, True))]

    return clocked(
        f"arr_{kind}_{bits}x{depth}",
        "array",
        {"width_bits": bits, "kind": kind, "depth": depth},
        [
            port("wd", bits, "random"), port("we", 1, "write_enable"), port("wa", address, "write_address"),
            port("ra", address, "read_address"), output(bits),
        ],
        lines,
        sequences,
    )  # fmt: skip


def _contents(words: Mapping[str, Sequence[int]], late: bool) -> list[int | None]:
    """What the read port shows. late: a write stores the data of the cycle after its enable. Latches do so,
    being open then; flip-flops do where the data change before the slowest branch of the gated clock."""
    memory: dict[int, int] = {}
    shown = []
    for i, address in enumerate(words["ra"]):
        if i and words["we"][i - 1]:
            memory[words["wa"][i - 1]] = words["wd"][i if late else i - 1]
        shown.append(memory.get(address))
    return shown
