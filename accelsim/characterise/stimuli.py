"""Operand words for every block, with fixed seeds and distributions (accelsim/costs/tables/README.md).

uniform: every operand over its full code range. dnn: weights Gaussian of sigma qmax / 3; activations
half-normal, half of them exactly zero; scales, dot products, products and psums as measured on real data
(`steps.py`); values of the PPU Gaussian. dnn_ws16: dnn with weights and their scales held for 16 operations.
For what changes less and more (`activity.py`): dnn_sparse has a tenth of the activations, dnn_dense all of
them, with either sign; dnn_calm has each port's measured values in the order of their size.
mxint8, mxfp4, nvfp4: real steps and outputs of these schemes (`format_steps.py`).
Registers: not enabled while D moves (en0) or is still (en0_quiet); enabled with random data (en1), the same
data again (en1_held), random data of which half of the elements are zero (en1_half_zero). Arrays: idle, read,
write, readwrite.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from accelsim.characterise import activity, format_steps
from accelsim.characterise.block import FAST, QUICK, Block, Port
from accelsim.characterise.steps import SCALE_BITS, STEPS, apart, carry_saved
from accelsim.formats.catalogue import SCHEMES

# The first stimulus of a block has this seed, the next one the next; zero detectors keep one seed.
SEED, DETECTOR_SEED = 1234, 1
VECTORS, WARM_UP = 600, 8
ARRAY_VECTORS, ARRAY_WARM_UP = 256, 32
# Operations that held weights stay for.
HOLD = 16
# Cycles at the start in which every word of an array is written, whatever the stimulus.
ARRAY_FILL = 24
# Sigma of values of the PPU over the most negative code.
SIGMA = {"accumulator": 1 / 12, "addend": 1 / 96}
# Share of activations that are not zero, and what ends the name of a stimulus whose weights are held.
LIVE_ACTIVATIONS = {"dnn": 0.5, "dnn_sparse": 0.1, "dnn_dense": 1.0}
HELD = "_ws16"
# Elements that are zero or not in half-zero data of a register.
HALF_ZERO_BITS = 4
_ACCUMULATORS = ("accumulator", "block_accumulator", "pair_accumulator")
REGISTER_STIMULI = ("en0", "en1", "en1_held", "en1_half_zero", "en0_quiet")
FP4_MAGNITUDES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def stimuli_of(block: Block) -> tuple[str, ...]:
    """Those under which a block has a row; schemes of block formats, whose data it sees there, are the
    last."""
    formats = format_steps.formats_of(block)
    if block.family.removeprefix(QUICK) in format_steps.OWN_FAMILIES or block.name in format_steps.OWN_BLOCKS:
        return ("uniform", *formats)
    return (*_own_stimuli(block), *formats)


def _own_stimuli(block: Block) -> tuple[str, ...]:
    family = block.family.removeprefix(FAST)
    if block.family == "register":
        return REGISTER_STIMULI[1:4] if block.columns["kind"] == "plain" else REGISTER_STIMULI
    if block.family == "array":
        return ("idle", "read", "write", "readwrite")
    # A scale that is held is that of weights alone.
    held_scale = family == "scaling_mul" and int(block.columns["scale_product_bits"]) <= SCALE_BITS
    held = ("dnn_ws16",) if held_scale or family in ("dot", "scale_product") else ()
    return ("uniform", "dnn", *held, *(("idle",) if family != block.family and block.clocked else ()))


def vectors_of(block: Block) -> tuple[int, int]:
    """(operations that are measured, operations of the warm-up before them)."""
    return (ARRAY_VECTORS, ARRAY_WARM_UP) if block.family == "array" else (VECTORS, WARM_UP)


def words(block: Block, stimulus: str) -> dict[str, list[int]]:
    """One unsigned code per operation for every input port."""
    count = sum(vectors_of(block))
    if stimulus in format_steps.formats_of(block):
        return format_steps.words(block, stimulus, count)
    detector = block.family == "zero_detect"
    known = [own for own in (*stimuli_of(block), *activity.stimuli_of(block)) if own not in SCHEMES]
    random = np.random.default_rng(DETECTOR_SEED if detector else SEED + known.index(stimulus))
    driven = {port.name: _DRIVERS[port.role](random, port, count, stimulus) for port in block.inputs}
    if block.family.startswith(FAST) and stimulus == "idle":
        driven = {name: [words[0]] * count for name, words in driven.items()}
    if block.family.removeprefix(FAST) in _ACCUMULATORS and stimulus != "uniform":
        # Sums of products as wide as the block's, whatever the width of the accumulator.
        psum, product_bits = block.inputs[0], int(block.columns["input_bits"])
        driven[psum.name] = _pack(_ordered(STEPS.psums(product_bits), stimulus)[:count, None], psum.bits)
        if block.family.endswith("pair_accumulator"):
            blocks, pair = int(block.columns["vector_size"]), block.inputs[1]
            words = carry_saved(apart(STEPS.products(product_bits), blocks), pair.element_bits)
            driven[pair.name] = _pack(np.stack(words, axis=1)[:count], pair.element_bits)
    if block.family == "array" and stimulus in ("read", "idle"):
        # The data input is quiet once the array has been filled.
        data = driven["wd"]
        driven["wd"] = data[:ARRAY_FILL] + [data[ARRAY_FILL]] * (count - ARRAY_FILL)
    return driven


def bits(block: Block, driven: dict[str, list[int]]) -> np.ndarray:
    """The words as uint8[operation, input bit], ports in order, low bits first."""
    columns = []
    for port in block.inputs:
        size = (port.bits + 7) // 8
        packed = b"".join(word.to_bytes(size, "little") for word in driven[port.name])
        array = np.frombuffer(packed, np.uint8).reshape(-1, size)
        columns.append(np.unpackbits(array, axis=1, bitorder="little")[:, : port.bits])
    return np.ascontiguousarray(np.concatenate(columns, axis=1))


def _pack(codes: np.ndarray, width: int) -> list[int]:
    """codes: int[operation, element], two's complement; one word per operation, element 0 lowest."""
    mask = (1 << width) - 1
    return [sum((int(code) & mask) << (i * width) for i, code in enumerate(row)) for row in codes]


def _uniform(random: np.random.Generator, port: Port, count: int) -> np.ndarray:
    shape = (count, port.bits // port.element_bits)
    return random.integers(0, 1 << port.element_bits, size=shape, dtype=np.int64)


def weights(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
    """A word of weights for each operation."""
    if not stimulus.startswith("dnn"):
        return _pack(_uniform(random, port, count), port.element_bits)
    largest = (1 << (port.element_bits - 1)) - 1
    values = random.normal(0, largest / 3, (count, port.bits // port.element_bits))
    codes = np.clip(np.rint(values), -largest, largest).astype(np.int64)
    held = _pack(codes, port.element_bits)
    return [held[i - i % HOLD] for i in range(count)] if stimulus.endswith(HELD) else held


def activations(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
    """A word of activations for each operation."""
    if not stimulus.startswith("dnn"):
        return _pack(_uniform(random, port, count), port.element_bits)
    unsigned = port.role == "unsigned_activation"
    largest = (1 << (port.element_bits - (not unsigned))) - 1
    shape = (count, port.bits // port.element_bits)
    magnitudes = np.clip(np.rint(np.abs(random.normal(0, largest / 3, shape))), 0, largest)
    kind = stimulus.removesuffix(HELD)
    codes = (magnitudes * (random.random(shape) < LIVE_ACTIVATIONS[kind])).astype(np.int64)
    if kind == "dnn_dense" and not unsigned:
        codes *= random.choice((-1, 1), shape)
    return _pack(codes, port.element_bits)


def _fp4(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
    if stimulus != "dnn":
        return _pack(_uniform(random, port, count), port.element_bits)
    shape = (count, port.bits // port.element_bits)
    values = random.normal(0, 2.0, shape)
    if port.role == "fp4_activation":
        values = np.abs(values) * (random.random(shape) < 0.5)
    codes = np.abs(np.abs(values)[..., None] - FP4_MAGNITUDES).argmin(-1)
    return _pack(np.where((values < 0) & (codes > 0), codes | 8, codes), port.element_bits)


def _accumulator(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
    if stimulus != "dnn":
        return _pack(_uniform(random, port, count), port.element_bits)
    limit = 2.0 ** (port.element_bits - 1)
    values = random.normal(0, limit * SIGMA[port.role], (count, port.bits // port.element_bits))
    return _pack(np.clip(np.rint(values), -limit, limit - 1).astype(np.int64), port.element_bits)


def _magnitude(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
    """Magnitudes of values of the PPU."""
    if stimulus != "dnn":
        return _pack(_uniform(random, port, count), port.element_bits)
    shape, limit = (count, port.bits // port.element_bits), 1 << port.element_bits
    values = np.abs(random.normal(0, limit * SIGMA["accumulator"], shape))
    return _pack(np.minimum(np.rint(values), limit - 1).astype(np.int64), port.element_bits)


def _around(
    random: np.random.Generator, count: int, mean: float, sigma: float, low: int, high: int
) -> list[int]:
    """Whole numbers around a mean, clipped to [low, high]."""
    return [int(x) for x in np.clip(np.rint(random.normal(mean, sigma, count)), low, high)]


def _scale(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
    largest = (1 << port.bits) - 1
    if stimulus == "dnn":
        return _around(random, count, largest * 0.5, largest * 0.2, 1, largest)
    return [int(x) for x in random.integers(0, largest + 1, count)]


def _ranged(mean: float, sigma: float, low: int, high: int, end: int) -> Callable[..., list[int]]:
    """A driver whose words under dnn lie around a mean, under other stimuli anywhere in [0, end)."""

    def drive(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
        if stimulus == "dnn":
            return _around(random, count, mean, sigma, low, high)
        return [int(x) for x in random.integers(0, end, count)]

    return drive


def _measured(values: Callable[[int, str], np.ndarray]) -> Callable[..., list[int]]:
    """A driver whose words under dnn are those of real steps, under others anywhere in the code range."""

    def drive(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
        if not stimulus.startswith("dnn"):
            return _pack(_uniform(random, port, count), port.element_bits)
        return _pack(_ordered(values(port.bits, stimulus), stimulus)[:count, None], port.bits)

    return drive


def _products(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
    """Words of several products, under dnn those of steps that lie as far apart in the table as they can."""
    if not stimulus.startswith("dnn"):
        return _pack(_uniform(random, port, count), port.element_bits)
    values, blocks = STEPS.products(port.element_bits), port.bits // port.element_bits
    return _pack(np.stack(apart(values, blocks), axis=1)[:count], port.element_bits)


def _ordered(values: np.ndarray, stimulus: str) -> np.ndarray:
    """Measured values in the order of the stimulus."""
    return np.sort(values) if stimulus == "dnn_calm" else values


def _divisor(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
    top = 1 << (port.bits - 1)
    return [int(x) | top for x in random.integers(0, top, count)]


def _random(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
    mask, size = (1 << port.bits) - 1, (port.bits + 7) // 8
    drawn = [int.from_bytes(random.bytes(size), "little") & mask for _ in range(count)]
    if stimulus in ("en0_quiet", "en1_held"):
        return [drawn[0]] * count
    if stimulus == "en1_half_zero":
        elements = port.bits // HALF_ZERO_BITS
        kept = _pack(-random.integers(0, 2, (count, elements)), HALF_ZERO_BITS)
        return [word & keep for word, keep in zip(drawn, kept, strict=True)]
    return drawn


def _each(value: Callable[[int, Port, str], int]) -> Callable[..., list[int]]:
    """A driver without randomness: value(operation, port, stimulus)."""

    def drive(random: np.random.Generator, port: Port, count: int, stimulus: str) -> list[int]:
        return [int(value(i, port, stimulus)) for i in range(count)]

    return drive


_DRIVERS: dict[str, Callable[[np.random.Generator, Port, int, str], list[int]]] = {
    "weight": weights,
    "activation": activations,
    "unsigned_activation": activations,
    "fp4_weight": _fp4,
    "fp4_activation": _fp4,
    "dot": _measured(lambda bits, stimulus: STEPS.dots(bits, held_scale=stimulus == "dnn_ws16")),
    "scale_factor": _measured(lambda bits, stimulus: STEPS.scales(bits, held_scale=stimulus == "dnn_ws16")),
    "weight_scale": _measured(lambda bits, stimulus: STEPS.weight_scales(bits, held=stimulus == "dnn_ws16")),
    "activation_scale": _measured(lambda bits, stimulus: STEPS.activation_scales(bits)),
    "psum": _measured(lambda bits, stimulus: STEPS.psums(bits)),
    "product": _measured(lambda bits, stimulus: STEPS.products(bits)),
    "products": _products,
    "pair": lambda random, port, count, stimulus: _pack(_uniform(random, port, count), port.element_bits),
    "accumulator": _accumulator,
    "addend": _accumulator,
    "magnitude": _magnitude,
    "count": _each(lambda i, port, stimulus: i % (1 << port.bits)),
    "mode": _each(lambda i, port, stimulus: i >= VECTORS // 2),
    "scale": _scale,
    "e8m0": _ranged(120, 3, 0, 255, 256),
    "e4m3": _ranged(64, 8, 1, 126, 127),
    "shift": _ranged(10, 2, 0, 24, 25),
    "normalised_divisor": _divisor,
    "random": _random,
    "run": _each(lambda i, port, stimulus: stimulus != "idle"),
    "enable": _each(lambda i, port, stimulus: stimulus.startswith("en1")),
    "write_enable": _each(lambda i, port, stimulus: stimulus in ("write", "readwrite") or i < ARRAY_FILL),
    "write_address": _each(lambda i, port, stimulus: i % (1 << port.bits)),
    "read_address": _each(
        lambda i, port, stimulus: (
            (i + (1 << port.bits) // 2) % (1 << port.bits) if stimulus in ("read", "readwrite") else 0
        )
    ),
    "start": _each(lambda i, port, stimulus: i % 17 == 0),
}
