"""Dot products, scale arithmetic, adders and zero detectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from accelsim.characterise.block import (
    Block,
    combinational,
    elements,
    index_bits,
    output,
    port,
    saturated,
    signed,
)
from accelsim.characterise.carry_save import CarrySave
from accelsim.characterise.roles import WIDEST_OR, Roles


def operand_wires(size: int, weight_bits: int, operand_bits: int) -> list[str]:
    """Lines that name the weights dw0, dw1, ... in `w` and the operands da0, ... in `a`."""
    return [
        f"wire [{weight_bits - 1}:0] dw{i} = w[{i * weight_bits + weight_bits - 1}:{i * weight_bits}]; "
        f"wire [{operand_bits - 1}:0] da{i} = a[{i * operand_bits + operand_bits - 1}:{i * operand_bits}];"
        for i in range(size)
    ]


def add_products(
    tree: CarrySave, size: int, weight_bits: int, operand_bits: int, operand_signed: bool
) -> None:
    """Add the signed weights times the operands, all partial products, to a tree."""
    for i in range(size):
        tree.product(f"dw{i}", weight_bits, f"da{i}", operand_bits, True, operand_signed)


def _dot_body(
    roles: Roles, size: int, weight_bits: int, operand_bits: int, operand_signed: bool
) -> list[str]:
    """Signed weights `w` times operands `a`, all partial products in one tree."""
    tree = CarrySave(weight_bits + operand_bits + index_bits(size), roles, prefix="d")
    add_products(tree, size, weight_bits, operand_bits, operand_signed)
    return [*operand_wires(size, weight_bits, operand_bits), *tree.emit("s"), "assign y = s;"]


def dot_product(
    roles: Roles, size: int, weight_bits: int, operand_bits: int, *, operand_signed: bool = True
) -> Block:
    """Exact dot product of `size` signed weights and signed or unsigned operands."""
    bits = weight_bits + operand_bits + index_bits(size)
    role = "activation" if operand_signed else "unsigned_activation"

    def reference(words: Mapping[str, int]) -> int:
        weights = elements(words["w"], weight_bits, size)
        operands = elements(words["a"], operand_bits, size)
        if operand_signed:
            operands = [signed(x, operand_bits) for x in operands]
        return sum(signed(w, weight_bits) * x for w, x in zip(weights, operands, strict=True)) % (1 << bits)

    return combinational(
        f"dot_v{size}_w{weight_bits}_a{operand_bits}_{'s' if operand_signed else 'u'}",
        "dot",
        {
            "weight_bits": weight_bits, "activation_bits": operand_bits, "vector_size": size,
            "activation_signed": int(operand_signed), "output_bits": bits,
        },
        [
            port("w", size * weight_bits, "weight", weight_bits),
            port("a", size * operand_bits, role, operand_bits),
            output(bits),
        ],
        lambda: _dot_body(roles, size, weight_bits, operand_bits, operand_signed),
        reference,
    )  # fmt: skip


def multiplier(roles: Roles, weight_bits: int, operand_bits: int) -> Block:
    """Signed times signed, full product."""
    bits = weight_bits + operand_bits
    return combinational(
        f"mul_w{weight_bits}_a{operand_bits}",
        "mul",
        {"weight_bits": weight_bits, "activation_bits": operand_bits, "output_bits": bits},
        [port("w", weight_bits, "weight"), port("a", operand_bits, "activation"), output(bits)],
        lambda: _dot_body(roles, 1, weight_bits, operand_bits, True),
        lambda words: signed(words["w"], weight_bits) * signed(words["a"], operand_bits) % (1 << bits),
    )


@dataclass(frozen=True)
class Rounding:
    """Product of two scales, rounded half up to `product_bits` (0: full width), saturating where rounding can
    overflow."""

    weight_scale_bits: int
    activation_scale_bits: int
    product_bits: int

    @property
    def full(self) -> int:
        return self.weight_scale_bits + self.activation_scale_bits

    @property
    def bits(self) -> int:
        return min(self.product_bits, self.full) or self.full

    @property
    def dropped(self) -> int:
        return self.full - self.bits

    def tree(self, roles: Roles, stage: float = math.inf) -> CarrySave:
        tree = CarrySave(self.full + (self.dropped > 0), roles, prefix="q", stage=stage)
        tree.product("w", self.weight_scale_bits, "a", self.activation_scale_bits, False, False)
        if self.dropped:
            tree.constant(1 << (self.dropped - 1))
        return tree

    def lines(self, out: str, total: str) -> list[str]:
        """Lines that define `out` from the tree's sum `total`."""
        full, bits, dropped = self.full, self.bits, self.dropped
        largest = ((1 << self.weight_scale_bits) - 1) * ((1 << self.activation_scale_bits) - 1)
        kept = f"{total}[{full - 1}:{dropped}]"
        if dropped and (largest + (1 << (dropped - 1))) >> dropped >= 1 << bits:
            kept = f"{total}[{full}] ? {{{bits}{{1'b1}}}} : {kept}"
        return [f"wire [{bits - 1}:0] {out} = {kept};"]

    def value(self, words: Mapping[str, int]) -> int:
        product = words["w"] * words["a"]
        if not self.dropped:
            return product
        return min((product + (1 << (self.dropped - 1))) >> self.dropped, (1 << self.bits) - 1)


def scale_product(
    roles: Roles, weight_scale_bits: int, activation_scale_bits: int, product_bits: int
) -> Block:
    """Unsigned product of two scales, rounded half up to `product_bits` (0: full width)."""
    rounding = Rounding(weight_scale_bits, activation_scale_bits, product_bits)
    bits = rounding.bits
    return combinational(
        f"sprod_w{weight_scale_bits}_a{activation_scale_bits}_sp{product_bits or 'full'}",
        "scale_product",
        {
            "weight_scale_bits": weight_scale_bits, "activation_scale_bits": activation_scale_bits,
            "scale_product_bits": bits, "output_bits": bits,
        },
        [
            port("w", weight_scale_bits, "weight_scale"),
            port("a", activation_scale_bits, "activation_scale"), output(bits),
        ],
        [*rounding.tree(roles).emit("s_f"), *rounding.lines("s", "s_f"), "assign y = s;"],
        rounding.value,
    )  # fmt: skip


def scale_multiply(roles: Roles, dot_bits: int, scale_bits: int) -> Block:
    """Signed dot product times unsigned scale, full product."""
    bits = dot_bits + scale_bits
    tree = CarrySave(bits, roles)
    tree.product("w", dot_bits, "a", scale_bits, True, False)
    return combinational(
        f"smul_d{dot_bits}_s{scale_bits}",
        "scaling_mul",
        {"scale_product_bits": scale_bits, "dot_bits": dot_bits, "output_bits": bits},
        [port("w", dot_bits, "dot"), port("a", scale_bits, "scale_factor"), output(bits)],
        [*tree.emit("s"), "assign y = s;"],
        lambda words: signed(words["w"], dot_bits) * words["a"] % (1 << bits),
    )


def adder(bits: int, name: str = "acc_add", family: str = "acc_add") -> Block:
    """Modulo 2^bits, no register."""
    return combinational(
        f"{name}_{bits}",
        family,
        {"width_bits": bits},
        [port("w", bits, "accumulator"), port("a", bits, "addend"), output(bits)],
        ["assign y = w + a;"],
        lambda words: (words["w"] + words["a"]) % (1 << bits),
    )


def accumulator(product_bits: int, bits: int) -> Block:
    """Psum plus product, limited to `bits`, as accelsim/rtl/accumulator.sv without a shift; no register."""
    top = bits - 1
    addend = f"{{{{{bits + 1 - product_bits}{{a[{product_bits - 1}]}}}}, a}}"
    return combinational(
        f"acc_p{product_bits}_n{bits}",
        "accumulator",
        {"input_bits": product_bits, "accumulator_bits": bits, "output_bits": bits},
        [port("w", bits, "psum"), port("a", product_bits, "product"), output(bits)],
        [
            f"wire [{bits}:0] s = {{w[{top}], w}} + {addend};",
            f"assign y = s[{bits}] == s[{top}] ? s[{top}:0] : {{s[{bits}], {{{top}{{~s[{bits}]}}}}}};",
        ],
        lambda words: saturated(signed(words["w"], bits) + signed(words["a"], product_bits), bits),
    )  # fmt: skip


def block_accumulator(roles: Roles, product_bits: int, bits: int) -> Block:
    """Psum plus the products of two blocks, limited to `bits`: one tree and one adder, as of
    accelsim/rtl/accumulator.sv."""
    width = summed_bits(2, product_bits, bits)
    lines, tree = two_products(roles, product_bits, bits)
    return combinational(
        f"acc_two_p{product_bits}_n{bits}",
        "block_accumulator",
        {"width_bits": width, "input_bits": product_bits, "accumulator_bits": bits, "output_bits": bits},
        [port("w", bits, "psum"), port("a", 2 * product_bits, "products", product_bits), output(bits)],
        [
            *lines,
            *tree.emit("s"),
            *limit_lines("s", width, bits),
        ],
        lambda words: saturated(
            signed(words["w"], bits)
            + sum(signed(own, product_bits) for own in elements(words["a"], product_bits, 2)),
            bits,
        ),
    )  # fmt: skip


def pair_accumulator(roles: Roles, product_bits: int, blocks: int, bits: int) -> Block:
    """Psum plus the products of `blocks` blocks as `block_sum` leaves them, limited to `bits`."""
    width = summed_bits(blocks, product_bits, bits)
    return combinational(
        f"acc_pair_w{width}_n{bits}",
        "pair_accumulator",
        {
            "width_bits": width, "vector_size": blocks, "input_bits": product_bits, "accumulator_bits": bits,
            "output_bits": bits,
        },
        [port("w", bits, "psum"), port("a", 2 * width, "pair", width), output(bits)],
        [*pair_and_psum(roles, width, bits).emit("s"), *limit_lines("s", width, bits)],
        lambda words: saturated(
            signed((signed(words["w"], bits) + sum(elements(words["a"], width, 2))) % (1 << width), width),
            bits,
        ),
    )  # fmt: skip


def block_sum(roles: Roles, blocks: int, product_bits: int, bits: int) -> Block:
    """Signed products of so many blocks as two words of their sum, as wide as that with a psum of `bits`."""
    width = summed_bits(blocks, product_bits, bits)
    tree = CarrySave(width, roles)
    for low in range(0, blocks * product_bits, product_bits):
        for i in range(product_bits - 1):
            tree.bit(i, f"a[{low + i}]")
        add_sign(tree, f"a[{low + product_bits - 1}]", product_bits - 1)

    def reference(words: Mapping[str, int]) -> int:
        return sum(signed(own, product_bits) for own in elements(words["a"], product_bits, blocks)) % (
            1 << width
        )

    block = combinational(
        f"bsum_t{blocks}_p{product_bits}_w{width}",
        "block_sum",
        {
            "width_bits": width, "vector_size": blocks, "input_bits": product_bits, "accumulator_bits": bits,
            "output_bits": 2 * width,
        },
        [port("a", blocks * product_bits, "products", product_bits), output(2 * width)],
        [*tree.stages("x", 1), "assign y = {x1, x0};"],
        reference,
    )  # fmt: skip
    return replace(block, decode=lambda code: sum(elements(code, width, 2)) % (1 << width))


def summed_bits(blocks: int, product_bits: int, bits: int) -> int:
    """Of the exact sum of a psum and the products of so many blocks."""
    return max(bits, product_bits + index_bits(blocks)) + 1


def two_products(roles: Roles, product_bits: int, bits: int) -> tuple[list[str], CarrySave]:
    """Lines, and a tree over what they define: a psum `w` of `bits` and two products in `a`.

    A full adder a column below the products' signs. From there on the signs are -(s + t), as a word s ^ t and
    then s | t in every column, which half adders add to the psum: no carry runs from column to column, and no
    sign drives a row of full adders. Products wider than the psum have signs as constants: few columns are
    left for carries to run through.
    """
    width, low = summed_bits(2, product_bits, bits), product_bits - 1
    tree = CarrySave(width, roles)
    words = ("w", 0, bits), ("a", 0, product_bits), ("a", product_bits, product_bits)
    if product_bits > bits:
        for name, first, count in words:
            for i in range(count - 1):
                tree.bit(i, f"{name}[{first + i}]")
            add_sign(tree, f"{name}[{first + count - 1}]", count - 1)
        return [], tree
    signs = f"a[{low}]", f"a[{low + product_bits}]"
    psum = [f"w[{min(i, bits - 1)}]" for i in range(width)]
    high = width - low
    for name, first, _ in words:
        for i in range(low):
            tree.bit(i, f"{name}[{first + i}]")
    for i in range(high):
        tree.bit(low + i, f"h0[{i}]")
        tree.bit(low + i + 1, f"h1[{i}]")
    return [
        f"wire sx = {' ^ '.join(signs)}, so = {' | '.join(signs)};",
        f"wire [{high - 1}:0] hw = {{{', '.join(reversed(psum[low:]))}}}, hs = {{{{{high - 1}{{so}}}}, sx}};",
        f"wire [{high - 1}:0] h0 = hw ^ hs, h1 = hw & hs;",
    ], tree


def pair_and_psum(roles: Roles, width: int, bits: int) -> CarrySave:
    """The tree of a psum `w` of `bits` and two words of `width` in `a`: a full adder a column."""
    tree = CarrySave(width, roles)
    for i in range(width):
        for net in (f"w[{min(i, bits - 1)}]", f"a[{i}]", f"a[{width + i}]"):
            tree.bit(i, net)
    return tree


def add_sign(tree: CarrySave, net: str, column: int) -> None:
    """A bit of negative weight: -x 2^c = ~x 2^c - 2^c."""
    tree.bit(column, net, False)
    tree.constant(-1 << column)


def limit_lines(total: str, width: int, bits: int) -> list[str]:
    """Lines that define the output from a sum of `width` bits: it fits where its top bits are equal."""
    top, over = bits - 1, f"{total}[{width - 1}:{bits - 1}]"
    return [
        f"wire ok = (&{over}) | ~(|{over});",
        f"assign y = ok ? {total}[{top}:0] : {{{total}[{width - 1}], {{{top}{{~{total}[{width - 1}]}}}}}};",
    ]


def zero_detect(roles: Roles, size: int, operand_bits: int) -> Block:
    """1 when any bit of `size` operands is: a tree of the widest OR cells, or plain logic without any."""
    bits = size * operand_bits
    lines: list[str] = []
    nets = [f"a[{i}]" for i in range(bits)]
    if not roles.or_gates:
        lines, nets = ["wire any = |a;"], ["any"]
    while len(nets) > 1:
        above = []
        for start in range(0, len(nets), WIDEST_OR):
            taken = nets[start : start + WIDEST_OR]
            while len(taken) > 1:
                count = max((n for n in roles.or_gates if n <= len(taken)), default=0)
                out = f"n{len(lines)}"
                if count:
                    cell = roles.or_gates[count]
                    pins = [f".{pin}({net})" for pin, net in zip(cell.inputs, taken, strict=False)]
                    pins.append(f".{cell.outputs[0]}({out})")
                    lines.append(f"wire {out}; {cell.name} u{len(lines)} ({', '.join(pins)});")
                else:
                    count = len(taken)
                    lines.append(f"wire {out} = {' | '.join(taken)};")
                taken = [*taken[count:], out]
            above += taken
        nets = above
    return combinational(
        f"zero_detect_{size}x{operand_bits}",
        "zero_detect",
        {"activation_bits": operand_bits, "vector_size": size, "width_bits": bits, "output_bits": 1},
        [port("a", bits, "activation", operand_bits), output(1)],
        [*lines, f"assign y = {nets[0]};"],
        lambda words: int(words["a"] != 0),
    )
