"""`accelsim trace ...`: look inside traces, and make them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelsim.cli.json_output import JsonOption, print_json
from accelsim.cli.options import QuantizeOption, TraceArgument, quantize_options_of
from accelsim.errors import AccelsimError, printable

trace_app = typer.Typer(
    help="Look inside a trace, quantize a float trace, or make one without weights.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@trace_app.command("info")
def trace_info_command(trace: TraceArgument, as_json: JsonOption = False) -> None:
    """Show a trace's layers, stored schemes and provenance."""
    from accelsim.cli.terminal import print_frame, print_mapping
    from accelsim.open import open_workload
    from accelsim.trace.info import workload_info

    layers, summary = workload_info(open_workload(trace))
    if as_json:
        print_json({"trace": summary, "layers": layers})
        return
    print_mapping(summary)
    print_frame(layers)


@trace_app.command("quantize")
def trace_quantize_command(
    trace: TraceArgument,
    out: Annotated[Path, typer.Option("--out", help="The trace file to write.")],
    scheme: Annotated[
        list[str], typer.Option("--scheme", help="W/A/ws/as[@block], mxint8, mxfp4 or nvfp4; repeats.")
    ],
    vector_size: Annotated[
        int, typer.Option("--vector-size", min=1, max=128, help="Block of schemes that do not give theirs.")
    ] = 16,
    quantize: QuantizeOption = None,
    keep_floats: Annotated[
        bool, typer.Option("--keep-floats/--drop-floats", help="Keep the float tensors in the new file.")
    ] = True,
) -> None:
    """Write a trace with quantized tensors of the given schemes stored in it."""
    from accelsim.formats.scheme import Scheme
    from accelsim.open import open_workload
    from accelsim.trace.file import Trace
    from accelsim.trace.write import check_overwrite, quantize_trace

    schemes = [Scheme.parse(text) for text in scheme]
    options = quantize_options_of(quantize)
    source = open_workload(trace)
    if not isinstance(source, Trace):
        raise AccelsimError(
            f"trace {trace}: is a recipe without tensors; "
            "`accelsim trace synth ... --tensors` writes a trace that holds them"
        )
    check_overwrite(out, source.path)
    written = quantize_trace(source, out, schemes, vector_size, options, keep_floats=keep_floats)
    typer.echo(f"wrote {printable(written)}")


@trace_app.command("synth")
def trace_synth_command(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="resnet18, resnet50, mobilenet_v2, bert-base, bert-large, vit-b16, llama-block, "
            "llama-2-7b, llama-3-8b, each of the three also with -decode, "
            "or a SCALE-Sim topology (.csv).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The recipe file to write.")],
    seq: Annotated[
        int | None, typer.Option("--seq", help="Tokens a sequence [default: 128, llama 512, decode 4096].")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Images or sequences [default: 1].")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the random tensors [default: 0].")] = None,
    depthwise: Annotated[
        str | None,
        typer.Option("--depthwise", help="Of a topology: by-name [default], or never (all are dense)."),
    ] = None,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Write an ordinary trace that holds the float tensors.")
    ] = False,
) -> None:
    """Write a trace of a network's true geometry with random tensors, as a recipe of a few KB."""
    from accelsim.open import open_workload
    from accelsim.synthetic.workload import SyntheticWorkload, write_recipe, write_tensors

    trace = open_workload(network, seq=seq, batch=batch, seed=seed, depthwise=depthwise)  # type: ignore[arg-type]
    if not isinstance(trace, SyntheticWorkload):
        raise AccelsimError(f"trace {network}: holds tensors already, expected a network or a topology")
    written = write_tensors(trace, out) if tensors else write_recipe(trace, out)
    typer.echo(f"wrote {printable(written)}")
