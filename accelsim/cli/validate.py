"""`accelsim validate`: published figures beside modelled ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli.json_output import JsonOption, print_json
from accelsim.cli.options import CostsOption, PlotOption
from accelsim.errors import AccelsimError, printable

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ["id", "published", "modelled", "ratio", "unit", "scope", "best_scope", "best_ratio", "note"]


def validate_command(
    csv: Annotated[
        bool, typer.Option("--csv", help="Print one row a figure as CSV, and nothing else.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for tables and pictures.")] = None,
    costs: CostsOption = None,
    data: Annotated[
        bool, typer.Option("--data/--no-data", help="Compute values too; takes much longer.")
    ] = False,
    tornado: Annotated[
        bool,
        typer.Option(
            "--tornado", help="Also move what VS-Quant leaves open, one after the other; takes much longer."
        ),
    ] = False,
    plots: PlotOption = True,
    as_json: JsonOption = False,
) -> None:
    """Put every published figure of area, energy and clock beside the modelled one, misses included."""
    from accelsim import api
    from accelsim.cli.progress import progress_bar
    from accelsim.report.folder import check_target

    if csv and as_json:
        raise AccelsimError("--csv and --json: expected one of them")
    if out is not None:
        check_target(out)
    with progress_bar() as progress:
        gated_fraction = None if data else 0.0
        result = api.validate(costs=costs, gated_fraction=gated_fraction, tornado=tornado, progress=progress)
        if out is not None:
            result.write(out, plots=plots)
    if csv:
        result.rows.to_csv(sys.stdout, index=False, lineterminator="\n")
        return
    if as_json:
        print_json(
            {
                "figures": result.rows,
                "parameters": result.parameters,
                "errors": result.errors,
                **({} if result.tornado is None else {"tornado": result.tornado}),
                **({} if out is None else {"results": out}),
            }
        )
        return
    _print_rows(result.rows)
    _print_tables(result.parameters, result.errors)
    if result.tornado is not None:
        _print_tornado(result.tornado)
    if out is not None:
        typer.echo(f"results in {printable(out)}/")


def _print_rows(rows: pd.DataFrame) -> None:
    """Figures by family; `note` is the number of a reason below, or the parameter that a row sets."""
    from accelsim.cli.terminal import print_frame

    texts = [text for text in dict.fromkeys(rows["reason"]) if text]
    numbers = {text: str(number) for number, text in enumerate(texts, start=1)}
    notes = rows["reason"].map(numbers).fillna("")
    shown = rows.assign(note=notes.where(~rows["status"].str.startswith("sets"), rows["status"]))
    modelled = shown[rows["status"] != "not modelled"]
    for family, own in modelled.groupby("family", sort=False):
        typer.echo(family)
        print_frame(own[_COLUMNS].round({"ratio": 3, "best_ratio": 3}))
    typer.echo("Not modelled")
    print_frame(shown.loc[rows["status"] == "not modelled", ["id", "published", "unit", "note"]])
    typer.echo("Reasons for misses of over 5 %, and for what is not modelled")
    for text, number in numbers.items():
        typer.echo(f"{number:>3}  {text}")


def _print_tables(parameters: pd.DataFrame, errors: pd.DataFrame) -> None:
    from accelsim.cli.terminal import print_frame

    typer.echo("\nFree parameters: what publications leave open")
    print_frame(parameters)
    typer.echo("Errors of what is predicted, nothing fitted but what rows marked `sets` set")
    print_frame(errors.round(3))


def _print_tornado(rows: pd.DataFrame) -> None:
    from accelsim.cli.terminal import print_frame

    for figure, own in rows.groupby("figure", sort=False):
        typer.echo(f"With each free parameter at its ends: {figure}")
        print_frame(own.drop(columns="figure").round(3))
