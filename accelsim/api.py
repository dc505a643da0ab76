"""Everything the command line does, from Python; results come back as DataFrames.

>>> from accelsim.api import compare                                            # doctest: +SKIP
>>> compare("digits", schemes=["8/8/-/-", "4/4/4/4"]).to_frame()                # doctest: +SKIP
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim import __version__
from accelsim.config import Arch, load_arch
from accelsim.costs import CostLibrary
from accelsim.errors import AccelsimError
from accelsim.inventory import SCOPES, technology_of
from accelsim.layer_output import apply_activation, dequantize_output, float_output, sqnr_db
from accelsim.mapping.default import default_program
from accelsim.mapping.storage import decide_storage
from accelsim.open_workload import open_workload
from accelsim.quantize import QuantizeOptions
from accelsim.report import area_um2_at, price
from accelsim.results import Comparison, RunResult, summary_of
from accelsim.scheme import Scheme
from accelsim.sim.run import LayerActivity, simulate_programs
from accelsim.sim.whatif import accumulate_at
from accelsim.trace import Trace
from accelsim.workload import QuantizedLayer

if TYPE_CHECKING:
    import pandas as pd

# Published per-vector PEs accumulate in 24 bits; every comparison shows what that would mean here.
PUBLISHED_ACCUMULATOR_BITS = 24
DEFAULT_SCHEMES = ("8/8/-/-", "4/4/4/4", "4/8/6/10")

Progress = Callable[[str, int, int], None]  # what, done, of
FloatOutputs = dict[str, np.ndarray]


def run(
    trace: str | Path | Trace,
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    overrides: Sequence[str] = (),
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Simulate a trace at one scheme on one machine.

    trace: a file, the name of a bundled trace, or an open Trace; arch: a preset, a file or an Arch;
    overrides: `KEY=VALUE` changes to the arch; options: how a float trace is quantized.
    Raises AccelsimError on bad input, with one clear line.
    """
    opened, machine = _open(trace), _machine(arch, overrides)
    return _run(opened, machine, _scheme(scheme), options, progress, _float_outputs(opened))


def compare(
    trace: str | Path | Trace,
    arch: str | Path | Arch = "magnet16",
    schemes: Sequence[str | Scheme] = DEFAULT_SCHEMES,
    *,
    overrides: Sequence[str] = (),
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Simulate a trace at several schemes; savings are against the first. Raises as `run` does."""
    if isinstance(schemes, str):
        raise AccelsimError(
            f"compare: schemes is '{schemes}', expected a list such as ['8/8/-/-', '4/4/4/4']"
        )
    wanted = [_scheme(scheme) for scheme in schemes]
    if not wanted:
        raise AccelsimError("compare: no scheme given, expected at least one such as 8/8/-/-")
    if len(set(wanted)) != len(wanted):
        raise AccelsimError(f"compare: a scheme is given twice in {', '.join(map(str, wanted))}")
    opened, machine = _open(trace), _machine(arch, overrides)
    floats = _float_outputs(opened)
    runs = tuple(_run(opened, machine, scheme, options, progress, floats) for scheme in wanted)
    return Comparison(runs, _comparison_table(machine, runs, floats))


def cost_table(component: str | None = None, arch: str | Path | Arch = "magnet16") -> pd.DataFrame:
    """Every constant, or those of one component, with unit, node, source and standing."""
    import pandas as pd

    library = CostLibrary(technology_of(_machine(arch, ())))
    return pd.DataFrame(library.rows(component))


def emit_rtl(
    out: str | Path,
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    trace: str | Path | Trace = "digits",
    layer: str | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Write one PE as SystemVerilog into folder `out`, with a testbench of a tile of the trace's layer.

    layer: a layer's name, or None for the first. Raises AccelsimError on bad input.
    """
    from accelsim.rtl.emit import emit

    machine, wanted, opened = _machine(arch, overrides), _scheme(scheme), _open(trace)
    machine.check_scheme(wanted)
    name = opened.layers[0].name if layer is None else layer
    words = opened.quantized_layer(name, wanted, machine.vector_size)
    out = Path(out)
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "pe_top.sv").is_file())):
        raise AccelsimError(f"rtl {out}: holds other files, expected a new folder or an earlier PE")
    return emit(machine, wanted, words, out)


def synthesise_rtl(
    out: str | Path,
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    overrides: Sequence[str] = (),
    liberty: str | Path | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Synthesise what `emit_rtl` wrote with Yosys: cells by module, and modelled beside synthesised area.

    Raises AccelsimError when Yosys is absent or fails.
    """
    from accelsim.rtl.synth import compare_area, synth, synth_frame

    machine = _machine(arch, overrides)
    rows = synth(out, liberty)
    library = CostLibrary(technology_of(machine))
    return synth_frame(rows), compare_area(rows, machine, _scheme(scheme), library)


def quantize_options(items: Sequence[str]) -> QuantizeOptions:
    """QuantizeOptions from `KEY=VALUE` texts. Raises AccelsimError for an unknown key or value."""
    known = {field.name: field for field in fields(QuantizeOptions)}
    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or key not in known:
            raise AccelsimError(f"--quantize {item}: expected KEY=VALUE with KEY one of {', '.join(known)}")
        values[key] = text
        if isinstance(known[key].default, float):
            try:
                values[key] = float(text)
            except ValueError:
                raise AccelsimError(f"--quantize {item}: expected a number") from None
    return QuantizeOptions(**values)


def _open(trace: str | Path | Trace) -> Trace:
    return trace if isinstance(trace, Trace) else open_workload(trace)


def _machine(arch: str | Path | Arch, overrides: Sequence[str]) -> Arch:
    if isinstance(overrides, str):
        raise AccelsimError(f"overrides is '{overrides}', expected a list of KEY=VALUE")
    if not isinstance(arch, Arch):
        return load_arch(arch, list(overrides))
    if overrides:
        raise AccelsimError("overrides apply to an arch given by name or file, not to an Arch object")
    return arch


def _scheme(scheme: str | Scheme) -> Scheme:
    return scheme if isinstance(scheme, Scheme) else Scheme.parse(str(scheme))


def _float_outputs(trace: Trace) -> FloatOutputs:
    """Float output before the activation of every layer that has floats: what SQNR is measured against."""
    return {info.name: float_output(trace.float_layer(info.name)) for info in trace.layers if info.has_floats}


def _run(
    trace: Trace,
    arch: Arch,
    scheme: Scheme,
    options: QuantizeOptions | None,
    progress: Progress | None,
    floats: FloatOutputs,
) -> RunResult:
    started = time.perf_counter()
    arch.check_scheme(scheme)
    library = CostLibrary(technology_of(arch))
    if arch.fold != "auto":
        options = replace(options or QuantizeOptions(), fold=arch.fold)
    layers = [trace.quantized_layer(info.name, scheme, arch.vector_size, options) for info in trace.layers]
    for layer in layers:
        _check_sign(arch, layer)
    storages = decide_storage(arch, layers)
    programs = [
        default_program(arch, layer, storage) for layer, storage in zip(layers, storages, strict=True)
    ]

    def on_layer(index: int) -> None:
        if progress is not None:
            progress(str(scheme), index + 1, len(layers))

    activities = tuple(simulate_programs(arch, programs, on_layer))
    report = price(arch, scheme, activities, library)
    sqnr = [_layer_sqnr(arch, activity, floats.get(activity.layer.name)) for activity in activities]
    report = replace(
        report,
        layers=report.layers.assign(
            sqnr_db=np.array([own[0] for own in sqnr], dtype=float),
            ppu_sqnr_db=np.array([own[1] for own in sqnr], dtype=float),
        ),
    )
    summary = summary_of(
        report,
        activities,
        trace=trace.name,
        wall_s=0.0,
        sqnr_db=_mean_sqnr(activities, [own[0] for own in sqnr]),
        extra={
            "ppu_sqnr_db": _mean_sqnr(activities, [own[1] for own in sqnr]),
            "model": trace.model,
            "synthetic": trace.synthetic,
            "trace_sha256": trace.sha256,
            "accelsim_version": __version__,
            "accumulator_bits": arch.accumulator_width(scheme),
            "arch_parameters": arch.model_dump(),
        },
    )
    summary["wall_s"] = round(time.perf_counter() - started, 3)
    return RunResult(summary, report, activities)


def _check_sign(arch: Arch, layer: QuantizedLayer) -> None:
    if arch.activation_sign == "both":
        return
    needs = "signed" if layer.input_signed else "unsigned"
    if needs != arch.activation_sign:
        raise AccelsimError(
            f"layer {layer.name}: its input is {needs}, the machine's activation_sign is "
            f"{arch.activation_sign}, expected {needs} or both"
        )


def _layer_sqnr(
    arch: Arch, activity: LayerActivity, reference: np.ndarray | None
) -> tuple[float | None, float | None]:
    """SQNR of the psums and of the PPU's quantized outputs against the float layer."""
    if reference is None:
        return None, None
    layer, output = activity.layer, activity.layer.output
    y = dequantize_output(activity.psums, layer, arch.product_shift)
    codes = activity.output.astype(np.float64) * output.gamma
    if activity.output_scales is not None:
        codes *= _scales_by_channel(activity)
    return sqnr_db(reference, y), sqnr_db(apply_activation(reference, layer.activation), codes)


def _scales_by_channel(activity: LayerActivity) -> np.ndarray:
    """The output scale of each of the K channels, [pixels, K]; vectors of k do not mix groups."""
    geometry, scales = activity.layer.geometry, activity.output_scales
    assert scales is not None
    by_group = scales.reshape(geometry.pixels, geometry.groups, -1)
    spread = np.repeat(by_group, activity.layer.vector_size, axis=2)[:, :, : geometry.outputs_per_group]
    return spread.reshape(geometry.pixels, geometry.K)


def _mean_sqnr(activities: Sequence[LayerActivity], values: Sequence[float | None]) -> float | None:
    """MAC-weighted mean over the layers that have one."""
    known = [(a.layer.geometry.macs, v) for a, v in zip(activities, values, strict=True) if v is not None]
    return sum(m * v for m, v in known) / sum(m for m, _ in known) if known else None


def _comparison_table(arch: Arch, runs: Sequence[RunResult], floats: FloatOutputs) -> pd.DataFrame:
    import pandas as pd

    narrow = arch.model_copy(update={"accumulator_bits": PUBLISHED_ACCUMULATOR_BITS})
    library = CostLibrary(technology_of(arch))
    base = runs[0].summary
    rows: list[dict[str, Any]] = []
    for run in runs:
        summary, scheme = run.summary, run.report.scheme
        row: dict[str, Any] = {
            key: summary[key] for key in ("scheme", "macs", "cycles", "utilization", "sqnr_db", "overflows")
        }
        for scope in SCOPES:
            row[f"energy_{scope}_pj"] = summary["energy_pj"][scope]
        for scope in SCOPES[:-1]:
            row[f"area_{scope}_um2"] = summary["area_um2"][scope]
        row["area_pe_datapath_and_sram_um2"] = _datapath_and_sram_um2(run)
        for scope in SCOPES:
            row[f"fj_per_op_{scope}"] = summary["fj_per_op"][scope]
        row["tops_per_mm2"] = summary["tops_per_mm2"]
        row["peak_tops_per_mm2"] = summary["peak_tops_per_mm2"]
        for scope in SCOPES:
            row[f"energy_{scope}_saved_percent"] = _saved(base["energy_pj"], summary["energy_pj"], scope)
        for scope in SCOPES[:-1]:
            row[f"area_{scope}_saved_percent"] = _saved(base["area_um2"], summary["area_um2"], scope)
        row["cycles_saved_percent"] = _saved(base, summary, "cycles")
        row["accumulator_bits"] = summary["accumulator_bits"]
        row["area_pe_24bit_um2"] = area_um2_at(narrow, scheme, library, "pe")
        row["overflows_24bit"], row["sqnr_db_24bit"] = _at_published_width(arch, run, floats)
        rows.append(row)
    return pd.DataFrame(rows)


def _at_published_width(arch: Arch, run: RunResult, floats: FloatOutputs) -> tuple[int, float | None]:
    """Overflows and mean SQNR of the psums with PUBLISHED_ACCUMULATOR_BITS."""
    total, sqnr = 0, []
    for activity in run.activities:
        layer = activity.layer
        psums, overflows = accumulate_at(arch, layer, PUBLISHED_ACCUMULATOR_BITS)
        total += overflows
        reference = floats.get(layer.name)
        y = dequantize_output(psums, layer, arch.product_shift)
        sqnr.append(None if reference is None else sqnr_db(reference, y))
    return total, _mean_sqnr(run.activities, sqnr)


def _datapath_and_sram_um2(run: RunResult) -> float:
    """Placed area of one PE's datapath with its SRAM buffers, leaving out collectors, PPU and control."""
    area, arch = run.report.area, run.report.arch
    wanted = (area["scope"] == "datapath") | area["component"].isin(["weight_buffer", "input_buffer"])
    return float(area.loc[wanted, "placed_area_um2"].sum()) / arch.pes


def _saved(base: dict[str, Any], own: dict[str, Any], key: str) -> float:
    return 100 * (1 - own[key] / base[key])
