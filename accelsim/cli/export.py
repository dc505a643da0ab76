"""`accelsim export`: a PyTorch model, from a script or a .pt2 file, or an ONNX model as a trace."""

from __future__ import annotations

import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from accelsim.cli.options import ArchOption, SetOption
from accelsim.errors import AccelsimError, one_line, printable

SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A .py that defines PyTorch's `model`, `inputs` and perhaps `calibration`: it is run. Or a .pt2 "
        "of torch.export.save or an .onnx: they are read as data.",
    ),
]
TargetOption = Annotated[Path, typer.Option("--out", help="The trace file to write.")]
InputsOption = Annotated[
    Path | None,
    typer.Option(
        "--inputs",
        help="By name: of a .pt2, a .safetensors [default: its examples]; of an .onnx, .safetensors or .npz.",
    ),
]
CalibrationOption = Annotated[
    list[Path] | None,
    typer.Option("--calibration", help="Of a .pt2 or .onnx: more inputs, as --inputs; repeats."),
]
VectorOption = Annotated[
    int, typer.Option("--vector-size", min=1, help="Of the words that codes of a quantized .onnx become.")
]
SchemeOption = Annotated[
    list[str] | None,
    typer.Option("--scheme", help="Of PyTorch: store words at W/A/ws/as[@block] beside floats; repeats."),
]
QuantizeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--quantize",
        metavar="KEY=VALUE",
        help="How words are made: preset=plain, default or best, and the keys of `trace quantize`; repeats.",
    ),
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
    calibration: CalibrationOption = None,
    calibration_values: ValuesOption = 1 << 20,
    seed: SeedOption = 0,
    scheme: SchemeOption = None,
    quantize: QuantizeOption = None,
    arch: ArchOption = "magnet16",
    overrides: SetOption = None,
    vector_size: VectorOption = 16,
) -> None:
    """Write a trace of a PyTorch or ONNX model."""
    from accelsim.cli.progress import progress_bar

    if not source.is_file():
        raise AccelsimError(f"export {source}: no such file, expected a .py, a .pt2 or an .onnx")
    if source.suffix not in (".py", ".pt2", ".onnx"):
        raise AccelsimError(f"export {source}: ends in '{source.suffix}', expected .py, .pt2 or .onnx")
    if source.suffix == ".py" and inputs is not None:
        raise AccelsimError("--inputs is for a .pt2 or an .onnx; a script defines `inputs`")
    if source.suffix == ".py" and calibration:
        raise AccelsimError("--calibration is for a .pt2 or an .onnx; a script defines `calibration`")
    if source.suffix != ".onnx" and vector_size != 16:
        raise AccelsimError("--vector-size is for an .onnx; of a PyTorch model the arch says it")
    words = _words(scheme, quantize, arch, overrides)
    if source.suffix == ".onnx" and words:
        raise AccelsimError(
            "--scheme is for a PyTorch model; of an .onnx expected `accelsim trace quantize` after the export"
        )
    export, found = (_onnx if source.suffix == ".onnx" else _torch)(source, inputs, calibration or [])
    if source.suffix == ".onnx":
        found["vector_size"] = vector_size
    with warnings.catch_warnings(record=True) as caught, progress_bar() as progress:
        warnings.simplefilter("always")
        written = export(
            path=out,
            name=name or source.stem,
            unsupported="float" if unsupported_float else "error",
            calibration_values=calibration_values,
            seed=seed,
            provenance={"made_from": source.name},
            progress=progress,
            **words,
            **found,
        )
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            typer.echo(f"warning: {one_line(str(warning.message))}", err=True)
    typer.echo(f"wrote {printable(written)}")


def _words(
    schemes: list[str] | None, quantize: list[str] | None, arch: str, overrides: list[str] | None
) -> dict[str, Any]:
    """What export is asked for beside floats, nothing where that is nothing."""
    if not schemes:
        if quantize or overrides or arch != "magnet16":
            raise AccelsimError("--quantize, --arch and --set are for --scheme, which is not given")
        return {}
    from accelsim.quantize.options import quantize_options, split_preset

    preset, rest = split_preset(quantize or [])
    options = quantize_options(rest) if rest else None
    return {
        "schemes": schemes,
        "quantize": preset,
        "arch": arch,
        "overrides": overrides or (),
        "options": options,
    }


def _torch(
    source: Path, inputs: Path | None, calibration: list[Path]
) -> tuple[Callable[..., Path], dict[str, Any]]:
    """(what exports, what it is given)."""
    import accelsim.torch

    if source.suffix == ".py":
        typer.echo(f"running {printable(source)} as code", err=True)
        found = _run(source)
    else:
        found = _load(source, inputs, calibration)
    given = {key: found.get(key) for key in ("model", "inputs", "calibration")}
    return accelsim.torch.export, given


def _onnx(
    source: Path, inputs: Path | None, calibration: list[Path]
) -> tuple[Callable[..., Path], dict[str, Any]]:
    import accelsim.onnx
    from accelsim.onnx.inputs import load_inputs

    if inputs is None:
        raise AccelsimError(
            f"export {source}: holds no inputs, expected --inputs FILE.safetensors or FILE.npz"
        )
    # A map: of the calibration files one at a time is in memory.
    more = map(load_inputs, calibration) if calibration else None
    given = {"model": source, "inputs": load_inputs(inputs), "calibration": more}
    return accelsim.onnx.export, given


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


def _load(source: Path, inputs: Path | None, calibration: list[Path]) -> dict[str, Any]:
    from accelsim.torch.program import load_inputs, load_program

    program = load_program(source)
    more = (load_inputs(program, source, file) for file in calibration)  # one at a time is in memory
    return {
        "model": program,
        "inputs": load_inputs(program, source, inputs),
        "calibration": more if calibration else None,
    }
