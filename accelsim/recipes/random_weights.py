"""Seeded weights for models without trained ones: right in shape and range, without a use for accuracy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `build` returns, in evaluation mode; its random numbers follow from `seed` alone, and torch's own
    generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def settle(model: nn.Module, inputs: torch.Tensor) -> None:
    """Give batch norms the statistics of `inputs`, so that activations neither die nor grow with depth."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain average, of this one batch
    with torch.no_grad():
        model.train()(inputs)
    model.eval()
    for norm in norms:
        norm.momentum = 0.1
