"""`accelsim bits`: how many bits a workload's values take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelsim.cli.json_output import JsonOption, print_json
from accelsim.cli.options import (
    ArchOption,
    CostsOption,
    QuantizeOption,
    SetOption,
    TraceArgument,
    quantize_options_of,
)
from accelsim.errors import printable

_LAYER_COLUMNS = {
    "layer": "layer",
    "partial_sum_bits": "partial_sum_bits",
    "psum_bits": "psum_bits",
    "lossless_bits": "lossless_bits",
    "overflows": "overflows",
    "dot_product_bits": "dot_bits",
    "scale_product_bits": "sp_bits",
    "zero_weight_code_fraction": "zero_w",
    "zero_activation_code_fraction": "zero_a",
    "zero_weight_scale_fraction": "zero_ws",
    "zero_activation_scale_fraction": "zero_as",
    "zero_scale_product_fraction": "zero_sp",
    "gated_fraction": "gated",
}


def bits_command(
    trace: TraceArgument,
    arch: ArchOption = "magnet16",
    scheme: Annotated[str, typer.Option("--scheme", help="Precision W/A/ws/as[@block][:spN].")] = "4/4/4/4",
    width: Annotated[
        list[int] | None,
        typer.Option("--width", help="Accumulator bits to try; repeats [default: 16 to 32]."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write CSV tables to.")] = None,
    overrides: SetOption = None,
    quantize: QuantizeOption = None,
    costs: CostsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how many bits accumulators and products need on a trace's data, and how much of it is zero."""
    from accelsim import api
    from accelsim.cli.progress import progress_bar
    from accelsim.cli.terminal import print_frame
    from accelsim.report.folder import check_target
    from accelsim.report.shown import title_of

    if out is not None:
        check_target(out)
    with progress_bar() as progress:
        result = api.bits(
            trace,
            arch,
            scheme,
            widths=width or api.DEFAULT_WIDTHS,
            overrides=overrides or (),
            options=quantize_options_of(quantize),
            costs=costs,
            progress=progress,
        )
    if out is not None:
        result.write(out)
    if as_json:
        where = {} if out is None else {"results": out}
        print_json({"summary": result.summary, "layers": result.layers, "widths": result.by_width(), **where})
        return
    own = result.summary
    typer.echo(f"{title_of(own)}, at {own['scheme']}")
    print_frame(result.layers[list(_LAYER_COLUMNS)].rename(columns=_LAYER_COLUMNS))
    print_frame(result.by_width().query("overflows > 0 or overflows.shift(fill_value=1) > 0"))
    typer.echo(
        f"Every partial sum fits {own['partial_sum_bits']} bits, every psum {own['psum_bits']}. "
        f"From {own['lossless_bits']} bits on nothing is lost (overflow: {own['overflow']}). "
        f"The machine has {own['accumulator_bits']}, where {own['overflows']:,} accumulations overflow."
    )
    if out is not None:
        typer.echo(f"results in {printable(out)}/")
