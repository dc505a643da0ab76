"""Blocks of the post-processing unit: requantization, shift, clip, maximum, reciprocal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelsim.characterise.block import (
    Block,
    clocked,
    combinational,
    elements,
    output,
    port,
    saturated,
    signed,
)
from accelsim.characterise.carry_save import CarrySave
from accelsim.characterise.roles import Roles


def _saturate(bits: int) -> str:
    """`y` is `rounded` limited to signed `bits`."""
    high, low = (1 << (bits - 1)) - 1, 1 << (bits - 1)
    return (
        f"assign y = (rounded > {high}) ? {bits}'d{high} : (rounded < -{low}) ? {bits}'d{low} : "
        f"rounded[{bits - 1}:0];"
    )


def requantize(roles: Roles, accumulator_bits: int, multiplier_bits: int, output_bits: int) -> Block:
    """accumulator * multiplier, rounded half up, shifted down by `multiplier_bits`, saturated."""
    bits = accumulator_bits + multiplier_bits
    tree = CarrySave(bits, roles)
    tree.product("w", accumulator_bits, "a", multiplier_bits, True, False)
    half = 1 << (multiplier_bits - 1)
    tree.constant(half)
    return combinational(
        f"ppu_requant_{accumulator_bits}x{multiplier_bits}_o{output_bits}",
        "ppu_requant",
        {
            "accumulator_bits": accumulator_bits, "multiplier_bits": multiplier_bits,
            "output_bits": output_bits,
        },
        [
            port("w", accumulator_bits, "accumulator"), port("a", multiplier_bits, "scale"),
            output(output_bits),
        ],
        [
            *tree.emit("s"),
            f"wire signed [{accumulator_bits - 1}:0] rounded = s[{bits - 1}:{multiplier_bits}];",
            _saturate(output_bits),
        ],
        lambda words: saturated(
            (signed(words["w"], accumulator_bits) * words["a"] + half) >> multiplier_bits, output_bits
        ),
    )  # fmt: skip


def shift_round_clip(accumulator_bits: int, output_bits: int) -> Block:
    """Arithmetic right shift by 0 to 31, rounded half up, saturated."""
    top = accumulator_bits - 1
    return combinational(
        f"ppu_shift_round_clip_{accumulator_bits}_o{output_bits}",
        "ppu_shift",
        {"accumulator_bits": accumulator_bits, "output_bits": output_bits},
        [port("w", accumulator_bits, "accumulator"), port("a", 5, "shift"), output(output_bits)],
        [
            f"wire signed [{top + 1}:0] x = {{w[{top}],w}}; "
            f"wire signed [{top + 2}:0] r = $signed({{x,1'b0}}) >>> a; "
            f"wire signed [{top + 2}:0] rounded = (r + 1) >>> 1;",
            _saturate(output_bits),
        ],
        lambda words: saturated(
            (((signed(words["w"], accumulator_bits) << 1) >> words["a"]) + 1) >> 1, output_bits
        ),
    )


def relu(bits: int) -> Block:
    return combinational(
        f"ppu_relu_{bits}",
        "ppu_relu",
        {"width_bits": bits},
        [port("w", bits, "accumulator"), output(bits)],
        [f"assign y = w[{bits - 1}] ? {bits}'d0 : w;"],
        lambda words: 0 if words["w"] >> (bits - 1) else words["w"],
    )


def clip(bits: int, output_bits: int) -> Block:
    """Saturation: the dropped bits must all equal the sign."""
    above = f"w[{bits - 1}:{output_bits - 1}]"
    limit = f"{{w[{bits - 1}], {{{output_bits - 1}{{~w[{bits - 1}]}}}}}}"
    return combinational(
        f"ppu_clip_{bits}_o{output_bits}",
        "ppu_clip",
        {"width_bits": bits, "output_bits": output_bits},
        [port("w", bits, "accumulator"), output(output_bits)],
        [f"wire ok = (&{above}) | ~(|{above}); assign y = ok ? w[{output_bits - 1}:0] : {limit};"],
        lambda words: saturated(signed(words["w"], bits), output_bits),
    )


def vector_maximum(size: int, bits: int) -> Block:
    """Largest magnitude of `size` signed values, ones' complement for negative ones."""
    below = bits - 2
    lines = []
    values = []
    for i in range(size):
        sign, rest = i * bits + bits - 1, f"w[{i * bits + below}:{i * bits}]"
        lines.append(f"wire [{below}:0] m0_{i} = w[{sign}] ? ~{rest} : {rest};")
        values.append(f"m0_{i}")
    level = 1
    while len(values) > 1:
        winners = []
        for i, (left, right) in enumerate(zip(values[::2], values[1::2], strict=True)):
            lines.append(f"wire [{below}:0] m{level}_{i} = ({left} > {right}) ? {left} : {right};")
            winners.append(f"m{level}_{i}")
        values, level = winners, level + 1

    def reference(words: Mapping[str, int]) -> int:
        values = (signed(code, bits) for code in elements(words["w"], bits, size))
        return max(~value if value < 0 else value for value in values)

    return combinational(
        f"ppu_vmax_v{size}_{bits}",
        "ppu_vmax",
        {"vector_size": size, "width_bits": bits},
        [port("w", size * bits, "accumulator", bits), output(bits - 1)],
        [*lines, f"assign y = {values[0]};"],
        reference,
    )


def iterative_divider(bits: int) -> Block:
    """Restoring division, one quotient bit per clock; energies are per clock cycle."""
    top = bits - 1

    def sequences(words: Mapping[str, Sequence[int]]) -> list[list[int | None]]:
        quotient: int | None = None
        rest = divisor = 0
        shown: list[int | None] = []
        for start, numerator, denominator in zip(words["start"], words["n"], words["d"], strict=True):
            shown.append(quotient)
            if start:
                quotient, divisor, rest = numerator, denominator, 0
            elif quotient is not None:
                rest = rest << 1 | quotient >> top
                fits = rest >= divisor
                rest -= divisor * fits
                quotient = (quotient << 1 | fits) & ((1 << bits) - 1)
        return [shown]

    return clocked(
        f"ppu_div_iter_{bits}",
        "ppu_recip",
        {"width_bits": bits, "kind": f"iterative restoring, {bits} cycles per result; energy per cycle"},
        [
            port("n", bits, "random"), port("d", bits, "normalised_divisor"), port("start", 1, "start"),
            output(bits),
        ],
        [
            f"reg [{top}:0] q, dd; reg [{bits}:0] r; wire [{bits}:0] s = {{r[{top}:0], q[{top}]}}; "
            f"wire [{bits + 1}:0] f = {{1'b0,s}} - {{2'b0,dd}}; wire ok = ~f[{bits + 1}];",
            "always @(posedge clk) if (start) begin q <= n; dd <= d; r <= 0; end "
            f"else begin q <= {{q[{top - 1}:0], ok}}; r <= ok ? f[{bits}:0] : s; end assign y = q;",
        ],
        sequences,
    )  # fmt: skip
