"""Formats, code by code, against gfloat and ml_dtypes; what follows from a row; texts of schemes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import gfloat
import gfloat.formats as oracle
import ml_dtypes
import numpy as np
import pytest

from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import (
    E2M1,
    ELEMENTS,
    INT,
    OCP_INT8,
    SCHEMES,
    UINT,
    activation_name,
    integer_operand,
)
from accelsim.formats.element import Element
from accelsim.formats.operand import Operand
from accelsim.formats.scale import E4M3, E8M0, Scale
from accelsim.formats.scheme import Scheme
from accelsim.quantize.blocks import encode_elements

FLOATS = {
    "e2m1": (oracle.format_info_ocp_e2m1, ml_dtypes.float4_e2m1fn),
    "e2m3": (oracle.format_info_ocp_e2m3, ml_dtypes.float6_e2m3fn),
    "e3m2": (oracle.format_info_ocp_e3m2, ml_dtypes.float6_e3m2fn),
    "e4m3": (oracle.format_info_ocp_e4m3, ml_dtypes.float8_e4m3fn),
    "e5m2": (oracle.format_info_ocp_e5m2, ml_dtypes.float8_e5m2),
}


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal with the signs of zeros, NaN equal to NaN."""
    known = ~np.isnan(a)
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a[known]), np.signbit(b[known]))


# --- every code -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOATS)
def test_every_code_of_the_float_elements(name: str) -> None:
    element, (info, dtype) = ELEMENTS[name], FLOATS[name]
    codes = np.arange(1 << element.bits)
    found = element.decode(codes)
    assert same_bits(found, np.array([gfloat.decode_float(info, int(code)).fval for code in codes]))
    assert same_bits(found, codes.astype(np.uint8).view(dtype).astype(np.float64))
    assert (element.bits, element.largest, element.largest_exponent) == (info.k, info.max, info.emax)
    classes = {gfloat.FloatClass.NAN: {"nan"}, gfloat.FloatClass.INFINITE: {"inf", "-inf"}}
    special = dict(element.special)
    for code in codes.tolist():
        names = classes.get(gfloat.decode_float(info, code).fclass, {None})
        assert special.get(code) in names, (name, code)


def test_every_code_of_the_scales() -> None:
    codes = np.arange(256)
    powers = Scale("e8m0", 8, "none").decode(codes)
    assert same_bits(powers, codes.astype(np.uint8).view(ml_dtypes.float8_e8m0fnu).astype(np.float64))
    info = oracle.format_info_ocp_e8m0
    assert same_bits(powers, np.array([gfloat.decode_float(info, int(code)).fval for code in codes]))
    assert powers[0] == 2.0**-127 and powers[254] == 2.0**127 and dict(E8M0.special) == {255: "nan"}
    eighths = Scale("e4m3", 8, "tensor").decode(codes)
    assert same_bits(eighths, codes.astype(np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64))
    for bits in range(1, 11):
        scale = Scale("uint", bits, "tensor")
        assert scale.max_code == scale.largest == 2**bits - 1 and scale.decode(np.array([3])) == 3.0


def test_every_code_of_the_mx_integer() -> None:
    codes = np.arange(-128, 128).astype(np.int8)
    info = oracle.format_info_ocp_int8
    found = OCP_INT8.decode(codes)
    assert same_bits(found, np.array([gfloat.decode_float(info, int(code) & 255).fval for code in codes]))
    assert found[0] == -2.0 and OCP_INT8.stored_range == (-128, 127)
    assert (OCP_INT8.qmin, OCP_INT8.qmax, OCP_INT8.largest_exponent) == (-127, 127, info.emax)


@pytest.mark.parametrize("bits", range(2, 9))
def test_integer_elements_by_hand(bits: int) -> None:
    signed, unsigned = INT[bits], UINT[bits]
    qmax = {2: 1, 3: 3, 4: 7, 5: 15, 6: 31, 7: 63, 8: 127}[bits]
    assert (signed.qmin, signed.qmax, signed.stored_range) == (-qmax, qmax, (-qmax, qmax))
    assert (unsigned.qmin, unsigned.qmax) == (0, 2 * qmax + 1) == unsigned.stored_range
    assert signed.unsigned is unsigned and unsigned.unsigned is None
    assert (signed.dtype, unsigned.dtype) == (np.int8, np.uint8)
    assert signed.special == ((1 << (bits - 1), "unused"),) and not signed.special_between
    for element, low in ((signed, -qmax), (unsigned, 0)):
        codes = np.arange(low, element.qmax + 1)
        assert np.array_equal(element.decode(codes.astype(element.dtype)), codes) and element.is_integer


def test_rows_are_what_they_say() -> None:
    for name, element in ELEMENTS.items():
        assert element.name == name and len(element.values) == 2**element.bits
        assert all(element.values[code] == 0 for code, _ in element.special), name
        assert pickle.loads(pickle.dumps(element)) == element
    assert len({hash(element) for element in ELEMENTS.values()}) == len(ELEMENTS)
    assert not any(ELEMENTS[name].unsigned for name in (*FLOATS, "ocp_int8"))


# --- rounding ---------------------------------------------------------------------------------------------


def awkward_values(element: Element) -> np.ndarray:
    """Every value, every middle between two, their neighbours in float64, and what lies beyond the range."""
    values = np.unique(element.decode(np.arange(1 << element.bits)))
    values = values[np.isfinite(values)]
    middles = (values[:-1] + values[1:]) / 2
    edges = np.concatenate([values, middles])
    near = [np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)]
    far = np.array([element.largest * factor for factor in (1.01, 1.0625, 1.5, 2, 1e6)])
    random = np.random.default_rng(0).standard_normal(2000) * np.exp2(
        np.random.default_rng(1).integers(-20, 20, 2000)
    )
    return np.concatenate([edges, *near, far, -far, random, [0.0, -0.0, 5e-324, -5e-324]])


@pytest.mark.parametrize("name", FLOATS)
def test_encode_is_the_nearest_ties_to_even_saturating(name: str) -> None:
    element, (info, dtype) = ELEMENTS[name], FLOATS[name]
    values = awkward_values(element)
    found = element.encode(values)
    rounded = [gfloat.round_float(info, float(v), gfloat.RoundMode.TiesToEven, sat=True) for v in values]
    assert found.tolist() == [gfloat.encode_float(info, v) for v in rounded]
    # ml_dtypes does not saturate, and rounds a float64 to float32 first.
    inside = (np.abs(values) <= element.largest) & (values.astype(np.float32) == values)
    assert inside.sum() > 3 * 2 ** (element.bits - 1)
    assert np.array_equal(found[inside], values[inside].astype(dtype).view(np.uint8))
    assert found.max() < 2**element.bits and not np.isin(found, [code for code, _ in element.special]).any()


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_loop_gives_the_same_codes(name: str, dtype: type) -> None:
    element, rng = ELEMENTS[name], np.random.default_rng(2)
    with np.errstate(over="ignore", under="ignore"):
        values = awkward_values(element).astype(dtype)
    values = values[np.isfinite(values)]
    values = values[: len(values) // 8 * 8].reshape(-1, 8)
    scales = rng.choice([1.0, 0.5, 2.0**-20, 0.4375, 1 / 3], len(values))
    scaled = values.astype(np.float64) / scales[:, None]
    assert np.array_equal(encode_elements(values, scales, element), element.encode(scaled))
    assert not np.any(encode_elements(np.abs(values), np.zeros(len(values)), element))


# --- operands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "weight", "activation"),  # bits of a word by hand: block * element + scale
    [("8/8/-/-@16", 128, 128), ("4/4/4/4@16", 68, 68), ("4/8/6/10@32", 134, 266), ("2/3/1/-@1", 3, 3),
     ("mxint8", 264, 264), ("mxfp4", 136, 136), ("nvfp4", 72, 72)],
)  # fmt: skip
def test_word_bits(text: str, weight: int, activation: int) -> None:
    scheme = Scheme.parse(text)
    assert (scheme.weight.word_bits, scheme.activation.word_bits) == (weight, activation)
    assert scheme.activation.of_sign(False).word_bits == activation


def test_bits_of_a_run_count_every_block_begun() -> None:
    operand = integer_operand(4, 6, block=16)
    assert [operand.bits_of(n) for n in (0, 1, 16, 17, 33)] == [0, 10, 70, 80, 150]
    assert integer_operand(5).bits_of(7) == 35
    open_block = integer_operand(4, 6)
    with pytest.raises(ValueError, match="has no block yet"):
        open_block.bits_of(3)
    with pytest.raises(ValueError, match="has no block yet"):
        integer_operand(4).word_bits  # noqa: B018
    assert open_block.in_blocks(8).word_bits == 38 and open_block.in_blocks(8).in_blocks(4).block == 8


def test_the_twin_follows_the_sign() -> None:
    operand = integer_operand(4, 4)
    assert operand.of_sign(True) is operand
    assert operand.of_sign(False) == integer_operand(4, 4, signed=False)
    for name in ("mxint8", "mxfp4", "nvfp4"):
        weight, activation = SCHEMES[name]
        assert activation.of_sign(False) is activation and not weight.is_integer


def test_largest_magnitude() -> None:
    assert Scheme.parse("nvfp4").weight.largest == 6 * 448
    assert Scheme.parse("mxfp4").weight.largest == 6 * 2.0**127
    assert Scheme.parse("4/4/4/6").activation.of_sign(False).largest == 15 * 63
    assert Scheme.parse("4/8/4/-").activation.largest == 127


def test_bad_scales_and_operands() -> None:
    for make, message in (
        (lambda: Scale("e8m0", 4, "none"), "scale e8m0: bits is 4, expected 8"),
        (lambda: Scale("uint", 11, "tensor"), "scale uint: bits is 11, expected 1 to 10"),
        (lambda: Scale("uint", 0, "tensor"), "scale uint: bits is 0, expected 1 to 10"),
        (lambda: Scale("e8m0", 8, "tensor"), "scale e8m0: gamma is tensor, expected none"),
        (lambda: Scale("e4m3", 8, "channel"), "scale e4m3: gamma is channel, expected none or tensor"),
        (lambda: Scale("none", 0, "none"), "scale none: gamma is none, expected tensor or channel"),
        (lambda: integer_operand(4, block=0), "block is 0, expected 1 to 1024"),
        (lambda: integer_operand(9), "operand of 9 bits: expected integers of 2 to 8 bits"),
        (lambda: activation_name(integer_operand(4)), "operand int4: has no name in the catalogue"),
    ):
        with pytest.raises(AccelsimError, match=message):
            make()


# --- schemes ----------------------------------------------------------------------------------------------


def test_a_product_that_is_not_narrower_is_the_full_one() -> None:
    for text in ("4/4/4/4:sp8", "4/4/4/4:sp9", "4/4/4/4:sp64"):
        assert Scheme.parse(text) == Scheme.parse("4/4/4/4") and str(Scheme.parse(text)) == "4/4/4/4"
    assert Scheme.integer(4, 8, 6, 10, 16) == Scheme.integer(4, 8, 6, 10)
    assert Scheme.parse("4/4/4/4:sp7").scale_product_shift == 1


def test_texts() -> None:
    for text in ("8/8/-/-", "4/4/4/4", "4/8/6/10:sp8", "4/4/4/4@32", "4/4/4/4@8:sp4", *SCHEMES):
        scheme = Scheme.parse(text)
        assert str(scheme) == text and Scheme.parse(str(scheme)) == scheme
        assert pickle.loads(pickle.dumps(scheme)) == scheme
    assert Scheme.parse("4/8/6/10@32:sp8").words_text == "4/8/6/10"
    assert Scheme.parse("4/8/6/10@32:sp8").words_scheme == Scheme.parse("4/8/6/10")
    assert Scheme.parse("mxfp4").words_scheme == Scheme.parse("mxfp4")
    assert [Scheme.parse(text).block for text in ("4/4/4/4", "4/4/4/4@64", "mxint8", "nvfp4")] == [
        None, 64, 32, 16,
    ]  # fmt: skip
    unnamed = Scheme(*(replace(operand, block=64) for operand in SCHEMES["mxfp4"]))
    assert str(unnamed) == "e2m1*e8m0/e2m1*e8m0@64"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4/4/4/-:sp2", r"scheme 4/4/4/-:sp2: :spN needs integer scales on both sides"),
        ("4/4/-/4:sp2", ":spN needs integer scales on both sides"),
        ("4/4/-/-:sp2", ":spN needs integer scales on both sides"),
        ("mxfp4:sp4", "expected W/A/ws/as.*, or one of mxint8, mxfp4, nvfp4"),
        ("mxfp4@16", "expected W/A/ws/as"),
        ("MXFP4", "expected W/A/ws/as"),
        ("4/4/4/4@0", "scheme 4/4/4/4@0: block is 0, expected 1 to 1024"),
        ("4/4/4/4@1025", "block is 1025, expected 1 to 1024"),
        ("4/4/4/4@", "expected W/A/ws/as"),
        ("4/4/4/4:sp4@16", "expected W/A/ws/as"),
    ],
)
def test_bad_texts(text: str, message: str) -> None:
    with pytest.raises(AccelsimError, match=message):
        Scheme.parse(text)


def test_operands_that_do_not_belong_together() -> None:
    four, fp4 = integer_operand(4, 4), SCHEMES["mxfp4"][0]
    for weight, activation, message in (
        (integer_operand(4, signed=False), four, "weight element is uint4, expected signed"),
        (four, integer_operand(4, 4, signed=False), "activation element is uint4, expected signed"),
        (fp4, four, "expected one block for weights and activations"),
        (four, integer_operand(4, 4, gamma="channel"), "activations have gammas by channel"),
    ):
        with pytest.raises(AccelsimError, match=message):
            Scheme(weight, activation)
    with pytest.raises(AccelsimError, match=":spN needs integer scales on both sides"):
        Scheme(fp4, fp4, 4)


def test_a_scale_of_e4m3_is_its_element() -> None:
    """One table of codes serves both; a scale uses the half without sign and without NaN."""
    scale = Scale("e4m3", 8, "tensor")
    assert scale.largest == E4M3.largest == 448 and scale.max_code == 126
    assert Operand(E2M1, scale, 16).word_bits == 16 * 4 + 8
