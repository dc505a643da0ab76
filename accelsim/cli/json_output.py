"""What `--json` prints: the tables of a command as one JSON object, at full precision (docs/commands.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print tables as one JSON object, nothing rounded, and nothing else.")
]


def print_json(found: Mapping[str, Any]) -> None:
    """A DataFrame becomes a list of rows, each an object by column; what is no number becomes null."""
    typer.echo(json.dumps(_plain(found), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "to_dict"):
        return _rows(value)
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [_plain(row) for row in frame.to_dict("records")]
