"""CIFAR-10 ResNets of He et al. (2016, section 4.2), parameter-free shortcuts (option A)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from accelsim.errors import AccelsimError
from accelsim.recipes.choose import positive
from accelsim.recipes.cifar_data import CLASSES, read_cifar
from accelsim.recipes.classify import Classification
from accelsim.recipes.files import Needed, load_state, read_state, require
from accelsim.recipes.random_weights import seeded

DEPTHS = (20, 32, 44, 56, 110)
_WEIGHTS = (
    "pretrained_models/resnet{depth}-*.th of github.com/akamaster/pytorch_resnet_cifar10 (BSD-2-Clause)"
)
_DATA = "cifar-10-python.tar.gz or cifar-10-binary.tar.gz at https://www.cs.toronto.edu/~kriz/cifar.html"


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.added = stride, (width - channels) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride != 1:
            # Option A: every other pixel, and channels of zeros, half before and half behind.
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added, self.added))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """float32[batch, 3, 32, 32] -> logits float32[batch, 10]. depth: 6 n + 2, of n blocks a stage."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(blocks, 16, 16, 1)
        self.layer2 = _stage(blocks, 16, 32, 2)
        self.layer3 = _stage(blocks, 32, 64, 2)
        self.linear = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


def _stage(blocks: int, channels: int, width: int, stride: int) -> nn.Sequential:
    rest = [Block(width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(channels, width, stride), *rest)


def cifar_resnet(
    depth: int = 20,
    weights: str | Path | None = None,
    *,
    evaluation: str | Path,
    calibration: str | Path,
    evaluation_images: int | None = None,
    calibration_images: int = 256,
    batch: int = 64,
    seed: int = 0,
) -> Classification:
    """A CIFAR-10 ResNet with its images; the headline is top-1.

    depth: 20, 32, 44, 56 or 110. weights: .safetensors or .th, named as akamaster/pytorch_resnet_cifar10
    names them; None draws them with `seed`, for shapes and time but not for accuracy. evaluation,
    calibration: a file or folder that `read_cifar` reads; of a folder the test and the training batches. The
    first `evaluation_images` (None: all) and the first `calibration_images` are used, in batches of `batch`.
    Raises AccelsimError, for absent files with where they are published.
    """
    name = f"cifar-resnet{depth}"
    if depth not in DEPTHS:
        raise AccelsimError(f"cifar_resnet: depth is {depth!r}, expected 20, 32, 44, 56 or 110")
    if evaluation_images is not None:
        positive(evaluation_images, f"{name}: evaluation_images")
    positive(calibration_images, f"{name}: calibration_images")
    require(
        name,
        [
            Needed(f"weights of ResNet-{depth}", weights, _WEIGHTS.format(depth=depth)),
            Needed("images to evaluate", evaluation, f"test_batch in {_DATA}"),
            Needed("training images to calibrate on", calibration, f"data_batch_1 to _5 in {_DATA}"),
        ],
    )
    evaluated = read_cifar(evaluation, "test").first(evaluation_images)
    calibrated = read_cifar(calibration, "train").first(calibration_images)
    model = seeded(lambda: CifarResNet(depth), seed, (64, 3, 32, 32) if weights is None else None)
    task = Classification(name, model, evaluated, evaluated.labels, calibrated, batch, top=(1,))
    if weights is not None:
        load_state(model, read_state(weights), str(weights))
    return task
