"""The mapper: its model against the event model, its bound, and its choices against all there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from machines import Features, describe, random_arch, random_layer, random_run, random_scheme

from accelsim.costs import CostLibrary
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.mapping.bounds import layer_bound
from accelsim.mapping.layout.program import build_program
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency, decide_residency, output_bits
from accelsim.mapping.search.candidates import unit_count
from accelsim.mapping.search.estimate import NO_LEAD, Lead, estimate
from accelsim.mapping.search.mapper import Mapper
from accelsim.mapping.search.parameters import count_names
from accelsim.open import open_workload
from accelsim.report.inventory import action_prices_pj, build_inventory, technology_of
from accelsim.sim.run import LayerTiming, TimeRequest, time_layers
from accelsim.workload.layer import LayerSpec

RESIDENT = Residency("gb", "gb")


def streamed(layer: LayerSpec) -> Residency:
    return Residency("streamed", "streamed", (output_bits(layer),))


BATCH = 25


def timed(arch: Arch, layer: LayerSpec, mapping: LayerMapping, residency: Residency) -> LayerTiming:
    return time_layers(TimeRequest(arch, [build_program(arch, layer, mapping, residency)]))[0]


def model_counts(timing: LayerTiming) -> dict[str, int]:
    """Those of the event model's counts that the mapper's model keeps."""
    names = count_names(DATAFLOWS[timing.mapping.dataflow])
    return {name: timing.counts[name] for name in names if timing.counts[name]}


def differences(arch: Arch, layer: LayerSpec, mapping: LayerMapping, residency: Residency) -> list[str]:
    """What the model says otherwise than the event model, of a layer by itself; a bound that is broken."""
    result = estimate(arch, layer, mapping, residency)
    try:
        timing = timed(arch, layer, mapping, residency)
    except AccelsimError as error:
        return [] if result is None else [f"the model takes what is refused: {error}"]
    if result is None:
        return ["the model refuses what is laid out"]
    found = []
    if result.cycles != timing.cycles:
        found.append(f"cycles: model {result.cycles}, event {timing.cycles}")
    if dict(result.counts) != model_counts(timing):
        found.append(f"counts: model {dict(result.counts)}, event {model_counts(timing)}")
    bound = layer_bound(arch, layer, residency)
    if bound.cycles > timing.cycles:
        found.append(f"faster than its bound: {timing.cycles}, {bound}")
    return found


@pytest.mark.parametrize("features", ["plain", "all"])
@pytest.mark.parametrize("first", range(0, 150, BATCH))
def test_the_model_is_the_event_model_of_one_layer(first: int, features: Features) -> None:
    for seed in range(first, first + BATCH):
        arch, layers, mappings, _ = random_run(seed, features)
        for layer, mapping in zip(layers, mappings, strict=True):
            for residency in {decide_residency(arch, [layer.spec])[0], streamed(layer.spec), RESIDENT}:
                found = differences(arch, layer.spec, mapping, residency)
                text = f"seed {seed} {features} {layer.name} {residency}"
                assert not found, "\n".join([text, *found, describe(arch, layers, mappings)])


def test_the_model_refuses_what_layout_refuses() -> None:
    refused = built = 0
    for seed, features in product(range(100), ("plain", "all")):
        rng = np.random.default_rng(seed)
        arch, layers, mappings, _ = random_run(seed, features)  # type: ignore[arg-type]
        if rng.random() < 0.3:
            arch = arch.model_copy(update={"global_buffer_kb": 1})
        layer, mapping = layers[0].spec, mappings[0]
        mapping = replace(mapping, tile_pixels=int(rng.integers(1, layer.geometry.pixels + 3)))
        if mapping.units_per_tile:
            mapping = replace(mapping, units_per_tile=int(rng.integers(1, 9)))
        else:
            mapping = replace(mapping, chunk_vectors=int(rng.integers(1, layer.G + 1)))
        residency = streamed(layer) if rng.random() < 0.5 else decide_residency(arch, [layer])[0]
        found = differences(arch, layer, mapping, residency)
        assert not found, "\n".join([f"seed {seed} {features} {mapping} {residency}", *found])
        refused += estimate(arch, layer, mapping, residency) is None
        built += estimate(arch, layer, mapping, residency) is not None
    assert refused > 30 and built > 100


def test_a_limit_stops_the_model_or_changes_nothing() -> None:
    stopped = 0
    for seed, lead in product(range(60), (NO_LEAD, Lead(50, 50, 20))):
        arch, layers, mappings, _ = random_run(seed, "all")
        layer, mapping = layers[0].spec, mappings[0]
        residency = decide_residency(arch, [layer])[0]
        free = estimate(arch, layer, mapping, residency, lead=lead)
        assert free is not None
        for limit in (free.cycles, free.cycles // 2):
            within = estimate(arch, layer, mapping, residency, lead=lead, limit_cycles=limit)
            # Work of the global PE is added at the end: a limit need not see it.
            assert within == free or (within is None and limit < free.cycles), seed
            stopped += within is None
    assert stopped > 60


def test_a_lead_hides_the_first_weights() -> None:
    """The second of two layers by the model with the lead that the model of the first leaves it, against the
    event model. Nine of ten are exact, and the mean error is 0.5 %, of 9.3 % with no lead. What is left is
    that the layers share ports and that weights of the first hold space.

    Fetching earlier seldom hurts, and does not beat what is left to do. The real lead hurts in three of 240,
    in the event model too: tiles of weights come between small chunks of inputs in another order.
    """
    errors, without, rises, hurt = [], [], 0, 0
    for seed, features in product(range(150), ("plain", "all")):
        arch, layers, mappings, _ = random_run(seed, features)  # type: ignore[arg-type]
        specs = [layer.spec for layer in layers[:2]]
        if len(specs) < 2:
            continue
        own = list(zip(specs, mappings, decide_residency(arch, specs), strict=False))
        timing = time_layers(TimeRequest(arch, [build_program(arch, *parts) for parts in own]))[1]
        before = estimate(arch, *own[0])
        assert before is not None
        found = estimate(arch, *own[1], lead=before.lead)
        late, early = (estimate(arch, *own[1], lead=lead) for lead in (NO_LEAD, Lead(4096, 4096, 4096)))
        assert found is not None and late is not None and early is not None
        # Weights do not cross two layers ahead.
        assert max(early.lead.first_half, early.lead.second_half) <= early.cycles, seed
        parts = layer_bound(arch, timing.layer, timing.residency).parts
        hidden = ("dram", "weight_banks")  # weights may be through them at the start
        assert early.cycles >= max(n for part, n in parts.items() if part not in hidden), seed
        hurt += early.cycles > 1.2 * late.cycles
        rises += found.cycles > late.cycles
        errors.append(abs(found.cycles / timing.cycles - 1))
        without.append(abs(late.cycles / timing.cycles - 1))
    exact = errors.count(0)
    text = f"mean {np.mean(errors):.2%}, exact {exact} of {len(errors)}, without {np.mean(without):.2%}"
    print(f"the second of two layers: {text}, slower {rises}, by more than a fifth {hurt}")
    assert len(errors) > 200 and rises < 0.03 * len(errors) and hurt < 0.02 * len(errors), text
    assert exact > 0.9 * len(errors), text
    assert np.mean(errors) < 0.007 and np.mean(without) > 0.07, text


def every_mapping(arch: Arch, layer: LayerSpec) -> Iterator[LayerMapping]:
    """All of them: splits, orders, tiles and chunks, also those that leave PEs idle or do not fit."""
    units, pixels = unit_count(arch, layer), layer.geometry.pixels
    parts = (layer.G if layer.packed_im2col else layer.words_per_position) if arch.psum_chain else 1
    per_group = -(-layer.geometry.outputs_per_group // arch.unit_channels(0))
    for k, c in product(range(1, min(arch.pes, units) + 1), range(1, parts + 1)):
        vectors = max(len(part) for part in layer.parts(c))
        weights = [(n, layer.G, False) for n in range(1, min(per_group, -(-units // k)) + 1)]
        weights += [(0, n, cut) for n in range(1, vectors + 1) for cut in (False, True)]
        for p in range(1, min(pixels, arch.pes // (k * c)) + 1):
            tiles = range(1, -(-pixels // p) + 1)
            for dataflow, order, tile, (own, chunk, cut) in product(
                arch.dataflows, ("KP", "PK"), tiles, weights
            ):
                yield LayerMapping(k, p, order, tile, own, chunk, cut, c, dataflow)  # type: ignore[arg-type]


def fastest(arch: Arch, layer: LayerSpec, residency: Residency) -> int | None:
    best: int | None = None
    for mapping in every_mapping(arch, layer):
        limit = 1 << 40 if best is None else best
        found = estimate(arch, layer, mapping, residency, limit_cycles=limit)
        if found is not None:
            best = min(limit, found.cycles)
    return best


def small_magnet(seed: int) -> Arch:
    """magnet16 in small: 4 PEs of 4 lanes, ports to match; odd seeds have all dataflows and chains."""
    values: dict[str, object] = dict(
        vector_size=4, lanes=4, pes=4, weight_buffer_words=32, input_buffer_words=96,
        accumulation_collector_depth=4, out_fifo_words=8, global_buffer_kb=(2, 8)[seed // 2 % 2],
        gb_weight_kb=None,
        gb_bank_bits=32, pe_port_bits=32, dram_bits_per_cycle=128, dram_latency_cycles=20,
    )  # fmt: skip
    if seed % 2:
        values |= dict(
            dataflows=("os-lws", "os", "ws-los", "ws"), psum_chain=True, weight_collector_depth=4,
            accumulation_buffer_words=32, local_accumulate_latency=1,
        )  # fmt: skip
    return load_arch("magnet16").model_copy(update=values)


@pytest.mark.parametrize("seeds", [20, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "median", "most"), [("small magnet", 1.03, 1.15), ("random", 1.03, 1.3)])
def test_choices_against_all_mappings(
    kind: str, median: float, most: float, seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen by what the model says, compared with the best of all by the same model."""
    ratios, tried = [], 0
    if kind == "small magnet":
        monkeypatch.setattr("machines.MOST_STEPS", 6000)
        monkeypatch.setattr("machines.MOST_BITS", 200_000)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        arch = small_magnet(seed) if kind != "random" else random_arch(rng, ("plain", "all")[seed % 2])
        layer = random_layer(rng, arch, random_scheme(rng, arch), "layer", True).spec
        residency = decide_residency(arch, [layer])[0]
        if (size := sum(1 for _ in every_mapping(arch, layer))) > 6000:
            continue
        best = fastest(arch, layer, residency)
        if best is None:
            with pytest.raises(AccelsimError):
                Mapper(arch).choose(layer, residency)
            continue
        choice = Mapper(arch).choose(layer, residency)
        assert choice.best.estimate.cycles >= best >= choice.bound.cycles, seed
        assert choice.best.score == min(own.estimate.cycles for own in choice.ranked), seed
        ratios.append(choice.best.estimate.cycles / best)
        tried += size
    text = "median {:.3f}, 90 % {:.3f}, worst {:.3f}".format(*np.percentile(ratios, [50, 90, 100]))
    print(f"{kind}: cycles over the best of all, {len(ratios)} layers, {tried:,} mappings: {text}")
    assert len(ratios) > 0.6 * seeds
    assert np.median(ratios) <= median and max(ratios) <= most, text


def specs_of(network: str, scheme: str, arch: Arch, most: int | None = None) -> list[LayerSpec]:
    """The layers of a network; draws nothing."""
    trace, precision = open_workload(network), Scheme.parse(scheme)
    return [trace.outline(layer.name, precision, arch.vector_size) for layer in trace.layers[:most]]


@pytest.mark.parametrize("objective", ["energy", "edp"])
def test_objectives(objective: str) -> None:
    """What is asked for is not worse than in the mapping with the fewest cycles, and differs somewhere."""
    base = load_arch("magnet16")
    scheme = Scheme.parse("4/4/4/4")
    library = CostLibrary(technology_of(base))
    prices = action_prices_pj(build_inventory(base, scheme, library), base.clock_ghz)
    layers = specs_of("resnet18", "4/4/4/4", base)[4:9]
    gained = 0
    for layer, residency in zip(layers, decide_residency(base, layers), strict=True):
        fast = Mapper(base, prices).choose(layer, residency).best
        wanted = (
            Mapper(load_arch("magnet16", [f"mapping.objective={objective}"]), prices)
            .choose(layer, residency)
            .best
        )
        ours, theirs = (
            (own.energy_pj, own.energy_pj * own.estimate.cycles)[objective == "edp"] for own in (wanted, fast)
        )
        assert ours <= theirs, layer.name
        gained += ours < theirs
    assert gained > 0


RUNS = [("resnet18", None), ("bert-base", 32)]


@pytest.mark.parametrize("scheme", ["8/8/-/-", "4/4/4/4"])
@pytest.mark.parametrize(("network", "layers"), RUNS, ids=["resnet18", "4 layers of bert-base"])
def test_the_model_in_a_network(network: str, layers: int | None, scheme: str) -> None:
    """The mapper sees one layer and the lead that the one before leaves it; in a run its neighbours use DRAM
    and banks as well. Measured: medians of 0.00 to 0.09 %; at the 99th percentile 7.8 % (8/8/-/-) and 3.0 %
    for ResNet-18, where the next layer's first weights keep ports busy, and 0.7 % for BERT; the whole run
    1.1 % too short at most.
    """
    arch = load_arch("magnet16")
    specs = specs_of(network, scheme, arch, layers)
    residencies = decide_residency(arch, specs)
    mapper = Mapper(arch)
    choices = list(mapper.choices(specs, residencies))
    laid_out = [mapper.program(*own) for own in zip(choices, specs, residencies, strict=True)]
    timings = time_layers(TimeRequest(arch, laid_out))
    cycles = np.array([timing.cycles for timing in timings])
    modelled = np.array([choice.best.estimate.cycles for choice in choices])
    errors = np.abs(modelled / cycles - 1)
    median, high = np.percentile(errors, [50, 99])
    whole = modelled.sum() / cycles.sum() - 1
    text = f"median {median:.2%}, 99 % {high:.2%}, whole run {whole:+.2%}"
    print(f"{network} {scheme}: {text}")
    assert median < 0.002 and high < 0.09 and abs(whole) < 0.015, text

    # No layer beats its bound but by what was fetched before it began: the weight region full, and a tile in
    # each PE.
    own = Scheme.parse(scheme)
    word = arch.vector_size * own.weight.bits + own.weight.scale.bits
    in_pes = arch.pes * arch.lanes * arch.weight_buffer_words // 2 * word
    ahead = -(-(arch.weight_region_bits + in_pes) // arch.dram_bits)
    width = arch.crossbar_bits * arch.bank_groups[0]
    for index, (choice, timing) in enumerate(zip(choices, timings, strict=True)):
        assert timing.cycles > layer_bound(arch, timing.layer, timing.residency).cycles - ahead
        early = 0 if index == 0 else timings[index - 1].cycles
        for part, least in choice.bound.parts.items():
            spared = 0
            if part in ("dram", "weight_banks") and not timing.layer.weight_is_activation:
                # Weights of this layer that came while the layer before ran.
                rate = arch.dram_bits if part == "dram" else width
                spared = min(early, weight_cycles(timing, rate))
            assert timing.cycles >= least - spared, (timing.layer.name, part)


def weight_cycles(timing: LayerTiming, bits_per_cycle: int) -> int:
    scheme, layer = timing.layer.scheme, timing.layer
    word = layer.vector_size * scheme.weight.bits + scheme.weight.scale.bits
    return -(-layer.geometry.K * layer.G * word // bits_per_cycle)
