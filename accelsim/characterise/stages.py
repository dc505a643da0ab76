"""Stages of a PPU with registers inside its multipliers (accelsim/rtl/ppu.sv, FINE), without the registers.

Each is mapped twice, for area and for delay, and those that a short clock would still miss have a structure
of their own for it: which one a machine takes depends on its clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from accelsim.characterise import postprocessing
from accelsim.characterise.block import (
    FAST,
    QUICK,
    Block,
    Port,
    combinational,
    elements,
    output,
    port,
    signed,
)
from accelsim.characterise.carry_save import CarrySave
from accelsim.characterise.fast import prefix_adder
from accelsim.characterise.roles import Roles

VALUE_BITS, FRACTION_BITS = 24, 8
# Multiplicands: a value of the PPU, and wider accumulators; the widest for a short clock alone.
OPERAND_BITS = (VALUE_BITS, 28, 30, 32, 36)
WIDEST_OPERAND_BITS = (40, 46)
CODE_BITS = (4, 8)
MULTIPLIER_BITS = 16
# Of a table of reciprocals for a short clock: scale bits, and how many places of the leading one it tells
# apart.
FAST_RECIPROCAL = (10, 5)


def stages(roles: Roles, scale_sizes: Sequence[tuple[int, int]], scale_bits: Sequence[int]) -> list[Block]:
    """Every stage, mapped for area, then every one mapped for delay, then those with a structure for a short
    clock. scale_sizes: (code bits, scale bits)."""
    blocks = [
        *(partial_products(roles, bits) for bits in OPERAND_BITS),
        *(product_sum(roles, bits) for bits in OPERAND_BITS),
        *(shift_saturate(bits, VALUE_BITS) for bits in OPERAND_BITS),
        *(shift_saturate(VALUE_BITS, bits + 2) for bits in CODE_BITS),
        bias(),
        *(round_clip(bits) for bits in CODE_BITS),
        *(clip(bits) for bits in CODE_BITS),
        scale_addition(),
        *(scale_quotient(code, scale) for code, scale in scale_sizes),
    ]
    # Mapped for area these are among the others, or wider than any that is.
    others = [
        postprocessing.magnitude(VALUE_BITS),
        postprocessing.running_maximum(1, VALUE_BITS - 1),
        *(postprocessing.reciprocal(bits) for bits in scale_bits),
        *(shift_saturate(bits, VALUE_BITS) for bits in WIDEST_OPERAND_BITS),
    ]
    widths = (*OPERAND_BITS, *WIDEST_OPERAND_BITS)
    return [
        *blocks,
        *(quick(block) for block in (*blocks, *others)),
        *(partial_products(roles, bits, fast=True) for bits in widths),
        *(product_sum(roles, bits, fast=True) for bits in widths),
        reciprocal(*FAST_RECIPROCAL),
    ]


def quick(block: Block) -> Block:
    name = QUICK + block.name
    source = block.verilog.replace(f"module {block.name} ", f"module {name} ", 1)
    return replace(block, name=name, family=QUICK + block.family, source=source, mapped_for="depth")


def _rows(tree: CarrySave, count: int = 2) -> list[str]:
    """Lines that put the tree's last rows side by side in `y`."""
    lines = tree.emit("s")[:-1]
    return [*lines, f"assign y = {{{', '.join(f's_r{k}' for k in reversed(range(count)))}}};"]


def partial_products(roles: Roles, bits: int, fast: bool = False) -> Block:
    """Signed value times 8 bits of a multiplier, as a carry-save pair of bits + 9. fast: with a buffer of
    every bit of the multiplier for each 8 bits of the value."""
    width, half = bits + 9, MULTIPLIER_BITS // 2
    tree = CarrySave(width, roles)
    lines = []
    if fast:
        (data,), (out,) = roles.clock_buffer.inputs, roles.clock_buffer.outputs
        for low in range(0, bits, half):
            own, top = f"{low}", min(low + half, bits) - 1
            lines.append(f"wire [{top - low}:0] w{own} = w[{top}:{low}]; wire [{half - 1}:0] a{own};")
            lines += [
                f"{roles.clock_buffer.name} b{own}_{i} (.{data}(a[{i}]), .{out}(a{own}[{i}]));"
                for i in range(half)
            ]
            tree.product(f"w{own}", top - low + 1, f"a{own}", half, top == bits - 1, False, low)
    else:
        tree.product("w", bits, "a", half, True, False)
    name = f"ppu_partial_{bits}x{half}"
    block = combinational(
        FAST + name if fast else name,
        FAST + "ppu_partial" if fast else "ppu_partial",
        {"accumulator_bits": bits, "multiplier_bits": half},
        [port("w", bits, "accumulator"), port("a", half, "scale"), output(2 * width)],
        [*lines, *_rows(tree)],
        lambda words: signed(words["w"], bits) * words["a"] % (1 << width),
    )
    return replace(
        block,
        decode=lambda code: sum(elements(code, width, 2)) % (1 << width),
        mapped_for="depth" if fast else "area",
    )


def product_sum(roles: Roles, bits: int, fast: bool = False) -> Block:
    """Two such pairs, the second 8 columns up. fast: with a prefix adder."""
    width, half = bits + MULTIPLIER_BITS, MULTIPLIER_BITS // 2
    tree = CarrySave(width, roles)
    for row in range(4):
        column = half if row >= 2 else 0
        for i in range(width - column):
            tree.bit(column + i, f"w[{row * width + i}]")
    lines = tree.emit("s")
    if fast:
        lines = [*lines[:-1], *prefix_adder("s_r0", "s_r1", width, "s")]

    def reference(words: Mapping[str, int]) -> int:
        rows = elements(words["w"], width, 4)
        return (rows[0] + rows[1] + ((rows[2] + rows[3]) << half)) % (1 << width)

    name = f"ppu_sum_{bits}x{MULTIPLIER_BITS}"
    block = combinational(
        FAST + name if fast else name,
        FAST + "ppu_sum" if fast else "ppu_sum",
        {"accumulator_bits": bits, "multiplier_bits": MULTIPLIER_BITS},
        [port("w", 4 * width, "random"), output(width)],
        [*lines, "assign y = s;"],
        reference,
    )
    return replace(block, mapped_for="delay" if fast else "area")


def shift_saturate(bits: int, out: int) -> Block:
    """Product shifted down by `a`, limited to `out` bits, and the last bit that falls out, y's lowest."""
    width, limit = bits + MULTIPLIER_BITS, (1 << (out - 1)) - 1

    def reference(words: Mapping[str, int]) -> int:
        twice = (signed(words["w"], width) << 1) >> words["a"]
        value, last = twice >> 1, twice & 1
        if not -limit <= value < limit:
            value, last = (limit if value > 0 else -limit), 0
        return (value << 1 | last) % (1 << (out + 1))

    return combinational(
        f"ppu_scaled_{width}_o{out}",
        "ppu_scaled",
        {"accumulator_bits": bits, "output_bits": out},
        [port("w", width, "accumulator"), port("a", 6, "shift"), output(out + 1)],
        [
            f"wire signed [{width}:0] t = $signed({{w, 1'b0}}) >>> a; "
            f"wire signed [{width - 1}:0] r = t[{width}:1];",
            f"assign y = (r >= {limit}) ? {{{out}'d{limit}, 1'b0}} : "
            f"(r < -{limit}) ? {{-{out}'d{limit}, 1'b0}} : {{r[{out - 1}:0], t[0]}};",
        ],
        reference,
    )


def bias() -> Block:
    """Value plus bias plus `c`, limited, then at least 0 where `g` is set."""
    bits, limit = VALUE_BITS, (1 << (VALUE_BITS - 1)) - 1

    def reference(words: Mapping[str, int]) -> int:
        total = signed(words["w"], bits) + signed(words["b"], bits) + words["c"]
        total = max(-limit, min(limit, total))
        return max(total, 0 if words["g"] else total) % (1 << bits)

    return combinational(
        f"ppu_bias_{bits}",
        "ppu_bias",
        {"width_bits": bits},
        [
            port("w", bits, "accumulator"), port("b", bits, "addend"), port("c", 1, "random"),
            port("g", 1, "mode"), output(bits),
        ],
        [
            f"wire signed [{bits}:0] r = {{w[{bits - 1}], w}} + {{b[{bits - 1}], b}} + c; "
            f"assign y = (g & r[{bits}]) ? {bits}'d0 : (r > {limit}) ? {bits}'d{limit} : "
            f"(r < -{limit}) ? -{bits}'d{limit} : r[{bits - 1}:0];"
        ],
        reference,
    )  # fmt: skip


def round_clip(code_bits: int) -> Block:
    """Value rounded to 8 bits fewer, clipped to a code, signed where `g` is set."""
    bits = VALUE_BITS
    return _clipping(
        f"ppu_round_{bits}_o{code_bits}",
        "ppu_round",
        {"width_bits": bits, "output_bits": code_bits},
        [port("w", bits, "accumulator"), port("g", 1, "mode"), output(code_bits)],
        f"wire signed [{bits}:0] r = $signed({{w[{bits - 1}], w}} + {bits + 1}'d128) >>> {FRACTION_BITS};",
        code_bits,
        lambda words: (signed(words["w"], bits) + 128) >> FRACTION_BITS,
    )


def clip(code_bits: int) -> Block:
    """Such a shifted value and its last bit, clipped to a code, signed where `g` is set."""
    bits = code_bits + 2
    return _clipping(
        f"ppu_code_{bits}_o{code_bits}",
        "ppu_code",
        {"width_bits": bits, "output_bits": code_bits},
        [port("w", bits, "accumulator"), port("c", 1, "random"), port("g", 1, "mode"), output(code_bits)],
        f"wire signed [{bits}:0] r = {{w[{bits - 1}], w}} + c;",
        code_bits,
        lambda words: signed(words["w"], bits) + words["c"],
    )


def _clipping(
    name: str,
    family: str,
    columns: Mapping[str, int],
    ports: Sequence[Port],
    line: str,
    code_bits: int,
    value: Callable[[Mapping[str, int]], int],
) -> Block:
    """A block whose `r` is clipped to signed or unsigned codes."""
    high, low = (1 << (code_bits - 1)) - 1, (1 << code_bits) - 1

    def reference(words: Mapping[str, int]) -> int:
        top, bottom = (high, -high) if words["g"] else (low, 0)
        return max(bottom, min(top, value(words))) % (1 << code_bits)

    lines = [
        line,
        f"wire over = g ? (r > {high}) : (r > {low}); wire under = g ? (r < -{high}) : (r < 0); "
        f"assign y = over ? (g ? {code_bits}'d{high} : {code_bits}'d{low}) : "
        f"under ? (g ? -{code_bits}'d{high} : {code_bits}'d0) : r[{code_bits - 1}:0];",
    ]
    return combinational(name, family, columns, ports, lines, reference)


def scale_addition() -> Block:
    """What rounds a vector's scale, added to the largest magnitude: one of two constants."""
    bits = VALUE_BITS - 1
    return combinational(
        f"ppu_scale_add_{bits}",
        "ppu_scale_add",
        {"width_bits": bits},
        [port("m", bits, "magnitude"), port("g", 1, "mode"), output(bits + 1)],
        [f"assign y = {{1'b0, m}} + (g ? {bits + 1}'d32511 : {bits + 1}'d65279);"],
        lambda words: words["m"] + (32511 if words["g"] else 65279),
    )


def scale_quotient(output_bits: int, scale_bits: int) -> Block:
    """A vector's scale from that sum, `m`: the sum that accelsim/rtl/ppu_vector_scale.sv makes, for signed
    codes where `g` is set. That a quotient is 0 is seen in `m`, not behind the sum."""
    units = postprocessing.scale_units(output_bits, scale_bits)
    width = postprocessing.MAGNITUDE_BITS
    lines = []
    for name, (code_bits, fraction) in zip("su", units, strict=True):
        terms = -(-scale_bits // code_bits) + 1
        low, top = code_bits * terms, fraction + code_bits + scale_bits
        places = [code_bits * i for i in range(terms)]
        copies = " + ".join(f"({name}n << {place})" for place in places)
        above = f"|m[{width}:{top}]" if top <= width else "1'b0"
        lines += [
            f"wire [{low + scale_bits}:0] {name}n = m[{top - 1}:{fraction}];",
            f"wire [{low + scale_bits}:0] {name} = {copies} + {low + scale_bits + 1}'d"
            f"{sum(1 << place for place in places)};",
            f"wire [{scale_bits}:0] {name}q = {name}[{low + scale_bits}:{low}];",
            f"wire {name}z = ~|m[{width}:{top - scale_bits}] & ~&m[{top - scale_bits - 1}:{fraction}];",
            f"wire {name}b = {above};",
        ]
    lines += [
        f"wire [{scale_bits}:0] q = g ? sq : uq; wire all = (g ? sb : ub) | q[{scale_bits}];",
        f"assign y = {{{scale_bits}{{all}}}} | q[{scale_bits - 1}:0] | (g ? sz : uz);",
    ]

    def reference(words: Mapping[str, int]) -> int:
        code_bits, fraction = units[0 if words["g"] else 1]
        return min(max(words["m"] // (((1 << code_bits) - 1) << fraction), 1), (1 << scale_bits) - 1)

    return combinational(
        f"ppu_quotient_a{output_bits}_s{scale_bits}",
        "ppu_quotient",
        {"output_bits": output_bits, "activation_scale_bits": scale_bits},
        [port("m", width + 1, "magnitude"), port("g", 1, "mode"), output(scale_bits)],
        lines,
        reference,
    )


def reciprocal(scale_bits: int, places: int) -> Block:
    """That of `postprocessing`, quicker: the highest `places` that the leading one can have are told apart by
    themselves, and smaller scales have a table of their own."""
    base = postprocessing.reciprocal(scale_bits)
    assert base.reference is not None
    digits, rest = scale_bits - 1, scale_bits - places
    high = "".join(f"a[{i}] ? 4'd{i} : " for i in range(digits, rest, -1)) + f"4'd{rest}"
    shifted = "".join(f"a[{digits - i}] ? a << {i} : " for i in range(places - 1)) + f"a << {places - 1}"
    low = "".join(f"a[{i}] ? 4'd{i} : " for i in range(rest - 1, 0, -1)) + "4'd0"
    lines = [
        f"wire [{digits}:0] hn = {shifted}; wire [3:0] hl = {high};",
        f"wire [{rest - 1}:0] ln = a << (4'd{rest - 1} - ll); wire [3:0] ll = {low};",
    ]
    for name, top in (("h", digits), ("l", rest - 1)):
        table = postprocessing.reciprocal_table(top)
        lines += [
            f"wire [{16 * (1 << top) - 1}:0] {name}t = {{{table}}};",
            f"wire [{top - 1}:0] {name}d = {name}n[{top - 1}:0];",
            f"wire [19:0] {name} = {{{name}l + ({name}d != 0), {name}t[{name}d * 16 +: 16]}};",
        ]
    lines.append(f"assign y = |a[{digits}:{rest}] ? h : l;")
    block = combinational(
        FAST + base.name, FAST + base.family, base.columns, base.ports, lines, base.reference
    )
    return replace(block, mapped_for="depth")
