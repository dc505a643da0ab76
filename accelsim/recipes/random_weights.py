"""Seeded weights for models without trained ones: right in shape and range, without a use for accuracy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def seeded(build: Callable[[], nn.Module], seed: int, settle_on: tuple[int, ...] | None = None) -> nn.Module:
    """What `build` returns, in evaluation mode; its random numbers follow from `seed` alone, and torch's own
    generator is left as it was.

    settle_on: a shape of inputs; batch norms get the statistics of normal noise of it, so that activations
    neither die nor grow with depth.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        if settle_on is not None:
            _settle(model, torch.randn(settle_on))
        return model.eval()


def _settle(model: nn.Module, inputs: torch.Tensor) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain average, of this one batch
    with torch.no_grad():
        model.train()(inputs)
    for norm in norms:
        norm.momentum = 0.1
