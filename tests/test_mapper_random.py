"""The mapper: its model against the event model, its bound, and its choices against all there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from all_mappings import (
    BEST_CYCLES,
    HARD_DRAWS,
    MOST_BITS,
    MOST_STEPS,
    NAMED,
    SWEPT,
    SWEPT_LAYERS,
    IssueBound,
    distinct,
    draw,
    every_mapping,
    fastest,
    layer_of,
    sweep,
)
from machines import Features, Runs, describe, random_run, simulate

from accelsim.costs import CostLibrary
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.mapping.bounds import Bound, RunLayer, layer_bound, run_bounds
from accelsim.mapping.layout.program import build_program
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency, decide_residency, output_bits
from accelsim.mapping.search.estimate import NO_LEAD, Estimate, Estimator, Lead, NoEstimate, estimate
from accelsim.mapping.search.mapper import Mapper
from accelsim.mapping.search.parameters import count_names
from accelsim.open import open_workload
from accelsim.report.inventory import action_prices_pj, build_inventory, technology_of
from accelsim.sim.run import LayerTiming, TimeRequest, time_layers
from accelsim.workload.geometry import Geometry
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
        return [] if result is NoEstimate.DOES_NOT_FIT else [f"the model takes what is refused: {error}"]
    if not isinstance(result, Estimate):
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
        fits = estimate(arch, layer, mapping, residency) is not NoEstimate.DOES_NOT_FIT
        refused += not fits
        built += fits
    assert refused > 30 and built > 100


def test_a_limit_stops_the_model_or_changes_nothing() -> None:
    stopped = 0
    for seed, lead in product(range(60), (NO_LEAD, Lead(50, 50, 20))):
        arch, layers, mappings, _ = random_run(seed, "all")
        layer, mapping = layers[0].spec, mappings[0]
        residency = decide_residency(arch, [layer])[0]
        free = estimate(arch, layer, mapping, residency, lead=lead)
        assert isinstance(free, Estimate)
        for limit in (free.cycles, free.cycles // 2):
            within = estimate(arch, layer, mapping, residency, lead=lead, limit_cycles=limit)
            # Work of the global PE is added at the end: a limit need not see it.
            assert within == free or (within is NoEstimate.TAKES_LONGER and limit < free.cycles), seed
            stopped += within is NoEstimate.TAKES_LONGER
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
        assert isinstance(before, Estimate)
        found = estimate(arch, *own[1], lead=before.lead)
        late, early = (estimate(arch, *own[1], lead=lead) for lead in (NO_LEAD, Lead(4096, 4096, 4096)))
        assert isinstance(found, Estimate) and isinstance(late, Estimate) and isinstance(early, Estimate)
        # Weights do not cross two layers ahead.
        assert max(early.lead.first_half, early.lead.second_half) <= early.cycles, seed
        bound = layer_bound(arch, timing.layer, timing.residency, 4096, 4096)
        assert early.cycles >= bound.cycles, seed
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


def check_bounds(arch: Arch, timings: Sequence[LayerTiming], text: object) -> list[Bound]:
    """The bound of a run and of every run of its first layers holds; shares add up and none is exceeded."""
    run = [RunLayer(own.layer, own.residency, own.cycles) for own in timings]
    bounds = run_bounds(arch, run)
    for own, bound in zip(timings, bounds, strict=True):
        assert 1 <= bound.cycles <= own.cycles, (text, own.layer.name, bound)
    for count in range(1, len(run)):
        assert sum(own.cycles for own in run_bounds(arch, run[:count])) <= timings[count - 1].end, text
    # However long the layers took, the run's bound is the same.
    longer = run_bounds(arch, [replace(own, cycles=2 * own.cycles) for own in run])
    assert sum(own.cycles for own in longer) == sum(own.cycles for own in bounds), text
    return bounds


@pytest.mark.parametrize("features", ["plain", "all", "graph"])
@pytest.mark.parametrize(
    "seeds", [range(30), pytest.param(range(30, 400), marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_no_run_and_no_layer_beats_its_bound(features: Runs, seeds: range) -> None:
    tight = ahead = 0
    for seed in seeds:
        arch, layers, mappings, graph = random_run(seed, features)
        timings = [own.timing for own in simulate(arch, layers, mappings, graph)]
        bounds = check_bounds(arch, timings, (features, seed))
        alone = [layer_bound(arch, own.layer, own.residency).cycles for own in timings]
        ahead += any(own.cycles < least for own, least in zip(timings, alone, strict=True))
        tight += sum(own.cycles for own in bounds) > 0.8 * timings[-1].end
    print(f"{features}: within a fifth of the bound {tight}, a layer faster than by itself {ahead}")
    assert len(seeds) < 100 or (tight > 3 and ahead > 3)


def timings_of(*shapes: Geometry) -> tuple[Arch, list[LayerTiming]]:
    """A chain of layers on magnet16 at 8/8/-/-, mapped and timed."""
    arch, scheme = load_arch("magnet16"), Scheme.parse("8/8/-/-")
    layers = [layer_of(shape, scheme, arch, f"layer{number}") for number, shape in enumerate(shapes)]
    residencies = decide_residency(arch, layers)
    mapper = Mapper(arch)
    choices = mapper.choices(layers, residencies)
    programs = [mapper.program(*own) for own in zip(choices, layers, residencies, strict=True)]
    return arch, time_layers(TimeRequest(arch, programs))


def test_weights_that_come_before_their_layer_are_in_the_shares_of_others() -> None:
    """A small convolution, then a classifier whose weights DRAM brings from the start of the run on."""
    small = Geometry(N=1, C=16, H=14, W=14, K=64, R=3, S=3)
    arch, timings = timings_of(small, Geometry(N=1, C=256, H=1, W=1, K=256))
    bounds = check_bounds(arch, timings, "two layers")
    assert timings[1].cycles < layer_bound(arch, timings[1].layer, timings[1].residency).cycles  # by itself
    moved = 98_816 + 8 * 256 * 256 + 8 * 256  # of both, through DRAM
    assert sum(own.cycles for own in bounds) == -(-moved // arch.dram_bits)


def test_a_layer_that_computes_hides_as_many_weights_as_there_is_room_for() -> None:
    """A classifier's weights are there before it begins, but for what the region and PEs cannot hold."""
    large = Geometry(N=1, C=64, H=28, W=28, K=64, R=3, S=3, padding=(1, 1))
    arch, timings = timings_of(large, Geometry(N=1, C=512, H=1, W=1, K=250))
    bounds = check_bounds(arch, timings, "two layers")
    alone = [layer_bound(arch, own.layer, own.residency).cycles for own in timings]
    assert sum(own.cycles for own in bounds) <= timings[-1].end < sum(alone)


def test_what_is_left_out_of_all_mappings_is_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those laid out like another, and those that the bound rules out."""
    monkeypatch.setattr("machines.MOST_STEPS", MOST_STEPS)
    monkeypatch.setattr("machines.MOST_BITS", MOST_BITS)
    alike = 0
    for seed in (8, 15, 37, 50, 63, 81, 86, 87):
        case = draw(seed)
        bound = IssueBound(case.arch, case.layer, case.residency)
        estimator = Estimator(case.arch, case.layer, case.residency)
        every, best = list(every_mapping(case.arch, case.layer)), 1 << 40
        for mapping in every:
            found = estimator.of(mapping)
            if isinstance(found, Estimate):
                assert bound.cycles(mapping) <= found.cycles, (seed, mapping)
                best = min(best, found.cycles)
        fast = fastest(case.arch, case.layer, case.residency)
        assert fast is not None and fast[0] == best, seed
        assert fastest(case.arch, case.layer, case.residency, known=fast) == fast
        alike += len(every) - sum(1 for _ in distinct(case.arch, case.layer))
    assert alike > 500


@pytest.mark.parametrize(
    "seeds",
    [range(40), pytest.param(range(40, 440), marks=[pytest.mark.slow, pytest.mark.long])],
    ids=["some", "many"],
)
def test_choices_against_all_mappings(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen by what the model says, compared with the best of all by the same model, and both with the event
    model. Whatever some mapping fits is mapped. benchmarks/mapper.py does the same for 2,000 of them."""
    monkeypatch.setattr("machines.MOST_STEPS", MOST_STEPS)
    monkeypatch.setattr("machines.MOST_BITS", MOST_BITS)
    most = 5000 if len(seeds) < 100 else 15_000
    ratios, tried, refused = [], 0, 0
    for seed in seeds:
        case = draw(seed)
        if (size := sum(1 for _ in every_mapping(case.arch, case.layer))) > most:
            continue
        try:
            choice = Mapper(case.arch).choose(case.layer, case.residency)
        except AccelsimError:
            assert fastest(case.arch, case.layer, case.residency) is None, seed
            refused += 1
            continue
        chosen = choice.best.estimate.cycles, choice.best.mapping
        best = fastest(case.arch, case.layer, case.residency, known=chosen)
        assert best is not None and best[0] >= choice.bound.cycles, seed
        assert choice.best.score == min(own.score for own in choice.ranked), seed
        for cycles, mapping in (best, chosen):
            assert timed(case.arch, case.layer, mapping, case.residency).cycles == cycles, seed
        ratios.append(chosen[0] / best[0])
        tried += size
    text = "median {:.3f}, 90 % {:.3f}, worst {:.3f}".format(*np.percentile(ratios, [50, 90, 100]))
    print(f"cycles over the best of all, {len(ratios)} layers, {tried:,} mappings: {text}, {refused} refused")
    assert len(ratios) > 0.3 * len(seeds)
    assert np.median(ratios) <= 1.005 and max(ratios) <= 1.15, text


@pytest.mark.parametrize("seed", HARD_DRAWS)
def test_draws_that_were_far_from_the_best_of_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machines.MOST_STEPS", MOST_STEPS)
    monkeypatch.setattr("machines.MOST_BITS", MOST_BITS)
    case = draw(seed)
    best = HARD_DRAWS[seed]
    chosen = Mapper(case.arch).choose(case.layer, case.residency).best.estimate.cycles
    assert best <= chosen <= 1.02 * best, chosen


def test_shorter_d_tiles_win_where_they_save_more_than_a_hundredth() -> None:
    """They read weights more often."""
    short = 0
    for seed in range(40):
        case = draw(seed)
        try:
            choice = Mapper(case.arch).choose(case.layer, case.residency)
        except AccelsimError:
            continue
        by_length = {True: 1 << 40, False: 1 << 40}
        for own in choice.ranked:
            is_short = own.mapping.dtile_pixels > 0
            assert own.score == own.estimate.cycles * (1.01 if is_short else 1)
            by_length[is_short] = min(by_length[is_short], own.estimate.cycles)
        is_short = choice.best.mapping.dtile_pixels > 0
        assert choice.best.estimate.cycles == by_length[is_short]
        assert not is_short or 1.01 * by_length[True] <= by_length[False]
        short += is_short
    assert short > 3


def test_slack_is_given_for_energy() -> None:
    """The least energy of those that are hardly slower is taken, and of more of them no more energy."""
    saved = kept = 0
    for seed in range(12):
        case = draw(seed)
        energies, ran = [], []
        for slack in (0.0, 0.01, 0.2):
            pins = case.arch.mapping.model_copy(update={"slack": slack})
            arch = case.arch.model_copy(update={"mapping": pins})
            try:
                choice = Mapper(arch).choose(case.layer, case.residency)
            except AccelsimError:
                break
            least = min(own.score for own in choice.ranked)
            near = [own.energy_pj for own in choice.ranked if own.score <= (1 + slack) * least]
            assert choice.best.energy_pj == min(near), seed
            assert choice.best.score <= (1 + slack) * least, seed
            energies.append(choice.best.energy_pj)
            ran.append(len(choice.ranked))
        assert energies == sorted(energies, reverse=True), seed
        saved += len(energies) == 3 and energies[-1] < energies[0]
        kept += len(ran) == 3 and ran[-1] > ran[0]
    assert saved > 5
    assert kept > 5, "none that take longer are run to their end"


def test_layers_of_odd_shapes_are_close_to_the_best_of_all_their_mappings() -> None:
    arch = load_arch("magnet16")
    for (name, scheme), best in BEST_CYCLES.items():
        layer = layer_of(NAMED[name], Scheme.parse(scheme), arch)
        chosen = Mapper(arch).choose(layer, decide_residency(arch, [layer])[0]).best
        assert chosen.estimate.cycles <= 1.03 * best, (name, scheme, chosen)
        # The best is of those with d-tiles as long as can be.
        assert best <= chosen.estimate.cycles or chosen.mapping.dtile_pixels, (name, scheme, chosen)


def test_a_larger_machine_costs_nothing() -> None:
    """Of a layer whose filters do not divide; the other parameters and layers are in a slow test below."""
    parameters = ("pes", "gb_banks", "input_buffer_words")
    steps = list(
        sweep("4/4/4/4", {"37 filters": NAMED["37 filters"]}, {name: SWEPT[name] for name in parameters})
    )
    worst = max(steps, key=lambda step: step.rise)
    assert len(steps) > 15 and worst.rise <= 0.03, worst


@pytest.mark.parametrize(
    ("layer", "scheme", "parameter", "values"),
    [
        ("20 rows", "4/4/4/4", "psum_port_bits", (32, 64)),
        ("20 rows", "4/4/4/4", "out_fifo_words", (16, 48)),
        ("20 rows", "8/8/-/-", "accumulation_collector_depth", (8, 12, 24, 32)),
        ("1x1", "4/4/4/4", "pes", (12, 13)),
        ("1x1", "4/4/4/4", "pes", (16, 17)),
        # The best uses 12 PEs on 13 as well, with tiles shorter than all that the search begins with.
        ("1x1", "8/8/-/-", "pes", (12, 13)),
        # Weights in chunks on splits whose units fit whole.
        ("20 rows", "4/4/4/4", "pes", (16, 24)),
        ("20 rows", "4/4/4/4", "out_fifo_words", (64, 128)),
        ("1x1", "8/8/-/-", "input_buffer_words", (128, 1024, 2048)),
        # Shorter d-tiles than a deeper collector has room for.
        ("3x3", "8/8/-/-", "accumulation_collector_depth", (16, 24)),
        ("3x3", "4/4/4/4", "accumulation_collector_depth", (16, 24)),
        ("matmul", "8/8/-/-", "accumulation_collector_depth", (2, 4, 16)),
    ],
)
def test_steps_of_a_larger_machine_that_once_cost_most(
    layer: str, scheme: str, parameter: str, values: tuple[int, ...]
) -> None:
    steps = list(sweep(scheme, {layer: SWEPT_LAYERS[layer]}, {parameter: values}))
    assert len(steps) == len(values) - 1
    assert max(step.rise for step in steps) <= 0.03, steps


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("scheme", ["4/4/4/4", "8/8/-/-"])
def test_a_larger_machine_costs_no_more_than_three_percent(scheme: str) -> None:
    """Over eight layers, 624 steps."""
    steps = list(sweep(scheme))
    worst = max(steps, key=lambda step: step.rise)
    print(f"{scheme}: {len(steps)} steps, worst {worst}")
    assert len(steps) > 600 and worst.rise <= 0.03, worst


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


# How far off the model may be at most, in the median and in the 99th percentile of layers.
RUNS = [
    ("resnet18", None, "8/8/-/-", 0.004, 0.4),
    ("resnet18", None, "4/4/4/4", 0.002, 0.4),
    ("bert-base", 32, "8/8/-/-", 0.002, 0.02),
    ("bert-base", 32, "4/4/4/4", 0.002, 0.02),
]


@pytest.mark.parametrize(("network", "layers", "scheme", "half", "most"), RUNS)
def test_the_model_in_a_network(
    network: str, layers: int | None, scheme: str, half: float, most: float
) -> None:
    """The mapper sees one layer and the lead that the one before leaves it; in a run its neighbours use DRAM
    and banks as well. Measured: medians of 0.00 to 0.30 %; the whole run 1.1 % too short at most. The
    99th percentile is the worst layer here: 37 % at 8/8/-/- for ResNet-18, in 1x1 convolutions of 2,200 to
    2,900 cycles, for which the next layer's first weights keep the ports of small input tiles busy.
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
    assert median < half and high < most and abs(whole) < 0.015, text

    check_bounds(arch, timings, network)
