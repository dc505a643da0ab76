"""`accelsim costs ...`: print constants, or make them for another library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from accelsim.cli.options import CostsOption


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


@costs_app.command("show")
def costs_command(
    component: Annotated[list[str] | None, typer.Argument(metavar="[COMPONENT ...]")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print as CSV, every column in full.")] = False,
    costs: CostsOption = None,
) -> None:
    """Print the cost constants with unit, node, source and evidence; without arguments, an overview."""
    import pandas as pd

    from accelsim.api import cost_table
    from accelsim.cli.terminal import print_frame

    if component:
        frame = pd.concat([cost_table(name, costs=costs) for name in component], ignore_index=True)
    else:
        frame = cost_table(costs=costs)
        if not csv:
            overview = frame.groupby("component", sort=True).agg(
                constants=("value", "size"),
                evidence=("status", lambda values: ", ".join(sorted(set(values)))),
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
    from accelsim.cli.progress import progress_bar

    with progress_bar() as progress:
        done = api.characterise_costs(
            liberty, node_nm, out, pattern=pattern, jobs=jobs, recipe=recipe, progress=progress
        )
    typer.echo(f"{done.rows} rows of {done.blocks} blocks in {done.out}/")
    if not done.complete:
        typer.echo("not a folder for --costs: the blocks that --filter left out are missing")
