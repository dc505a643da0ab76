"""Contention is real: narrower ports slow what they bind and nothing else, and nothing ever stands still."""

from __future__ import annotations

import pytest
from hand_machine import node_work
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import describe, random_run

from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import integer_operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.bounds import layer_bound
from accelsim.mapping.layout.program import build_program
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency, decide_residency, output_bits
from accelsim.mapping.search.mapper import Mapper
from accelsim.sim.run import LayerTiming, TimeRequest, time_layers
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer, LayerSpec, NodeWork, OutputFormat


def layer_of(geometry: Geometry, work: tuple[NodeWork, ...] = ()) -> LayerSpec:
    return LayerSpec(
        layer=Layer(name="layer", op="conv", geometry=geometry, input_signed=True, activation="none"),
        scheme=Scheme.parse("8/8/-/-"),
        vector_size=16,
        fold="auto",
        output=OutputFormat(integer_operand(8)),
        global_pe=work,
    )


COMPUTE = layer_of(Geometry(1, 64, 56, 56, 64, 3, 3, padding=(1, 1)))
WEIGHTS = layer_of(Geometry(1, 4096, 1, 1, 512))
OUTPUTS = layer_of(Geometry(1, 16, 40, 40, 256))
ELEMENTS = layer_of(Geometry(1, 64, 28, 28, 64), (node_work("add", 400_000),))


def timed(arch: Arch, layer: LayerSpec, mapping: LayerMapping, residency: Residency) -> LayerTiming:
    return time_layers(TimeRequest(arch, [build_program(arch, layer, mapping, residency)]))[0]


@pytest.mark.parametrize(
    ("layer", "bound_by", "base", "halved"),
    [
        (WEIGHTS, "dram", ["dram_bits_per_cycle=128"], "dram_bits_per_cycle=64"),
        (WEIGHTS, "weight_banks", ["dram_bits_per_cycle=4096", "gb_bank_bits=64"], "gb_bank_bits=32"),
        (WEIGHTS, "weight_banks", ["dram_bits_per_cycle=4096", "pe_port_bits=64"], "pe_port_bits=32"),
        (OUTPUTS, "output_banks", ["dram_bits_per_cycle=4096", "gb_bank_bits=64"], "gb_bank_bits=32"),
        (ELEMENTS, "global_pe", [], "global_pe_elements_per_cycle=32"),
    ],
    ids=["dram", "bank", "port", "output bank", "global PE"],
)
def test_half_the_width_takes_twice_as_long_where_it_binds(
    layer: LayerSpec, bound_by: str, base: list[str], halved: str
) -> None:
    whole = load_arch("magnet16", base)
    kept = [item for item in base if item.partition("=")[0] != halved.partition("=")[0]]
    half = load_arch("magnet16", [*kept, halved])
    residency = decide_residency(whole, [layer])[0]
    assert layer_bound(whole, layer, residency).by == bound_by
    mapping = Mapper(whole).choose(layer, residency).best.mapping
    ratio = timed(half, layer, mapping, residency).cycles / timed(whole, layer, mapping, residency).cycles
    assert 1.8 < ratio < 2.1


@pytest.mark.parametrize(
    "change",
    ["dram_bits_per_cycle=256", "gb_bank_bits=128", "pe_port_bits=128", "global_pe_elements_per_cycle=32"],
)
def test_what_is_bound_by_compute_does_not_mind(change: str) -> None:
    wide = ["gb_bank_bits=256", "pe_port_bits=256"]
    kept = [item for item in wide if item.partition("=")[0] != change.partition("=")[0]]
    whole, half = load_arch("magnet16", wide), load_arch("magnet16", [*kept, change])
    residency = Residency("gb", "gb")
    assert layer_bound(whole, COMPUTE, residency).by == "compute"
    choice = Mapper(half).choose(COMPUTE, residency)
    before = Mapper(whole).choose(COMPUTE, residency).best.estimate.cycles
    assert choice.best.estimate.cycles < 1.06 * before


def test_a_multicast_reads_once_and_shares_its_path() -> None:
    """Four PEs with two pixels each, one tile of weights for all, counted by hand."""
    arch = load_arch("magnet16", ["pes=4"])
    layer = layer_of(Geometry(1, 16, 1, 8, 16))
    mapping = LayerMapping(1, 4, "KP", 2, 1, 1)
    counts = timed(arch, layer, mapping, Residency("cached", "cached", (output_bits(layer),))).counts
    weights, inputs, outputs = 16 * 128, 2 * 128, 2 * 16 * 8
    # PEs at (0, 0), (1, 0), (0, 1), (1, 1): one, two, two and three links away; a tree of four reaches all.
    unicast, tree = 1 + 2 + 2 + 3, 4
    assert counts["noc.bit_hop"] == weights * tree + (inputs + outputs) * unicast
    assert counts["global_buffer.read"] == (weights + 4 * inputs + 4 * outputs) // 128
    assert counts["dram.read_bit"] == weights + 4 * inputs
    # Every PE still fills its own buffer.
    assert counts["weight_buffer.write"] == 4 * 16


@settings(max_examples=120, deadline=None, derandomize=True)
@given(seed=st.integers(10_000, 10_000_000))
def test_nothing_stands_still(seed: int) -> None:
    """Whatever the machine, the layers and the mappings: every run ends, every cycle has its stall reason."""
    arch, layers, mappings, _ = random_run(seed, "all")
    specs = [layer.spec for layer in layers]
    programs = [
        build_program(arch, *own) for own in zip(specs, mappings, decide_residency(arch, specs), strict=True)
    ]
    for timing in time_layers(TimeRequest(arch, programs)):
        assert (timing.stall_cycles.sum(axis=1) == timing.cycles).all(), describe(arch, layers, mappings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("weight_buffer_words=32", ("a weight tile takes 36 words", "at most 16", "weight_buffer_words")),
        ("input_buffer_words=32", ("an input tile takes", "at most 16", "input_buffer_words")),
        ("global_buffer_kb=1", ("weight tile takes 73728 bits", "2048 bits", "global_buffer_kb")),
    ],
)
def test_what_does_not_fit_says_where_and_by_how_much(change: str, words: tuple[str, ...]) -> None:
    arch = load_arch("magnet16", [change, "gb_weight_kb=null", "psum_chain=false"])
    mapping = LayerMapping(4, 4, "KP", 16, 1, COMPUTE.G)
    with pytest.raises(AccelsimError) as error:
        build_program(arch, COMPUTE, mapping, decide_residency(arch, [COMPUTE])[0])
    for word in ("layer layer: ", *words):
        assert word in str(error.value)
