"""Blocks of the post-processing unit: requantization, shift, clip, and the scale of a vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelsim.characterise.block import (
    Block,
    clocked,
    combinational,
    elements,
    index_bits,
    output,
    port,
    saturated,
    signed,
)
from accelsim.characterise.carry_save import CarrySave
from accelsim.characterise.roles import Roles

# Of a value of the PPU.
MAGNITUDE_BITS = 23


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


def magnitude(bits: int) -> Block:
    """Of a symmetric signed value."""
    rest = f"w[{bits - 2}:0]"
    return combinational(
        f"ppu_magnitude_{bits}",
        "ppu_magnitude",
        {"width_bits": bits},
        [port("w", bits, "accumulator"), output(bits - 1)],
        [f"assign y = w[{bits - 1}] ? -{rest} : {rest};"],
        lambda words: abs(signed(words["w"], bits)) & ((1 << (bits - 1)) - 1),
    )


def running_maximum(size: int, bits: int) -> Block:
    """Largest of `size` magnitudes and of what came before them, `a`."""
    lines: list[str] = []
    values = [f"w[{i * bits + bits - 1}:{i * bits}]" for i in range(size)]
    while len(values) > 1:
        winners = []
        for left, right in zip(values[::2], values[1::2], strict=True):
            lines.append(f"wire [{bits - 1}:0] m{len(lines)} = ({left} > {right}) ? {left} : {right};")
            winners.append(f"m{len(lines) - 1}")
        values = winners
    return combinational(
        f"ppu_running_max_v{size}_{bits}",
        "ppu_running_max",
        {"vector_size": size, "width_bits": bits},
        [port("w", size * bits, "magnitude", bits), port("a", bits, "magnitude"), output(bits)],
        [*lines, f"assign y = ({values[0]} > a) ? {values[0]} : a;"],
        lambda words: max(words["a"], *elements(words["w"], bits, size)),
    )


def select(ways: int, bits: int) -> Block:
    """One of `ways` slices of a word, each `bits` wide, of 24-bit psums."""
    lines: list[str] = []
    values = [f"w[{(i + 1) * bits - 1}:{i * bits}]" for i in range(ways)]
    level = 0
    while len(values) > 1:
        chosen = []
        for low, high in zip(values[::2], values[1::2], strict=True):
            lines.append(f"wire [{bits - 1}:0] s{len(lines)} = a[{level}] ? {high} : {low};")
            chosen.append(f"s{len(lines) - 1}")
        values, level = chosen, level + 1
    return combinational(
        f"ppu_select_{ways}x{bits}",
        "ppu_select",
        {"vector_size": ways, "width_bits": bits},
        [port("w", ways * bits, "accumulator", 24), port("a", index_bits(ways), "count"), output(bits)],
        [*lines, f"assign y = {values[0]};"],
        lambda words: elements(words["w"], bits, ways)[words["a"]],
    )


def scale_units(output_bits: int, scale_bits: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of signed, then of unsigned codes: (bits of the largest code, fraction bits of a vector's scale)."""
    room = MAGNITUDE_BITS - scale_bits
    return (output_bits - 1, min(8, room - output_bits + 1)), (output_bits, min(8, room - output_bits))


def vector_scale(output_bits: int, scale_bits: int) -> Block:
    """Scale of a vector from its largest magnitude, rounded up, of signed or unsigned codes
    (docs/numerics.md, PPU, per-vector `s`), the addition that rounds and the quotient in one."""
    width = MAGNITUDE_BITS
    signs = [
        (code_bits, fraction, (((1 << code_bits) - 1) << fraction) - 1)
        for code_bits, fraction in scale_units(output_bits, scale_bits)
    ]
    lines = []
    for name, (code_bits, fraction, round_up) in zip("su", signs, strict=True):
        terms = (scale_bits + code_bits) // code_bits + 1
        n_bits, sum_bits = scale_bits + code_bits + 1, scale_bits + code_bits * (terms + 1) + 2
        copies = " + ".join(f"({{{sum_bits - n_bits}'d0, {name}n}} << {code_bits * i})" for i in range(terms))
        high = f"{name}w[{width}:{fraction + n_bits - 1}]" if fraction + n_bits - 1 <= width else "1'b0"
        lines += [
            f"wire [{width}:0] {name}w = {{1'b0, m}} + {width + 1}'d{round_up};",
            f"wire [{width + 8}:0] {name}x = {{8'd0, {name}w}} >> {fraction};",
            f"wire [{n_bits - 1}:0] {name}n = {{1'b0, {name}x[{n_bits - 2}:0]}} + 1'b1;",
            f"wire [{sum_bits - 1}:0] {name}t = {copies};",
            f"wire [{scale_bits}:0] {name}q = {name}t[{code_bits * terms + scale_bits}:{code_bits * terms}];",
            f"wire {name}b = |{high} | {name}q[{scale_bits}];",
        ]
    top = scale_bits - 1
    lines += [
        f"wire beyond = g ? sb : ub; wire [{top}:0] q = g ? sq[{top}:0] : uq[{top}:0];",
        f"assign y = beyond ? {{{scale_bits}{{1'b1}}}} : (q == 0) ? {scale_bits}'d1 : q;",
    ]

    def reference(words: Mapping[str, int]) -> int:
        code_bits, fraction, round_up = signs[0 if words["g"] else 1]
        unit = ((1 << code_bits) - 1) << fraction
        return min(max((words["m"] + round_up) // unit, 1), (1 << scale_bits) - 1)

    return combinational(
        f"ppu_scale_a{output_bits}_s{scale_bits}",
        "ppu_scale",
        {"output_bits": output_bits, "activation_scale_bits": scale_bits},
        [port("m", width, "magnitude"), port("g", 1, "mode"), output(scale_bits)],
        lines,
        reference,
    )


def reciprocal(scale_bits: int) -> Block:
    """Exponent and reciprocal of a scale: a table in logic of the digits below its leading one
    (accelsim/rtl/ppu_reciprocal.sv). y = exponent * 2^16 + reciprocal; scale 0 never occurs, and is as 1."""
    digits = scale_bits - 1
    entries = 1 << digits
    leading = "".join(f"a[{i}] ? 4'd{i} : " for i in range(digits, 0, -1)) + "4'd0"

    def reference(words: Mapping[str, int]) -> int:
        scale = max(1, words["a"])
        shift = scale.bit_length() - 1
        digit = (scale << (digits - shift)) - entries
        return (shift + (digit > 0)) << 16 | _reciprocal_word(digits, digit)

    return combinational(
        f"ppu_reciprocal_{scale_bits}",
        "ppu_reciprocal",
        {"activation_scale_bits": scale_bits, "kind": f"table of {entries} words in logic"},
        [port("a", scale_bits, "scale"), output(20)],
        [
            f"wire [3:0] l = {leading}; wire [{digits}:0] n = a << (4'd{digits} - l); "
            f"wire [{16 * entries - 1}:0] t = {{{reciprocal_table(digits)}}};",
            f"assign y = {{l + (n[{digits - 1}:0] != 0), t[n[{digits - 1}:0] * 16 +: 16]}};",
        ],
        reference,
    )


def reciprocal_table(digits: int) -> str:
    """Words of a table by the digits below a scale's leading one, the last first."""
    return ", ".join(f"16'd{_reciprocal_word(digits, digit)}" for digit in reversed(range(1 << digits)))


def _reciprocal_word(digits: int, digit: int) -> int:
    scale = (1 << digits) + digit
    return ((1 << (15 + digits + (digit > 0))) + scale // 2) // scale
