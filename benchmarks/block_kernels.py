"""Throughput of the kernel of block formats beside VS-Quant's (4/4/4/4, 28 bits) on the same shapes.

    NUMBA_NUM_THREADS=1 python benchmarks/block_kernels.py [--path portable] [--rounds 7] [--every 3]

Shapes are those of kernels.py, in vectors of 16, whole layers. Operands are normal numbers quantized to the
format; scales and lsb are what a layer of them has. The two kernels are timed in turn, in CPU time; a ratio,
above 1 where the block format is faster, is the median over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from accelsim_kernels import SATURATE, AlignSpec, LaneSpec, accumulate, accumulate_aligned, pack_weights
from accelsim_kernels.aligned import Scales, pack_aligned

from accelsim.formats.catalogue import SCHEMES
from accelsim.quantize.blocks import block_gamma, quantize_blocks
from kernels import NETWORKS, Layer, V, operands

VS_QUANT = LaneSpec(4, 4, 4, 4, 0, 0, 0, 28, SATURATE)


def drawn(name: str, layer: Layer, pixels: int) -> tuple:
    """(weights, their scales, words, theirs, lsb) of normal numbers at a scheme."""
    weights, _, words, _, _ = operands(layer, pixels, VS_QUANT, True)
    random, found = np.random.default_rng(2), []
    for shape, operand in zip((weights.shape, words.shape), SCHEMES[name], strict=True):
        values = random.standard_normal(shape).astype(np.float32)
        codes, scales = quantize_blocks(values, operand, block_gamma([values], operand))
        integers = np.rint(np.ldexp(operand.element.decode(codes), -operand.element.lsb)).astype(np.int8)
        worth, exponent = np.frexp(operand.scale.decode(scales))
        significand = (
            (worth * 16).astype(np.int32) if operand.scale.kind == "e4m3" else np.ones_like(exponent)
        )
        shift = 4 if operand.scale.kind == "e4m3" else 1
        found += [integers, Scales(significand.astype(np.int32), (exponent - shift).astype(np.int32))]
    # A bound of the outputs: 8 standard deviations of a sum of products, in units of the integers.
    typical = (
        8
        * np.sqrt(weights.shape[1] * V)
        * np.prod([np.std(found[i] * np.ldexp(*found[i + 1])[..., None]) for i in (0, 2)])
    )
    lsb = int(np.ceil(np.log2(typical))) + 4 - 28
    return *found, lsb


def seconds(function: Callable[[], None], repeats: int) -> float:
    """CPU time of a call, which other processes move less than what a clock says."""
    start = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - start) / repeats


def ratio(name: str, layer: Layer, path: str | None, rounds: int) -> float:
    pixels = layer.pixels
    weights, weight_scales, words, scales, gather = operands(layer, pixels, VS_QUANT, True)
    packed = pack_weights(weights, weight_scales, VS_QUANT, path=path)
    own_weights, own_scales, codes, code_scales, lsb = drawn(name, layer, pixels)
    own = pack_aligned(own_weights, own_scales, AlignSpec(28, lsb, True), path=path)

    def vs_quant() -> None:
        accumulate(packed, words, scales, gather, VS_QUANT)

    def block() -> None:
        accumulate_aligned(own, codes, code_scales, gather)

    vs_quant(), block()
    repeats = max(1, int(0.02 / seconds(vs_quant, 1)))
    times = [(seconds(vs_quant, repeats), seconds(block, repeats)) for _ in range(rounds)]
    return statistics.median(a / b for a, b in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--path", choices=("vnni", "portable"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--every", type=int, default=1, help="only every so many shapes")
    own = parser.parse_args()
    layers = [layer for network in NETWORKS.values() for layer in network][:: own.every]
    for name in SCHEMES:
        ratios = [ratio(name, layer, own.path, own.rounds) for layer in layers]
        print(f"{name}: median {statistics.median(ratios):.2f}, least {min(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()
