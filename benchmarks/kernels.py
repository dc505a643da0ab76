"""Throughput of the integer kernel `accumulate` beside NumPy's float32 matmul of the same shape.

    python benchmarks/kernels.py [--path portable] [--threads 1 2] [--rounds 7] [--csv FILE]

Layers are the distinct shapes of ResNet-50 (batch 1, 224 x 224) and BERT-base (sequence of 128) as GEMMs of
pixels x reduction x output channels; pixels are capped (marked `*`). The integer kernel gathers its operand
vectors through im2col indices, multiplies by both per-vector scales, and saturates accumulations and counts
overflows where there are any (4/8/6/10 at 24 bits has some in most layers, the others have none). Weights are
packed beforehand, as the simulator does once per weight tile; activations are gathered, checked and packed
within the timed call. NumPy multiplies float32 matrices that already lie in im2col order. The two are timed
in turn; a ratio is of the fastest call of either, which other processes on the machine slow least.

Thread counts are set by environment variables in subprocesses, as OpenBLAS and Numba read them at start.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np
from accelsim_kernels import SATURATE, LaneSpec, accumulate, pack_weights

V = 16


class Layer(NamedTuple):
    name: str
    size: int  # output height = width, or rows of a matmul
    channels: int
    outputs: int
    taps: int = 1  # kernel height = width
    matmul: bool = False

    @property
    def pixels(self) -> int:
        return self.size if self.matmul else self.size * self.size


RESNET50 = [
    Layer("conv1 (packed im2col)", 112, 160, 64),  # 7 * 7 * 3 = 147, in vectors of 16
    Layer("conv2 1x1 64-64", 56, 64, 64),
    Layer("conv2 3x3 64-64", 56, 64, 64, 3),
    Layer("conv2 1x1 64-256", 56, 64, 256),
    Layer("conv2 1x1 256-64", 56, 256, 64),
    Layer("conv3 1x1 256-128", 56, 256, 128),
    Layer("conv3 3x3 128-128", 28, 128, 128, 3),
    Layer("conv3 1x1 128-512", 28, 128, 512),
    Layer("conv3 1x1 256-512", 28, 256, 512),
    Layer("conv3 1x1 512-128", 28, 512, 128),
    Layer("conv4 1x1 512-256", 28, 512, 256),
    Layer("conv4 3x3 256-256", 14, 256, 256, 3),
    Layer("conv4 1x1 256-1024", 14, 256, 1024),
    Layer("conv4 1x1 512-1024", 14, 512, 1024),
    Layer("conv4 1x1 1024-256", 14, 1024, 256),
    Layer("conv5 1x1 1024-512", 14, 1024, 512),
    Layer("conv5 3x3 512-512", 7, 512, 512, 3),
    Layer("conv5 1x1 512-2048", 7, 512, 2048),
    Layer("conv5 1x1 1024-2048", 7, 1024, 2048),
    Layer("conv5 1x1 2048-512", 7, 2048, 512),
    Layer("fc 2048-1000", 1, 2048, 1000),
]
BERT = [
    Layer("qkv, output 768-768", 128, 768, 768, matmul=True),
    Layer("scores 64-128", 128, 64, 128, matmul=True),
    Layer("context 128-64", 128, 128, 64, matmul=True),
    Layer("ffn 768-3072", 128, 768, 3072, matmul=True),
    Layer("ffn 3072-768", 128, 3072, 768, matmul=True),
]
NETWORKS = {"ResNet-50": RESNET50, "BERT-base": BERT}

# scheme, accumulator bits, signed activations
ROWS = {
    "4/4/4/4 acc 24": (LaneSpec(4, 4, 4, 4, 0, 0, 0, 24, SATURATE), True),
    "4/4/4/4 acc 28": (LaneSpec(4, 4, 4, 4, 0, 0, 0, 28, SATURATE), True),
    "8/8/-/- acc 29": (LaneSpec(8, 8, 0, 0, 0, 0, 0, 29, SATURATE), True),
    "4/8/6/10 acc 24": (LaneSpec(4, 8, 6, 10, 0, 0, 0, 24, SATURATE), False),
    "4/8/6/10 acc 41": (LaneSpec(4, 8, 6, 10, 0, 0, 0, 41, SATURATE), False),
}
HEADLINE = ("4/4/4/4 acc 24", "4/4/4/4 acc 28")


def gather_of(layer: Layer, pixels: int) -> np.ndarray:
    """int32[pixels, G] im2col indices of a stride-1, same-padded convolution over word vectors."""
    words = -(-layer.channels // V)
    if layer.taps == 1:
        position = np.arange(pixels)[:, None]
    else:
        half = layer.taps // 2
        row, column = np.divmod(np.arange(pixels), layer.size)
        r, s = np.divmod(np.arange(layer.taps**2), layer.taps)
        h, w = row[:, None] + r - half, column[:, None] + s - half
        inside = (h >= 0) & (h < layer.size) & (w >= 0) & (w < layer.size)
        position = np.where(inside, h * layer.size + w, -1)
    word = position[:, :, None] * words + np.arange(words)
    return np.where(position[:, :, None] < 0, -1, word).reshape(pixels, -1).astype(np.int32)


def operands(layer: Layer, pixels: int, spec: LaneSpec, signed: bool) -> tuple:
    rng = np.random.default_rng(0)
    gather = gather_of(layer, pixels)
    n, vectors = layer.pixels * -(-layer.channels // V), gather.shape[1]
    weight_max = (1 << (spec.weight_bits - 1)) - 1
    high = (1 << (spec.activation_bits - signed)) - 1
    weights = rng.integers(-weight_max, weight_max + 1, (layer.outputs, vectors, V)).astype(np.int8)
    words = rng.integers(-high if signed else 0, high + 1, (n, V)).astype(np.int8 if signed else np.uint8)
    scales = []
    for bits, shape in ((spec.weight_scale_bits, weights.shape[:2]), (spec.activation_scale_bits, (n,))):
        scales.append(rng.integers(0, 1 << bits, shape).astype(np.uint16) if bits else None)
    return weights, scales[0], words, scales[1], gather


# OpenBLAS's threads go on spinning for some 30 ms after a product and would take a core from what comes next.
SETTLE_S = 0.06


def seconds(function, repeats: int) -> float:
    """Time of the fastest call, after a pause and one call that is not counted (it wakes the threads)."""
    time.sleep(SETTLE_S)
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(layer: Layer, spec: LaneSpec, signed: bool, args: argparse.Namespace) -> dict:
    pixels = min(layer.pixels, args.max_pixels)
    weights, weight_scales, words, scales, gather = operands(layer, pixels, spec, signed)
    packed = pack_weights(weights, weight_scales, spec, path=args.path)
    reduction = layer.channels * layer.taps**2
    rng = np.random.default_rng(1)
    left = rng.standard_normal((pixels, reduction), np.float32)
    right = rng.standard_normal((reduction, layer.outputs), np.float32)

    def kernel():
        return accumulate(packed, words, scales, gather, spec)

    def blas():
        return left @ right

    kernel(), blas()
    repeats = max(1, int(0.02 / max(seconds(blas, 1), 1e-6)))
    times = [(seconds(blas, repeats), seconds(kernel, repeats)) for _ in range(args.rounds)]
    macs = pixels * reduction * layer.outputs
    blas_s, kernel_s = (min(own) for own in zip(*times, strict=True))
    return {
        "layer": layer.name + ("*" if pixels < layer.pixels else ""),
        "gmacs": macs / kernel_s / 1e9,
        "numpy_gmacs": macs / blas_s / 1e9,
        "ratio": blas_s / kernel_s,
    }


def worker(args: argparse.Namespace) -> None:
    """One JSON line per (row, layer)."""
    for row in args.rows or ROWS:
        spec, signed = ROWS[row]
        for network, layers in NETWORKS.items():
            for layer in layers:
                result = measure(layer, spec, signed, args)
                print(json.dumps({"row": row, "network": network, **result}), flush=True)


def first_call(args: argparse.Namespace) -> None:
    spec, signed = ROWS[HEADLINE[0]]
    weights, weight_scales, words, scales, gather = operands(BERT[1], 128, spec, signed)
    start = time.perf_counter()
    packed = pack_weights(weights, weight_scales, spec, path=args.path)
    accumulate(packed, words, scales, gather, spec)
    print(time.perf_counter() - start)
    small = gather[:1]
    print(min(seconds(lambda: accumulate(packed, words, scales, small, spec), 100) for _ in range(20)))


def run_self(mode: str, threads: int, args: argparse.Namespace, **environment: str) -> subprocess.Popen:
    command = [sys.executable, __file__, "--mode", mode, "--rounds", str(args.rounds)]
    command += ["--max-pixels", str(args.max_pixels)]
    command += ["--path", args.path] if args.path else []
    command += ["--rows", *args.rows] if args.rows else []
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(names, str(threads)), **environment}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def report(args: argparse.Namespace) -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as cache:
        for name in ("first call, compiling", "first call, cached"):
            out = run_self("first", 1, args, NUMBA_CACHE_DIR=cache).communicate()[0].split()
            print(f"{name}: {float(out[0]):.2f} s")
        print(f"call for one pixel x 128 outputs x 4 vectors: {float(out[1]) * 1e6:.0f} us")
    results = []
    for threads in args.threads:
        print(f"\n{threads} thread(s)\n{'row':<18}{'layer':<24}{'GMAC/s':>8}{'NumPy':>8}{'ratio':>7}")
        process = run_self("worker", threads, args)
        assert process.stdout is not None
        for line in process.stdout:
            result = {"threads": threads, **json.loads(line)}
            results.append(result)
            print(
                f"{result['row']:<18}{result['layer']:<24}{result['gmacs']:8.1f}"
                f"{result['numpy_gmacs']:8.1f}{result['ratio']:7.2f}",
                flush=True,
            )
        if process.wait():
            sys.exit(f"benchmark worker failed with status {process.returncode}")
    print(f"\n{'threads':<9}{'row':<18}{'layers':>7}{'lowest':>8}{'median':>8}{'highest':>9}   of ratios")
    for threads in args.threads:
        for row in args.rows or ROWS:
            ratios = [r["ratio"] for r in results if r["threads"] == threads and r["row"] == row]
            print(
                f"{threads:<9}{row:<18}{len(ratios):>7}{min(ratios):8.2f}{statistics.median(ratios):8.2f}"
                f"{max(ratios):9.2f}"
            )
    for threads in args.threads:
        for name, rows in (("4/4/4/4", HEADLINE), ("all rows", tuple(ROWS))):
            ratios = [r["ratio"] for r in results if r["row"] in rows and r["threads"] == threads]
            if ratios:
                median = statistics.median(ratios)
                print(f"median ratio to NumPy float32, {name}, {threads} thread(s): {median:.2f}")
    if load > 0.5:
        print(f"warning: load average was {load:.1f} at the start; threaded OpenBLAS collapses on busy cores")
    if args.csv:
        with open(args.csv, "w") as file:
            file.write(",".join(results[0]) + "\n")
            file.writelines(",".join(str(value) for value in r.values()) + "\n" for r in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", choices=("vnni", "portable"), help="default: the faster one this CPU has")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--max-pixels", type=int, default=3136)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="default: all")
    parser.add_argument("--csv", help="also write one line per measurement")
    modes = {"report": report, "worker": worker, "first": first_call}
    parser.add_argument("--mode", choices=list(modes), default="report", help=argparse.SUPPRESS)
    args = parser.parse_args()
    modes[args.mode](args)


if __name__ == "__main__":
    main()
