"""Reads result folders back, which anyone may have made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.report.plots.layers import LayerTable
from accelsim.sim.layer_run import STALL_REASONS

if TYPE_CHECKING:
    import pandas as pd

_MOST_BYTES = 64 << 20
_MOST_CHARACTERS = 200  # of a name
_MOST_LAYERS = 100_000
_LARGEST = 1e18  # of a count
_TEXTS = ("layer", "bound_by")
# Column -> least and most of it.
_NUMBERS = {
    "macs": (1.0, _LARGEST),
    "cycles": (1.0, _LARGEST),
    "utilization": (0.0, 1.0),
    "bound_cycles": (1.0, _LARGEST),
    "dram_read_bits": (0.0, _LARGEST),
    "dram_write_bits": (0.0, _LARGEST),
    **{f"{reason}_share": (0.0, 1.0) for reason in STALL_REASONS},
}
_ROUNDING = 1e-9  # by which a share may be off


def read_results(folder: Path) -> dict[str, LayerTable]:
    """Of a run by the name "", or of every scheme of a comparison by the name of its folder. Raises
    AccelsimError for a folder that holds no results, and for a damaged file in it."""
    try:
        if (folder / "summary.json").is_file():
            names = [""]
        elif (folder / "comparison.csv").is_file():
            names = sorted(path.parent.name for path in folder.glob("*/summary.json"))
        else:
            names = []
    except (OSError, ValueError) as error:  # too long a name, an embedded NUL byte
        raise AccelsimError(f"plot {folder}: cannot be read: {error}") from None
    if not names:
        raise AccelsimError(f"plot {folder}: no summary.json or comparison.csv, expected a result folder")
    return {name: _read(folder / name) for name in names}


def _read(folder: Path) -> LayerTable:
    title, arch = _summary(folder / "summary.json")
    return LayerTable(title, arch, _layers(folder / "layers.csv"))


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"larger than {_MOST_BYTES >> 20} MB")
    return path.read_text(encoding="utf-8")


def _summary(path: Path) -> tuple[str, Arch]:
    try:
        summary: dict[str, Any] = json.loads(_text(path))
        arch = Arch.model_validate(summary["arch_parameters"])
        trace, scheme, machine = (_name(summary[key], key) for key in ("trace", "scheme", "arch"))
        synthetic = summary["synthetic"]
        if not isinstance(synthetic, bool):
            raise TypeError(f"synthetic is {synthetic!r:.20}, expected true or false")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}"
        raise AccelsimError(f"plot {path}: not a run's summary ({reason})") from None
    return f"{trace} at {scheme} on {machine}" + (" (synthetic tensors)" if synthetic else ""), arch


def _layers(path: Path) -> pd.DataFrame:
    import io

    import pandas as pd

    try:
        found = pd.read_csv(io.StringIO(_text(path)), dtype=str, keep_default_na=False)
    except (OSError, ValueError, OverflowError) as error:
        raise AccelsimError(f"plot {path}: cannot be read ({type(error).__name__})") from None
    if not 0 < len(found) <= _MOST_LAYERS:
        raise AccelsimError(f"plot {path}: {len(found):,} rows, expected 1 to {_MOST_LAYERS:,}")
    columns: dict[str, Any] = {}
    try:
        for column in (*_TEXTS, *_NUMBERS):
            if column not in found:
                raise TypeError(f"column {column} is missing")
            values = list(found[column])
            if column in _TEXTS:
                columns[column] = [_name(value, column) for value in values]
            else:
                columns[column] = _numbers(values, column, *_NUMBERS[column])
    except (TypeError, ValueError) as error:
        raise AccelsimError(f"plot {path}: {error}") from None
    return pd.DataFrame(columns)


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _MOST_CHARACTERS:
        raise TypeError(f"{what} is {ascii(value)[:40]}, expected a name")
    return value


def _numbers(values: list[Any], column: str, least: float, most: float) -> np.ndarray:
    """float64[layers]"""
    for row, value in enumerate(values, start=1):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not least - _ROUNDING <= number <= most + _ROUNDING:
            raise ValueError(
                f"row {row}: {column} is {ascii(value)[:40]}, expected a number from {least:g} to {most:g}"
            )
    return np.array(values, float)
