"""ResNet-50 v1.5 on ImageNet: He et al. (2016), with the stride of a block in its 3x3 convolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from accelsim.errors import AccelsimError
from accelsim.recipes.choose import positive, spread
from accelsim.recipes.classify import Classification
from accelsim.recipes.files import Needed, load_state, read_state, require
from accelsim.recipes.image_folder import INTERPOLATIONS, ImageFiles, image_paths, labelled_images
from accelsim.recipes.random_weights import seeded

_WEIGHTS = (
    "https://download.pytorch.org/models/resnet50-0676ba61.pth (torchvision, BSD-3-Clause; 76.13 % top-1)"
)
_VALIDATION = "ILSVRC2012_img_val.tar at https://image-net.org (terms of access apply)"
_TRAINING = "ILSVRC2012_img_train.tar at https://image-net.org (terms of access apply)"
_LABELS = "val.txt in caffe_ilsvrc12.tar.gz at http://dl.caffe.berkeleyvision.org"
_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """float32[batch, 3, height, width] -> logits float32[batch, classes]; named as torchvision names it."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for number, (width, blocks) in enumerate(_STAGES, 1):
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(channels, width, 2 if number > 1 and block == 0 else 1))
                channels = 4 * width
            setattr(self, f"layer{number}", nn.Sequential(*stage))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


def resnet50(
    weights: str | Path | None = None,
    *,
    evaluation: str | Path,
    calibration: str | Path,
    labels: str | Path | None = None,
    synsets: str | Path | None = None,
    classes: int = 1000,
    evaluation_images: int | None = None,
    calibration_images: int = 256,
    batch: int = 16,
    resize: int = 256,
    crop: int = 224,
    interpolation: str = "bilinear",
    seed: int = 0,
) -> Classification:
    """ResNet-50 with folders of images; metrics are top-1, the headline, and top-5.

    weights: .pth or .safetensors with torchvision's names; None draws them with `seed`, for shapes and time
    but not for accuracy. evaluation: a folder with a folder for each class, or a flat one with a file
    `labels`; `synsets` orders classes where not all have a folder (`labelled_images` has the details).
    calibration: a folder of training images at any depth, without labels. Of both, `evaluation_images` (None:
    all) and `calibration_images` are taken evenly from the sorted paths. resize: pixels of the shorter side,
    before the middle `crop` is cut out; 256 and bilinear go with torchvision's first weights, 232 with its
    second. Raises AccelsimError, for absent files with where they are published.
    """
    name = "resnet50"
    for value, what in ((classes, "classes"), (resize, "resize"), (crop, "crop")):
        positive(value, f"{name}: {what}")
    if evaluation_images is not None:
        positive(evaluation_images, f"{name}: evaluation_images")
    positive(calibration_images, f"{name}: calibration_images")
    if interpolation not in INTERPOLATIONS:
        raise AccelsimError(f"{name}: interpolation is {interpolation!r}, expected bilinear or bicubic")
    if resize < crop:
        raise AccelsimError(f"{name}: resize is {resize}, expected at least crop, {crop}")
    require(
        name,
        [
            Needed("weights", weights, _WEIGHTS),
            Needed("images to evaluate", evaluation, _VALIDATION),
            Needed("training images to calibrate on", calibration, _TRAINING),
            Needed("labels, a line `name number` for each image", labels, _LABELS),
            Needed("names of the classes in their order", synsets, _LABELS.replace("val", "synsets")),
        ],
    )
    evaluated = spread(labelled_images(Path(evaluation), labels, synsets, classes), evaluation_images)
    calibrated = spread(image_paths(Path(calibration)), calibration_images)
    model = seeded(lambda: ResNet50(classes), seed, (32, 3, 64, 64) if weights is None else None)
    task = Classification(
        name,
        model,
        ImageFiles(tuple(path for path, _ in evaluated), resize, crop, interpolation),
        np.array([label for _, label in evaluated], np.int64),
        ImageFiles(tuple(calibrated), resize, crop, interpolation),
        batch,
        top=(1, 5),
    )
    if weights is not None:
        load_state(model, read_state(weights), str(weights))
    return task
