"""The walk of a run: plan, compute, time, price, each with one request and one result.

    plan     where operands live, how each layer is laid on the PEs      mapping/planning.py
    compute  a layer's integers and their error                          compute/values.py
    time     when everything happens, and how often                      sim/run.py, sim/remembered.py
    price    counts times costs                                          report/price.py

Layers are computed beside planning and timing, as soon as each is planned. Where only the bits of values are
asked for, the walk ends after computing: compute/bits.py, report/bits.py. Compiled code is imported by what
calls it: a run without values whose timing is kept calls none, and loading it would take longer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from accelsim.arguments import check_gated, expect, shown
from accelsim.compute.activity import join
from accelsim.compute.computed import Computed, assume
from accelsim.compute.remembered import KeptValues
from accelsim.compute.widths import AccumulatorWidth
from accelsim.costs import CostLibrary
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.mapping.plan import StepOrder, step_order
from accelsim.mapping.planning import LayerPlan, PlanRequest, choice_of, plan
from accelsim.mapping.residency import Residency, in_stored_formats
from accelsim.mapping.search.mapper import Choice
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.layers import with_output
from accelsim.quantize.reference import float_output
from accelsim.quantize.workload import Workload
from accelsim.report.bits import BitsResult
from accelsim.report.frequency import check_clock
from accelsim.report.inventory import Part, action_prices_pj, build_inventory
from accelsim.report.price import PriceRequest, price
from accelsim.report.results import RunResult
from accelsim.report.summary import at_published_width, summary_of
from accelsim.report.timeline import Timeline
from accelsim.sim.remembered import time_plan
from accelsim.sim.run import TimeRequest, no_cyclic_gc, time_layers
from accelsim.version import __version__
from accelsim.workload.layer import LayerSpec, QuantizedLayer
from accelsim.workload.wiring import wire

if TYPE_CHECKING:
    from accelsim.compute.bits import LayerBits

# How long one thread keeps the interpreter from another, in s.
_SWITCH_S = 2e-4

DATA, TABLES = "data", "tables"
ACTIVITIES = (DATA, TABLES)
"""Energy of the lanes by the bits that change in them, where values are computed; or by the operands of the
tables for all layers alike."""

Progress = Callable[[str, int, int], None]  # what, done, of


class FloatOutputs:
    """Float output before the activation of every layer that has floats: what SQNR is measured against. Each
    is made when it is first asked for."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._made: dict[str, np.ndarray | None] = {}

    def of(self, name: str) -> np.ndarray | None:
        """float64[pixels, K], or None for a layer without floats."""
        if name not in self._made:
            floats = self._workload.floats(name)
            self._made[name] = None if floats is None else float_output(floats)
        return self._made[name]


@dataclass(frozen=True, eq=False)
class RunRequest:
    """A workload at one scheme a layer (all equal today), on a machine, at prices.

    options: how floats are quantized; references: None for nothing to compare with; keep_tensors:
    without it tensors live a layer at a time; narrow: also accumulate at the published width;
    gated_fraction: compute nothing, and take this share of the lane steps outside of the padding for gated;
    timeline: record when everything happens; activity: what the energy of the lanes goes by (ACTIVITIES);
    library: None counts and times alone, without energy and area;
    accumulator: what policy the arch's accumulator_bits came from (sizing.py), None where it came from none.
    """

    workload: Workload
    arch: Arch
    schemes: tuple[Scheme, ...]
    library: CostLibrary | None
    options: QuantizeOptions | None = None
    references: FloatOutputs | None = None
    keep_tensors: bool = False
    narrow: bool = False
    gated_fraction: float | None = None
    timeline: bool = False
    activity: str = DATA
    accumulator: AccumulatorWidth | None = None

    def __post_init__(self) -> None:
        check_gated(self.gated_fraction)
        for flag in ("keep_tensors", "timeline"):
            expect(getattr(self, flag), bool, flag, "True or False")
        if not isinstance(self.activity, str) or self.activity not in ACTIVITIES:
            raise AccelsimError(f"activity is {shown(self.activity)}, expected {' or '.join(ACTIVITIES)}")

    @property
    def scheme(self) -> Scheme:
        return self.schemes[0]

    @property
    def quantize_options(self) -> QuantizeOptions | None:
        """Those asked for, with what the machine decides; None where neither asks for anything."""
        asked = self.options or QuantizeOptions()
        decided = asked.on_machine(self.arch.fold, self.arch.scale_rounding)
        return self.options if decided == asked else decided

    @cached_property
    def inventory(self) -> list[Part] | None:
        """The machine's parts with their prices, None without. Raises AccelsimError where no price exists."""
        return None if self.library is None else build_inventory(self.arch, self.scheme, self.library)

    @property
    def counts_toggles(self) -> bool:
        """Bits that change in the lanes, which only energy asks for."""
        return self.activity == DATA and self.library is not None

    def values_depend_on(self) -> Hashable:
        """All that is the same for every layer, but for the machine."""
        measured = self.references is not None
        return self.workload.sha256, self.quantize_options, measured, self.narrow, self.counts_toggles

    def planned(self) -> PlanRequest:
        """What the first stage needs of it. Raises AccelsimError for a scheme that the machine cannot run."""
        arch, names = self.arch, [layer.name for layer in self.workload.layers]
        for scheme in dict.fromkeys(self.schemes):
            arch.check_scheme(scheme)
        outlines = tuple(
            self.workload.outline(name, scheme, arch.vector_size, self.quantize_options)
            for name, scheme in zip(names, self.schemes, strict=True)
        )
        inventory = self.inventory
        prices = None if inventory is None else action_prices_pj(inventory, arch.clock_ghz)
        wiring = wire(self.workload.graph, self.workload.layers)
        stored = in_stored_formats(arch, outlines, wiring)
        return PlanRequest(arch, stored, wiring, prices)


def run_network(request: RunRequest, progress: Progress | None = None) -> RunResult:
    """Plan, compute, time and price every layer of a workload.

    Raises AccelsimError on input that does not fit the machine.
    """
    started = time.perf_counter()
    arch, scheme, count = request.arch, request.scheme, len(request.workload.layers)
    if request.library is not None and request.inventory is not None:
        # What has its price in the end is refused now.
        check_clock(arch, scheme, request.inventory, request.library)

    def tell(what: str, done: int) -> None:
        if progress is not None:
            progress(f"{scheme} {what}", done, count)

    # By layers that have the same tensors, and what else their values depend on.
    known: dict[Hashable, Computed] = {}
    computes = request.gated_fraction is None
    kept = KeptValues(arch, request.values_depend_on()) if computes and not request.keep_tensors else None

    def computed_layer(index: int, planned: LayerPlan) -> Computed:
        spec, own_scheme = planned.layer, request.schemes[index]
        tensors = request.workload.tensors_of(spec.name)
        order = step_order(arch, spec, planned.mapping)
        key = tensors, own_scheme, spec.written_operands[0], order
        if key not in known:
            compute = partial(_compute_layer, request, spec, own_scheme, order, progress)
            known[key] = compute() if kept is None else kept.of(key, compute)
        tell("values", index + 1)
        return known[key].of(spec)

    def timed(index: int) -> None:
        tell("cycles", index + 1)

    def timed_in_part(index: int, done: int, of: int) -> None:
        if progress is not None:
            progress(f"{scheme} cycles of {request.workload.layers[index].name}", done, of)

    jobs: list[Future[Computed]] = []
    with no_cyclic_gc(), _worker() as worker:

        def planned(index: int, layer: LayerPlan) -> None:
            tell("mappings", index + 1)
            if computes:
                jobs.append(worker.submit(computed_layer, index, layer))

        whole = plan(request.planned(), planned)
        recorder = None
        if request.timeline:
            # It shows every tile.
            programs = tuple(own.program.whole(arch) for own in whole.layers)
            recorder = Timeline(arch, programs, title=f"{request.workload.name} {scheme} {arch.name}")
            times = time_layers(TimeRequest(arch, programs, whole.prologue), timed, recorder, timed_in_part)
        else:
            times = time_plan(arch, whole, timed, timed_in_part)
        if request.gated_fraction is None:
            computed = [job.result() for job in jobs]
        else:
            share = request.gated_fraction
            computed = [assume(own.layer, share, own.mapping.c_split) for own in whole.layers]
    activities = tuple(join(arch, *parts) for parts in zip(times, computed, strict=True))
    report = price(PriceRequest(arch, scheme, activities, request.library))
    counted = request.gated_fraction is None and request.counts_toggles
    about = {
        **_about(request),
        "assumed_gated_fraction": request.gated_fraction,
        "layers_computed": None if request.gated_fraction is not None else len(known),
        "activity": DATA if counted else TABLES,
        "accumulator": request.accumulator or _own_width(arch, scheme),
    }
    narrow = at_published_width(activities) if request.narrow else None
    wall_s = round(time.perf_counter() - started, 3)
    return RunResult(summary_of(report, activities, about, wall_s), report, activities, narrow, recorder)


def _compute_layer(
    request: RunRequest, spec: LayerSpec, scheme: Scheme, order: StepOrder, progress: Progress | None
) -> Computed:
    """As a whole where tensors are kept or compared, else in parts where it is too large."""
    from accelsim.compute.values import ComputeRequest, compute, join_parts

    workload = request.workload
    reference = None if request.references is None else request.references.of(spec.name)
    own = spec.name, scheme, request.arch.vector_size, request.quantize_options
    parts: Iterable[QuantizedLayer]
    if request.keep_tensors or reference is not None:
        parts = [workload.quantized_layer(*own)]
    else:
        tell = None if progress is None else lambda what, *done: progress(f"{request.scheme} {what}", *done)
        parts = workload.quantized_parts(*own, tell)
    found = [
        compute(
            ComputeRequest(
                request.arch,
                with_output(layer, spec.written_operands[0]),
                order,
                reference,
                request.keep_tensors,
                narrow=request.narrow,
                toggles=request.counts_toggles,
            )
        )
        for layer in parts
    ]
    return found[0] if len(found) == 1 else join_parts(found)


def measure_network(
    request: RunRequest, widths: Sequence[int], progress: Progress | None = None
) -> BitsResult:
    """Plan a workload, and look at the bits of every layer as soon as it is: the mapping cuts its reduction.

    widths: accumulator widths to try. Raises AccelsimError on input that does not fit the machine.
    """
    from accelsim.compute.bits import measure_bits

    arch, scheme, count = request.arch, request.scheme, len(request.workload.layers)

    def measured_layer(index: int, name: str, c_split: int) -> LayerBits:
        options = request.quantize_options
        layer = request.workload.quantized_layer(name, request.schemes[index], arch.vector_size, options)
        reference = None if request.references is None else request.references.of(name)
        own = measure_bits(arch, layer, c_split, widths, reference)
        if progress is not None:
            progress(f"{scheme} bits", index + 1, count)
        return own

    jobs: list[Future[LayerBits]] = []
    with no_cyclic_gc(), _worker() as worker:

        def planned(index: int, layer: LayerPlan) -> None:
            jobs.append(worker.submit(measured_layer, index, layer.layer.name, layer.mapping.c_split))

        plan(request.planned(), planned)
        layers = [job.result() for job in jobs]
    return BitsResult.of(arch, scheme, layers, _about(request))


def _own_width(arch: Arch, scheme: Scheme) -> AccumulatorWidth:
    policy = "auto" if arch.accumulator_bits == "auto" else "given"
    return AccumulatorWidth(policy, arch.accumulator_width(scheme))


def _about(request: RunRequest) -> dict[str, object]:
    """Of a result, what was run and by whom."""
    return {
        "trace": request.workload.name,
        "model": request.workload.model,
        "synthetic": request.workload.synthetic,
        "trace_sha256": request.workload.sha256,
        "accelsim_version": __version__,
    }


@contextmanager
def _worker() -> Iterator[ThreadPoolExecutor]:
    """One thread beside this one; what it has not begun is dropped where this one fails.

    It wants the interpreter often and for a moment, between compiled loops that take less than Python's 5 ms.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        with ThreadPoolExecutor(1) as worker:
            try:
                yield worker
            except BaseException:
                worker.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        sys.setswitchinterval(interval)


def choose_mapping(request: RunRequest, layer: str) -> tuple[Residency, Choice]:
    """Where a layer's operands live and what the mapper finds for it: the walk up to there."""
    index = [own.name for own in request.workload.layers].index(layer)
    return choice_of(request.planned(), index)
