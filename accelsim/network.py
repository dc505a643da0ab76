"""Run a network: layer by layer what it computes, then all layers in time, then prices."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from accelsim import __version__
from accelsim.compute.activity import LayerActivity, lane_counts
from accelsim.compute.lanes import LayerValues, accumulate_layer, compute_values
from accelsim.costs import CostLibrary
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.program import LayerProgram
from accelsim.mapping.residency import Storage, decide_storage
from accelsim.mapping.search.mapper import Choice, Mapper
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.reference import apply_activation, dequantize_output, float_output, sqnr_db
from accelsim.report.inventory import action_prices_pj, build_inventory, technology_of
from accelsim.report.price import price
from accelsim.report.results import RunResult, summary_of
from accelsim.report.timeline import Timeline
from accelsim.sim.run import LayerTiming, no_cyclic_gc, time_programs
from accelsim.trace.file import Trace
from accelsim.workload.layer import LayerSpec, QuantizedLayer

# Published per-vector PEs accumulate in 24 bits; every comparison shows what that would mean here.
PUBLISHED_ACCUMULATOR_BITS = 24

# Layers whose tensors may wait to be computed.
_AHEAD = 2
# How long one thread keeps the interpreter from another, in s.
_SWITCH_S = 2e-4

Progress = Callable[[str, int, int], None]  # what, done, of
FloatOutputs = dict[str, np.ndarray]


def float_outputs(trace: Trace) -> FloatOutputs:
    """Float output before the activation of every layer that has floats: what SQNR is measured against."""
    return {info.name: float_output(trace.float_layer(info.name)) for info in trace.layers if info.has_floats}


@dataclass(frozen=True)
class _Computed:
    """What is kept of a layer once it is computed; the tensors only where asked for."""

    gated_steps: int
    zero_operand_macs: int
    overflows: int | None
    sqnr_db: float | None
    ppu_sqnr_db: float | None
    narrow_overflows: int
    narrow_sqnr_db: float | None
    operands: QuantizedLayer | None
    values: LayerValues | None


def run_network(
    trace: Trace,
    arch: Arch,
    scheme: Scheme,
    options: QuantizeOptions | None,
    progress: Progress | None,
    floats: FloatOutputs,
    *,
    keep_tensors: bool,
    narrow: bool = False,
    gated_fraction: float | None = None,
    timeline: bool = False,
    library: CostLibrary | None = None,
) -> RunResult:
    """Compute, time and price every layer of a trace.

    Tensors live one layer at a time unless `keep_tensors`. narrow: also accumulate at the published width.
    gated_fraction: compute nothing, and take this share of the lane steps outside of the padding for gated.
    timeline: also record when everything happens.
    library: prices, by default those of the package at the machine's technology.
    Raises AccelsimError on input that does not fit the machine.
    """
    started = time.perf_counter()
    arch.check_scheme(scheme)
    library = library or CostLibrary(technology_of(arch))
    if arch.fold != "auto":
        options = replace(options or QuantizeOptions(), fold=arch.fold)
    count = len(trace.layers)
    outlines = _outlines(trace, arch, scheme, options)
    storages = decide_storage(arch, outlines)
    mapper = Mapper(arch, action_prices_pj(build_inventory(arch, scheme, library), arch.clock_ghz))
    programs: list[LayerProgram] = []

    def tell(what: str, done: int) -> None:
        if progress is not None:
            progress(f"{scheme} {what}", done, count)

    def compute(index: int, layer_of: Callable[[], QuantizedLayer], c_split: int) -> _Computed:
        layer = layer_of()
        own = _compute(arch, layer, c_split, floats.get(layer.name), keep_tensors, narrow)
        tell("values", index + 1)
        return own

    # Values are computed beside mapping and timing, which want only the layers' sizes; one layer at a time.
    jobs: deque[Future[_Computed]] = deque()
    computed: list[_Computed] = []
    ahead = count if trace.draws_tensors else _AHEAD
    with no_cyclic_gc(), _worker() as worker:
        choices = mapper.choices(outlines, storages)
        for index, (info, storage, choice) in enumerate(zip(trace.layers, storages, choices, strict=True)):
            spec, layer_of = trace.open_layer(info.name, scheme, arch.vector_size, options)
            _check_sign(arch, spec)
            programs.append(mapper.program(choice, spec, storage))
            if gated_fraction is not None:
                computed.append(_assume(spec, gated_fraction))
                continue
            while jobs and (len(jobs) == ahead or jobs[0].done()):
                computed.append(jobs.popleft().result())
            jobs.append(worker.submit(compute, index, layer_of, programs[-1].mapping.c_split))
        recorder = Timeline(arch, programs, title=f"{trace.name} {scheme} {arch.name}") if timeline else None
        timings = time_programs(arch, programs, lambda index: tell("cycles", index + 1), recorder)
        computed += [job.result() for job in jobs]
    activities = tuple(_join(*parts) for parts in zip(timings, computed, strict=True))
    report = price(arch, scheme, activities, library)
    report = replace(
        report,
        layers=report.layers.assign(
            sqnr_db=np.array([own.sqnr_db for own in computed], dtype=float),
            ppu_sqnr_db=np.array([own.ppu_sqnr_db for own in computed], dtype=float),
        ),
    )
    specs = [timing.layer for timing in timings]
    summary = summary_of(
        report,
        activities,
        trace=trace.name,
        wall_s=0.0,
        sqnr_db=_mean_by_macs(specs, [own.sqnr_db for own in computed]),
        extra={
            "ppu_sqnr_db": _mean_by_macs(specs, [own.ppu_sqnr_db for own in computed]),
            "model": trace.model,
            "synthetic": trace.synthetic,
            "assumed_gated_fraction": gated_fraction,
            "trace_sha256": trace.sha256,
            "accelsim_version": __version__,
            "accumulator_bits": arch.accumulator_width(scheme),
            "arch_parameters": arch.model_dump(),
        },
    )
    at_published_width = None
    if narrow:
        at_published_width = (
            sum(own.narrow_overflows for own in computed),
            _mean_by_macs(specs, [own.narrow_sqnr_db for own in computed]),
        )
    summary["wall_s"] = round(time.perf_counter() - started, 3)
    return RunResult(summary, report, activities, at_published_width, recorder)


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


def choose_mapping(
    trace: Trace,
    arch: Arch,
    scheme: Scheme,
    options: QuantizeOptions | None,
    library: CostLibrary,
    wanted: str,
) -> tuple[Choice, Storage]:
    """What the mapper finds for layer `wanted` of a run of the trace, and where its operands live."""
    if arch.fold != "auto":
        options = replace(options or QuantizeOptions(), fold=arch.fold)
    outlines = _outlines(trace, arch, scheme, options)
    index = [info.name for info in trace.layers].index(wanted)
    storages = decide_storage(arch, outlines)
    prices_pj = action_prices_pj(build_inventory(arch, scheme, library), arch.clock_ghz)
    choices = Mapper(arch, prices_pj).choices(outlines, storages)
    return next(islice(choices, index, None)), storages[index]


def _outlines(trace: Trace, arch: Arch, scheme: Scheme, options: QuantizeOptions | None) -> list[LayerSpec]:
    return [trace.layer_outline(info.name, scheme, arch.vector_size, options) for info in trace.layers]


def _compute(
    arch: Arch,
    layer: QuantizedLayer,
    c_split: int,
    reference: np.ndarray | None,
    keep_tensors: bool,
    narrow: bool,
) -> _Computed:
    values = compute_values(arch, layer, c_split)
    own_sqnr = ppu_sqnr = narrow_sqnr = None
    if reference is not None:
        y = dequantize_output(values.psums, layer, arch.product_shift)
        own_sqnr = sqnr_db(reference, y)
        codes = values.output.astype(np.float64) * layer.output.gamma
        if values.output_scales is not None:
            codes *= _scales_by_channel(layer, values.output_scales)
        ppu_sqnr = sqnr_db(apply_activation(reference, layer.activation), codes)
    narrow_overflows = 0
    if narrow:
        psums, overflow_map = accumulate_layer(arch, layer, PUBLISHED_ACCUMULATOR_BITS, c_split)
        narrow_overflows = int(overflow_map.sum())
        if reference is not None:
            narrow_sqnr = sqnr_db(reference, dequantize_output(psums, layer, arch.product_shift))
    return _Computed(
        values.gated_steps,
        values.zero_operand_macs,
        values.overflows,
        own_sqnr,
        ppu_sqnr,
        narrow_overflows,
        narrow_sqnr,
        layer if keep_tensors else None,
        values if keep_tensors else None,
    )


def _assume(layer: LayerSpec, gated_fraction: float) -> _Computed:
    """In place of values: taps in the image's padding are gated, and of the other steps a share."""
    geometry = layer.geometry
    steps = geometry.pixels * geometry.K * layer.G
    padded = 0
    if not layer.folded:
        padded = int((layer.taps < 0).sum()) * layer.words_per_position * geometry.K
    gated = padded + round(gated_fraction * (steps - padded))
    return _Computed(gated, gated * layer.vector_size, None, None, None, 0, None, None, None)


def _join(timing: LayerTiming, computed: _Computed) -> LayerActivity:
    return LayerActivity(
        timing.layer,
        timing,
        lane_counts(timing, computed.gated_steps),
        computed.overflows,
        computed.zero_operand_macs,
        computed.operands,
        computed.values,
    )


def _check_sign(arch: Arch, layer: LayerSpec) -> None:
    if arch.activation_sign == "both":
        return
    needs = "signed" if layer.input_signed else "unsigned"
    if needs != arch.activation_sign:
        raise AccelsimError(
            f"layer {layer.name}: its input is {needs}, the machine's activation_sign is "
            f"{arch.activation_sign}, expected {needs} or both"
        )


def _scales_by_channel(layer: LayerSpec, scales: np.ndarray) -> np.ndarray:
    """The output scale of each of the K channels, [pixels, K]; vectors of k do not mix groups."""
    geometry = layer.geometry
    by_group = scales.reshape(geometry.pixels, geometry.groups, -1)
    spread = np.repeat(by_group, layer.vector_size, axis=2)[:, :, : geometry.outputs_per_group]
    return spread.reshape(geometry.pixels, geometry.K)


def _mean_by_macs(layers: Sequence[LayerSpec], values: Sequence[float | None]) -> float | None:
    """MAC-weighted mean over the layers that have a value."""
    known = [(layer.geometry.macs, v) for layer, v in zip(layers, values, strict=True) if v is not None]
    return sum(m * v for m, v in known) / sum(m for m, _ in known) if known else None
