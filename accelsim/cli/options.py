"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.quantize.arrays import QuantizeOptions


def _traces_like(incomplete: str) -> list[str]:
    """For completion in a shell, which takes names of files from itself where this finds nothing."""
    from accelsim.synthetic.networks import NETWORKS
    from accelsim.trace.find import bundled_traces

    return [name for name in (*bundled_traces(), *NETWORKS) if name.startswith(incomplete)]


def _archs_like(incomplete: str) -> list[str]:
    from accelsim.machine.arch_file import presets

    return [name for name in presets() if name.startswith(incomplete)]


TraceArgument = Annotated[
    str,
    typer.Argument(
        autocompletion=_traces_like,
        metavar="TRACE",
        help="A trace file, a bundled trace, a network such as resnet50 or a SCALE-Sim topology (.csv).",
    ),
]
ArchOption = Annotated[str, typer.Option("--arch", help="A preset or a file.", autocompletion=_archs_like)]
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
    list[Path] | None,
    typer.Option(
        "--costs",
        help="Folder of cost tables [default: those of the package], or a .csv or Accelergy .yaml file of "
        "prices; repeats.",
    ),
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
PricesOption = Annotated[
    bool,
    typer.Option(
        "--prices/--no-prices",
        help="Energy and area, or only cycles and values: not every scheme has prices.",
    ),
]
ActivityOption = Annotated[
    str,
    typer.Option(
        "--activity",
        help="Energy of the lanes by what changes in their operands (data; not with --no-data), or by the "
        "operands of the cost tables (tables).",
    ),
]
TimelineOption = Annotated[
    bool, typer.Option("--timeline", help="Also write timeline.json and timeline.pftrace: what happens when.")
]
PlotOption = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw energy, area and cycle charts.")]


def quantize_options_of(items: list[str] | None) -> QuantizeOptions | None:
    if not items:
        return None
    from accelsim.quantize.options import quantize_options

    return quantize_options(items)


def read_accuracy(path: Path, schemes: Sequence[str]) -> Any:
    """What a JSON file says of these schemes, checked before anything is run. Raises AccelsimError."""
    from accelsim.formats.scheme import Scheme
    from accelsim.report.accuracy import accuracy_columns
    from accelsim.trace.json_fields import load_json

    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise AccelsimError(f"accuracy {path}: cannot be read ({reason})") from None
    measured = load_json(text, f"accuracy {path}")
    accuracy_columns(measured, [str(Scheme.parse(scheme)) for scheme in schemes])
    return measured
