"""Results of a run: summary, tables, and the folder they are written to (whole, or not at all)."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.compute.activity import LayerActivity
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.report.inventory import SCOPES
from accelsim.report.price import Report
from accelsim.report.timeline import Timeline

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
_TABLES = ("layers", "components", "area", "buckets")
_PLOTS = ("energy", "area", "cycles", "savings", "roofline", "stalls", "utilization")
_FILES = {
    "summary.json",
    "comparison.csv",
    "outputs.safetensors",
    "timeline.json",
    *(f"{table}.csv" for table in _TABLES),
    *(f"{plot}.{kind}" for plot in _PLOTS for kind in ("png", "svg")),
}
_MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class RunResult:
    """One trace at one scheme on one machine.

    `summary` is what summary.json holds (docs/results.md); `report` has the tables as DataFrames;
    `activities` the raw counts of every layer, its operands and values where they were kept; `narrow`:
    (overflows, mean SQNR) at the published accumulator width, `timeline`: when everything happened, where
    asked for.
    """

    summary: dict[str, Any]
    report: Report
    activities: tuple[LayerActivity, ...]
    narrow: tuple[int, float | None] | None = None
    timeline: Timeline | None = None

    def to_frame(self) -> pd.DataFrame:
        """One row a (layer, component, action): count, energy_per_action_pj, energy_pj."""
        return self.report.components

    @property
    def layers(self) -> pd.DataFrame:
        return self.report.layers

    @property
    def area(self) -> pd.DataFrame:
        return self.report.area

    def write(self, out: str | Path, *, plots: bool = True, dump: bool = False) -> Path:
        """Write the result folder. Raises AccelsimError when `out` cannot be written or holds other files."""
        with result_folder(out) as folder:
            write_run(self, folder, plots=plots, dump=dump)
        return Path(out)


@dataclass(frozen=True)
class Comparison:
    """Several schemes on one trace; the first is the baseline that savings refer to."""

    runs: tuple[RunResult, ...]
    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """One row a scheme; `saved_percent` columns are against the first scheme."""
        return self.table

    def __getitem__(self, scheme: str | Scheme) -> RunResult:
        """The run at a scheme. Raises KeyError naming those there are."""
        for run in self.runs:
            if str(run.report.scheme) == str(scheme):
                return run
        raise KeyError(f"{scheme}: compared were {', '.join(self.table['scheme'])}")

    def frame(self, table: str) -> pd.DataFrame:
        """The table `layers`, `components`, `area` or `buckets` of every run, with a `scheme` column."""
        import pandas as pd

        if table not in _TABLES:
            raise AccelsimError(f"table '{table}': expected one of {', '.join(_TABLES)}")
        parts = {str(run.report.scheme): getattr(run.report, table) for run in self.runs}
        return pd.concat(parts, names=["scheme"]).reset_index(level="scheme").reset_index(drop=True)

    def write(self, out: str | Path, *, plots: bool = True, dump: bool = False) -> Path:
        """Write `<scheme>/` as RunResult.write would for each run, comparison.csv and the plots."""
        with result_folder(out) as folder:
            for run in self.runs:
                own = folder / run.report.scheme.folder_name
                own.mkdir()
                write_run(run, own, plots=plots, dump=dump)
            write_csv(self.table, folder / "comparison.csv")
            if plots:
                from accelsim.report.plots import plot_comparison

                reports = [run.report for run in self.runs]
                plot_comparison(self.runs[0].summary, reports, self.table, folder)
        return Path(out)


def write_run(run: RunResult, folder: Path, *, plots: bool, dump: bool) -> None:
    text = json.dumps(run.summary, indent=1, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    for name in _TABLES:
        write_csv(getattr(run.report, name), folder / f"{name}.csv")
    if dump:
        (folder / "outputs.safetensors").write_bytes(_dump(run))
    if run.timeline is not None:
        run.timeline.write(folder / "timeline.json")
    if plots:
        from accelsim.report.plots import plot_run

        plot_run(run.summary, run.report, folder)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False, lineterminator="\n")


@contextmanager
def result_folder(out: str | Path) -> Iterator[Path]:
    """A fresh folder beside `out` that takes its place on success and vanishes on failure."""
    out = Path(out)
    check_target(out)
    made = [parent for parent in (out.parent, *out.parent.parents) if not parent.exists()]
    scratch: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", dir=out.parent))
        scratch.chmod(0o755)
        yield scratch
        _replace(scratch, out)
    except OSError as error:
        raise AccelsimError(f"results {out}: cannot be written: {error.strerror or error}") from None
    finally:
        if scratch is not None and scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()  # which fails where the folder is not empty


def check_target(out: Path) -> None:
    """Refuse, before anything is run, what cannot be a result folder or would overwrite anything else."""
    try:
        existing = next(path for path in (out, *out.absolute().parents) if path.exists())
        if existing != out and not (existing.is_dir() and os.access(existing, os.W_OK)):
            raise AccelsimError(f"results {out}: {existing} is not a folder that can be written to")
        if existing == out:
            if not out.is_dir():
                raise AccelsimError(f"results {out}: is a file, expected a folder to write results to")
            if out.resolve() in (Path.cwd(), *Path.cwd().parents):
                raise AccelsimError(
                    f"results {out}: is the current folder, expected a new or a result folder"
                )
            if any(out.iterdir()) and not _is_result(out):
                raise AccelsimError(f"results {out}: holds other files, expected a new or a result folder")
        if len(os.fsencode(out.name)) > _MAX_NAME_BYTES:
            raise AccelsimError(f"results {out.name[:40]}...: name is longer than {_MAX_NAME_BYTES} bytes")
    except (OSError, ValueError) as error:
        if isinstance(error, AccelsimError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise AccelsimError(f"results {str(out)[:100]}: cannot be written: {reason}") from None


def _is_result(folder: Path) -> bool:
    """True when the folder holds nothing but what `write` makes."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    folders = [path for path in folder.iterdir() if path.is_dir()]
    if "comparison.csv" in names:
        return names <= _FILES and all(_is_result(inner) for inner in folders)
    return "summary.json" in names and names <= _FILES and not folders


def _replace(scratch: Path, out: Path) -> None:
    if not out.exists():
        os.rename(scratch, out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    try:
        os.rename(out, old / out.name)
        try:
            os.rename(scratch, out)
        except OSError:
            os.rename(old / out.name, out)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _dump(run: RunResult) -> bytes:
    """Integer operands, scales, psums, overflow counts and PPU outputs of every layer, as safetensors.

    The metadata key `accelsim` says, per layer, what else is needed to compute them again.
    """
    from safetensors.numpy import save

    arch = run.report.arch
    tensors: dict[str, np.ndarray] = {}
    facts: dict[str, dict[str, Any]] = {}
    for activity in run.activities:
        layer, values = activity.operands, activity.values
        if layer is None or values is None:
            raise AccelsimError(f"dump of layer {activity.layer.name}: its tensors were not kept")
        named = {
            "weight_words": layer.weight_words,
            "weight_scales": layer.weight_scales,
            "weight_gamma": layer.weight_gamma,
            "input_words": layer.input_words,
            "input_scales": layer.input_scales,
            "bias": layer.bias,
            "psums": values.psums,
            "overflows": values.overflow_map,
            "output": values.output,
            "output_scales": values.output_scales,
        }
        for name, tensor in named.items():
            if tensor is not None:
                tensors[f"{layer.name}/{name}"] = np.ascontiguousarray(tensor)
        facts[layer.name] = {
            "scheme": str(layer.scheme),
            "geometry": asdict(layer.geometry),
            "vector_size": layer.vector_size,
            "folded": layer.folded,
            "input_gamma": layer.input_gamma,
            "activation": layer.activation,
            "output": {**asdict(layer.output), "fraction_bits": layer.output.fraction_bits},
            "output_gamma": layer.output.gamma,
            "accumulator_bits": arch.accumulator_width(layer.scheme),
            "product_shift": arch.product_shift,
            "overflow": arch.overflow,
            "c_split": activity.mapping.c_split,
        }
    # One metadata key: with several, safetensors writes them in random order.
    return save(tensors, metadata={"accelsim": json.dumps(facts, sort_keys=True)})


def _sum(values: Sequence[int | None]) -> int | None:
    """The sum of the values; None where one of them is None (not known)."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _pe_cycle_shares(report: Report) -> dict[str, float]:
    """Of all cycles of all PEs the share of each stall reason."""
    by_bucket = report.buckets.groupby("bucket", sort=False)["cycles"].sum()
    return {str(name): float(share) for name, share in (by_bucket / by_bucket.sum()).items()}


def summary_of(
    report: Report,
    activities: Sequence[LayerActivity],
    *,
    trace: str,
    wall_s: float,
    sqnr_db: float | None,
    extra: dict[str, Any],
) -> dict[str, Any]:
    """The fields of summary.json, in their documented order (docs/results.md)."""
    arch = report.arch
    macs = sum(activity.layer.geometry.macs for activity in activities)
    cycles = sum(activity.cycles for activity in activities)
    peak_macs = arch.pes * arch.lanes * arch.vector_size
    energy = {scope: report.energy_pj(scope) for scope in SCOPES}
    area = {scope: report.area_um2(scope) for scope in SCOPES[:-1]}
    per_mm2: Callable[[float], float] = lambda macs_per_cycle: (  # noqa: E731
        2 * macs_per_cycle * arch.clock_ghz * 1e9 / 1e12 / (area["array"] / 1e6)
    )
    return {
        "schema": SCHEMA,
        "trace": trace,
        "arch": arch.name,
        "scheme": str(report.scheme),
        "macs": macs,
        "cycles": cycles,
        "utilization": macs / (cycles * peak_macs),
        "bound_utilization": macs / (int(report.layers["bound_cycles"].sum()) * peak_macs),
        "pe_cycle_shares": _pe_cycle_shares(report),
        "energy_pj": energy,
        "area_um2": area,
        "fj_per_op": {scope: pj / (2 * macs) * 1e3 for scope, pj in energy.items()},
        "tops_per_mm2": per_mm2(macs / cycles),
        "peak_tops_per_mm2": per_mm2(peak_macs),
        "sqnr_db": sqnr_db,
        "overflows": _sum([activity.overflows for activity in activities]),
        **extra,
        "energy_standing": report.standing_share(),
        "warnings": list(report.warnings),
        "wall_s": wall_s,
    }
