"""Where results are written: a folder that is there whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelsim.arguments import path_of
from accelsim.errors import AccelsimError
from accelsim.system.whole import scratch_folder, whole_folder, writing

TABLES = ("layers", "components", "area", "stalls")
UNPRICED_TABLES = ("layers", "stalls")  # of a run without prices
BITS_TABLES = ("layers", "widths", "histograms", "codes")
VALIDATION_TABLES = ("validate", "errors", "free_parameters", "tornado")
_PLOTS = ("energy", "area", "cycles", "savings", "roofline", "stalls", "utilization")
_FIGURES = ("figure3", "figure4", "figure5", "figure6", "tornado")
_FILES = {
    "summary.json",
    "bits.json",
    "comparison.csv",
    "explained.csv",
    "sensitivity.csv",
    "outputs.safetensors",
    "timeline.json",
    "report.html",
    "timeline.pftrace",
    *(f"{table}.csv" for table in (*TABLES, *BITS_TABLES, *VALIDATION_TABLES)),
    *(f"{plot}.{kind}" for plot in (*_PLOTS, *_FIGURES) for kind in ("png", "svg")),
}
_MAX_NAME_BYTES = 200


@contextmanager
def result_folder(out: str | Path) -> Iterator[Path]:
    """A fresh folder beside `out` that takes its place on success and vanishes on failure."""
    out = path_of(out, "results")
    check_target(out)
    with writing("results", out), whole_folder(out) as folder:
        yield folder
        check_target(out)  # others may have written meanwhile


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
        # What permissions allow a file system may still refuse, as /proc does, or one that is full.
        beside = existing.parent if existing == out else existing
        with scratch_folder(beside / out.name):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, AccelsimError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise AccelsimError(f"results {str(out)[:100]}: cannot be written: {reason}") from None


def _is_result(folder: Path) -> bool:
    """True when everything in it is something `write` makes."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    folders = [path for path in folder.iterdir() if path.is_dir()]
    if "comparison.csv" in names:
        return names <= _FILES and all(_is_result(inner) for inner in folders)
    return bool({"summary.json", "bits.json", "validate.csv"} & names) and names <= _FILES and not folders
