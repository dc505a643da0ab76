"""What lanes and PPUs of block formats add to those of integers (docs/numerics.md, Block formats).

Lanes: decoding of elements, the sum of the scales' exponents to a shift amount, and the shift to the
accumulator's lsb. PPU: the scale of a block from its largest magnitude, what all values of the block share,
the shift of a value, and its code. `format` is the scheme, or what kind of scale: e8m0 or e4m3.
"""

from __future__ import annotations

from collections.abc import Mapping

from accelsim.characterise.block import Block, combinational, elements, output, port, saturated, signed
from accelsim.characterise.postprocessing import MAGNITUDE_BITS
from accelsim.characterise.stages import quick
from accelsim.formats.catalogue import E2M1, SCHEMES

# Of a layer's constants: what exponents are subtracted from, and the exponent of the PPU's values.
CONSTANT_BITS = 12
# Exponent of a scale of 0 in code, and the largest code of either kind.
LARGEST_E8M0, LARGEST_E4M3 = 254, 126
# e4m3: the largest magnitude over that of the element, 6, in steps of 2^-9 is a count of this many of the
# PPU's 2^-11 (docs/numerics.md, Output: F = 11).
UNITS_PER_STEP = 24
# Middles between neighbouring codes of e2m1, in quarters.
MIDDLES = tuple(int(2 * middle) for middle in E2M1.steps[1])
SHIFT_BITS, MULTIPLE_BITS = 5, 9
# Zeros below a value before it is shifted by its block's leading one, and bits that are kept above what only
# says whether any is set: halves of MXINT8's codes, quarters of e2m1's, NVFP4's PPU units.
SHIFTED = {"mxint8": (7, 8), "mxfp4": (4, 5), "nvfp4": (0, MULTIPLE_BITS)}


def element_decode() -> Block:
    """A code of e2m1 to two's complement, in halves."""
    return combinational(
        "element_decode_e2m1",
        "element_decode",
        {"input_bits": 4, "output_bits": 5, "format": "e2m1"},
        [port("w", 4, "random"), output(5)],
        [
            "wire n = w[2] | w[1]; wire [3:0] m = w[2] ? {1'b1, w[0], 2'b0} >> ~w[1] : "
            "w[1] ? {2'b0, 1'b1, w[0]} : {3'b0, w[0]};",
            "assign y = w[3] ? -{1'b0, m} : {1'b0, m};",
        ],
        lambda words: E2M1.values[words["w"]] % 32,
    )


def scale_sum(kind: str, amount_bits: int, limit: int) -> Block:
    """Right shift of an aligner: the layer's constant less both exponents, within 0 to `limit`. Of e4m3 also
    the leading bits of both significands, at the top."""
    e8m0 = kind == "e8m0"
    bits = 8 if e8m0 else 4
    fields = "wire [7:0] we = w, ae = a;"
    if not e8m0:
        fields = "wire [3:0] we = {w[3:1], w[0] | ~|w}, ae = {a[3:1], a[0] | ~|a};"

    def reference(words: Mapping[str, int]) -> int:
        w, a = words["w"], words["a"]
        used = w + a if e8m0 else max(1, w) + max(1, a)
        amount = min(max(signed(words["c"], CONSTANT_BITS) - used, 0), limit)
        return amount if e8m0 else (int(a > 0) << 1 | int(w > 0)) << amount_bits | amount

    whole = (
        f"r[{CONSTANT_BITS}] ? {amount_bits}'d0 : (r > {limit}) ? {amount_bits}'d{limit} : "
        f"r[{amount_bits - 1}:0]"
    )
    return combinational(
        f"scale_sum_{kind}_{amount_bits}",
        "scale_sum",
        {"output_bits": amount_bits, "format": kind},
        [
            port("w", bits, "random"), port("a", bits, "random"), port("c", CONSTANT_BITS, "random"),
            output(amount_bits + (0 if e8m0 else 2)),
        ],
        [
            fields,
            f"wire signed [{CONSTANT_BITS}:0] r = $signed({{c[{CONSTANT_BITS - 1}], c}}) - "
            f"$signed({{{CONSTANT_BITS - bits}'b0, we}} + {{{CONSTANT_BITS - bits}'b0, ae}});",
            f"wire [{amount_bits - 1}:0] l = {whole}; assign y = {'l' if e8m0 else '{|a, |w, l}'};",
        ],
        reference,
    )  # fmt: skip


def align(bits: int, accumulator_bits: int) -> Block:
    """A product with as many zeros below as the accumulator has bits, shifted down by `a`, rounded half up
    and limited to +-2^accumulator_bits."""
    n = accumulator_bits
    amount_bits = (n + bits).bit_length()
    top = f"v[{bits + n - 1}:{n}]"

    def reference(words: Mapping[str, int]) -> int:
        twice = (signed(words["w"], bits) << (n + 1)) >> words["a"]
        return max(-(1 << n), min(1 << n, (twice + 1) >> 1)) % (1 << (n + 2))

    return combinational(
        f"align_{bits}_{n}",
        "align",
        {"input_bits": bits, "accumulator_bits": n, "output_bits": n + 2},
        [port("w", bits, "random"), port("a", amount_bits, "random"), output(n + 2)],
        [
            f"wire signed [{bits + n}:0] t = $signed({{w, {n + 1}'b0}}) >>> a; "
            f"wire [{bits + n - 1}:0] v = t[{bits + n}:1];",
            f"wire [{n + 1}:0] r = {{v[{n}], v[{n}:0]}} + t[0]; wire ok = (&{top}) | ~(|{top});",
            f"assign y = ok ? r : {{w[{bits - 1}], 1'b1, {n}'b0}};",
        ],
        reference,
    )


def accumulator(bits: int) -> Block:
    """Psum plus a term of two bits more, limited to `bits`."""
    term = bits + 2
    return combinational(
        f"acc_p{term}_n{bits}",
        "accumulator",
        {"input_bits": term, "accumulator_bits": bits, "output_bits": bits},
        [port("w", bits, "random"), port("a", term, "random"), output(bits)],
        [
            f"wire [{term}:0] s = {{{{3{{w[{bits - 1}]}}}}, w}} + {{a[{term - 1}], a}};",
            f"wire ok = (&s[{term}:{bits - 1}]) | ~(|s[{term}:{bits - 1}]);",
            f"assign y = ok ? s[{bits - 1}:0] : {{s[{term}], {{{bits - 1}{{~s[{term}]}}}}}};",
        ],
        lambda words: saturated(signed(words["w"], bits) + signed(words["a"], term), bits),
    )


def ppu_blocks() -> list[Block]:
    """Stages of the PPU, each mapped for area and for delay."""
    blocks = [
        make(scheme) for make in (block_scale, block_shared, block_shift, block_code) for scheme in SCHEMES
    ]
    blocks.append(block_round("nvfp4"))
    return [*blocks, *(quick(block) for block in blocks)]


def lane_blocks() -> list[Block]:
    """Blocks of the lane, each mapped for area, and those of the scales and the aligner for delay as well."""
    sums = [scale_sum(kind, *size) for kind in ("e8m0", "e4m3") for size in ((6, 50), (7, 70))]
    aligners = [align(*size) for size in ALIGNERS]
    mapped = [*sums, *aligners]
    return [
        element_decode(),
        *mapped,
        *(quick(block) for block in mapped),
        accumulator(28),
        quick(accumulator(28)),
    ]


# Bits of product and accumulator: those of the schemes at V = 16, and narrower and wider ones for the laws.
ALIGNERS = ((10, 28), (14, 20), (14, 28), (14, 40), (20, 28), (22, 28), (22, 40), (24, 48))


def _leading_one(value: int) -> int:
    return max(value.bit_length() - 1, 0)


def block_scale(scheme: str) -> Block:
    """Code of a block's scale from its largest magnitude `m`: its leading one plus the exponent `c` of
    the layer; of e4m3 what `block_round` makes it from."""
    if scheme == "nvfp4":
        return _e4m3_scale(scheme)
    leading = "".join(f"m[{i}] ? 5'd{i} : " for i in range(MAGNITUDE_BITS - 1, 0, -1)) + "5'd0"

    def reference(words: Mapping[str, int]) -> int:
        if not words["m"]:
            return 0
        exponent = _leading_one(words["m"]) + signed(words["c"], CONSTANT_BITS)
        return min(max(exponent, 0), LARGEST_E8M0)

    return combinational(
        f"ppu_block_scale_{scheme}",
        "ppu_block_scale",
        {"width_bits": MAGNITUDE_BITS, "format": scheme},
        [port("m", MAGNITUDE_BITS, "random"), port("c", CONSTANT_BITS, "random"), output(8)],
        [
            f"wire [4:0] l = {leading}; wire signed [{CONSTANT_BITS}:0] e = "
            f"$signed({{c[{CONSTANT_BITS - 1}], c}}) + $signed({{{CONSTANT_BITS - 4}'b0, l}});",
            f"assign y = (e[{CONSTANT_BITS}] | ~|m) ? 8'd0 : "
            f"(e > {LARGEST_E8M0}) ? 8'd{LARGEST_E8M0} : e[7:0];",
        ],
        reference,
    )


def _e4m3_scale(scheme: str) -> Block:
    """Compares with 24 * 8 * 2^(x-1) find the exponent. What is left of `m` when it is shifted by that:
    whether a bit above is set, 9 bits, whether any below is set; the exponent less 1 above them."""

    def reference(words: Mapping[str, int]) -> int:
        exponent = min(_leading_one(words["m"] // (UNITS_PER_STEP * 8)), 14)
        left, below = words["m"] >> exponent, words["m"] & ((1 << exponent) - 1)
        kept = (left % (1 << MULTIPLE_BITS)) << 1 | int(below > 0)
        return (exponent << 1 | int(left >> MULTIPLE_BITS > 0)) << (MULTIPLE_BITS + 1) | kept

    compares = ", ".join(f"m >= {UNITS_PER_STEP * 8 << i}" for i in range(14, 0, -1))
    exponent = "".join(f"x[{i}] ? 4'd{i} : " for i in range(14, 0, -1)) + "4'd0"
    return combinational(
        f"ppu_block_scale_{scheme}",
        "ppu_block_scale",
        {"width_bits": MAGNITUDE_BITS, "format": scheme},
        [port("m", MAGNITUDE_BITS, "random"), output(MULTIPLE_BITS + 6)],
        [
            f"wire [14:0] x = {{{compares}, 1'b1}}; wire [3:0] e = {exponent};",
            f"wire [{MAGNITUDE_BITS + 13}:0] t = {{m, 14'b0}} >> e;",
            f"assign y = {{e, |t[36:{14 + MULTIPLE_BITS}], t[{13 + MULTIPLE_BITS}:14], |t[13:0]}};",
        ],
        reference,
    )


def block_round(scheme: str) -> Block:
    """Code of an e4m3 scale from what `block_scale` gives: compares with odd multiples of 12 find the
    significand, one of 16 counts on into the exponent, and the code ends at 126."""

    def reference(words: Mapping[str, int]) -> int:
        value, rest = words["m"] >> 1 & ((1 << MULTIPLE_BITS) - 1), words["m"] & 1
        exponent, over = words["m"] >> (MULTIPLE_BITS + 2), words["m"] >> (MULTIPLE_BITS + 1) & 1
        twice = 2 * value + rest  # below the middle of two values of the PPU nothing differs
        count, left = divmod(twice, 2 * UNITS_PER_STEP)
        significand = count + (left > UNITS_PER_STEP or (left == UNITS_PER_STEP and count % 2 == 1))
        return LARGEST_E4M3 if over else min(8 * exponent + min(significand, 16), LARGEST_E4M3)

    lines = [
        f"wire o = m[{MULTIPLE_BITS + 1}], k = m[0]; wire [{MULTIPLE_BITS - 1}:0] v = m[{MULTIPLE_BITS}:1];"
    ]
    for s in range(1, 17):
        middle = UNITS_PER_STEP // 2 * (2 * s - 1)
        # A tie goes to the even significand: to the one above where that is even.
        tie = "1'b1" if s % 2 == 0 else "k"
        lines.append(
            f"wire q{s} = (v > {MULTIPLE_BITS}'d{middle}) | (v == {MULTIPLE_BITS}'d{middle}) & {tie};"
        )
    significand = "".join(f"q{s} ? 5'd{s} : " for s in range(16, 0, -1)) + "5'd0"
    lines.append(
        f"wire [4:0] q = {significand}; "
        f"wire [7:0] r = {{1'b0, m[{MULTIPLE_BITS + 5}:{MULTIPLE_BITS + 2}], 3'b0}} + {{3'b0, q}}; "
        f"assign y = (o | r > {LARGEST_E4M3}) ? 7'd{LARGEST_E4M3} : r[6:0];"
    )
    return combinational(
        f"ppu_block_round_{scheme}",
        "ppu_block_round",
        {"format": scheme},
        [port("m", MULTIPLE_BITS + 6, "random"), output(7)],
        lines,
        reference,
    )


def block_shared(scheme: str) -> Block:
    """What all values of a block are quantized with. e8m0: the shift, its scale's code less the layer's
    exponent; e4m3: the shift, and the middles between codes times the significand, beyond all values where
    that is 0."""
    if scheme == "nvfp4":

        def multiples(words: Mapping[str, int]) -> int:
            exponent, fraction = words["w"] >> 3, words["w"] & 7
            significand = fraction + (8 if exponent else 0)
            word = max(exponent, 1) - 1
            for i, middle in enumerate(MIDDLES):
                multiple = middle * significand if significand else (1 << MULTIPLE_BITS) - 1
                word |= multiple << (4 + i * MULTIPLE_BITS)
            return word

        products = ", ".join(f"{MULTIPLE_BITS}'d{middle} * s" for middle in reversed(MIDDLES))
        return combinational(
            f"ppu_block_shared_{scheme}",
            "ppu_block_shared",
            {"format": scheme},
            [port("w", 7, "random"), output(4 + MULTIPLE_BITS * len(MIDDLES))],
            [
                f"wire [{MULTIPLE_BITS - 1}:0] s = {{5'b0, |w[6:3], w[2:0]}}; wire [3:0] e = w[6:3];",
                f"wire [{MULTIPLE_BITS * len(MIDDLES) - 1}:0] t = {{{products}}};",
                f"assign y = {{t | {{{MULTIPLE_BITS * len(MIDDLES)}{{~|w}}}}, (e == 0) ? 4'd0 : e - 4'd1}};",
            ],
            multiples,
        )
    largest = (1 << SHIFT_BITS) - 1

    def reference(words: Mapping[str, int]) -> int:
        return min(max(words["w"] - signed(words["c"], CONSTANT_BITS), 0), largest)

    return combinational(
        f"ppu_block_shared_{scheme}",
        "ppu_block_shared",
        {"format": scheme},
        [port("w", 8, "random"), port("c", CONSTANT_BITS, "random"), output(SHIFT_BITS)],
        [
            f"wire signed [{CONSTANT_BITS}:0] r = $signed({{{CONSTANT_BITS - 7}'b0, w}}) - "
            f"$signed({{c[{CONSTANT_BITS - 1}], c}});",
            f"assign y = r[{CONSTANT_BITS}] ? {SHIFT_BITS}'d0 : (r > {largest}) ? {SHIFT_BITS}'d{largest} : "
            f"r[{SHIFT_BITS - 1}:0];",
        ],
        reference,
    )


def block_shift(scheme: str) -> Block:
    """A magnitude shifted down by `a`: whether a bit above is set, the bits of a code with the next one,
    whether any below is set."""
    zeros, kept = SHIFTED[scheme]
    shift_bits = 4 if scheme == "nvfp4" else SHIFT_BITS
    width = MAGNITUDE_BITS + zeros
    fall = (1 << shift_bits) - 1

    def reference(words: Mapping[str, int]) -> int:
        value = words["m"] << zeros
        whole, rest = value >> words["a"], value & ((1 << words["a"]) - 1)
        return int(whole >> kept > 0) << (kept + 1) | whole % (1 << kept) << 1 | int(rest > 0)

    return combinational(
        f"ppu_block_shift_{scheme}",
        "ppu_block_shift",
        {"width_bits": MAGNITUDE_BITS, "format": scheme},
        [port("m", MAGNITUDE_BITS, "random"), port("a", shift_bits, "random"), output(kept + 2)],
        [
            f"wire [{width + fall - 1}:0] t = {{m, {zeros + fall}'b0}} >> a;",
            f"assign y = {{|t[{width + fall - 1}:{kept + fall}], t[{kept + fall - 1}:{fall}], "
            f"|t[{fall - 1}:0]}};",
        ],
        reference,
    )


def block_code(scheme: str) -> Block:
    """A code from a sign `g` and such a shifted magnitude `m`, to the nearest, ties to even, saturating; of
    e4m3 with the block's multiples `w`."""
    kept = SHIFTED[scheme][1]
    ports = [port("m", kept + 2, "random"), port("g", 1, "random")]
    fields = f"wire o = m[{kept + 1}]; wire [{kept - 1}:0] v = m[{kept}:1]; wire k = m[0];"

    def parts(word: int) -> tuple[bool, int, int]:
        return bool(word >> (kept + 1)), word >> 1 & ((1 << kept) - 1), word & 1

    if scheme == "mxint8":

        def integer(words: Mapping[str, int]) -> int:
            over, value, rest = parts(words["m"])
            whole, half = value >> 1, value & 1
            code = 127 if over else min(127, whole + (half & (rest | whole & 1)))
            return (-code if words["g"] else code) % 256

        return combinational(
            f"ppu_block_code_{scheme}", "ppu_block_code", {"format": scheme}, [*ports, output(8)],
            [
                fields, "wire [7:0] r = {1'b0, v[7:1]} + (v[0] & (k | v[1]));",
                "wire [7:0] c = (o | r[7]) ? 8'd127 : r; assign y = g ? -c : c;",
            ],
            integer,
        )  # fmt: skip
    fixed = scheme == "mxfp4"
    if not fixed:
        ports.append(port("w", MULTIPLE_BITS * len(MIDDLES), "random", MULTIPLE_BITS))

    def reference(words: Mapping[str, int]) -> int:
        over, value, rest = parts(words["m"])
        multiples = MIDDLES if fixed else elements(words["w"], MULTIPLE_BITS, len(MIDDLES))
        code = 0
        for i, middle in enumerate(multiples):
            # A tie goes to the even code.
            if over or value > middle or (value == middle and (rest or i % 2)):
                code = i + 1
        return code | words["g"] << 3

    lines, low = [fields], MULTIPLE_BITS
    for i, middle in enumerate(MIDDLES):
        own = f"{kept}'d{middle}" if fixed else f"w[{i * low + low - 1}:{i * low}]"
        tie = "1'b1" if i % 2 else "k"
        lines.append(f"wire q{i} = o | (v > {own}) | (v == {own}) & {tie};")
    code = "".join(f"q{i} ? 3'd{i + 1} : " for i in range(len(MIDDLES) - 1, -1, -1)) + "3'd0"
    return combinational(
        f"ppu_block_code_{scheme}", "ppu_block_code", {"format": scheme}, [*ports, output(4)],
        [*lines, f"assign y = {{g, {code}}};"], reference,
    )  # fmt: skip
