"""Bits that change in the lanes: kernel against its twin, the sample against all steps, laws against tables."""

from __future__ import annotations

import numpy as np
import pytest
from accelsim_kernels import Runs, toggles
from accelsim_kernels.reference import toggles_reference

import accelsim
from accelsim.compute import toggles as sampling
from accelsim.compute.lanes import lane_spec
from accelsim.compute.toggles import sample_toggles
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import load_arch
from accelsim.mapping.plan import LayerMapping
from accelsim.open import open_workload

ARCH = load_arch("magnet16", ["accumulator_bits=14"])
SCHEMES = ("4/4/4/4", "8/8/-/-", "4/8/6/10:sp7", "3/5/4/-", "6/4/-/5")


@pytest.mark.parametrize("text", SCHEMES)
@pytest.mark.parametrize("held", [True, False])
def test_kernel_is_its_twin(text: str, held: bool) -> None:
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
    found = toggles(*arguments, arch.activation_operand_bits(scheme))
    assert found == toggles_reference(*arguments, arch.activation_operand_bits(scheme))
    assert found.steps == 42 and 0 < found.live_steps < 42 and found.dot_product > 0


def test_runs_outside_of_the_operands_are_refused() -> None:
    words, inputs = np.ones((1, 2, 4), np.int8), np.ones((3, 4), np.int8)
    one = np.zeros(1, np.int64)
    runs = Runs(one, np.arange(2), one, np.full((1, 1, 2), 3, np.int32), 1, True)
    with pytest.raises(ValueError, match="taps from 4 to 4, expected 0 to 3"):
        toggles(words, None, inputs, None, runs, lane_spec(ARCH, Scheme.parse("4/4/-/-")), 5)


def test_a_sample_stands_for_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = open_workload("digits").quantized_layer("conv5", Scheme.parse("4/4/4/4"), 16)
    mapping = LayerMapping(1, 1, "KP", 16, 1, layer.spec.G)
    found = sample_toggles(ARCH, layer, mapping)
    assert found == sample_toggles(ARCH, layer, mapping)
    assert found.weight_changes == 1 / 16
    monkeypatch.setattr(sampling, "SAMPLED_STEPS", 1 << 19)
    whole = sample_toggles(ARCH, layer, mapping)
    assert found.steps < whole.steps / 4
    for part, value in whole.by_part.items():
        assert found.by_part[part] == pytest.approx(value, rel=0.03), part
    # In os the weight operand changes at every step.
    changing = sample_toggles(ARCH, layer, LayerMapping(1, 1, "KP", 16, 1, layer.spec.G, dataflow="os"))
    assert changing.weight_changes == 1
    assert changing.by_part["dot_product"] > 1.2 * whole.by_part["dot_product"]


def test_energy_follows_the_operands_of_a_run() -> None:
    by_data, by_tables, unknown = (
        accelsim.run("digits", scheme="4/4/4/4", activity=activity, gated_fraction=gated)
        for activity, gated in (("data", None), ("tables", None), ("data", 0.0))
    )
    assert by_data.summary["activity"] == "data" and unknown.summary["activity"] == "tables"
    assert by_tables.summary["activity"] == "tables"
    rows = by_data.components
    followed = rows[rows["activity"] != 1]
    assert set(followed["component"]) == {
        "dot_product", "scale_product", "scale_multiply", "accumulator", "pipeline_register",
        "weight_register", "input_register",
    }  # fmt: skip
    assert (by_tables.components["activity"] == 1).all() and (unknown.components["activity"] == 1).all()
    same = rows.set_index(["layer", "component", "action"])["energy_pj"]
    other = by_tables.components.set_index(["layer", "component", "action"])["energy_pj"]
    assert same[:, "weight_buffer", "read"].equals(other[:, "weight_buffer", "read"])
    explained = by_data.explain().set_index(["component", "action"])
    dot = explained.loc[("dot_product", "op")]
    assert dot["energy_pj"] == pytest.approx(dot["count"] * dot["energy_per_action_pj"])
    price = by_tables.explain().set_index(["component", "action"]).loc[("dot_product", "op")]
    assert dot["energy_per_action_pj"] == pytest.approx(dot["activity"] * price["energy_per_action_pj"])
    with pytest.raises(AccelsimError, match="activity is 'trace', expected data or tables"):
        accelsim.run("digits", activity="trace")
