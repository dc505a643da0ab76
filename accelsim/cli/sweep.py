"""`accelsim sweep` and `accelsim tune`: every point of a space, and the best of one that has too many."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli.json_output import JsonOption, print_json
from accelsim.errors import AccelsimError, printable

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.sweep.run import Outlook

SpaceArgument = Annotated[Path, typer.Argument(metavar="SPACE", help="A YAML file (docs/sweep.md).")]
StoreOption = Annotated[Path, typer.Option("--store", help="Folder of what is known; sweeps may share one.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes [default: one a core].")
]
DaskOption = Annotated[
    str | None, typer.Option("--dask", metavar="ADDRESS", help="Use a running cluster: tcp://host:port.")
]
TableOption = Annotated[
    Path | None, typer.Option("--out", help="Table, .csv or .parquet [default: results/SPACE.csv].")
]
STORE = Path("results/store")
_MOST_ERRORS = 5
_MOST_ROWS = 30


def sweep_command(
    space: SpaceArgument,
    store: StoreOption = STORE,
    workers: WorkersOption = None,
    dask: DaskOption = None,
    out: TableOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say how many points are known, and what the rest takes."),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also points that failed before.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate every point of a space that the store does not know yet, and write them all as a table."""
    from accelsim.cli.progress import duration, sweep_progress
    from accelsim.sweep import Space, Store, outlook, sweep

    if dask is not None and workers is not None:
        raise AccelsimError("--workers is of this machine, --dask of a cluster: expected one of them")
    wanted, target = Space.read(space), out or Path("results") / f"{space.stem}.csv"
    check_table(target)
    with Store(store) as own:
        if dry_run:
            found = outlook(wanted, own, retry_failed=retry_failed)
            if as_json:
                print_json({"outlook": asdict(found)})
            else:
                _print_outlook(found)
            return
        with sweep_progress() as progress:
            done = sweep(
                wanted, own, workers=workers, dask=dask, retry_failed=retry_failed, progress=progress
            )
        frame = done.to_frame()
    write_table(frame, target)
    counts = done.counts
    if as_json:
        print_json({"counts": asdict(counts), "seconds": done.seconds, "points": frame, "results": target})
        return
    typer.echo(
        f"{counts.space:,} points: {counts.known:,} known, {counts.computed:,} computed from "
        f"{counts.simulated:,} runs in {duration(done.seconds)}"
    )
    errors = frame.loc[frame["error"] != "", "error"].value_counts()
    for error, number in list(errors.items())[:_MOST_ERRORS]:
        typer.echo(f"{number:,} failed: {error}")
    if len(errors) > _MOST_ERRORS:
        typer.echo(f"and {len(errors) - _MOST_ERRORS:,} other errors, see the table")
    typer.echo(f"results in {printable(target)}")


def tune_command(
    space: SpaceArgument,
    store: StoreOption = STORE,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Points to look at in all.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn.")] = 0,
    workers: WorkersOption = None,
    dask: DaskOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Table, .csv or .parquet [default: results/SPACE-tune.csv].")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search a space that is too large to sweep for the Pareto front that its `tune` asks for."""
    from accelsim.cli.progress import sweep_progress
    from accelsim.cli.terminal import print_frame
    from accelsim.sweep import Space, Store
    from accelsim.sweep.tuner import tune, tune_of

    if dask is not None and workers is not None:
        raise AccelsimError("--workers is of this machine, --dask of a cluster: expected one of them")
    wanted, target = Space.read(space), out or Path("results") / f"{space.stem}-tune.csv"
    objectives = list(tune_of(wanted).objectives)
    check_table(target)
    with Store(store) as own:
        with sweep_progress() as progress:
            done = tune(wanted, own, trials=trials, seed=seed, workers=workers, dask=dask, progress=progress)
        frame = done.to_frame()
    write_table(frame, target)
    best = frame[frame["front"]].sort_values(objectives)
    if as_json:
        counts = {"points": len(frame), "space": wanted.size, "failed": int((frame["error"] != "").sum())}
        counts["feasible"] = int(frame["feasible"].sum())
        print_json({"counts": counts, "front": best, "results": target})
        return
    varied = [name for name in ("scheme", "arch", *wanted.axes, "costs") if name in best]
    shown = [name for name in varied if best[name].astype(str).nunique() > 1]
    print_frame(best[[*shown, *objectives]].head(_MOST_ROWS))
    failed, kept = (frame["error"] != "").sum(), frame["feasible"].sum()
    typer.echo(f"{len(frame):,} of {wanted.size:,} points, {failed:,} failed, {kept:,} keep all constraints")
    typer.echo(f"{len(best):,} on the front: column front of {printable(target)}")


def check_table(target: Path) -> None:
    """Raises AccelsimError for a table that cannot be written, before anything is run."""
    if target.suffix not in (".csv", ".parquet"):
        raise AccelsimError(f"--out {target}: suffix is '{target.suffix}', expected .csv or .parquet")
    if target.is_dir():
        raise AccelsimError(f"--out {target}: is a folder, expected a file")
    if target.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise AccelsimError(
            "--out: .parquet needs pyarrow: expected `pip install accelsim[parquet]`, or .csv"
        )


def write_table(frame: pd.DataFrame, target: Path) -> None:
    """Whole, or as it was. Raises AccelsimError."""
    from accelsim.system.whole import whole_file, writing

    with writing("table", target), whole_file(target) as new:
        if target.suffix == ".parquet":
            _of_one_type(frame).to_parquet(new, index=False)
        else:
            frame.to_csv(new, index=False, lineterminator="\n")


def _of_one_type(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns with values of several types, or lists, as the texts that CSV has for them: Parquet's have one
    type each."""

    def plain(column: pd.Series) -> pd.Series:
        kinds = {type(own) for own in column[column.notna()]}
        if len(kinds) < 2 and not kinds & {list, tuple, dict}:
            return column
        return column.map(str, na_action="ignore")

    return frame.apply(lambda column: plain(column) if column.dtype == object else column)


def _print_outlook(found: Outlook) -> None:
    from accelsim.cli.progress import duration

    new = found.points - found.known
    typer.echo(
        f"{found.points:,} points: {found.known:,} known, {new:,} new, {found.runs:,} runs to simulate"
    )
    if found.refused:
        typer.echo(f"{found.refused:,} of the new cannot be run, and will be recorded as failed")
    if found.seconds is None:
        typer.echo("time: not known, nothing like it has been measured in this store yet")
    else:
        typer.echo(f"time: {duration(found.seconds)} of one worker, by what was measured in this store")
