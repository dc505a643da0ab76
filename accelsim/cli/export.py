"""`accelsim export`: a PyTorch model, from a script or a .pt2 file, as a trace."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from accelsim.errors import AccelsimError

SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SCRIPT_OR_PT2",
        help="A .py that defines `model`, `inputs` and perhaps `calibration`: it is run. Or a .pt2 of "
        "torch.export.save: it is read as data.",
    ),
]
TargetOption = Annotated[Path, typer.Option("--out", help="The trace file to write.")]
InputsOption = Annotated[
    Path | None,
    typer.Option("--inputs", help="Of a .pt2: its inputs by name, .safetensors [default: its examples]."),
]
NameOption = Annotated[str | None, typer.Option("--name", help="Of the model [default: the file's].")]
HostOption = Annotated[
    bool, typer.Option("--unsupported-float", help="Leave what is not supported to the host, in float.")
]
ValuesOption = Annotated[
    int, typer.Option("--calibration-values", min=1, help="Most calibration numbers kept of a layer.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the choice of calibration values.")]


def export_command(
    source: SourceArgument,
    out: TargetOption,
    inputs: InputsOption = None,
    name: NameOption = None,
    unsupported_float: HostOption = False,
    calibration_values: ValuesOption = 1 << 20,
    seed: SeedOption = 0,
) -> None:
    """Write a trace of a PyTorch model."""
    import accelsim.torch
    from accelsim.cli.progress import progress_bar

    if not source.is_file():
        raise AccelsimError(f"export {source}: no such file, expected a .py or a .pt2")
    if source.suffix == ".py":
        if inputs is not None:
            raise AccelsimError("--inputs is for a .pt2; a script defines `inputs`")
        typer.echo(f"running {source} as code", err=True)
        found = _run(source)
    elif source.suffix == ".pt2":
        found = _load(source, inputs)
    else:
        raise AccelsimError(f"export {source}: ends in '{source.suffix}', expected .py or .pt2")
    with warnings.catch_warnings(record=True) as caught, progress_bar() as progress:
        warnings.simplefilter("always")
        written = accelsim.torch.export(
            found["model"],
            found["inputs"],
            out,
            calibration=found.get("calibration"),
            name=name or source.stem,
            unsupported="float" if unsupported_float else "error",
            calibration_values=calibration_values,
            seed=seed,
            provenance={"made_from": source.name},
            progress=progress,
        )
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            typer.echo(f"warning: {' '.join(str(warning.message).split())}", err=True)
    typer.echo(f"wrote {written}")


def _run(source: Path) -> dict[str, Any]:
    """The names that a script leaves."""
    try:
        names = runpy.run_path(str(source), run_name="__accelsim_export__")
    except (Exception, SystemExit) as error:
        raise AccelsimError(f"export {source}: the script ends in {type(error).__name__}: {error}") from None
    for wanted in ("model", "inputs"):
        if wanted not in names:
            raise AccelsimError(f"export {source}: defines no `{wanted}`, expected `model` and `inputs`")
    return names


def _load(source: Path, inputs: Path | None) -> dict[str, Any]:
    from accelsim.torch.program import load_inputs, load_program

    program = load_program(source)
    return {"model": program, "inputs": load_inputs(program, source, inputs)}
