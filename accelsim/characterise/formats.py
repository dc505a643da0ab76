"""Arithmetic of microscaling and small floating-point formats (OCP MX v1.0): e2m1, e4m3, e8m0."""

from __future__ import annotations

from collections.abc import Mapping

from accelsim.characterise.block import Block, combinational, elements, index_bits, output, port, signed
from accelsim.characterise.carry_save import CarrySave
from accelsim.characterise.roles import Roles

# Magnitudes of the e2m1 codes in halves.
FP4_HALVES = (0, 1, 2, 3, 4, 6, 8, 12)
# When the bits of a product reach the tree, in gate delays.
PRODUCT_ARRIVAL, SIGN_ARRIVAL = 3.0, 0.5


def fp4_quarters(w: int, a: int) -> int:
    """Product of two e2m1 codes in quarters."""
    sign = -1 if (w ^ a) & 8 else 1
    return sign * FP4_HALVES[w & 7] * FP4_HALVES[a & 7]


def _fp4_product(i: int) -> list[str]:
    """ps{i}: sign; px{i}: magnitude (2-bit significands multiplied, shifted by both exponents), complemented
    where negative, so that the product is {ps, px} + ps."""
    lines = []
    for operand in "wa":
        low, mid, high = (f"{operand}[{4 * i + k}]" for k in range(3))
        lines.append(
            f"wire {operand}nz{i} = {high} | {mid}; "
            f"wire [1:0] {operand}m{i} = {{{operand}nz{i}, {low}}}; "
            f"wire [1:0] {operand}e{i} = {{{high} & {mid}, {high} & ~{mid}}};"
        )
    lines.append(
        f"wire [3:0] pm{i} = {{2'b0,wm{i}}} * {{2'b0,am{i}}}; "
        f"wire [2:0] pe{i} = {{1'b0,we{i}}} + {{1'b0,ae{i}}}; "
        f"wire [7:0] pv{i} = {{4'b0,pm{i}}} << pe{i}; wire ps{i} = w[{4 * i + 3}] ^ a[{4 * i + 3}]; "
        f"wire [7:0] px{i} = pv{i} ^ {{8{{ps{i}}}}};"
    )
    return lines


def fp4_multiply() -> Block:
    return combinational(
        "fp4_mul",
        "fp4_mul",
        {"format": "e2m1 x e2m1 to 9-bit signed fixed point (1/4 units)"},
        [port("w", 4, "fp4_weight"), port("a", 4, "fp4_activation"), output(9)],
        [*_fp4_product(0), "assign y = {ps0, px0} + {8'b0, ps0};"],
        lambda words: fp4_quarters(words["w"], words["a"]) % 512,
    )


def fp4_dot(roles: Roles, size: int) -> Block:
    """Products as 9-bit fixed point in quarters, summed exactly."""
    bits = 9 + index_bits(size)
    tree = CarrySave(bits, roles, prefix="d")
    lines = []
    for i in range(size):
        lines += _fp4_product(i)
        for k in range(8):
            tree.bit(k, f"px{i}[{k}]", True, PRODUCT_ARRIVAL)
        tree.bit(8, f"ps{i}", False, SIGN_ARRIVAL)  # -s 2^8 = ~s 2^8 - 2^8
        tree.constant(-1 << 8)
        tree.bit(0, f"ps{i}", True, SIGN_ARRIVAL)  # two's complement

    def reference(words: Mapping[str, int]) -> int:
        pairs = zip(elements(words["w"], 4, size), elements(words["a"], 4, size), strict=True)
        return sum(fp4_quarters(w, a) for w, a in pairs) % (1 << bits)

    return combinational(
        f"fp4_dot_v{size}",
        "fp4_dot",
        {"weight_bits": 4, "activation_bits": 4, "vector_size": size, "output_bits": bits, "format": "e2m1"},
        [port("w", 4 * size, "fp4_weight", 4), port("a", 4 * size, "fp4_activation", 4), output(bits)],
        [*lines, *tree.emit("s"), "assign y = s;"],
        reference,
    )


def e8m0_add() -> Block:
    """Product of two power-of-two scales: the sum of their exponents."""
    return combinational(
        "e8m0_scale_add",
        "e8m0_add",
        {"format": "e8m0 + e8m0"},
        [port("w", 8, "e8m0"), port("a", 8, "e8m0"), output(9)],
        ["assign y = {1'b0,w} + {1'b0,a};"],
        lambda words: words["w"] + words["a"],
    )


def e4m3_multiply(roles: Roles) -> Block:
    """Exact product of two positive e4m3 scales: 8-bit significand and 5-bit exponent sum."""
    tree = CarrySave(8, roles)
    tree.product("wm", 4, "am", 4, False, False)

    def decode(code: int) -> tuple[int, int]:
        exponent, mantissa = code >> 3, code & 7
        return max(exponent, 1), mantissa + (8 if exponent else 0)

    def reference(words: Mapping[str, int]) -> int:
        (w_exponent, w), (a_exponent, a) = decode(words["w"]), decode(words["a"])
        return (w_exponent + a_exponent) << 8 | w * a

    return combinational(
        "e4m3_scale_mul",
        "e4m3_mul",
        {"format": "e4m3 x e4m3 -> 8-bit significand + 5-bit exponent"},
        [port("w", 7, "e4m3"), port("a", 7, "e4m3"), output(13)],
        [
            "wire [3:0] wm = {|w[6:3], w[2:0]}; wire [3:0] am = {|a[6:3], a[2:0]};",
            *tree.emit("s"),
            "wire [4:0] e = {1'b0, w[6:4], w[3] | ~(|w[6:3])} + {1'b0, a[6:4], a[3] | ~(|a[6:3])}; "
            "assign y = {e, s};",
        ],
        reference,
    )


def align_shift(bits: int, window_bits: int) -> Block:
    """A signed dot product left-aligned in an accumulator window, shifted down by a power-of-two scale."""
    return combinational(
        f"align_shift_{bits}_{window_bits}",
        "align_shift",
        {"input_bits": bits, "output_bits": window_bits},
        [port("w", bits, "dot"), port("a", 5, "shift"), output(window_bits)],
        [
            f"wire signed [{window_bits - 1}:0] x = {{w, {{{window_bits - bits}{{1'b0}}}}}}; "
            "assign y = x >>> a;"
        ],
        lambda words: ((signed(words["w"], bits) << (window_bits - bits)) >> words["a"]) % (1 << window_bits),
    )
