"""The lane's arithmetic for a short clock: prefix adders, and carry-save trees cut into stages.

The blocks compute what those of `arithmetic` do. Their registers have one clock gate per 32 bits and an input
`en`. Prefix adder: J. Sklansky, IRE Trans. Electronic Computers EC-9(2), 1960.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from accelsim.characterise import arithmetic, storage
from accelsim.characterise.block import FAST, Block, clocked, combinational, index_bits, port
from accelsim.characterise.carry_save import CarrySave, cut
from accelsim.characterise.roles import Roles


def dot_product(roles: Roles, size: int, weight_bits: int, operand_bits: int, stages: int) -> Block:
    """Exact dot product of signed weights and operands in `stages` cycles."""
    base = arithmetic.dot_product(roles, size, weight_bits, operand_bits)
    bits = weight_bits + operand_bits + index_bits(size)

    def tree(stage: float) -> CarrySave:
        tree = CarrySave(bits, roles, prefix="d", stage=stage)
        arithmetic.add_products(tree, size, weight_bits, operand_bits, True)
        return tree

    operands = arithmetic.operand_wires(size, weight_bits, operand_bits)
    return _in_stages(base, stages, operands, tree, ["assign y = s;"])


def scale_multiply(roles: Roles, dot_bits: int, scale_bits: int, stages: int) -> Block:
    """Signed dot product times unsigned scale, full product, in `stages` cycles."""
    base = arithmetic.scale_multiply(roles, dot_bits, scale_bits)

    def tree(stage: float) -> CarrySave:
        tree = CarrySave(dot_bits + scale_bits, roles, stage=stage)
        tree.product("w", dot_bits, "a", scale_bits, True, False)
        return tree

    return _in_stages(base, stages, [], tree, ["assign y = s;"])


def scale_product(
    roles: Roles, weight_scale_bits: int, activation_scale_bits: int, product_bits: int, stages: int
) -> Block:
    """Unsigned product of two scales, rounded, in `stages` cycles."""
    bits = weight_scale_bits, activation_scale_bits, product_bits
    base, rounding = arithmetic.scale_product(roles, *bits), arithmetic.Rounding(*bits)
    after = [*rounding.lines("r", "s"), "assign y = r;"]
    return _in_stages(base, stages, [], lambda stage: rounding.tree(roles, stage), after)


def accumulator(product_bits: int, bits: int) -> Block:
    """Psum plus product, limited to `bits`. The limit depends on the psum's sign alone, so that only the
    choice between it and the sum waits for the carries."""
    base = arithmetic.accumulator(product_bits, bits)
    top = bits - 1
    lines = [
        f"wire [{top}:0] b = {{{{{bits - product_bits}{{a[{product_bits - 1}]}}}}, a}};"
        if bits > product_bits
        else f"wire [{top}:0] b = a;",
        *prefix_adder("w", "b", bits, "s"),
        f"wire over = w[{top}] == b[{top}] & s[{top}] != w[{top}];",
        f"assign y = over ? {{w[{top}], {{{top}{{~w[{top}]}}}}}} : s;",
    ]
    assert base.reference is not None
    block = combinational(
        FAST + base.name, FAST + base.family, {**base.columns, "kind": "1"}, base.ports, lines, base.reference
    )
    return replace(block, between_registers=True, mapped_for="delay")


def block_accumulator(roles: Roles, product_bits: int, bits: int) -> Block:
    """Psum plus the products of two blocks, limited to `bits`, with a prefix adder."""
    base = arithmetic.block_accumulator(roles, product_bits, bits)
    return _limited(base, *arithmetic.two_products(roles, product_bits, bits))


def pair_accumulator(roles: Roles, product_bits: int, blocks: int, bits: int) -> Block:
    """Psum plus the two words that `block_sum` makes of products, limited to `bits`, with a prefix adder."""
    base = arithmetic.pair_accumulator(roles, product_bits, blocks, bits)
    return _limited(base, [], arithmetic.pair_and_psum(roles, int(base.columns["width_bits"]), bits))


def _limited(base: Block, lines: Sequence[str], tree: CarrySave) -> Block:
    body = [
        *lines,
        *tree.stages("x", 1),
        *prefix_adder("x0", "x1", tree.width, "s"),
        *arithmetic.limit_lines("s", tree.width, int(base.columns["accumulator_bits"])),
    ]
    assert base.reference is not None
    block = combinational(
        FAST + base.name, FAST + base.family, {**base.columns, "kind": "1"}, base.ports, body, base.reference
    )
    return replace(block, between_registers=True, mapped_for="delay")


def register_path(roles: Roles) -> Block:
    """A flip-flop between others: its delay is what registers take of every clock period."""
    base = storage.register(roles, 1, "plain")
    return replace(
        base,
        name="register_path",
        family="register_path",
        source=base.verilog.replace(base.name, "register_path"),
        between_registers=True,
    )


def prefix_adder(a: str, b: str, bits: int, out: str) -> list[str]:
    """Lines that define wire [bits-1:0] `out` = a + b modulo 2^bits, with ceil(log2(bits)) levels."""
    lines = [f"wire [{bits - 1}:0] {out}_p = {a} ^ {b}, {out}_g = {a} & {b};"]
    made = [f"{out}_g[{i}]" for i in range(bits)]
    passed = [f"{out}_p[{i}]" for i in range(bits)]
    span = 1
    while span < bits:
        for i in range(bits):
            if i & span:
                below = i // span * span - 1
                lines.append(
                    f"wire {out}_g{span}_{i} = {made[i]} | {passed[i]} & {made[below]}; "
                    f"wire {out}_p{span}_{i} = {passed[i]} & {passed[below]};"
                )
                made[i], passed[i] = f"{out}_g{span}_{i}", f"{out}_p{span}_{i}"
        span *= 2
    carries = ", ".join([*reversed(made[: bits - 1]), "1'b0"])
    return [*lines, f"wire [{bits - 1}:0] {out} = {out}_p ^ {{{carries}}};"]


def _in_stages(
    base: Block,
    stages: int,
    before: Sequence[str],
    tree: Callable[[float], CarrySave],
    after: Sequence[str],
) -> Block:
    """`base` with its tree in stages: lines `before` it and, from its sum `s` on, `after` it."""

    def lines() -> list[str]:
        whole = cut(tree, stages)
        return [*before, *whole.stages("x", stages), *prefix_adder("x0", "x1", whole.width, "s"), *after]

    name, family = f"{FAST}{base.name}_s{stages}", FAST + base.family
    columns = {**base.columns, "kind": str(stages)}
    reference = base.reference
    assert reference is not None
    if stages == 1:
        return replace(
            combinational(name, family, columns, base.ports, lines, reference),
            between_registers=True,
            mapped_for="delay",
        )

    def sequences(words: Mapping[str, Sequence[int]]) -> list[list[int | None]]:
        if not words["en"][0]:
            return [[None] * len(words["en"])]
        names = [own.name for own in base.inputs]
        values = [
            reference(dict(zip(names, codes, strict=True)))
            for codes in zip(*(words[name] for name in names), strict=True)
        ]
        return [[None] * (stages - 1) + values[: len(values) - stages + 1]]

    ports = [*base.inputs, port("en", 1, "run"), *base.outputs]
    return replace(
        clocked(name, family, columns, ports, lines, sequences), between_registers=True, mapped_for="delay"
    )
