"""How many scale products `:spN` makes 0, and how many would have to be for a published energy.

    python benchmarks/zero_products.py [WORKLOAD ...]

Prints the tables of docs/validate.md, Rounded scale products. First, of all lane steps, the share whose scale
product is 0 while vectors and scales are not, under the rule of docs/numerics.md and under others. Then PE
energy of ResNet-50 over that of 8/8/-/- against that share, by what is gated, and the share at which it would
be the published one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from accelsim_kernels import activation_profile, live_products, weight_profile

import accelsim
from accelsim.compute.activity import join
from accelsim.compute.computed import ZeroCounts
from accelsim.compute.lanes import channels_of, pixel_blocks
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.open import open_workload
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.report.library import library_of
from accelsim.report.price import PriceRequest, price
from accelsim.workload.layer import QuantizedLayer

WORKLOADS = ["digits", "text_direction", "minilm_layer0", "resnet50"]
SCHEMES = ["4/4/4/4:sp6", "6/6/4/4:sp4"]
PUBLISHED = {"4/4/4/4:sp6": 0.425, "6/6/4/4:sp4": 0.626}  # VS-Quant, Figure 3
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
PER_TENSOR = QuantizeOptions(weight_granularity="tensor")
# name, options, largest activation scale over that of the data, bits less than N, floor instead of half up
RULES = (
    ("half up", None, 1, 0, False),
    ("floor", None, 1, 0, True),
    ("half up, one gamma a weight tensor", PER_TENSOR, 1, 0, False),
    ("floor, one gamma a weight tensor", PER_TENSOR, 1, 0, True),
    ("half up, activation outlier of 4 times the range", None, 4, 0, False),
    ("floor, activation outlier of 4 times the range", None, 4, 0, True),
    ("floor, both", PER_TENSOR, 4, 0, True),
    ("half up to N - 1 bits", None, 1, 1, False),
    ("half up to N - 2 bits", None, 1, 2, False),
    ("floor to N - 1 bits", None, 1, 1, True),
)


def quantized(workload: str, scheme: Scheme, options: QuantizeOptions | None) -> Iterator[QuantizedLayer]:
    opened = open_workload(workload)
    for layer in opened.layers:
        yield opened.quantized_layer(layer.name, scheme, 16, options)


def zero_share(layers: Iterator[QuantizedLayer], outlier: int, shift: int) -> float:
    """Of all lane steps, those with live vectors and scales whose product is below half of 2^shift.

    A tensor whose largest scale is `outlier` times as large has that gamma: with scales rounded up the others
    are exactly ceil(scale / outlier).
    """
    zeros = steps = 0
    for layer in layers:
        scales = layer.input_scales
        if scales is not None:
            scales = (-(-scales.astype(np.int64) // outlier)).astype(np.uint16)
        for group in range(layer.geometry.groups):
            k = channels_of(layer, group)
            own = None if layer.weight_scales is None else layer.weight_scales[k]
            weights = weight_profile(layer.weight_words[k], own)
            for rows in pixel_blocks(layer):
                gather = layer.spec.gather(group, np.arange(rows.start, rows.stop))
                inputs = activation_profile(layer.input_words, scales, gather)
                live = int(weights.live @ inputs.live)
                zeros += live - int(live_products(weights, inputs, shift).sum())
        steps += layer.geometry.pixels * layer.geometry.K * layer.spec.G
    return zeros / steps


def shares(workloads: list[str]) -> None:
    print(f"| scheme, product | {' | '.join(workloads)} |\n|---|{'---|' * len(workloads)}")
    for name in SCHEMES:
        scheme = Scheme.parse(name)
        for rule, options, outlier, less, floor in RULES:
            # floor(product / 2^sh) is 0 where the product is below half of 2^(sh + 1).
            shift = scheme.scale_product_shift + less + floor
            found = [zero_share(quantized(own, scheme, options), outlier, shift) for own in workloads]
            print(f"| {name}, {rule} | {' | '.join(f'{100 * own:.2f}' for own in found)} |", flush=True)


def pe_energies_pj(gating: str, scheme: str, zero_shares: tuple[float, ...]) -> list[float]:
    """PE energy of ResNet-50 with each share of the live lane steps rounded to 0, at every g alike."""
    # The clock that gating on the product of the scales allows.
    arch = load_arch("magnet16", [f"gate_on_scale_product={gating}", "clock_ghz=0.8"])
    run = accelsim.run("resnet50", arch, scheme, gated_fraction=0.0, keep_tensors=False)
    library, found = library_of(arch, None), []
    for share in zero_shares:
        activities = []
        for own in run.activities:
            geometry, zeros = own.layer.geometry, own.computed.zeros
            firsts = geometry.pixels * geometry.K * own.mapping.c_split
            rounded = round(share * (own.lane_steps - zeros.gated_steps))
            held = zeros.held_steps + round(share * (own.lane_steps - firsts - zeros.held_steps))
            assumed = ZeroCounts(zeros.gated_steps, zeros.zero_operand_macs, rounded, held)
            activities.append(join(arch, own.timing, replace(own.computed, zeros=assumed)))
        report = price(PriceRequest(arch, Scheme.parse(scheme), activities, library))
        found.append(report.energy_pj("pe"))
    return found


def energies(scheme: str) -> None:
    base = pe_energies_pj("none", "8/8/-/-", (0.0,))[0]
    columns = " | ".join(f"{100 * own:g} %" for own in SHARES)
    print(f"\n| {scheme}, gating | {columns} | share wanted |\n|---|{'---|' * (len(SHARES) + 1)}")
    for gating in ("none", "multiply", "dot"):
        found = [own / base for own in pe_energies_pj(gating, scheme, SHARES)]
        wanted = (found[0] - PUBLISHED[scheme]) / (found[0] - found[-1]) if gating != "none" else np.inf
        said = f"{100 * wanted:.0f} %" if wanted <= 1 else f"none gives {PUBLISHED[scheme]}"
        print(f"| {gating} | {' | '.join(f'{own:.3f}' for own in found)} | {said} |", flush=True)


if __name__ == "__main__":
    shares(sys.argv[1:] or WORKLOADS)
    for own in SCHEMES:
        energies(own)
