"""`residual`, the format of tensors as nodes read them: who writes and keeps how many bits, by the graph.

test_event_vs_cycle.py compares the two timing models on random machines that have one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from cycle_model.machine import Machine
from hand_graph import chans, layer, node, step
from hand_machine import ONE_TILE, hand_arch
from machines import random_run, simulate, specs_of
from test_mapper_random import differences

import accelsim
from accelsim.costs import CostLibrary
from accelsim.errors import AccelsimError
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.layout.program import build_program
from accelsim.mapping.plan import check_mapping
from accelsim.mapping.residency import RunResidency, decide_run
from accelsim.network import RunRequest
from accelsim.open import open_workload
from accelsim.quantize.layers import with_output
from accelsim.report.inventory import CLOCK_TREES, build_inventory, technology_of
from accelsim.workload.graph import Graph, LayerStep
from accelsim.workload.layer import LayerSpec

pytestmark = pytest.mark.kept

Formats = list[tuple[int, int]]  # bits of a code and of a scale


def formats(graph: Graph, name: str, own: tuple[int, int], residual: tuple[int, int] | None) -> Formats:
    """Of the copies of a tensor, from the readers in the graph."""
    readers = [step for step in graph.steps if name in step.reads]
    layers = [reader for reader in readers if isinstance(reader, LayerStep)]
    nodes = [reader for reader in readers if reader not in layers and reader.unit == "global_pe"]
    if residual in (None, own) or not nodes:
        return [own]
    assert residual is not None
    return [own, residual] if layers else [residual]


def bits_of(shape: tuple[int, ...], groups: int, vector_size: int, copies: Formats) -> list[int]:
    """Of a tensor N, C, H, W, copy by copy."""
    n, c, h, w = shape
    vectors = groups * -(-(c // groups) // vector_size)
    return [n * h * w * (c * bits + vectors * scale_bits) for bits, scale_bits in copies]


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_output_tiles_hold_the_bits_that_readers_ask_for(first: int) -> None:
    seen: Counter[int] = Counter()
    for seed in range(first, first + 30):
        arch, layers, mappings, graph = random_run(seed, "residual")
        assert graph is not None and arch.residual is not None
        bits, _, scale_bits = arch.residual.partition("/")
        residual = int(bits), 0 if scale_bits == "-" else int(scale_bits)
        specs, wiring = specs_of(arch, layers, graph)
        placed = decide_run(arch, specs, wiring)
        for own, mapping, residency in zip(specs, mappings, placed.layers, strict=True):
            g, out = own.geometry, own.output.operand
            copies = formats(graph, own.name, (out.bits, out.scale.bits), residual)
            program = build_program(arch, own, mapping, residency)
            made = sum(
                sum(program.pieces(block)) * block.output_bits
                for pe, part in enumerate(program.pes)
                if not program.sends_psums(pe)
                for block in part.blocks
                if block.last
            )
            # Vectors of an output tile begin anew with each unit, which is whole vectors.
            shape = g.N, g.K, g.P, g.Q
            assert made == sum(bits_of(shape, g.groups, arch.vector_size, copies)), f"seed {seed} {own.name}"
            seen[len(copies)] += 1
        for result, own in zip(simulate(arch, layers, mappings, graph), specs, strict=True):
            outputs = own.geometry.pixels * own.geometry.K
            assert result.counts["ppu.op"] == outputs * len(own.written_operands)
    assert seen[1] > 50 and seen[2] > 4


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_the_mapper_s_model_knows_two_formats(first: int) -> None:
    for seed in range(first, first + 30):
        arch, layers, mappings, graph = random_run(seed, "residual")
        specs, wiring = specs_of(arch, layers, graph)
        placed = decide_run(arch, specs, wiring).layers
        for own, mapping, residency in zip(specs, mappings, placed, strict=True):
            found = differences(arch, own, mapping, residency)
            assert not found, "\n".join([f"seed {seed} {own.name}", *found])


def planned(name: str, scheme: str, residual: str) -> tuple[Arch, list[LayerSpec], Graph, RunResidency]:
    """A network on a machine whose global buffer holds all of it, so that only what has to goes to DRAM."""
    changes = [f"residual={residual}", "global_buffer_kb=65536", "gb_weight_kb=96"]
    arch, workload = load_arch("magnet16", changes), open_workload(name)
    schemes = (Scheme.parse(scheme),) * len(workload.layers)
    library = CostLibrary(technology_of(arch))
    request = RunRequest(workload, arch, schemes, library, gated_fraction=0.0).planned()
    run = decide_run(arch, request.layers, request.wiring)
    return arch, list(request.layers), workload.graph, run


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("residual", ["null", "8/-", "6/6"])
def test_what_waits_takes_room_in_its_copies(name: str, residual: str) -> None:
    """With room for everything a step keeps what any later step reads, copy by copy; counted on the graph."""
    arch, specs, graph, run = planned(name, "4/4/4/4", residual)
    wide = {"null": None, "8/-": (8, 0), "6/6": (6, 6)}[residual]
    hosts, shapes = graph.hosts(), dict(graph.inputs)
    shapes |= {own.name: (own.geometry.N, own.geometry.K, own.geometry.P, own.geometry.Q) for own in specs}
    shapes |= {own.name: own.shape for own in graph.nodes}
    host_of = {name: host for name, host in hosts.items() if host >= 0}
    groups = {
        name: specs[host].geometry.groups if shapes[name][1] == specs[host].geometry.K else 1
        for name, host in host_of.items()
    }
    for number, residency in enumerate(run.layers):
        if residency.input != "gb":
            continue
        at_least = 0
        for name, host in host_of.items():
            copies = formats(graph, name, (4, 4), wide)
            stored = bits_of(shapes[name], groups[name], arch.vector_size, copies)
            readers = [
                (hosts[own.name], isinstance(own, LayerStep)) for own in graph.steps if name in own.reads
            ]
            waits = [
                [reader for reader, is_layer in readers if len(copies) == 1 or is_layer == (copy == 0)]
                for copy in range(len(copies))
            ]
            for bits, steps in zip(stored, waits, strict=True):
                later = [reader for reader in steps if reader >= number and reader > host]
                at_least += bits if host <= number and later else 0
        # Layers read whole words, which can be more than is stored: here channels are whole vectors.
        assert residency.kept_bits == at_least, specs[number].name
    assert all(not own.spilled_bits for own in run.layers[2:])


def test_a_residual_block_by_hand() -> None:
    """x of 4 channels; a reads x; b reads a; sum reads b and a: a has two copies, b is for nodes alone."""
    layers = [layer("a", 8, 4, 3), layer("b", 4, 4, 3), layer("c", 4, 4, 3)]
    steps = (
        step("a", "x"),
        step("b", "a"),
        node("sum", "add", "b", "a", shape=(3, 4, 1, 1)),
        step("c", "sum"),
    )
    graph = Graph((("x", chans(8, 3)),), steps, ("c",))
    arch = hand_arch(residual="4/-", out_fifo_words=8)
    machine = Machine(arch, layers, [ONE_TILE] * 3, graph)
    stepped, event = machine.run(), simulate(arch, layers, [ONE_TILE] * 3, graph)
    assert [own.end for own in stepped] == [own.end for own in event]
    for result, found in zip(stepped, event, strict=True):
        assert result.counts == found.counts
    a, b, c = (own.counts for own in event)
    # 12 outputs of each layer. a: 8 and 4 bits in one tile of 144 bits; b: 4 bits, 48 bits; c: 8, 96 bits.
    assert (a["ppu.op"], b["ppu.op"], c["ppu.op"]) == (24, 12, 12)
    assert (a["out_fifo.write"], b["out_fifo.write"]) == (6, 3)
    hops = [own["noc.bit_hop"] for own in (a, b, c)]
    weights, inputs = [4 * 8 * 8, 4 * 4 * 8, 4 * 4 * 8], [3 * 8 * 8, 3 * 4 * 8, 3 * 4 * 8]
    assert hops == [w + x + out for w, x, out in zip(weights, inputs, (144, 48, 96), strict=True)]
    # The add reads 24 elements of 4 bits, 96 bits, 2 words of 64; writes 12 of 8 for c, 2 words.
    assert b["global_buffer.read"] == 2 + 2 + 2
    assert b["global_buffer.write"] == 2 + 1 + 2
    assert b["global_pe.element"] == 12
    # Only the graph's output goes to DRAM, and what it costs to wait: both copies of a, 96 and 48 bits.
    assert c["dram.write_bit"] == 96 and not a["dram.write_bit"] and not b["dram.write_bit"]
    assert machine.layers[1].placement.kept == 96 + 48 + 96


def tables(result: accelsim.RunResult) -> dict[str, Any]:
    return {name: getattr(result, name).to_csv() for name in ("layers", "area")}


def test_a_format_as_large_as_the_activations_changes_nothing() -> None:
    for scheme, residual in (("8/8/-/-", "8/-"), ("4/4/4/4", "4/4")):
        plain = accelsim.run("digits", scheme=scheme)
        assert tables(plain) == tables(
            accelsim.run("digits", scheme=scheme, overrides=[f"residual={residual}"])
        )


def test_values_are_those_of_the_format_that_is_written() -> None:
    """conv of digits that a pool reads is written in 8 bits: its error falls, that of the others stays."""
    narrow = accelsim.run("digits", scheme="4/4/4/4")
    wide = accelsim.run("digits", scheme="4/4/4/4", overrides=["residual=8/-"])
    graph = open_workload("digits").graph
    (pool,) = graph.nodes
    before, after = (own.layers.set_index("layer")["ppu_sqnr_db"] for own in (narrow, wide))
    psums = narrow.layers.set_index("layer")["sqnr_db"]
    assert after[pool.reads[0]] > before[pool.reads[0]] + 1.5
    assert after[pool.reads[0]] == pytest.approx(psums[pool.reads[0]], abs=1)
    others = [name for name in before.index if name != pool.reads[0]]
    assert before[others].equals(after[others])
    assert narrow.layers["sqnr_db"].equals(wide.layers["sqnr_db"])


def test_another_output_format_has_the_same_range() -> None:
    words = open_workload("digits").quantized_layer("conv1", Scheme.parse("4/4/4/4"), 16)
    residual = load_arch("magnet16", ["residual=8/-"]).residual_operand
    assert isinstance(residual, Operand)
    wide = with_output(words, residual.of_sign(False))
    assert wide.output_gamma * 255 == pytest.approx(words.output_gamma * 15 * 15, rel=1e-6)
    assert with_output(words, words.output.operand) is words


def test_the_machine_pays_for_what_it_can_write() -> None:
    scheme = Scheme.parse("4/4/4/4")
    parts = []
    for changes in ([], ["residual=8/-"]):
        arch = load_arch("magnet16", changes)
        inventory = build_inventory(arch, scheme, CostLibrary(technology_of(arch)))
        parts.append({part.name: part for part in inventory})
    before, after = parts
    assert after["global_pe"].instances == 2 * before["global_pe"].instances
    changed = {name for name in before if before[name].cost.area_um2 != after[name].cost.area_um2}
    # A clock tree's area is a few buffers, which come and go with the area they cover.
    changed -= set(CLOCK_TREES.values())
    ppu = {"ppu", "ppu_constants", "ppu_register", "ppu_vector_scale"}
    assert changed == {*ppu, "out_fifo", "global_pe"}
    assert all(after[name].cost.area_um2 > before[name].cost.area_um2 for name in changed)


def test_bad_formats_are_refused_in_one_line() -> None:
    for text in ("9/-", "8", "8/-/-", "8/8@16", "-/8", "1/-"):
        with pytest.raises(AccelsimError, match=r"residual = .*: expected null, A/as or A/-, such as 8/-"):
            load_arch("magnet16", [f"residual={text}"])


def test_a_fifo_too_small_for_two_formats_is_refused_where_a_layer_writes_them() -> None:
    layers = [layer("a", 8, 4, 3), layer("b", 4, 4, 3)]
    steps = (step("a", "x"), step("b", "a"), node("sum", "add", "b", "a", shape=(3, 4, 1, 1)))
    graph = Graph((("x", chans(8, 3)),), steps, ("sum",))
    arch = hand_arch(residual="4/-", out_fifo_words=7)
    a, b = specs_of(arch, layers, graph)[0]
    check_mapping(arch, b, ONE_TILE)
    with pytest.raises(AccelsimError, match="layer a: out_fifo_words is 7, expected at least 8"):
        check_mapping(arch, a, ONE_TILE)
    check_mapping(arch.model_copy(update={"out_fifo_words": 8}), a, ONE_TILE)
    assert [len(own.written_operands) for own in (a, b)] == [2, 1]
