"""`accelsim report`: result folders as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelsim.errors import printable


def report_command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", help="Result folders of run, compare, validate or bits; tables of sweeps."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Page to write [default: DIR/report.html, of a table TABLE.html]."),
    ] = None,
) -> None:
    """Write results as one interactive page of HTML that needs no network."""
    from accelsim.page import write_report

    typer.echo(f"wrote {printable(write_report(sources, out))}")
