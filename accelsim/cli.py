"""The command line: parse, call, print. A user's mistake is one line on stderr and exit status 2."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.quantize import QuantizeOptions
    from accelsim.results import Comparison, RunResult

# Heavy modules (numba, pandas, matplotlib) are imported by the commands that use them, so --help is quick.

app = typer.Typer(
    help="Cycle-level, bit-exact simulator of DNN inference accelerators with per-vector scales.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
trace_app = typer.Typer(
    help="Look inside a trace, quantize a float trace, or make one without weights.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(trace_app, name="trace")


class _ShowByDefault(TyperGroup):
    """`costs dot_product --csv` is `costs show dot_product --csv`: only what names no command is shown."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


costs_app = typer.Typer(
    cls=_ShowByDefault,
    help="Print cost constants (`costs [COMPONENT ...] [--csv]`), or make them for another library.",
    rich_markup_mode=None,
)
app.add_typer(costs_app, name="costs")

TraceArgument = Annotated[
    str,
    typer.Argument(
        metavar="TRACE",
        help="A trace file, a bundled trace, a network such as resnet50 or a SCALE-Sim topology (.csv).",
    ),
]
ArchOption = Annotated[str, typer.Option("--arch", help="A preset or an arch file.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Result folder [default: results/TRACE; of a run results/TRACE-SCHEME]."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change an arch parameter; repeats.")
]
QuantizeOption = Annotated[
    list[str] | None,
    typer.Option("--quantize", metavar="KEY=VALUE", help="Change how a float trace is quantized; repeats."),
]
CostsOption = Annotated[
    Path | None, typer.Option("--costs", help="Folder of cost tables [default: those of the package].")
]
DumpOption = Annotated[
    bool, typer.Option("--dump", help="Also write outputs.safetensors: operands, psums, outputs.")
]
DataOption = Annotated[
    bool, typer.Option("--data/--no-data", help="Compute values, or only cycles, area and energy.")
]
GatedOption = Annotated[
    float | None,
    typer.Option(
        "--gated-fraction", help="With --no-data: share of lane steps taken for gated [default: 0]."
    ),
]
TimelineOption = Annotated[
    bool, typer.Option("--timeline", help="Also write timeline.json: what happens when, for Perfetto.")
]
PlotOption = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw energy, area and cycle charts.")]


@app.command("run")
def run_command(
    trace: TraceArgument,
    arch: ArchOption = "magnet16",
    scheme: Annotated[str, typer.Option("--scheme", help="Precision W/A/ws/as[:spN].")] = "4/4/4/4",
    out: OutOption = None,
    overrides: SetOption = None,
    quantize: QuantizeOption = None,
    costs: CostsOption = None,
    dump: DumpOption = False,
    data: DataOption = True,
    gated_fraction: GatedOption = None,
    timeline: TimelineOption = False,
    plots: PlotOption = True,
) -> None:
    """Simulate a trace at one scheme and write its results."""
    from accelsim import api
    from accelsim.progress import progress_bar
    from accelsim.results import check_target

    target = _target(out, trace, scheme)
    check_target(target)
    with progress_bar() as progress:
        result = api.run(
            trace,
            arch,
            scheme,
            overrides=overrides or (),
            options=_options(quantize),
            costs=costs,
            progress=progress,
            keep_tensors=dump,
            gated_fraction=_gated(data, gated_fraction, dump),
            timeline=timeline,
        )
        result.write(target, plots=plots, dump=dump)
    _print_run(result)
    _written(target)


@app.command("compare")
def compare_command(
    trace: TraceArgument,
    arch: ArchOption = "magnet16",
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            "--scheme", help="Repeats; the first is the baseline [default: 8/8/-/- 4/4/4/4 4/8/6/10]."
        ),
    ] = None,
    out: OutOption = None,
    overrides: SetOption = None,
    quantize: QuantizeOption = None,
    costs: CostsOption = None,
    dump: DumpOption = False,
    data: DataOption = True,
    gated_fraction: GatedOption = None,
    timeline: TimelineOption = False,
    plots: PlotOption = True,
) -> None:
    """Simulate a trace at several schemes and show what each saves against the first."""
    from accelsim import api
    from accelsim.progress import progress_bar
    from accelsim.results import check_target

    target = _target(out, trace)
    check_target(target)
    with progress_bar() as progress:
        comparison = api.compare(
            trace,
            arch,
            scheme or api.DEFAULT_SCHEMES,
            overrides=overrides or (),
            options=_options(quantize),
            costs=costs,
            progress=progress,
            keep_tensors=dump,
            gated_fraction=_gated(data, gated_fraction, dump),
            timeline=timeline,
        )
        comparison.write(target, plots=plots, dump=dump)
    _print_comparison(comparison)
    _written(target)


@trace_app.command("info")
def trace_info_command(trace: TraceArgument) -> None:
    """Show a trace's layers, stored schemes and provenance."""
    from accelsim.open_workload import open_workload
    from accelsim.tables import print_frame, print_mapping
    from accelsim.trace import trace_info

    layers, summary = trace_info(open_workload(trace))
    print_mapping(summary)
    print_frame(layers)


@trace_app.command("quantize")
def trace_quantize_command(
    trace: TraceArgument,
    out: Annotated[Path, typer.Option("--out", help="The trace file to write.")],
    scheme: Annotated[list[str], typer.Option("--scheme", help="Precision W/A/ws/as; repeats.")],
    vector_size: Annotated[int, typer.Option("--vector-size", min=1, max=128)] = 16,
    quantize: QuantizeOption = None,
    keep_floats: Annotated[
        bool, typer.Option("--keep-floats/--drop-floats", help="Keep the float tensors in the new file.")
    ] = True,
) -> None:
    """Write a trace with quantized tensors of the given schemes stored in it."""
    from accelsim.open_workload import open_workload
    from accelsim.scheme import Scheme
    from accelsim.trace_write import check_overwrite, quantize_trace

    schemes = [Scheme.parse(text) for text in scheme]
    options = _options(quantize)
    source = open_workload(trace)
    check_overwrite(out, source.path)
    written = quantize_trace(source, out, schemes, vector_size, options, keep_floats=keep_floats)
    typer.echo(f"wrote {written}")


@trace_app.command("synth")
def trace_synth_command(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="resnet18, resnet50, mobilenet_v2, bert-base, bert-large, vit-b16, llama-block "
            "or a SCALE-Sim topology (.csv).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The recipe file to write.")],
    seq: Annotated[
        int | None, typer.Option("--seq", help="Tokens a sequence [default: 128, llama 512].")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Images or sequences [default: 1].")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the random tensors [default: 0].")] = None,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Write an ordinary trace that holds the float tensors.")
    ] = False,
) -> None:
    """Write a trace of a network's true geometry with random tensors, as a recipe of a few KB."""
    from accelsim.open_workload import open_workload
    from accelsim.synthetic.trace import SyntheticTrace, write_recipe, write_tensors

    trace = open_workload(network, seq=seq, batch=batch, seed=seed)
    if not isinstance(trace, SyntheticTrace):
        raise AccelsimError(f"trace {network}: holds tensors already, expected a network or a topology")
    written = write_tensors(trace, out) if tensors else write_recipe(trace, out)
    typer.echo(f"wrote {written}")


@costs_app.command("show")
def costs_command(
    component: Annotated[list[str] | None, typer.Argument(metavar="[COMPONENT ...]")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print as CSV, every column in full.")] = False,
    costs: CostsOption = None,
) -> None:
    """Print the cost constants with unit, node, source and standing; without arguments, an overview."""
    import pandas as pd

    from accelsim.api import cost_table
    from accelsim.tables import print_frame

    if component:
        frame = pd.concat([cost_table(name, costs=costs) for name in component], ignore_index=True)
    else:
        frame = cost_table(costs=costs)
        if not csv:
            overview = frame.groupby("component", sort=True).agg(
                constants=("value", "size"),
                standing=("status", lambda values: ", ".join(sorted(set(values)))),
                source=("source", "first"),
            )
            print_frame(overview.reset_index())
            return
    if csv:
        typer.echo(frame.to_csv(index=False), nl=False)
    else:
        print_frame(frame)


@costs_app.command("characterise")
def characterise_command(
    liberty: Annotated[list[Path], typer.Option("--liberty", help="A .lib or .lib.gz file; repeats.")],
    node_nm: Annotated[float, typer.Option("--node-nm", help="The library's node.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the cost tables to.")],
    pattern: Annotated[
        str | None,
        typer.Option("--filter", metavar="REGEX", help="Only blocks of such names: an incomplete table."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=256, help="Blocks at a time.")] = 1,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Shipped recipe or file: cells, loads, target delay.")
    ] = None,
) -> None:
    """Make the datapath cost table anew from standard-cell libraries (needs Yosys); see --costs."""
    from accelsim import api
    from accelsim.progress import progress_bar

    with progress_bar() as progress:
        done = api.characterise_costs(
            liberty, node_nm, out, pattern=pattern, jobs=jobs, recipe=recipe, progress=progress
        )
    typer.echo(f"{done.rows} rows of {done.blocks} blocks in {done.out}/")
    if not done.complete:
        typer.echo("not a folder for --costs: the blocks that --filter left out are missing")


@app.command("map")
def map_command(
    trace: TraceArgument,
    layer: Annotated[str, typer.Argument(metavar="LAYER", help="A layer's name, see `trace info`.")],
    arch: ArchOption = "magnet16",
    scheme: Annotated[str, typer.Option("--scheme", help="Precision W/A/ws/as[:spN].")] = "4/4/4/4",
    overrides: SetOption = None,
    quantize: QuantizeOption = None,
    costs: CostsOption = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many candidates to show.")] = 10,
) -> None:
    """Show the mapping chosen for a layer, the runners-up, and what bounds the layer."""
    from accelsim.api import explain_mapping
    from accelsim.tables import print_frame, print_mapping

    ranked, facts = explain_mapping(
        trace, layer, arch, scheme, overrides=overrides or (), options=_options(quantize), costs=costs
    )
    print_mapping(facts)
    print_frame(ranked.head(top))


@app.command("rtl")
def rtl_command(
    out: Annotated[Path, typer.Option("--out", help="Folder to write the SystemVerilog to.")],
    arch: ArchOption = "magnet16",
    scheme: Annotated[str, typer.Option("--scheme", help="Precision W/A/ws/as[:spN].")] = "4/4/4/4",
    trace: Annotated[str, typer.Option("--trace", help="Trace whose tile feeds the testbench.")] = "digits",
    layer: Annotated[str | None, typer.Option("--layer", help="Layer of the trace [default: first].")] = None,
    overrides: SetOption = None,
    synth: Annotated[bool, typer.Option("--synth", help="Synthesise it with Yosys and count cells.")] = False,
    liberty: Annotated[Path | None, typer.Option("--liberty", help="Map to this library's cells.")] = None,
    costs: CostsOption = None,
) -> None:
    """Write one PE as synthesizable SystemVerilog, with a self-checking testbench fed from a trace's tile."""
    from accelsim import api
    from accelsim.tables import print_frame

    if liberty is not None and not synth:
        raise AccelsimError("--liberty is for --synth, which is not given")
    if costs is not None and not synth:
        raise AccelsimError("--costs is for --synth, which is not given")
    api.emit_rtl(out, arch, scheme, trace=trace, layer=layer, overrides=overrides or ())
    typer.echo(f"wrote {out}/; `make` in it runs the testbench with Verilator")
    if synth:
        cells, compared = api.synthesise_rtl(
            out, arch, scheme, overrides=overrides or (), liberty=liberty, costs=costs
        )
        print_frame(cells)
        print_frame(compared)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from accelsim import __version__

        typer.echo(f"accelsim {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; exit status 0, or 2 with one clear line on bad input."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(standalone_mode=False)
    except AccelsimError as error:
        _fail(str(error))
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
        _fail(f"{error.filename or 'file system'}: {error.strerror or error}")
    except MemoryError:
        _fail("out of memory: expected a smaller trace or machine")
    sys.exit(status or 0)


def _fail(message: str) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
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
    from accelsim.scheme import Scheme

    name = Path(trace).name
    for suffix in (".safetensors", ".json", ".csv"):
        name = name.removesuffix(suffix)
    return Path("results") / (f"{name}-{Scheme.parse(scheme).folder_name}" if scheme else name)


def _options(items: list[str] | None) -> QuantizeOptions | None:
    if not items:
        return None
    from accelsim.api import quantize_options

    return quantize_options(items)


def _written(target: Path) -> None:
    typer.echo(f"results in {target}/")


def _print_run(result: RunResult) -> None:
    from accelsim.tables import print_frame, summary_table

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
    print_frame(result.layers[columns])
    summary_table([result])


def _print_comparison(comparison: Comparison) -> None:
    from accelsim.tables import summary_table

    summary_table(comparison.runs, comparison.table)


if __name__ == "__main__":
    main()
