"""Whole networks with random weights on the machine's integers, chained: all layers run there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch_models as models

import accelsim.torch
from accelsim.recipes import agreement


def images(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(seed))


def tokens(count: int, vocabulary: int) -> Callable[[int], torch.Tensor]:
    return lambda seed: torch.randint(
        0, vocabulary, (2, count), generator=torch.Generator().manual_seed(seed)
    )


# builder, inputs by seed, layers, nodes in integers
NETWORKS: dict[str, tuple[Callable[[], torch.nn.Module], Callable[[int], torch.Tensor], int, int]] = {
    "ResNet-50": (lambda: models.trained(models.ResNet50()), images, 54, 18),
    "BERT-base": (lambda: models.Encoder(768, 12, 12), tokens(64, 1000), 97, 24),
    "decoder": (models.Decoder, tokens(24, 100), 19, 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_runs_in_integers_and_keeps_its_outputs(name: str) -> None:
    build, inputs, layers, nodes = NETWORKS[name]
    torch.manual_seed(0)
    model = build().eval()
    calibrated = accelsim.torch.calibrate(model, inputs(0), [inputs(1), inputs(2)])
    with torch.no_grad():
        exact = first(model(inputs(3)))
    found = {}
    for scheme in ("8/8/8/8", "4/4/4/4"):
        simulated = accelsim.torch.simulate(
            calibrated, scheme=scheme, chained=True, residual="8/8", quantize="plain"
        )
        found[scheme] = agreement(exact.numpy(), first(simulated(inputs(3))).numpy())
        how = simulated.coverage.how
        ran = [how[call.name] for call in calibrated.first.layers]
        assert len(ran) == layers == len(simulated.coverage.accumulations)
        assert sum(own == "integers" for own in how.values()) >= nodes
        assert not any(simulated.coverage.overflows.values())
    print(name, found)
    assert found["8/8/8/8"]["cosine"] > 0.99
    assert found["8/8/8/8"]["sqnr_db"] > found["4/4/4/4"]["sqnr_db"] + 6


def first(outputs: Any) -> torch.Tensor:
    """The logits, or of BERT the last hidden states, an example a row."""
    tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return tensor.flatten(0, -2) if tensor.dim() > 2 else tensor
