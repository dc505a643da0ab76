"""The compiled loops of quantization give the bits of the plain NumPy expressions they stand for."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from accelsim.formats.catalogue import integer_operand
from accelsim.formats.scheme import Scheme
from accelsim.quantize.arrays import (
    QuantizeOptions,
    encode,
    quantize_tensor,
    tensor_gamma,
    tensor_scale,
    vector_scales,
)
from accelsim.quantize.ranges import mse_ranges, plain_mse_ranges
from accelsim.trace.file import Trace
from accelsim.trace.find import find_trace

DTYPES = [np.float32, np.float64]


def awkward(dtype: type, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Zeros of both signs, halves, ties, whole zero vectors, the smallest and nearly the largest values."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    kind = rng.integers(0, 12, shape)
    x[kind == 0] = 0.0
    x[kind == 1] = -0.0
    halves = rng.integers(-300, 300, shape) / 2
    x[kind == 2] = halves[kind == 2]
    x[kind == 3] *= 1e-30
    x = x.astype(dtype)
    if seed % 2:
        x[kind == 4] *= np.finfo(dtype).tiny
        x[kind == 5] = np.finfo(dtype).max / dtype(2) * np.sign(x[kind == 5])
    x.reshape(-1, shape[-1])[::7] = 0
    return x


def plain_encode(values: np.ndarray, scale: np.ndarray, low: int, qmax: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        codes = np.clip(np.rint(values / np.where(scale > 0, scale, np.inf)), low, qmax)
    return codes.astype(np.int8 if low < 0 else np.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vector_size", [1, 3, 8, 16, 17, 64])
@pytest.mark.parametrize("seed", range(6))
def test_vector_scales(dtype: type, vector_size: int, seed: int) -> None:
    x = awkward(dtype, (5, 9, vector_size), seed)
    plain = np.abs(x).max(axis=-1).astype(np.float64) / 7
    assert np.array_equal(vector_scales(x, 7), plain)
    assert np.array_equal(vector_scales(x.transpose(1, 0, 2), 7), plain.T)
    x[1, 2, vector_size // 2] = np.nan
    assert np.isnan(vector_scales(x, 7)[1, 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("low", "qmax"), [(-1, 1), (-7, 7), (-127, 127), (0, 3), (0, 255)])
@pytest.mark.parametrize("seed", range(6))
def test_encode(dtype: type, low: int, qmax: int, seed: int) -> None:
    x = awkward(dtype, (6, 10, 16), seed)
    x = np.abs(x) if low == 0 else x
    rng = np.random.default_rng(seed)
    for shape in ((1, 1, 1), (6, 1, 1), (6, 10, 1), (1, 10, 1)):
        scale = rng.choice([0.0, 0.5, 1.0, 1.3, 1e-300, 3e38, *rng.random(20)], shape)
        codes = encode(x, scale, low, qmax)
        plain = plain_encode(x, scale, low, qmax)
        assert codes.dtype == plain.dtype
        assert np.array_equal(codes, plain), shape
    rows = x.reshape(60, 16)
    assert np.array_equal(encode(rows, np.array([[0.5]]), low, qmax), plain_encode(rows, 0.5, low, qmax))


def test_encode_divides() -> None:
    """Half-way values of scales that are no power of two: a multiplication by 1 / scale rounds some apart."""
    scale = np.random.default_rng(1).random((500, 1))
    halves = (np.arange(-6, 7) + 0.5) * scale
    assert np.array_equal(encode(halves, scale, -7, 7), plain_encode(halves, scale, -7, 7))
    assert not np.array_equal(encode(halves, scale, -7, 7), plain_encode(halves * (1 / scale), 1.0, -7, 7))


def test_other_number_types_are_converted() -> None:
    x = np.random.default_rng(0).integers(-20, 20, (6, 16))
    for dtype in (np.float16, np.int64, ">f4", ">f8"):
        values = x.astype(dtype)
        assert np.array_equal(vector_scales(values, 7), np.abs(x).max(axis=1) / 7), dtype
        codes = encode(values, np.full((6, 1), 2.0), -7, 7)
        assert np.array_equal(codes, plain_encode(x, np.full((6, 1), 2.0), -7, 7)), dtype
        assert np.array_equal(mse_ranges(np.abs(values), 7), plain_mse_ranges(np.abs(x) * 1.0, 7)), dtype


def test_encode_rounds_half_to_even_and_clips() -> None:
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 6.5, 7.5, 1e30, -1e30]], np.float32)
    assert encode(x, np.ones((1, 1)), -7, 7).tolist() == [[0, 2, 2, 0, -2, 6, 7, 7, -7]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("qmax", [1, 3, 7, 31, 127, 255])
@pytest.mark.parametrize("n", [1, 2, 9, 64, 577, 3000])
def test_mse_ranges(dtype: type, qmax: int, n: int) -> None:
    rng = np.random.default_rng(n * qmax)
    rows = [
        rng.standard_normal((20, n)),
        rng.laplace(size=(20, n)),
        rng.standard_t(3, (20, n)),
        rng.integers(0, qmax + 1, (20, n)) * 1.0,  # representable: the error is rounding noise or 0
        rng.integers(0, 2 * qmax + 1, (20, n)) / 2,
        awkward(np.float32, (20, n), 2),
        awkward(dtype, (20, n), 3).astype(np.float64),
        np.zeros((2, n)),
    ]
    magnitudes = np.abs(np.concatenate(rows)).astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = plain_mse_ranges(magnitudes.astype(np.float64), qmax)
        assert np.array_equal(mse_ranges(magnitudes, qmax), expected)


def test_most_rows_need_no_second_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the compiled search is no faster, and the test above compares plain_mse_ranges with itself."""
    judged = []

    def judge(magnitudes: np.ndarray, qmax: int) -> np.ndarray:
        judged.append(len(magnitudes))
        return plain_mse_ranges(magnitudes, qmax)

    monkeypatch.setattr("accelsim.quantize.ranges.plain_mse_ranges", judge)
    magnitudes = np.abs(np.random.default_rng(0).standard_normal((400, 576)))
    for qmax in (7, 127):
        mse_ranges(magnitudes, qmax)
    assert sum(judged) <= 4


def test_nearly_equal_errors_are_left_to_the_definition() -> None:
    """With codes -1, 0, 1 the row (1, a) has the error (1 - s)^2 + (a - s)^2 at the range s: it is the same
    at two neighbouring ranges of the search, but for rounding, where they add up to 1 + a."""
    rng = np.random.default_rng(2)
    steps = rng.integers(1, 3, 600)
    wider, narrower = np.exp2(-steps / 16), np.exp2(-(steps + 1) / 16)
    rows = np.stack([np.ones(600), wider + narrower - 1], axis=1) * rng.uniform(0.1, 10, (600, 1))
    expected = plain_mse_ranges(rows, 1)
    assert np.array_equal(mse_ranges(rows, 1), expected)
    wide = np.isclose(expected, rows[:, 0] * wider)
    assert np.isclose(expected, rows[:, 0] * np.where(wide, wider, narrower)).all()
    assert 10 < wide.sum() < 590  # both happen, and nothing but the last bits says which


def test_equal_errors_go_to_the_wider_range() -> None:
    """One value: every range has its own error, 0 at the maximum. All zero: the range is 0."""
    assert mse_ranges(np.array([[3.0], [0.0]]), 7).tolist() == [3.0, 0.0]


@pytest.mark.parametrize("seed", range(4))
def test_static_scale_and_gamma_of_the_largest_value(seed: int) -> None:
    x = awkward(np.float32, (40, 16), seed)
    options = QuantizeOptions()
    largest = float(np.abs(x).max())
    assert tensor_scale(iter(np.split(x, 5)), integer_operand(8), options) == largest / 127
    s = np.abs(x).max(axis=1).astype(np.float64) / 7
    assert tensor_gamma(iter(np.split(x, 5)), integer_operand(4, 4), options) == float(s.max()) / 15
    assert tensor_scale(iter([np.zeros((3, 4))]), integer_operand(8), options) == 1.0


def test_quantize_tensor_of_every_granularity() -> None:
    x = awkward(np.float64, (12, 40), 2)
    for granularity in ("tensor", "channel", "vector", "two_level"):
        own = quantize_tensor(x, 4, granularity, scale_bits=4)
        scales = np.repeat(own.scales, own.vector_size, 1)[:, :40] if own.scales.shape[1] > 1 else own.scales
        assert np.array_equal(own.codes, plain_encode(x, scales, -7, 7)), granularity


# SHA-256 of all words, scales and gammas, made with the NumPy code that the loops replaced, when scales of
# activations were rounded as those of weights.
GOLDEN = {
    "digits 8/8/-/-": "b51a29cfa05e725149f03a4b341308fb15f55dc5b9319115a4e6092fa2ecd0fa",
    "digits 4/4/4/4": "4cb1c03fe1fe61a610cee2ee4037bc592f863ccfe6d866a5e44f7a7e60fe5132",
    "digits 4/8/6/10": "dfff780fbe243e08cd9521f39760a3ec0ec1094d623c26a260525608d8016b93",
    "digits 4/4/-/-": "78da9ba98a76e8a3eb42fd2f77e542dd804d4c33ad48f481b8953c9c71ed7b53",
    "minilm_layer0 8/8/-/-": "1c481034b1155873091bcb715079b418c25a3d9ac4b905ae993a408265717bbe",
    "minilm_layer0 4/4/4/4": "8d67cd9ae019254c1345a38ab994e01dfff622d30140911a21a5d857be9bdf85",
    "minilm_layer0 4/8/6/10": "884ea540fbb5bcb384f2fd3c53d88cb32e8e423af5e41a3ad0e3bda88a8c7a5e",
    "minilm_layer0 4/4/-/-": "9516fde37e571d3dc91a2f5aab93f35816fffdd3048523014c7e9346b4612c28",
}


@pytest.mark.parametrize("key", GOLDEN)
def test_bundled_traces_give_the_words_they_always_gave(key: str) -> None:
    name, text = key.split(" ")
    assert words_digest(name, text) == GOLDEN[key]


def words_digest(name: str, scheme: str) -> str:
    trace, digest = Trace.open(find_trace(name)), hashlib.sha256()
    options = QuantizeOptions(activation_scale_rounding="up_from_zero")
    for info in trace.layers:
        words = trace.quantized_layer(info.name, Scheme.parse(scheme), 16, options)
        for values in (words.weight_words, words.weight_scales, words.weight_gamma, words.input_words):
            digest.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
        digest.update(b"" if words.input_scales is None else words.input_scales.tobytes())
        facts = {**words.output.to_dict(), "gamma": words.output_gamma}
        output = ", ".join(f"{key}={value!r}" for key, value in facts.items())
        digest.update(f"({words.input_gamma!r}, OutputFormat({output}))".encode())
    return digest.hexdigest()
