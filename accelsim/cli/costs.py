"""`accelsim costs ...`: print constants, or make them for another library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from accelsim.cli.json_output import JsonOption, print_json
from accelsim.cli.options import ArchOption, CostsOption, SetOption
from accelsim.errors import AccelsimError, listed, printable
from accelsim.system.whole import whole_file


class _ShowByDefault(TyperGroup):
    """`costs dot_product --csv` is `costs show dot_product --csv`: only what names no command is shown.
    A shell that completes is offered the commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing and (not args or args[0] not in (*self.commands, "--help")):
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
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", help="What the parts of a machine cost at this scheme, in place of tables."),
    ] = None,
    frequency: Annotated[
        bool, typer.Option("--frequency", help="With --scheme: the clock that each part reaches.")
    ] = False,
    arch: ArchOption = "magnet16",
    overrides: SetOption = None,
    accelergy: Annotated[
        Path | None, typer.Option("--accelergy", help="With --scheme: write ERT.yaml and ART.yaml there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the cost constants with unit, node, source and evidence; without arguments, an overview."""
    import pandas as pd

    from accelsim import api
    from accelsim.cli.terminal import print_frame, print_mapping

    _one_of(csv, as_json)
    if scheme is None and frequency:
        raise AccelsimError("costs: --frequency is of a machine, expected --scheme too")
    if scheme is None and accelergy:
        raise AccelsimError("costs: --accelergy is of a machine, expected --scheme too")
    if scheme is None and overrides:
        if not component or len(component) > 1 or csv:
            raise AccelsimError(
                "costs: --set without --scheme is of one component's sizes, expected its name"
            )
        price = api.component_price(component[0], overrides, arch, costs=costs)
        if as_json:
            print_json({"price": price})
        else:
            print_mapping(price)
        return
    if scheme is not None:
        how: dict[str, Any] = {"overrides": overrides or (), "costs": costs}
        if accelergy is not None:
            paths = _written(accelergy, api.accelergy_tables(arch, scheme, **how))
            if as_json:
                print_json({"written": list(paths)})
                return
            for path in paths:
                typer.echo(f"wrote {printable(path)}")
            return
        frame = (api.clock_table if frequency else api.cost_list)(arch, scheme, **how)
        if component:
            unknown = [name for name in component if name not in set(frame["component"])]
            if unknown:
                parts = listed(dict.fromkeys(frame["component"]), unknown[0])
                raise AccelsimError(f"costs: the machine has no '{unknown[0]}', expected one of {parts}")
            frame = frame[frame["component"].isin(component)]
    elif component:
        frame = pd.concat([api.cost_table(name, arch, costs=costs) for name in component], ignore_index=True)
    else:
        frame = api.cost_table(None, arch, costs=costs)
        if not (csv or as_json):
            overview = frame.groupby("component", sort=True).agg(
                constants=("value", "size"),
                evidence=("status", lambda values: ", ".join(sorted(set(values)))),
                source=("source", "first"),
            )
            print_frame(overview.reset_index())
            return
    if as_json:
        print_json({"costs": frame})
    elif csv:
        typer.echo(frame.to_csv(index=False), nl=False)
    else:
        print_frame(frame)


def _one_of(csv: bool, as_json: bool) -> None:
    if csv and as_json:
        raise AccelsimError("--csv and --json: expected one of them")


@costs_app.command("check")
def check_command(
    csv: Annotated[bool, typer.Option("--csv", help="Print as CSV, nothing rounded.")] = False,
    costs: CostsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave every row out of its law, and print how far off the others predict it."""
    from accelsim import api
    from accelsim.cli.terminal import print_frame

    _one_of(csv, as_json)
    frame = api.check_costs(costs)
    if as_json:
        print_json({"check": frame})
    elif csv:
        typer.echo(frame.to_csv(index=False), nl=False)
    else:
        print_frame(frame.round(1))


def _written(folder: Path, texts: Mapping[str, str]) -> Iterator[Path]:
    """Files in a folder that is there, each whole or as it was."""
    for name, text in texts.items():
        try:
            with whole_file(folder / name) as new:
                new.write_text(text, encoding="utf-8")
        except OSError as error:
            raise AccelsimError(f"{folder / name}: cannot be written: {error.strerror or error}") from None
        yield folder / name


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
    typer.echo(f"{done.rows} rows of {done.blocks} blocks in {printable(done.out)}/")
    if not done.complete:
        typer.echo("not a folder for --costs: the blocks that --filter left out are missing")
