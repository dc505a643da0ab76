"""Bits that change in the lanes: kernel against its twin, the sample against all steps, laws against rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelsim_kernels import Runs, Toggles, toggles
from accelsim_kernels.reference_toggles import toggles_reference

import accelsim
from accelsim.compute import toggles as sampling
from accelsim.compute.lanes import lane_spec
from accelsim.compute.toggles import sample_toggles
from accelsim.costs import CostLibrary, Technology
from accelsim.costs.activity import ActivityLaws
from accelsim.costs.tables import ACTIVITY, DATAPATH, TABLES_DIR, Row, read_table
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.plan import StepOrder
from accelsim.open import open_workload

pytestmark = pytest.mark.kept

ARCH = load_arch("magnet16", ["accumulator_bits=14"])
SCHEMES = ("4/4/4/4", "8/8/-/-", "4/8/6/10:sp7", "3/5/4/-", "6/4/-/5", "4/4/4/4:sp3")


@pytest.mark.parametrize("gating", [0, 1, 2])
@pytest.mark.parametrize("text", SCHEMES)
@pytest.mark.parametrize("held", [True, False])
def test_kernel_is_its_twin(text: str, held: bool, gating: int) -> None:
    scheme, random = Scheme.parse(text), np.random.default_rng(len(text))
    weight, activation = scheme.weight, scheme.activation
    signed = held
    high = activation.of_sign(signed).qmax
    words = random.integers(-weight.qmax, weight.qmax + 1, (5, 6, 4)).astype(np.int8)
    words[random.random((5, 6)) < 0.2] = 0
    inputs = random.integers(-high if signed else 0, high + 1, (40, 4))
    inputs = (inputs * (random.random((40, 1)) < 0.7)).astype(np.int8 if signed else np.uint8)
    scales = [
        random.integers(0, 1 << bits, shape).astype(np.uint16) if bits else None
        for bits, shape in ((weight.scale.bits, (5, 6)), (activation.scale.bits, 40))
    ]
    part = np.array([0, 2, 3, 5])
    taps = random.integers(-1, 40, (7, 3, len(part))).astype(np.int32)
    runs = Runs(random.integers(0, 5, 7), part, random.integers(0, 3, 7), taps, 2, held)
    arch = ARCH.model_copy(update={"product_shift": 2 if held else 0})
    arguments = words, scales[0], inputs, scales[1], runs, lane_spec(arch, scheme)
    found = toggles(*arguments, arch.activation_operand_bits(scheme), gating)
    assert found == toggles_reference(*arguments, arch.activation_operand_bits(scheme), gating)
    assert found.steps == 42 and 0 < found.live_steps < 42 and found.dot_product > 0
    assert (found.products < found.live_steps) == (gating > 0 and text.endswith("sp3"))
    assert (found.additions < found.steps) == (gating > 0)


@pytest.mark.parametrize("gating", [0, 1, 2])
@pytest.mark.parametrize("text", ["4/4/4/4", "8/8/-/-", "3/5/4/-", "6/4/-/5", "4/4/4/4:sp3"])
@pytest.mark.parametrize("held", [True, False])
def test_words_of_several_blocks(text: str, held: bool, gating: int) -> None:
    """Kernel and twin, and of blocks that differ in nothing what one of them takes, once for each."""
    scheme, random, blocks = Scheme.parse(text), np.random.default_rng(len(text)), 3
    weight, activation = scheme.weight, scheme.activation
    high = activation.of_sign(True).qmax
    words = random.integers(-weight.qmax, weight.qmax + 1, (5, 6, blocks, 4)).astype(np.int8)
    words[random.random((5, 6, blocks)) < 0.4] = 0
    inputs = random.integers(-high, high + 1, (40, blocks, 4))
    inputs = (inputs * (random.random((40, blocks, 1)) < 0.5)).astype(np.int8)
    shapes = (weight.scale.bits, (5, 6, blocks)), (activation.scale.bits, (40, blocks))
    scales = [
        random.integers(0, 1 << bits, shape).astype(np.uint16) if bits else None for bits, shape in shapes
    ]
    part = np.array([0, 2, 3, 5])
    taps = random.integers(-1, 40, (7, 3, len(part))).astype(np.int32)
    runs = Runs(random.integers(0, 5, 7), part, random.integers(0, 3, 7), taps, 2, held)
    arch = ARCH.model_copy(update={"product_shift": 2 if held else 0, "accumulator_bits": 22})
    more = runs, lane_spec(arch, scheme), arch.activation_operand_bits(scheme), gating

    def both(count: int, *chosen: int) -> Toggles:
        own = [None if scale is None else scale[..., chosen] for scale in scales]
        if count == 1:
            own = [None if scale is None else scale[..., 0] for scale in own]
        operands = words[:, :, chosen].reshape(5, 6, -1), own[0], inputs[:, chosen].reshape(40, -1), own[1]
        found = toggles(*operands, *more, count)
        assert found == toggles_reference(*operands, *more, count)
        return found

    found = both(3, 0, 1, 2)
    assert found.steps == 42 and 0 < found.live_steps < 42 and found.dot_product > 0
    one, twice = both(1, 0), both(2, 0, 0)
    for name in ("dot_product", "scale_product", "scale_multiply", "weight_register", "input_register"):
        assert getattr(twice, name) == 2 * getattr(one, name), name
    for name in ("steps", "live_steps", "products", "additions"):
        assert getattr(twice, name) == getattr(one, name), name


def test_runs_outside_of_the_operands_are_refused() -> None:
    words, inputs = np.ones((1, 2, 4), np.int8), np.ones((3, 4), np.int8)
    one = np.zeros(1, np.int64)
    runs = Runs(one, np.arange(2), one, np.full((1, 1, 2), 3, np.int32), 1, True)
    with pytest.raises(ValueError, match="taps from 4 to 4, expected 0 to 3"):
        toggles(words, None, inputs, None, runs, lane_spec(ARCH, Scheme.parse("4/4/-/-")), 5)


@pytest.mark.kept(False)
def test_a_sample_stands_for_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = open_workload("digits").quantized_layer("conv5", Scheme.parse("4/4/4/4"), 16)
    order = StepOrder(1, "os-lws", 16)
    found = sample_toggles(ARCH, layer, order)
    assert found == sample_toggles(ARCH, layer, order)
    assert found.weight_changes == 1 / 16
    monkeypatch.setattr(sampling, "SAMPLED_STEPS", 1 << 19)
    whole = sample_toggles(ARCH, layer, order)
    assert found.steps < whole.steps / 4
    for part, value in whole.by_part.items():
        assert found.by_part[part] == pytest.approx(value, rel=0.03), part
    # In os the weight operand changes at every step.
    changing = sample_toggles(ARCH, layer, StepOrder(1, "os", 16))
    assert changing.weight_changes == 1
    assert changing.by_part["dot_product"] > 1.2 * whole.by_part["dot_product"]


def test_energy_follows_the_operands_of_a_run() -> None:
    by_data, by_tables, unknown = (
        accelsim.run("digits", scheme="4/4/4/4", activity=activity, gated_fraction=gated)
        for activity, gated in (("data", None), ("tables", None), ("data", 0.0))
    )
    assert by_data.summary["activity"] == "data" and unknown.summary["activity"] == "tables"
    assert by_tables.summary["activity"] == "tables"
    rows = by_data.report.components
    followed = rows[rows["activity"] != 1]
    assert set(followed["component"]) == {
        "dot_product", "scale_product", "scale_multiply", "accumulator", "pipeline_register",
        "weight_register", "input_register",
    }  # fmt: skip
    assert (by_tables.report.components["activity"] == 1).all() and (
        unknown.report.components["activity"] == 1
    ).all()
    same = rows.set_index(["layer", "component", "action"])["energy_pj"]
    other = by_tables.report.components.set_index(["layer", "component", "action"])["energy_pj"]
    assert same[:, "weight_buffer", "read"].equals(other[:, "weight_buffer", "read"])
    explained = by_data.explain().set_index(["component", "action"])
    dot = explained.loc[("dot_product", "op")]
    assert dot["energy_pj"] == pytest.approx(dot["count"] * dot["energy_per_action_pj"])
    price = by_tables.explain().set_index(["component", "action"]).loc[("dot_product", "op")]
    assert dot["energy_per_action_pj"] == pytest.approx(dot["activity"] * price["energy_per_action_pj"])
    with pytest.raises(AccelsimError, match="activity is 'trace', expected data or tables"):
        accelsim.run("digits", activity="trace")


LIBRARY = CostLibrary(Technology(node_nm=7, voltage_v=0.7))
ROWS = read_table(ACTIVITY, TABLES_DIR)


def rows_of(family: str, stimulus: str) -> dict[str, Row]:
    return {
        row.text["block"]: row
        for row in ROWS
        if (row.text["family"], row.text["stimulus"]) == (family, stimulus)
    }


def test_activity_rows_are_of_the_blocks_that_are_priced() -> None:
    """At the operands that price a block its toggles change nothing, and its energy is that of the table."""
    priced = {
        (row.text["block"], row.text["stimulus"]): row["energy_fj"]
        for row in read_table(DATAPATH, TABLES_DIR)
    }
    both = [row for row in ROWS if (row.text["block"], row.text["stimulus"]) in priced]
    assert len(both) > 200
    for row in both:
        assert row["energy_fj"] == priced[row.text["block"], row.text["stimulus"]], row
    for row in rows_of("dot", "dnn_ws16").values():
        size = 16, int(row["weight_bits"]), int(row["activation_bits"])
        law = LIBRARY.dot_product(*size, held_operand=True).activity["op"]
        assert law(row["toggles"], 1 / 16) == pytest.approx(1), row


@pytest.mark.parametrize("stimulus", ["dnn_sparse_ws16", "dnn_dense_ws16", "dnn_sparse", "dnn_dense"])
def test_dot_products_under_little_and_much_that_changes(stimulus: str) -> None:
    """Price times law against the row, at widths from 3 bits on."""
    held, errors = stimulus.endswith("_ws16"), []
    for row in rows_of("dot", stimulus).values():
        weight, operand = int(row["weight_bits"]), int(row["activation_bits"])
        if min(weight, operand) < 3:
            continue
        # Both prices carry the laws of both operands: weights that stay, and weights that change.
        for base in (True, False):
            cost = LIBRARY.dot_product(16, weight, operand, held_operand=base)
            found = cost.energy_pj["op"] * cost.activity["op"](row["toggles"], 1 / 16 if held else 1.0)
            errors.append(found * 1e3 / row["energy_fj"] - 1)
    assert np.median(np.abs(errors)) < 0.04 and np.max(np.abs(errors)) < 0.15


def test_laws_rise_from_nothing() -> None:
    costs = {
        "dot_product": (LIBRARY.dot_product(16, 4, 5, held_operand=True), "op"),
        "scale_product": (LIBRARY.scale_product(4, 6, 0, held=True), "op"),
        "scale_multiply": (LIBRARY.scale_multiply(13, 10, held=False), "op"),
        "accumulator": (LIBRARY.accumulator(26, 23), "add"),
        "register": (LIBRARY.register(68, data="half zero"), "write"),
    }
    for name, (cost, action) in costs.items():
        law = cost.activity[action]
        found = [law(toggles, 1 / 16) for toggles in np.linspace(0, 100, 60)]
        assert (np.diff(found) > 0).all(), name
        assert found[0] == pytest.approx(law.still) and (law.still > 0) == (name == "register")
    dot = costs["dot_product"][0].activity["op"]
    assert dot(30, 0.0) == dot(30, 1 / 16) and dot(30, 1 / 16) != dot(30, 0.5) != dot(30, 1.0)


def test_registers_are_linear_in_the_bits_that_change() -> None:
    random, half_zero = (LIBRARY.register(32, data=data) for data in ("random", "half zero"))
    rows = {stimulus: rows_of("register", stimulus)["ff32_icgen"] for stimulus in ("en1", "en1_half_zero")}
    at_random = random.energy_pj["write"] * random.activity["write"](rows["en1"]["toggles"], 1.0)
    assert at_random == pytest.approx(random.energy_pj["write"])
    # Whatever data a price is for, the law leads to the same energy; the row in between is met.
    toggles = rows["en1_half_zero"]["toggles"]
    found = [own.energy_pj["write"] * own.activity["write"](toggles, 1.0) for own in (random, half_zero)]
    assert found[0] == pytest.approx(found[1])
    assert found[0] == pytest.approx(half_zero.energy_pj["write"], rel=0.02)


def test_a_price_of_ones_own_does_not_follow_operands(tmp_path: Path) -> None:
    prices = tmp_path / "mine.csv"
    prices.write_text('component,quantity,value,unit\ndot_product,"energy, op",50,fJ\n')
    rows = accelsim.run("digits", costs=prices).report.components.set_index(["component", "action"])
    assert (rows.loc[("dot_product", "op"), "energy_per_action_pj"] == 0.05).all()
    assert (rows.loc[("accumulator", "add"), "activity"] != 1).all()


def test_toggles_are_for_each_operation_that_is_charged() -> None:
    sums = Toggles(
        steps=100, live_steps=50, products=40, additions=80, weight_loads=10, input_reads=20,
        dot_product=4000, scale_product=200, scale_multiply=400, accumulator=1600, pipeline=600,
        weight_register=70, input_register=80,
    )  # fmt: skip
    same = {"scale_multiply": 10, "pipeline_register": 15, "accumulator": 20, "weight_register": 7}
    found = sampling._per_operation(sums, gates_dot=False)
    assert found.by_part == same | {"dot_product": 80, "scale_product": 4, "input_register": 4}
    assert (found.weight_changes, found.steps) == (0.1, 100)
    found = sampling._per_operation(sums, gates_dot=True)
    assert found.by_part == same | {"dot_product": 100, "scale_product": 2, "operand_register": 2}


def test_longer_vectors_have_as_many_more_toggles() -> None:
    laws = [LIBRARY.dot_product(size, 4, 5, held_operand=True).activity["op"] for size in (16, 64)]
    for changed in (5.0, 40.0, 90.0):
        assert laws[1](4 * changed, 0.2) == pytest.approx(laws[0](changed, 0.2), rel=0.02)


def test_a_sample_sees_all_of_the_image() -> None:
    layer = open_workload("digits").quantized_layer("conv2", Scheme.parse("8/8/-/-"), 16)
    order = StepOrder(1, "os-lws", 16)
    words = layer.input_words.copy()
    words[: 7 * len(words) // 8] = 0  # something happens in the last rows alone
    found = sample_toggles(ARCH, replace(layer, input_words=words), order)
    assert (
        0.03 < found.by_part["accumulator"] / sample_toggles(ARCH, layer, order).by_part["accumulator"] < 0.5
    )


def test_tables_of_activity_that_do_not_fit_together_are_refused() -> None:
    named = [
        replace(row, text={**row.text, "block": "other"}) if row.text["stimulus"] == "dnn_calm" else row
        for row in ROWS
    ]
    with pytest.raises(AccelsimError, match="other has no row of stimulus dnn, expected one to compare with"):
        ActivityLaws(named)
