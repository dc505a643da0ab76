"""The command line: parse, call, print. A user's mistake is one line on stderr and exit status 2."""

from __future__ import annotations

import atexit
import gc
import io
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from accelsim.cli.bits import bits_command
from accelsim.cli.costs import costs_app
from accelsim.cli.doctor import doctor_command
from accelsim.cli.export import export_command
from accelsim.cli.json_output import JsonOption, print_json
from accelsim.cli.options import (
    ActivityOption,
    ArchOption,
    CostsOption,
    DataOption,
    DumpOption,
    GatedOption,
    OutOption,
    PlotOption,
    PricesOption,
    QuantizeOption,
    SetOption,
    TimelineOption,
    TraceArgument,
    quantize_options_of,
    read_accuracy,
)
from accelsim.cli.report import report_command
from accelsim.cli.sweep import sweep_command, tune_command
from accelsim.cli.trace import trace_app
from accelsim.cli.validate import validate_command
from accelsim.errors import LONG, MOST, AccelsimError, one_line, printable

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.report.results import Comparison, RunResult

_GC_THRESHOLD = 50_000

# Heavy modules (numba, pandas, matplotlib) are imported by the commands that use them, so --help is quick.

app = typer.Typer(
    help="Cycle-level, bit-exact simulator of DNN inference accelerators with per-vector scales.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(trace_app, name="trace")
app.add_typer(costs_app, name="costs")
app.command("bits")(bits_command)
app.command("doctor")(doctor_command)
app.command("export")(export_command)
app.command("report")(report_command)
app.command("sweep")(sweep_command)
app.command("tune")(tune_command)
app.command("validate")(validate_command)


@app.command("run")
def run_command(
    trace: TraceArgument,
    arch: ArchOption = "magnet16",
    scheme: Annotated[str, typer.Option("--scheme", help="Precision W/A/ws/as[@block][:spN].")] = "4/4/4/4",
    out: OutOption = None,
    overrides: SetOption = None,
    quantize: QuantizeOption = None,
    costs: CostsOption = None,
    dump: DumpOption = False,
    data: DataOption = True,
    gated_fraction: GatedOption = None,
    activity: ActivityOption = "data",
    prices: PricesOption = True,
    timeline: TimelineOption = False,
    plots: PlotOption = True,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show, and write to explained.csv, count x constant = energy."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate a trace at one scheme and write its results."""
    from accelsim import api
    from accelsim.cli.progress import loading_writers, progress_bar
    from accelsim.cli.terminal import print_explained
    from accelsim.report.folder import check_target

    target = _target(out, trace, scheme)
    check_target(target)
    if explain and not prices:
        raise AccelsimError("--explain needs prices, which --no-prices leaves out")
    with progress_bar() as progress:
        result = api.run(
            trace,
            arch,
            scheme,
            overrides=overrides or (),
            options=quantize_options_of(quantize),
            costs=costs,
            progress=loading_writers(progress, plots) if data else progress,
            keep_tensors=dump,
            gated_fraction=_gated(data, gated_fraction, dump),
            timeline=timeline,
            activity=activity,
            prices=prices,
        )
        result.write(target, plots=plots, dump=dump, explained=explain)
    if as_json:
        more = {"explained": result.explain()} if explain else {}
        print_json({"summary": result.summary, "layers": result.layers, **more, "results": target})
        return
    _print_run(result)
    if explain:
        print_explained(result.explain())
    _written(target)


@app.command("compare")
def compare_command(
    trace: TraceArgument,
    arch: ArchOption = "magnet16",
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            "--scheme",
            help="Repeats; the first is the baseline [default: 8/8/-/- 4/4/4/4 4/4/4/6 4/8/6/10].",
        ),
    ] = None,
    out: OutOption = None,
    overrides: SetOption = None,
    quantize: QuantizeOption = None,
    costs: CostsOption = None,
    dump: DumpOption = False,
    data: DataOption = True,
    gated_fraction: GatedOption = None,
    activity: ActivityOption = "data",
    prices: PricesOption = True,
    timeline: TimelineOption = False,
    plots: PlotOption = True,
    accuracy: Annotated[
        Path | None,
        typer.Option("--accuracy", help='JSON of what was measured: {"4/4/4/4": {"top-1 (%)": 89.8}}.'),
    ] = None,
    sensitive: Annotated[
        bool,
        typer.Option(
            "--sensitivity",
            help="Show, and write to sensitivity.csv, how savings move with uncertain prices.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate a trace at several schemes and show what each saves against the first."""
    from accelsim import api
    from accelsim.cli.progress import loading_writers, progress_bar
    from accelsim.cli.terminal import print_sensitivity
    from accelsim.report.folder import check_target

    target = _target(out, trace)
    check_target(target)
    if sensitive and not prices:
        raise AccelsimError("--sensitivity needs prices, which --no-prices leaves out")
    if sensitive and scheme and len(scheme) < 2:
        raise AccelsimError("--sensitivity: of one scheme nothing is saved, expected --scheme twice")
    measured = None if accuracy is None else read_accuracy(accuracy, scheme or api.DEFAULT_SCHEMES)
    with progress_bar() as progress:
        comparison = api.compare(
            trace,
            arch,
            scheme or api.DEFAULT_SCHEMES,
            overrides=overrides or (),
            options=quantize_options_of(quantize),
            costs=costs,
            progress=loading_writers(progress, plots) if data else progress,
            keep_tensors=dump,
            gated_fraction=_gated(data, gated_fraction, dump),
            timeline=timeline,
            activity=activity,
            prices=prices,
        )
        if measured is not None:
            comparison = comparison.with_accuracy(measured)
        comparison.write(target, plots=plots, dump=dump, sensitive=sensitive)
    if as_json:
        summaries = [run.summary for run in comparison.runs]
        more = {"sensitivity": comparison.sensitivity()} if sensitive else {}
        print_json({"comparison": comparison.table, "summaries": summaries, **more, "results": target})
        return
    _print_comparison(comparison)
    if sensitive:
        print_sensitivity(comparison.sensitivity())
    _written(target)


@app.command("map")
def map_command(
    trace: TraceArgument,
    layer: Annotated[str, typer.Argument(metavar="LAYER", help="A layer's name, see `trace info`.")],
    arch: ArchOption = "magnet16",
    scheme: Annotated[str, typer.Option("--scheme", help="Precision W/A/ws/as[@block][:spN].")] = "4/4/4/4",
    overrides: SetOption = None,
    quantize: QuantizeOption = None,
    costs: CostsOption = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many candidates to show.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show the mapping chosen for a layer, the runners-up, and what bounds the layer."""
    from accelsim.api import explain_mapping
    from accelsim.cli.terminal import print_frame, print_mapping

    ranked, facts = explain_mapping(
        trace,
        layer,
        arch,
        scheme,
        overrides=overrides or (),
        options=quantize_options_of(quantize),
        costs=costs,
    )
    if as_json:
        print_json({"layer": facts, "candidates": ranked.head(top)})
        return
    print_mapping(facts)
    print_frame(ranked.head(top))


@app.command("plot")
def plot_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A result folder of run or compare.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where to draw to [default: DIR].")] = None,
) -> None:
    """Draw a roofline, stalls and utilization layer by layer from a result folder."""
    from accelsim.report.plots.files import plot_folder

    for path in plot_folder(folder, out):
        typer.echo(f"wrote {printable(path)}")


@app.command("rtl")
def rtl_command(
    out: Annotated[Path, typer.Option("--out", help="Folder to write the SystemVerilog to.")],
    arch: ArchOption = "magnet16",
    scheme: Annotated[str, typer.Option("--scheme", help="Precision W/A/ws/as[@block][:spN].")] = "4/4/4/4",
    trace: Annotated[str, typer.Option("--trace", help="Trace whose tile feeds the testbench.")] = "digits",
    layer: Annotated[str | None, typer.Option("--layer", help="Layer of the trace [default: first].")] = None,
    overrides: SetOption = None,
    synth: Annotated[bool, typer.Option("--synth", help="Synthesise it with Yosys and count cells.")] = False,
    liberty: Annotated[Path | None, typer.Option("--liberty", help="Map to this library's cells.")] = None,
    costs: CostsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one PE as synthesizable SystemVerilog, with a self-checking testbench fed from a trace's tile."""
    from accelsim import api
    from accelsim.cli.terminal import print_frame

    if liberty is not None and not synth:
        raise AccelsimError("--liberty is for --synth, which is not given")
    if costs is not None and not synth:
        raise AccelsimError("--costs is for --synth, which is not given")
    api.emit_rtl(out, arch, scheme, trace=trace, layer=layer, overrides=overrides or ())
    if not as_json:
        typer.echo(f"wrote {printable(out)}/; `make` in it runs the testbench with Verilator")
    tables: dict[str, pd.DataFrame] = {}
    if synth:
        cells, compared = api.synthesise_rtl(
            out, arch, scheme, trace=trace, overrides=overrides or (), liberty=liberty, costs=costs
        )
        tables = {"cells": cells, "compared": compared}
    if as_json:
        print_json({**tables, "written": out})
        return
    for frame in tables.values():
        print_frame(frame)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from accelsim.version import __version__

        typer.echo(f"accelsim {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; exit status 0, or 2 with one clear line on bad input."""
    # Numba and pandas make a hundred thousand objects that stay: looking for cycles among them, again and
    # again while they are imported and once more at exit, takes as long as importing them.
    gc.set_threshold(_GC_THRESHOLD)
    atexit.register(gc.freeze)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _warn
    # Figures are files: no window is opened, and no one need know where fonts are kept.
    os.environ.pop("MPLBACKEND", None)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        status = app(standalone_mode=False)
    except AccelsimError as error:
        _fail(str(error), LONG)
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
            sys.exit(0)
        _fail(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone, as in `accelsim costs | head`; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.filename or 'output'}: {error.strerror or error}")
    except MemoryError:
        _fail("out of memory: expected a smaller trace or machine")
    sys.exit(status or 0)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {one_line(str(message))}", err=True)


def _fail(message: str, most: int = MOST) -> None:
    typer.echo(f"error: {one_line(message, most)}", err=True)
    sys.exit(2)


def _gated(data: bool, gated_fraction: float | None, dump: bool) -> float | None:
    if data and gated_fraction is not None:
        raise AccelsimError("--gated-fraction is for --no-data, which is not given")
    if not data and dump:
        raise AccelsimError("--dump needs values, which --no-data leaves out")
    return None if data else gated_fraction or 0.0


def _target(out: Path | None, trace: str, scheme: str = "") -> Path:
    """The folder asked for, or results/TRACE; a run adds its scheme, so as not to replace a comparison."""
    if out is not None:
        return out
    from accelsim.formats.scheme import Scheme

    name = Path(trace).name
    for suffix in (".safetensors", ".json", ".csv", ".txt", ".tsv"):
        name = name.removesuffix(suffix)
    return Path("results") / (f"{name}-{Scheme.parse(scheme).folder_name}" if scheme else name)


def _written(target: Path) -> None:
    typer.echo(f"results in {printable(target)}/")


def _print_run(result: RunResult) -> None:
    from accelsim.cli.terminal import print_frame, summary_table

    columns = [
        "layer",
        "macs",
        "cycles",
        "utilization",
        "energy_system_pj",
        "fj_per_op",
        "sqnr_db",
        "overflows",
    ]
    print_frame(result.layers[[name for name in columns if name in result.layers]])
    summary_table([result])


def _print_comparison(comparison: Comparison) -> None:
    from accelsim.cli.terminal import summary_table

    summary_table(comparison.runs, comparison.table, comparison.accuracy)


if __name__ == "__main__":
    main()
