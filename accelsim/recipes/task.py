"""What every recipe gives: a model, calibration inputs, and an evaluation for whatever is called like it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.recipes.statistics import agreement, paired_interval

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]


class Task(ABC):
    """A float model with its data and its metric.

    name: of the recipe and its size, `cifar-resnet20`; headline: the metric that is quoted, a key of
    `metrics`; classifies: outputs are logits, whose argmax is the answer; model: float32, in evaluation mode;
    inputs: an example batch, as `accelsim.torch.export` takes it; examples: how many outputs an evaluation
    gives.
    """

    name: str
    headline: str
    classifies = True
    model: torch.nn.Module
    inputs: Any
    examples: int

    @abstractmethod
    def calibration(self) -> Iterator[Any]:
        """Batches of the shapes of `inputs`, none of them evaluated: for `accelsim.torch.export`."""

    def calibration_of_all_shapes(self) -> Iterator[Any]:
        """Calibration for what takes inputs of several shapes. Differs from `calibration` where the
        evaluation has more shapes than one."""
        return self.calibration()

    @abstractmethod
    def evaluation(self) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """Batches to evaluate: numbers int64[batch] of the examples, each once, and their inputs."""

    @abstractmethod
    def metrics(self, outputs: Floats) -> dict[str, float]:
        """Metrics in percent, of outputs float32[examples, ...] as `outputs` returns them."""

    def correct(self, outputs: Floats) -> NDArray[np.bool_] | None:
        """bool[n], an entry for each thing that is answered rightly or wrongly, for `paired_interval`; None
        where the metric is no share of right answers."""
        return None

    def interval(self, outputs: Floats, reference: Floats) -> tuple[float, float] | None:
        """95 % confidence interval of the headline of `outputs` less that of `reference`, in points, on the
        same examples; None where there is no rule for it."""
        correct, wanted = self.correct(outputs), self.correct(reference)
        return None if correct is None or wanted is None else paired_interval(correct, wanted)

    def compare(self, outputs: Floats, reference: Floats) -> dict[str, float]:
        """`metrics` of outputs as `outputs` returns them, what sets them apart from those of a reference
        (the float model), and `agreement` with it.

        `<headline>_difference` is in points; `_low` and `_high` are its 95 % interval, where there is one.
        """
        found = dict(self.metrics(outputs))
        found[f"{self.headline}_difference"] = found[self.headline] - self.metrics(reference)[self.headline]
        interval = self.interval(outputs, reference)
        if interval is not None:
            found[f"{self.headline}_low"], found[f"{self.headline}_high"] = interval
        return found | agreement(reference, outputs, argmax=self.classifies)

    def outputs(self, model: Callable[..., Any], progress: Progress | None = None) -> Floats:
        """float32[examples, ...]: what `model` returns for every example, in their order.

        model: called as `self.model` is, returns one float tensor [batch, ...]. progress: called with a
        word, the examples done and `self.examples`. Raises AccelsimError where it returns something else, or
        numbers that are not finite.
        """
        report = progress or (lambda what, done, of: None)
        found: Floats | None = None
        done = 0
        report("evaluation", done, self.examples)
        with torch.no_grad():
            for rows, inputs in self.evaluation():
                values = checked(call(model, inputs), len(rows), f"{self.name}: output of examples {rows[0]}")
                if found is None:
                    found = np.empty((self.examples, *values.shape[1:]), np.float32)
                if values.shape[1:] != found.shape[1:]:
                    raise AccelsimError(
                        f"{self.name}: outputs of {list(values.shape[1:])} and {list(found.shape[1:])}, "
                        "expected one shape for all examples"
                    )
                found[rows] = values
                done += len(rows)
                report("evaluation", done, self.examples)
        assert found is not None and done == self.examples
        return found


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """A model on inputs as a task gives them: a tensor, a tuple, or a dict of keyword inputs."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def checked(result: Any, batch: int, where: str) -> Floats:
    """A model's result as float32[batch, ...]. Raises AccelsimError, which begins with `where`."""
    if not isinstance(result, torch.Tensor) or not result.is_floating_point():
        found = str(result.dtype) if isinstance(result, torch.Tensor) else type(result).__name__
        raise AccelsimError(f"{where} on is {found}, expected one tensor of floats")
    if not result.dim() or len(result) != batch:
        raise AccelsimError(f"{where} on is of shape {list(result.shape)}, expected [{batch}, ...]")
    values = result.detach().to(torch.float32).numpy()
    if not np.isfinite(values).all():
        raise AccelsimError(f"{where} on has values that are not finite, expected finite numbers")
    return values
