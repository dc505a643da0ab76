"""One PE at work: what its points rest on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import accelsim
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.report.library import library_of
from accelsim.report.price import area_um2_at
from accelsim.sweep.pe import _fitted, _never_waiting, _Work, grid, pe_points
from accelsim.synthetic.matmul import matmul


def test_a_grid_has_every_scheme_once() -> None:
    schemes = grid((4, 8), (None, 4, 6), (None, 8, 4), (16, 32))
    names = list(map(str, schemes))
    assert len(set(names)) == len(names)
    # 4/4/4/4 and its like are 8 bits wide anyway; schemes without scales have no blocks.
    both = 4 * 3 - 1
    assert len(names) == 4 * (1 + 2 * (4 + both))
    assert "4/8/-/-" in names and "4/8/4/6@32:sp4" in names and "4/4/4/4@16:sp8" not in names


def test_area_is_that_of_the_machine() -> None:
    frame = pe_points(["8/8/-/-", "4/4/4/6", "mxfp4"], (16,)).to_frame().set_index("scheme")
    arch = load_arch("magnet16")
    for name, row in frame.iterrows():
        for scope in ("datapath", "pe"):
            own = area_um2_at(arch, Scheme.parse(str(name)), library_of(arch, None), scope)
            assert row[f"area_{scope}_um2"] == pytest.approx(own, rel=1e-12)
            assert row[f"area_{scope}_um2_per_mac"] == pytest.approx(own / 256, rel=1e-12)


@pytest.mark.parametrize("size", [8, 16, 64])
@pytest.mark.parametrize(
    ("first", "second"), [("8/8/-/-", "3/4/-/-"), ("4/4/4/6@64", "8/8/6/8@64:sp4"), ("6/4/10/-", "3/8/4/-")]
)
def test_what_happens_does_not_depend_on_widths(size: int, first: str, second: str) -> None:
    """What lets points of a kind share one run: all that a PE does, at the widest and the narrowest words."""
    found = []
    for scheme in map(Scheme.parse, (first, second)):
        work = _Work(load_arch("magnet16", ["pes=1"]))
        counts = work._counts_of(_fitted(work.machine, size, scheme), scheme)
        outside = ("dram", "noc", "global")
        found.append({name: count for name, count in counts.items() if not name.startswith(outside)})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("scheme", "size"), [("8/8/-/-", 16), ("8/8/-/-", 32), ("4/4/4/6@32", 16), ("nvfp4", 16)]
)
def test_energy_is_that_of_a_run(scheme: str, size: int) -> None:
    """Of the lanes, whose prices no buffer and no port changes; a run has a few cycles more than steps."""
    own = Scheme.parse(scheme)
    # The larger buffers of the run do not keep 1 GHz.
    machine = load_arch("magnet16", ["pes=1", "clock_ghz=0.5"])
    (row,) = pe_points([scheme], (size,), machine).to_frame().to_dict("records")
    arch = _never_waiting(_fitted(machine, size, own), own)
    report = accelsim.run(matmul(), arch, scheme, gated_fraction=0.0).report
    macs = float(report.layers["macs"].sum())
    lanes = report.energy_pj("datapath") / macs * 1e3
    assert row["energy_datapath_fj_per_mac"] == pytest.approx(lanes, rel=1e-3)
    assert report.layers["utilization"].iloc[0] > 0.999
    assert row["energy_pe_fj_per_mac"] > row["energy_datapath_fj_per_mac"]


@pytest.mark.parametrize("size", [8, 16, 32])
def test_the_stated_activity(size: int) -> None:
    """Of 1,024 x 1,024 x 1,024: a word of the input is written once for 64 channels, one of weights once, and
    each is read once a step, of weights for all steps that the collector is deep."""
    scheme, work = Scheme.parse("8/8/-/-"), _Work(load_arch("magnet16", ["pes=1"]))
    arch = _fitted(work.machine, size, scheme)
    counts = work._counts_of(arch, scheme)
    words = 1024 * 1024 // size
    steps = words * 1024 // arch.lanes
    assert counts["control.cycle"] == counts["input_buffer.read"] == steps
    assert counts["input_buffer.write"] == words * 1024 // 64 and counts["weight_buffer.write"] == words
    assert counts["weight_buffer.read"] == steps * arch.lanes // arch.accumulation_collector_depth


def test_what_has_no_price_says_so() -> None:
    frame = pe_points(["4/4/4/6@2", "4/4/4/6@3", "4/4/4/6@64"], (64,)).to_frame()
    assert "no price for 32 blocks a step, more than 16" in frame["error"][0]
    assert "block is 3, expected to divide vector_size = 64" in frame["error"][1]
    assert frame["error"][2] == "" and np.isnan(frame["area_pe_um2"][:2]).all()
    assert (frame["bits_per_weight"] == [6, 4 + 4 / 3, 4 + 4 / 64]).all()


def test_smaller_blocks_of_a_vector_take_more() -> None:
    """At one vector size the codes are the same: scales, multiplies and what adds the products are more."""
    frame = pe_points([f"4/4/4/6@{block}{sp}" for sp in ("", ":sp6") for block in (32, 16, 8, 4)], (32,))
    for rows in (frame.to_frame()[:4], frame.to_frame()[4:]):
        assert (rows["error"] == "").all()
        for column in ("area_datapath_um2", "area_pe_um2", "energy_datapath_fj_per_mac"):
            assert (np.diff(rows[column]) > 0).all(), column


def test_points_draw_their_front() -> None:
    points = pe_points(["8/8/-/-", "4/4/4/6", "mxfp4"], (8, 16))
    axes = points.plot.pareto("area_pe_um2_per_mac", "energy_pe_fj_per_mac")
    assert "6 points" in axes.get_title("left")


@pytest.mark.parametrize("size", [0, -1, None, True, 1.5, "16"], ids=repr)
def test_vector_sizes_are_whole_numbers_from_1_on(size: Any) -> None:
    with pytest.raises(AccelsimError, match=r"vector_sizes holds .*, expected whole numbers from 1 on"):
        pe_points(["4/4/-/-"], [16, size])
