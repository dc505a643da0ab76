"""Prices of machines of block formats: parts of lanes and PPUs, clock, modes that share multipliers."""

import pytest

import accelsim
from accelsim.costs import CostLibrary, Technology
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import SCHEMES
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.report.format_parts import block_registers
from accelsim.report.frequency import meets_clock, stage_delays
from accelsim.report.inventory import Part, build_inventory
from accelsim.report.part import technology_of

pytestmark = pytest.mark.kept

LANE = {"dot_product", "scale_sum", "align", "accumulator", "pipeline_register", "weight_register"}


def parts(scheme: str, *overrides: str) -> dict[str, Part]:
    own = Scheme.parse(scheme)
    arch = load_arch("magnet16", list(overrides)).in_mode(own)
    return {part.name: part for part in build_inventory(arch, own, CostLibrary(technology_of(arch)))}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_machine_has_the_parts_of_its_format_and_keeps_the_clock(scheme):
    own = parts(scheme)
    significands, floats = {"scale_product", "scale_multiply"}, {"weight_decode", "input_decode"}
    assert own.keys() >= LANE | {"ppu_block_scale", "ppu_block_quantize", "layer_register"}
    assert (own.keys() & significands) == (significands if scheme == "nvfp4" else set())
    assert (own.keys() & floats) == (set() if scheme == "mxint8" else floats)
    assert "ppu_vector_scale" not in own
    arch = load_arch("magnet16")
    delays = stage_delays(list(own.values()))
    assert {"scale_sum", "align", "ppu_block_scale", "ppu_block_quantize"} <= delays.keys()
    assert all(meets_clock(arch, delay_ps) for delay_ps in delays.values())
    # Registers hold decoded words: 16 codes of 5 or 8 bits and a scale.
    bits = {"mxint8": 136, "mxfp4": 88, "nvfp4": 88}[scheme]
    register = CostLibrary(technology_of(arch)).register(bits)
    assert own["weight_register"].cost.area_um2 == pytest.approx(register.area_um2)


def test_blocks_are_priced_by_the_rows_of_their_own_data():
    library = CostLibrary(Technology(7, 0.7))
    row = library._datapath.find("align", "nvfp4", input_bits=22, accumulator_bits=28)[0]
    cost = library.align(22, 28, values="nvfp4")
    assert cost.area_um2 == pytest.approx(row["area_um2"])
    assert cost.energy_pj["op"] == pytest.approx(row["energy_fj"] / 1e3)
    assert cost.stimulus == "nvfp4" and cost.evidence == "synthesis"
    assert library.align(30, 28, values="nvfp4").area_um2 > cost.area_um2
    held = library.dot_product(32, 5, 5, held_operand=True)
    data = library.dot_product(32, 5, 5, held_operand=True, values="mxfp4")
    assert data.area_um2 == held.area_um2 and 1.2 < data.energy_pj["op"] / held.energy_pj["op"] < 1.5
    with pytest.raises(
        AccelsimError, match="element_decode: values is 'mxint8', expected one of mxfp4, nvfp4"
    ):
        library.element_decode(16, values="mxint8")


def test_in_one_cycle_a_product_is_scaled_and_aligned():
    own = parts("nvfp4", "scale_stages=1", "clock_ghz=0.3")
    assert own["align"].cost.delay_ps > own["scale_multiply"].cost.delay_ps + 500
    assert parts("mxfp4", "scale_stages=1", "clock_ghz=0.3")["align"].cost.delay_ps < 1400


def test_modes_share_multipliers_and_leave_the_rest_still():
    both = "modes=[nvfp4, 4/4/4/4]"
    floats, integers, alone = parts("nvfp4", both), parts("4/4/4/4", both), parts("nvfp4")
    for name in floats:
        assert floats[name].cost.area_um2 == pytest.approx(integers[name].cost.area_um2), name
    assert floats["dot_product"].cost.area_um2 == pytest.approx(alone["dot_product"].cost.area_um2)
    assert floats["dot_product"].cost.energy_pj["op"] == pytest.approx(
        alone["dot_product"].cost.energy_pj["op"]
    )
    for name in ("align", "scale_sum", "weight_decode", "ppu_block_scale", "ppu_block_quantize"):
        assert floats[name].actions and not integers[name].actions, name
    assert integers["ppu_vector_scale"].actions and not floats["ppu_vector_scale"].actions
    # Powers of two do not multiply.
    powers = parts("mxfp4", "modes=[mxfp4, 4/4/4/4@32]")
    assert not powers["scale_multiply"].actions and powers["align"].actions
    # Another shape is another array.
    assert (
        parts("nvfp4", "modes=[nvfp4, 8/8/-/-]")["dot_product"].cost.area_um2
        > 2 * floats["dot_product"].cost.area_um2
    )


def test_runs_of_block_formats_are_priced_and_explained():
    run = accelsim.run("digits", "magnet16", "nvfp4")
    explained = run.explain()
    named = set(explained["component"])
    assert {"align", "scale_sum", "weight_decode", "input_decode", "ppu_block_scale"} <= named
    by_part = explained.set_index(["component", "action"])[["activity", "count"]].T
    # Toggles are counted of dot products and operand registers; the rest is priced on the rows' data.
    assert by_part["dot_product", "op"]["activity"] != 1 == by_part["align", "op"]["activity"]
    assert by_part["dot_product", "op"]["count"] == by_part["align", "op"]["count"] > 0
    assert run.report.energy_pj("datapath") == pytest.approx(
        run.report.components.query("scope == 'datapath'")["energy_pj"].sum()
    )


def test_lanes_decode_their_weights_and_a_pe_its_activations_once():
    own, arch = parts("mxfp4"), load_arch("magnet16")
    assert own["weight_decode"].instances == arch.pes * arch.lanes
    assert own["input_decode"].instances == arch.pes


def test_registers_of_an_aligned_term():
    """Of a lane: the dot product, the psum, the term with two bits more than it, the amount of the shift."""
    # At V = 16, of codes that take 5 bits once decoded.
    scheme, arch = Scheme.parse("mxfp4"), load_arch("magnet16")
    dot, psum = 2 * 5 + 4, arch.accumulator_width(scheme)
    amount = (psum + dot).bit_length()
    register = CostLibrary(technology_of(arch)).register(dot + psum + (psum + 2) + amount)
    assert parts("mxfp4")["pipeline_register"].cost.area_um2 == register.area_um2


def test_scales_multiply_in_half_of_the_stages_before_an_aligner():
    """A shift waits for them in registers, so that more stages would be more bits of these."""
    scheme, arch = Scheme.parse("nvfp4"), load_arch("magnet16")
    assert arch.scale_stages == 3
    dot, psum = 2 * 5 + 4, arch.accumulator_width(scheme)
    scaled = dot + 8
    amount = (psum + scaled).bit_length()
    bits = dot + psum + (psum + 2) + scaled + amount * (1 + 2) + 8
    register = CostLibrary(technology_of(arch)).register(bits)
    assert parts("nvfp4")["pipeline_register"].cost.area_um2 == register.area_um2


@pytest.mark.parametrize(("scheme", "whole"), [("mxint8", 7), ("mxfp4", 4)])
def test_a_ppu_holds_the_scale_and_the_shift_of_a_block(scheme, whole):
    """As wide as in rtl/ppu_block_codes.sv: the exponent; with it the amount, up to WHOLE + 24; beside a
    shifted value with its sign, overflow, half and sticky bits."""
    exponent, amount = 8, (whole + 24).bit_length()
    assert block_registers(Scheme.parse(scheme), 24) == [
        (24, exponent), (24, exponent + amount), (whole + 4, exponent)
    ]  # fmt: skip


def test_ppus_of_two_formats_have_the_quantizers_of_both():
    both = parts("mxint8", "modes=[mxint8, mxfp4]")
    for name in ("ppu_block_scale", "ppu_block_quantize"):
        apart = [parts(scheme)[name] for scheme in ("mxint8", "mxfp4")]
        assert both[name].cost.area_um2 == pytest.approx(sum(own.cost.area_um2 for own in apart))
        assert both[name].cost.leakage_uw == pytest.approx(sum(own.cost.leakage_uw for own in apart))
        assert both[name].instances == apart[0].instances == apart[1].instances
