"""Operands measured on the bundled traces, and whole lanes against the sum of their parts."""

from __future__ import annotations

import csv
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accelsim.characterise import stimuli
from accelsim.characterise.arithmetic import accumulator
from accelsim.characterise.steps import DOT_BITS, SCALE_BITS, STEPS, TABLE

ROOT = Path(__file__).resolve().parents[1]
PDK = ROOT.parent / "shared/pdk/asap7"
LIBRARY_PARTS = ("AO", "OA", "SIMPLE", "INVBUF", "SEQ")


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """measure_steps and flat_lanes, which stand beside each other."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import flat_lanes
    import measure_steps

    yield measure_steps, flat_lanes
    for name in ("measure_steps", "flat_lanes"):
        sys.modules.pop(name, None)


def table() -> list[dict[str, int]]:
    with TABLE.open(newline="") as file:
        return [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_the_table_of_steps_is_made_from_the_bundled_traces(benchmarks: Any) -> None:
    measure_steps, _ = benchmarks
    made = [dict(zip(measure_steps.COLUMNS, row, strict=True)) for row in measure_steps.measure(1)]
    assert made == table()


def test_blocks_are_what_the_lanes_compute(benchmarks: Any) -> None:
    """Psums of steps against the kernel's: what is left after the last vector is the output's."""
    measure_steps, _ = benchmarks
    from accelsim.compute.lanes import accumulate_layer
    from accelsim.formats.scheme import Scheme
    from accelsim.machine.arch_file import load_arch
    from accelsim.open import open_workload

    arch, trace = load_arch("magnet16"), open_workload("digits")
    deepest = max(trace.layers, key=lambda layer: layer.geometry.C * layer.geometry.R)
    for text in ("8/8/-/-", "4/4/4/4:sp4"):
        layer = trace.quantized_layer(deepest.name, Scheme.parse(text), 16)
        psums, _ = accumulate_layer(arch, layer)
        pixels = np.arange(5, 12)
        steps = measure_steps.steps_at(arch, layer, 3, layer.spec.G - 1, pixels)
        assert (steps.psums + steps.products == psums[pixels, 3]).all() and steps.psums.any()


def test_operands_keep_their_share_of_full_scale() -> None:
    rows = table()
    full = 2 * SCALE_BITS
    for i, (dot, scale, held) in enumerate(
        zip(
            STEPS.dots(13, held_scale=False).tolist(),
            STEPS.scales(8, held_scale=False).tolist(),
            STEPS.scales(4, held_scale=True).tolist(),
            strict=True,
        )
    ):
        row = rows[i]
        assert dot == (row["dot"] + (1 << (DOT_BITS - 14))) // (1 << (DOT_BITS - 13))
        factors = (min(15, max(1, (row[name] + 32) // 64)) for name in ("weight_scale", "activation_scale"))
        assert scale == math.prod(factors), "of two scales of four bits"
        assert held == min(15, max(1, (row["weight_scale"] + 32) // 64))
    product = [row["dot"] * row["weight_scale"] * row["activation_scale"] for row in rows]
    assert STEPS.products(DOT_BITS + full).tolist() == product
    assert STEPS.psums(DOT_BITS + full).tolist() == [row["psum"] for row in rows]


def test_stated_statistics_of_the_steps_are_so() -> None:
    """accelsim/costs/tables/README.md, Stimuli."""
    dots, products = STEPS.dots(DOT_BITS, held_scale=False), STEPS.products(41).astype(float)

    def over_full_scale(values: np.ndarray, bits: int) -> tuple[float, float]:
        values = np.abs(values[values != 0].astype(float))
        full = 2.0 ** (bits - 1)
        return full / np.sqrt((values**2).mean()), full / 2 ** np.log2(values).mean()

    assert over_full_scale(dots, DOT_BITS) == (pytest.approx(48, abs=0.5), pytest.approx(113, abs=0.5))
    assert over_full_scale(products, 41) == (pytest.approx(140, abs=0.6), pytest.approx(1137, abs=1))
    assert np.mean(np.diff(np.sign(dots)) != 0) == pytest.approx(0.29, abs=0.005)
    psums = STEPS.psums(41).astype(float)
    assert np.sqrt((psums**2).mean() / (products**2).mean()) == pytest.approx(4.5, abs=0.05)


def test_held_and_changing_scales() -> None:
    blocks = np.array([row["block"] for row in table()])
    held, changing = (STEPS.weight_scales(10, held=h) for h in (True, False))
    same_block = np.diff(blocks) == 0
    assert not np.diff(held)[same_block].any(), "a weight vector has one scale"
    assert np.mean(np.diff(changing) == 0) < 0.1 and sorted(held) == sorted(changing)


def test_psums_do_not_depend_on_the_accumulator() -> None:
    """Of the same products: a wider accumulator has more copies of the sign."""
    narrow, wide = (stimuli.words(accumulator(16, bits), "dnn") for bits in (24, 32))
    assert narrow["a"] == wide["a"]
    assert [word & 0xFFFFFF for word in wide["w"]] == narrow["w"]
    assert {word >> 23 for word in wide["w"]} == {0, 0x1FF}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("yosys") is None, reason="yosys is not installed")
@pytest.mark.skipif(not PDK.is_dir(), reason="the ASAP7 Liberty files are not beside the repository")
@pytest.mark.parametrize(
    ("fast", "operands", "energy", "ratio"),
    [(False, "dnn", 0.05, 0.05), (True, "dnn", 0.07, 0.07), (True, "traces", 0.06, 0.05)],
    ids=["slow clock", "1 GHz at 16 nm", "1 GHz at 16 nm, by what switches"],
)
def test_parts_add_up_to_flat_lanes_of_every_family(
    benchmarks: Any, fast: bool, operands: str, energy: float, ratio: float
) -> None:
    """A scheme of each family of scales, and its ratio to 8/8/-/-. What is left: docs/decisions.md."""
    _, flat_lanes = benchmarks
    files = [next(PDK.glob(f"*_{part}_*")) for part in LIBRARY_PARTS]
    schemes = ("8/8/-/-", "4/4/-/-", "4/4/4/-", "6/8/-/10", "4/4/4/4", "4/4/4/4:sp4", "4/8/6/10")
    settings = flat_lanes.AT_THE_CLOCK if fast else flat_lanes.SLOW
    activity, blocks = ("tables", 14) if operands == "dnn" else ("data", 40)
    base, *others = flat_lanes.compare(
        files, schemes, settings=settings, operands=operands, activity=activity, blocks=blocks
    )
    for found in (base, *others):
        assert found.parts_area_um2 / found.area_um2 == pytest.approx(1, abs=0.03 if fast else 0.02), found
        assert found.parts_energy_fj / found.energy_fj == pytest.approx(1, abs=energy), found
        flat = found.energy_fj / base.energy_fj
        assert found.parts_energy_fj / base.parts_energy_fj == pytest.approx(flat, rel=ratio), found
        assert found.delay_ps / found.parts_delay_ps < (1.1 if fast else 1.2), found
