"""Netlists of block formats: their references are the numerics of docs/numerics.md, Block formats."""

import numpy as np
import pytest
from accelsim_kernels import AlignSpec
from accelsim_kernels.reference import aligned_terms

from accelsim.characterise import block_formats, format_steps
from accelsim.characterise.block import elements, signed
from accelsim.formats.catalogue import E2M1, SCHEMES
from accelsim.formats.element import Element
from accelsim.quantize.blocks import quantize_blocks


def test_every_code_of_e2m1_is_decoded():
    decode = block_formats.element_decode().reference
    assert [signed(decode({"w": code}), 5) for code in range(16)] == list(E2M1.values)
    assert {name: SCHEMES[name][0].decoded_bits for name in SCHEMES} == {"mxint8": 8, "mxfp4": 5, "nvfp4": 5}


@pytest.mark.parametrize(("bits", "n"), [(14, 28), (22, 28), (24, 14), (10, 40)])
def test_sum_of_exponents_and_shift_are_a_term(bits, n):
    """At all shift amounts, those beyond the limits too, of extreme and of random products."""
    random, top = np.random.default_rng(1), 1 << (bits - 1)
    values = np.concatenate([[-top, top - 1, 0, 1, -1], random.integers(-top, top, 60)])
    amount = block_formats.scale_sum("e8m0", 7, n + bits).reference
    align = block_formats.align(bits, n).reference
    for exponent in range(-bits - 20, n + 20):
        shift = amount({"w": 100, "a": 120, "c": (n - exponent + 220) % 4096})
        terms = aligned_terms(
            values, np.ones_like(values), np.full_like(values, exponent), AlignSpec(n, 0, True)
        )
        ours = [signed(align({"w": int(value) % (1 << bits), "a": shift}), n + 2) for value in values]
        assert ours == terms.tolist(), exponent


def test_e4m3_exponents_of_subnormals_count_as_1():
    total = block_formats.scale_sum("e4m3", 6, 50).reference
    assert [total({"w": w, "a": 3, "c": 20}) & 63 for w in (0, 1, 2, 15)] == [16, 16, 15, 2]
    assert [total({"w": w, "a": a, "c": 20}) >> 6 for w, a in ((0, 0), (1, 0), (0, 1), (9, 9))] == [
        0,
        1,
        2,
        3,
    ]


def quantized(scheme: str, values: np.ndarray, constant: int) -> tuple[list[int], int]:
    """Codes and scale of a block by the netlists' references."""
    scale, shared, shift, code = (
        make(scheme).reference
        for make in (
            block_formats.block_scale,
            block_formats.block_shared,
            block_formats.block_shift,
            block_formats.block_code,
        )
    )
    stored = scale({"m": int(np.abs(values).max()), "c": constant % 4096})
    if scheme == "nvfp4":
        stored = block_formats.block_round(scheme).reference({"m": stored})
    common = shared({"w": stored, "c": constant % 4096})
    bits = 4 if scheme == "nvfp4" else block_formats.SHIFT_BITS
    amount, multiples = common & ((1 << bits) - 1), common >> bits
    codes = [
        code({"m": shift({"m": abs(int(z)), "a": amount}), "g": int(z < 0), "w": multiples}) for z in values
    ]
    return codes, stored


def blocks(random: np.random.Generator, count: int) -> np.ndarray:
    """Values of a PPU of all sizes, blocks of zeros and of the largest, ties and neighbours of ties."""
    sizes = 2.0 ** random.uniform(0, 23, (count, 1))
    values = np.clip(np.rint(random.normal(0, 1, (count, 16)) * sizes / 2), -(2**23) + 1, 2**23 - 1)
    values[0], values[1] = 0, 2**23 - 1
    ties = [t * 2**e for e in range(18) for t in (12, 36, 60, 84, 108, 156, 180, 204, 252, 276, 348, 372)]
    tied = np.zeros((len(ties) * 3, 16))
    for i, tie in enumerate(ties):
        for k, near in enumerate((-1, 0, 1)):
            tied[3 * i + k] = (
                np.clip(tie + near, 0, 2**23 - 1) // 2.0 ** np.arange(16) * (-1) ** np.arange(16)
            )
    return np.concatenate([values, tied]).astype(np.int64)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_block_is_quantized_as_the_format_says(scheme):
    operand = SCHEMES[scheme][1]
    exponents = (-11,) if scheme == "nvfp4" else (-22, -140, 115, -150)
    for exponent in exponents:
        values = blocks(np.random.default_rng(2), 150)
        codes, scales = quantize_blocks(np.ldexp(values.astype(float), exponent), operand, 1.0)
        constant = exponent + 127 - operand.element.largest_exponent
        for own, wanted, scale in zip(values, codes, scales, strict=True):
            found, stored = quantized(scheme, own, constant)
            assert stored == scale, (exponent, own)
            assert same(found, wanted, operand.element), (exponent, own)


def same(found: list[int], wanted: np.ndarray, element: Element) -> bool:
    """A negative value that rounds to 0 has a sign in both; a zero has none."""
    return [code % (1 << element.bits) for code in found] == [
        int(code) % (1 << element.bits) for code in wanted
    ]


def test_measured_steps_are_what_blocks_are_driven_with():
    for scheme in SCHEMES:
        block = block_formats.align(format_steps.product_bits(scheme), 28)
        words = format_steps.words(block, scheme, 600)
        steps = format_steps.steps(scheme)
        assert len(steps) >= 608 and len(words["a"]) == 600
        assert [signed(word, block.inputs[0].bits) for word in words["w"][:9]] == [
            format_steps.product(step, scheme) for step in steps[:9]
        ]
        summed = block_formats.scale_sum("e4m3" if scheme == "nvfp4" else "e8m0", 6, 50)
        amounts = format_steps.words(summed, scheme, 600)
        for i in range(0, 600, 37):
            own = {name: codes[i] for name, codes in amounts.items()}
            assert summed.reference(own) % 64 == words["a"][i]
    assert len(elements(format_steps.steps("mxfp4")[0].codes, 4, 16)) == 16
