"""Image classification: a model that gives logits, images by number, labels, top-k accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.recipes.choose import positive
from accelsim.recipes.task import Floats, Task


class Images(Protocol):
    """Images by number."""

    def __len__(self) -> int: ...

    def batch(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """float32[rows, 3, height, width], normalised as the model takes it."""


class Classification(Task):
    """labels: int64[examples]; top: the k of the metrics `topk`.

    `inputs` are the first images of the evaluation. Calibration comes in whole batches of as many: images
    beyond the last whole one are left out.
    """

    headline = "top1"

    def __init__(
        self,
        name: str,
        model: torch.nn.Module,
        evaluated: Images,
        labels: NDArray[np.int64],
        calibrated: Images,
        batch: int,
        top: tuple[int, ...],
    ) -> None:
        self.name, self.model, self.labels, self.top = name, model, labels, top
        self._evaluated, self._calibrated = evaluated, calibrated
        self.examples = len(labels)
        self.batch = min(positive(batch, f"{name}: batch"), self.examples)
        if len(calibrated) < self.batch:
            raise AccelsimError(
                f"{name}: {len(calibrated)} calibration images, expected at least a batch of {self.batch}"
            )
        self.inputs = evaluated.batch(np.arange(self.batch))

    def calibration(self) -> Iterator[torch.Tensor]:
        for first in range(0, len(self._calibrated) - self.batch + 1, self.batch):
            yield self._calibrated.batch(np.arange(first, first + self.batch))

    def evaluation(self) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        for first in range(0, self.examples, self.batch):
            rows = np.arange(first, min(first + self.batch, self.examples))
            yield rows, self._evaluated.batch(rows)

    def metrics(self, outputs: Floats) -> dict[str, float]:
        ranks = label_ranks(outputs, self.labels)
        return {f"top{k}": 100.0 * float(np.mean(ranks < k)) for k in self.top}

    def correct(self, outputs: Floats) -> NDArray[np.bool_]:
        return label_ranks(outputs, self.labels) == 0


def label_ranks(logits: Floats, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[n]: how many classes come before the label of logits float[n, classes]; of equal logits the lower
    class comes first, as with argmax. Raises AccelsimError where logits and labels are not as many."""
    if logits.ndim != 2 or len(logits) != len(labels):
        raise AccelsimError(f"outputs are {list(logits.shape)}, expected [{len(labels)}, classes]")
    if labels.max(initial=0) >= logits.shape[1]:
        raise AccelsimError(f"label {labels.max()} of {logits.shape[1]} classes, expected less")
    own = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    ranks: NDArray[np.int64] = np.sum((logits > own) | ((logits == own) & earlier), axis=1)
    return ranks


def normalised(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """uint8[n, height, width, 3] (RGB) as float32[n, 3, height, width]: x / 255, less the mean, over the
    standard deviation of ImageNet's training images, the constants of torchvision's and of many others."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return (images.to(torch.float32) / 255 - mean) / deviation
