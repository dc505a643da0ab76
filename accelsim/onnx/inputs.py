"""Arrays by name from a file: .safetensors or .npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from accelsim.errors import AccelsimError


def load_inputs(path: Path) -> dict[str, NDArray[Any]]:
    """Raises AccelsimError for a file that cannot be read, or that holds objects."""
    if path.suffix not in (".safetensors", ".npz"):
        raise AccelsimError(f"inputs {path}: ends in '{path.suffix}', expected .safetensors or .npz")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # of readers of zip files, of NumPy's headers, which Python parses, ...
        reason = " ".join(str(error).split())[:200]
        raise AccelsimError(f"inputs {path}: cannot be read ({reason})") from None
