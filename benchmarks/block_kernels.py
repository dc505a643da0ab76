"""Throughput of the kernel of block formats beside VS-Quant's (4/4/4/4, 28 bits) on the same shapes.

    NUMBA_NUM_THREADS=1 python benchmarks/block_kernels.py [--path portable] [--rounds 9] [--every 3]
                                                           [--bits 24] [--spread 2] [--formats mxfp4]

Shapes are those of kernels.py, in vectors of 16, whole layers. Operands are normal numbers quantized to the
format; scales and lsb are what a layer of them has, with accumulators of `--bits` instead of 28 and each
vector times 2^(`--spread` times another normal number). The two kernels are timed in turn, in CPU time; a
ratio, above 1 where the block format is faster, is of the fastest call of either.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from accelsim_kernels import SATURATE, AlignSpec, LaneSpec, accumulate, accumulate_aligned, pack_weights
from accelsim_kernels.aligned import pack_aligned
from accelsim_kernels.scales import Scales

from accelsim.formats.catalogue import E2M3, SCHEMES
from accelsim.formats.operand import Operand
from accelsim.quantize.blocks import block_gamma, quantize_blocks
from kernels import NETWORKS, Layer, V, operands

_E2M3 = Operand(E2M3, SCHEMES["mxfp4"][0].scale, 32)
FORMATS = {**SCHEMES, "mxfp6 (e2m3)": (_E2M3, _E2M3)}
VS_QUANT = LaneSpec(4, 4, 4, 4, 0, 0, 0, 28, SATURATE)


def drawn(name: str, layer: Layer, bits: int, spread: float) -> tuple:
    """(weights, their scales, words, theirs, lsb) of normal numbers at a scheme."""
    weights, _, words, _, _ = operands(layer, layer.pixels, VS_QUANT, True)
    random, found = np.random.default_rng(2), []
    for shape, operand in zip((weights.shape, words.shape), FORMATS[name], strict=True):
        values = random.standard_normal(shape).astype(np.float32)
        values *= np.exp2(spread * random.standard_normal((*shape[:-1], 1))).astype(np.float32)
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
    lsb = int(np.ceil(np.log2(typical))) + 4 - bits
    return *found, lsb


def ratio(name: str, layer: Layer, own: argparse.Namespace) -> float:
    weights, weight_scales, words, scales, gather = operands(layer, layer.pixels, VS_QUANT, True)
    packed = pack_weights(weights, weight_scales, VS_QUANT, path=own.path)
    block_weights, block_scales, codes, code_scales, lsb = drawn(name, layer, own.bits, own.spread)
    aligned = pack_aligned(block_weights, block_scales, AlignSpec(own.bits, lsb, True), path=own.path)

    def vs_quant() -> None:
        accumulate(packed, words, scales, gather, VS_QUANT)

    def block() -> None:
        accumulate_aligned(aligned, codes, code_scales, gather)

    vs_quant(), block()
    times = [(seconds(vs_quant), seconds(block)) for _ in range(own.rounds)]
    fastest = np.min(times, axis=0)
    return float(fastest[0] / fastest[1])


def seconds(function: Callable[[], None]) -> float:
    """CPU time of the fastest of three calls, which other processes move less than what a clock says."""
    times = []
    for _ in range(3):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--path", choices=("vnni", "portable"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--every", type=int, default=1, help="only every so many shapes")
    parser.add_argument("--bits", type=int, default=28, help="of the block formats' accumulators")
    parser.add_argument("--spread", type=float, default=0.0, help="of vectors' magnitudes, in octaves")
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    own = parser.parse_args()
    layers = [layer for network in NETWORKS.values() for layer in network][:: own.every]
    for name in own.formats:
        ratios = [ratio(name, layer, own) for layer in layers]
        least = layers[int(np.argmin(ratios))].name
        print(
            f"{name}: median {statistics.median(ratios):.2f}, least {min(ratios):.2f} ({least})", flush=True
        )


if __name__ == "__main__":
    main()
