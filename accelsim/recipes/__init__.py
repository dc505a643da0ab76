"""Models with their data and their metric, from files on disk: what a claim about accuracy is measured on.

Each recipe returns a Task: a float32 PyTorch model, calibration inputs, and an evaluation that any callable
with the model's signature goes through alike (docs/recipes.md). Nothing is downloaded. Needs torch, text also
tokenizers (`pip install 'accelsim[torch,recipes]'`); nothing else of the package imports this room.
"""

from __future__ import annotations

from accelsim.errors import AccelsimError

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    if error.name != "torch":
        raise
    raise AccelsimError(
        "torch is not installed, expected torch>=2.13: pip install 'accelsim[torch,recipes]'"
    ) from None

from accelsim.recipes.bert_squad import bert_squad
from accelsim.recipes.cifar import cifar_resnet
from accelsim.recipes.resnet50 import resnet50
from accelsim.recipes.sentences import sentence_embeddings
from accelsim.recipes.statistics import agreement, paired_interval
from accelsim.recipes.task import Task

__all__ = [
    "Task",
    "agreement",
    "bert_squad",
    "cifar_resnet",
    "paired_interval",
    "resnet50",
    "sentence_embeddings",
]
