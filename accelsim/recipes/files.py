"""Files a recipe reads: what is missing and where it is published, and state dicts, read as data only."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from accelsim.errors import LONG, AccelsimError

# Buffers that training code stores and inference does not read.
_UNREAD = ("num_batches_tracked", "position_ids")


@dataclass(frozen=True)
class Needed:
    """A file or folder: what it is, where it is looked for, and where it is published."""

    what: str
    path: str | Path | None
    published: str


def require(recipe: str, needed: Sequence[Needed]) -> None:
    """Raises one AccelsimError that names everything that is not there; a path of None is not needed."""
    absent = [own for own in needed if own.path is not None and not Path(own.path).exists()]
    if absent:
        lines = "; ".join(f"{own.path}: {own.what}, published as {own.published}" for own in absent)
        raise AccelsimError(f"{recipe}: not on disk, expected there: {lines}", LONG)


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Tensors by name, of a .safetensors file or of one that torch.save wrote (weights only).

    A checkpoint's `state_dict` is taken out of it, and the `module.` of DataParallel off the names. Floats
    become float32. Raises AccelsimError where the file holds anything else.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            raw: Any = load_file(path)
        else:
            raw = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        # torch's own message is a page long, with advice to load the file unsafely.
        reason = "" if isinstance(error, pickle.UnpicklingError) else f" ({str(error).splitlines()[0][:120]})"
        raise AccelsimError(f"weights {path}: expected a file of tensors only{reason}") from None
    if isinstance(raw, Mapping) and isinstance(raw.get("state_dict"), Mapping):
        raw = raw["state_dict"]
    if not isinstance(raw, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in raw.items()
    ):
        raise AccelsimError(f"weights {path}: expected a state dict, tensors by name")
    return {
        name.removeprefix("module."): value.to(torch.float32) if value.is_floating_point() else value
        for name, value in raw.items()
    }


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Copy a state dict into a model, all of it. Raises AccelsimError with the names that do not fit."""
    own = {name: value for name, value in model.state_dict().items() if not name.endswith(_UNREAD)}
    given = {name: value for name, value in state.items() if not name.endswith(_UNREAD)}
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    shapes = [name for name in own if name in given and own[name].shape != given[name].shape]
    problems = [
        *([f"it lacks {_some(missing)}"] if missing else []),
        *([f"nothing here is called {_some(extra)}"] if extra else []),
        *(f"{name} is {list(given[name].shape)}, expected {list(own[name].shape)}" for name in shapes[:3]),
    ]
    if problems:
        raise AccelsimError(f"weights {where}: not of this model: {'; '.join(problems)}")
    model.load_state_dict(given, strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
