"""Prices of lanes with several blocks a word: what is there for each block, and what adds their products."""

from __future__ import annotations

import pytest

import accelsim
from accelsim.characterise.steps import STEPS, apart, carry_saved
from accelsim.costs import CostLibrary, Technology
from accelsim.costs.tables import DATAPATH, TABLES_DIR, read_table
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine import timing
from accelsim.machine.arch_file import load_arch
from accelsim.report.frequency import meets_clock, stage_delays
from accelsim.report.inventory import Part, build_inventory
from accelsim.report.part import technology_of, words_of

pytestmark = pytest.mark.kept

LIBRARY = CostLibrary(Technology(node_nm=7, voltage_v=0.7))
PER_BLOCK = ("dot_product", "scale_product", "scale_multiply")


def parts(scheme: str, *overrides: str) -> dict[str, Part]:
    own, arch = Scheme.parse(scheme), load_arch("magnet16", list(overrides))
    return {part.name: part for part in build_inventory(arch, own, CostLibrary(technology_of(arch)))}


@pytest.mark.parametrize(("size", "blocks"), [(32, 2), (64, 4)])
@pytest.mark.parametrize("scheme", ["4/4/4/6", "8/8/4/4", "nvfp4"])
def test_a_lane_has_of_each_block_what_a_lane_of_that_vector_has(scheme: str, size: int, blocks: int) -> None:
    """But for what adds their products."""
    text = scheme if scheme == "nvfp4" else f"{scheme}@16"
    one, several = parts(text, "accumulator_bits=30"), parts(
        text, "accumulator_bits=30", f"vector_size={size}", "out_fifo_words=64"
    )  # fmt: skip
    for name in (*PER_BLOCK, *(("scale_sum", "align") if scheme == "nvfp4" else ())):
        own, wanted = several[name].cost, one[name].cost
        assert several[name].instances == one[name].instances
        assert own.area_um2 == pytest.approx(blocks * wanted.area_um2)
        assert own.leakage_uw == pytest.approx(blocks * wanted.leakage_uw)
        for action, energy_pj in wanted.energy_pj.items():
            assert own.energy_pj[action] == pytest.approx(blocks * energy_pj)
        assert own.delay_ps == wanted.delay_ps
        for action, law in wanted.activity.items():
            assert own.activity[action](blocks * 50.0, 1 / 16) == pytest.approx(law(50.0, 1 / 16))
    assert several["accumulator"].cost.area_um2 > one["accumulator"].cost.area_um2
    assert ("block_sum" in several) == ("block_sum_register" in several) == (blocks > 2)
    assert "block_sum" not in one
    register = several["weight_register"].cost.area_um2 / one["weight_register"].cost.area_um2
    assert register == pytest.approx(blocks), "as many codes and scales"
    arch = load_arch("magnet16", [f"vector_size={size}"])
    assert all(meets_clock(arch, delay_ps) for delay_ps in stage_delays(list(several.values())).values())


def test_words_have_a_scale_for_each_block() -> None:
    arch, scheme = load_arch("magnet16", ["vector_size=32"]), Scheme.parse("4/4/4/6@8")
    assert [word.bits for word in words_of(arch, scheme)] == [32 * 4 + 4 * 4, 32 * 4 + 4 * 6]
    assert [word.detected_bits for word in words_of(arch, scheme)] == [144, 152]
    weight, _ = words_of(load_arch("magnet16", ["vector_size=64"]), Scheme.parse("mxfp4"))
    assert (weight.bits, weight.register_bits, weight.detected_bits) == (64 * 4 + 16, 64 * 5 + 16, 64 * 3)


def test_more_than_two_blocks_take_a_cycle_more() -> None:
    arch = load_arch("magnet16", ["vector_size=32"])
    latencies = [timing.write_latency(arch, Scheme.parse(f"4/4/4/6@{block}")) for block in (32, 16, 8, 4)]
    assert latencies == [8, 8, 9, 9]


def test_prices_are_near_their_rows() -> None:
    """Delays are the rows' own; laws of few rows leave so much."""
    rows = read_table(DATAPATH, TABLES_DIR)
    checked = 0
    for row in rows:
        family = row.text["family"].removeprefix("fast_")
        if row.text["stimulus"] != "dnn" or family not in (
            "block_accumulator", "pair_accumulator", "block_sum",
        ):  # fmt: skip
            continue
        bits, product = int(row["accumulator_bits"]), int(row["input_bits"])
        fast = row.text["family"] != family
        period_ps = 1.0 if fast else None  # the fastest there is, or the smallest
        blocks = int(row.numbers.get("vector_size", 2))
        if family == "block_sum":
            cost, action = LIBRARY.block_sum(blocks, product, bits), "op"
            assert cost.delay_ps == pytest.approx(row["delay_ps"] + 70, abs=1)
        else:
            cost = LIBRARY.block_accumulator(bits, product, blocks, period_ps=period_ps)
            action = "add"
            assert cost.delay_ps == pytest.approx(row["delay_ps"] + (0 if fast else 70), abs=1)
        assert cost.area_um2 == pytest.approx(row["area_um2"], rel=0.1), row.text["block"]
        assert cost.energy_pj[action] * 1e3 == pytest.approx(row["energy_fj"], rel=0.17), row.text["block"]
        checked += 1
    assert checked == 16 + 2 * (7 + 4)


def test_formats_take_what_their_data_do() -> None:
    usual = LIBRARY.block_accumulator(28, 30, 2)
    for values in ("mxint8", "mxfp4", "nvfp4"):
        own = LIBRARY.block_accumulator(28, 30, 2, values=values)
        rows = {
            row.text["stimulus"]: row["energy_fj"]
            for row in read_table(DATAPATH, TABLES_DIR)
            if row.text["block"] == "acc_two_p30_n28"
        }
        ratio = own.energy_pj["add"] / usual.energy_pj["add"]
        assert ratio == pytest.approx(rows[values] / rows["dnn"]) and 0.5 < ratio < 1
        assert own.area_um2 == usual.area_um2 and own.stimulus == values


def test_more_blocks_than_rows_reach_to_are_refused() -> None:
    with pytest.raises(AccelsimError, match="cost of block_sum: blocks is 17, expected a whole number 3 to"):
        LIBRARY.block_sum(17, 20, 28)
    with pytest.raises(AccelsimError, match="no price for 32 blocks a step, more than 16; expected run or"):
        parts("4/4/4/4@2", "vector_size=64")


def test_carry_saved_words_have_the_sum() -> None:
    values = apart(STEPS.products(20), 7)
    assert len(values) == 7 and len({tuple(own.tolist()) for own in values}) == 7
    first, second = carry_saved(values, 24)
    assert ((first + second - sum(values)) % (1 << 24) == 0).all()


def test_a_run_is_priced_by_what_switches_in_every_block() -> None:
    run, tables = (
        accelsim.run("digits", scheme="4/4/4/6@4", activity=activity) for activity in ("data", "tables")
    )
    rows = run.report.components.set_index(["layer", "component", "action"])["energy_pj"]
    followed = run.report.components[run.report.components["activity"] != 1]
    assert {"dot_product", "scale_product", "scale_multiply", "accumulator"} <= set(followed["component"])
    assert not {"block_sum", "block_sum_register"} & set(followed["component"])
    counts = tables.explain().set_index(["component", "action"])
    assert counts.loc[("block_sum", "op"), "count"] == counts.loc[("pipeline_register", "write"), "count"]
    assert (rows[:, "block_sum", "op"] > 0).all()
