"""Which layers the error of a model's outputs comes from (docs/inference.md, Schemes of layers)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from accelsim.capture.write import Progress
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.quantize.arrays import Preset, QuantizeOptions
from accelsim.quantize.reference import sqnr_db
from accelsim.torch.calibrate import Calibrated
from accelsim.torch.simulate import simulate


def layer_gains(
    calibrated: Calibrated,
    scheme: str | Scheme,
    other: str | Scheme,
    arch: str | Path | Arch = "magnet16",
    *,
    options: QuantizeOptions | None = None,
    chained: bool = False,
    residual: str | None = None,
    quantize: Preset = "plain",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, float]:
    """By how many dB the SQNR of the model's outputs on its calibration inputs grows where one layer alone
    has the other scheme, by layer, the largest first.

    The rest is as of `simulate`. Raises AccelsimError, also where the outputs have no error at `scheme`.
    """
    exact = _floats([captured.run(inputs) for captured, inputs in calibrated.batches])

    def sqnr(layer_schemes: Mapping[str, str | Scheme]) -> float:
        model = simulate(
            calibrated,
            scheme=scheme,
            arch=arch,
            layer_schemes=layer_schemes,
            options=options,
            chained=chained,
            residual=residual,
            quantize=quantize,
            overrides=overrides,
        )
        found = sqnr_db(exact, _floats([model.run(*batch) for batch in calibrated.batches]))
        if found is None:
            raise AccelsimError(
                f"layer_gains: at {scheme} the outputs have no error, expected some to reduce"
            )
        return found

    names = [call.name for call in calibrated.first.layers]
    base, gains = sqnr({}), {}
    for done, name in enumerate(names):
        if progress is not None:
            progress("layers", done, len(names))
        gains[name] = sqnr({name: other}) - base
    return dict(sorted(gains.items(), key=lambda item: -item[1]))


def _floats(outputs: list[object]) -> NDArray[np.float64]:
    """All numbers of the outputs, float64."""
    leaves = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    return np.concatenate([leaf.double().reshape(-1).numpy() for leaf in leaves if leaf.is_floating_point()])
