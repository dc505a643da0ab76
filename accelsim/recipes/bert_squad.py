"""BERT that answers questions (Devlin et al., 2019) on SQuAD 1.1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from accelsim.errors import AccelsimError
from accelsim.recipes.choose import positive, spread
from accelsim.recipes.encoder import BERT_BASE, BERT_LARGE, Bert, BertConfig, published_names, read_config
from accelsim.recipes.files import Needed, load_state, read_state, require
from accelsim.recipes.random_weights import seeded
from accelsim.recipes.squad_data import (
    Question,
    Window,
    answer_text,
    exact_match,
    f1,
    read_questions,
    windows_of,
)
from accelsim.recipes.task import Floats, Task
from accelsim.recipes.tokens import number_of, read_tokenizer

Inputs = dict[str, torch.Tensor]

SIZES = {"base": BERT_BASE, "large": BERT_LARGE}
_MODEL = (
    "of csarron/bert-base-uncased-squad-v1 or "
    "google-bert/bert-large-uncased-whole-word-masking-finetuned-squad at huggingface.co"
)
_SQUAD = "{split}-v1.1.json at https://rajpurkar.github.io/SQuAD-explorer/dataset/ (CC BY-SA 4.0)"


class BertForQuestions(nn.Module):
    """input_ids, attention_mask, token_type_ids int64[batch, tokens] -> logits float32[batch, tokens, 2] of
    an answer's first and last token; as Bert for the inputs."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = Bert(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        return self.qa_outputs(self.bert(input_ids, attention_mask, token_type_ids))


class Squad(Task):
    """Exact match and F1, the headline.

    An example is a window of a question's context; `answers` has one entry a question. Logits of padding are
    outputs too, though no answer is read from them.
    """

    headline = "f1"

    def __init__(
        self,
        name: str,
        model: nn.Module,
        questions: Sequence[Question],
        windows: Sequence[Window],
        calibrated: Sequence[Window],
        *,
        padding: int,
        tokens: int,
        batch: int,
        n_best: int,
        longest_answer: int,
    ) -> None:
        self.name, self.model, self.padding, self.tokens = name, model, padding, tokens
        self.questions, self._windows, self._calibrated = questions, windows, calibrated
        self.n_best, self.longest_answer = n_best, longest_answer
        self.examples = len(windows)
        self.batch = min(batch, self.examples)
        if len(calibrated) < self.batch:
            raise AccelsimError(
                f"{name}: {len(calibrated)} windows to calibrate on, "
                f"expected at least a batch of {self.batch}"
            )
        self.inputs = self._inputs(windows[: self.batch])

    def _inputs(self, windows: Sequence[Window]) -> Inputs:
        ids, mask, types = np.zeros((3, len(windows), self.tokens), np.int64)
        ids += self.padding
        for row, window in enumerate(windows):
            ids[row, : len(window.ids)] = window.ids
            mask[row, : len(window.ids)] = 1
            types[row, window.first : len(window.ids)] = 1
        named = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: torch.from_numpy(values) for name, values in named.items()}

    def calibration(self) -> Iterator[Inputs]:
        """Whole batches: windows beyond the last whole one are left out."""
        for first in range(0, len(self._calibrated) - self.batch + 1, self.batch):
            yield self._inputs(self._calibrated[first : first + self.batch])

    def evaluation(self) -> Iterator[tuple[NDArray[np.int64], Inputs]]:
        for first in range(0, self.examples, self.batch):
            rows = np.arange(first, min(first + self.batch, self.examples))
            yield rows, self._inputs(self._windows[first : first + self.batch])

    def answers(self, outputs: Floats) -> list[str]:
        """The answer to each question, a part of its context. outputs: float32[examples, tokens, 2]."""
        if outputs.shape != (self.examples, self.tokens, 2):
            raise AccelsimError(
                f"outputs are {list(outputs.shape)}, expected [{self.examples}, {self.tokens}, 2]"
            )
        own: list[list[tuple[Window, Floats]]] = [[] for _ in self.questions]
        for window, logits in zip(self._windows, outputs, strict=True):
            own[window.question].append((window, logits[: len(window.ids)]))
        return [
            answer_text(question, windows, self.n_best, self.longest_answer)
            for question, windows in zip(self.questions, own, strict=True)
        ]

    def metrics(self, outputs: Floats) -> dict[str, float]:
        pairs = list(zip(self.answers(outputs), self.questions, strict=True))
        return {
            "f1": 100 * float(np.mean([f1(answer, own.answers) for answer, own in pairs])),
            "exact_match": 100 * float(np.mean([exact_match(answer, own.answers) for answer, own in pairs])),
        }

    def correct(self, outputs: Floats) -> NDArray[np.bool_]:
        """bool[questions]: exact matches."""
        answers = zip(self.answers(outputs), self.questions, strict=True)
        return np.array([exact_match(answer, own.answers) for answer, own in answers])


def bert_squad(
    weights: str | Path | None = None,
    *,
    tokenizer: str | Path,
    evaluation: str | Path,
    calibration: str | Path,
    config: str | Path | BertConfig | None = None,
    evaluation_questions: int | None = None,
    calibration_questions: int = 64,
    batch: int = 8,
    tokens: int = 384,
    stride: int = 128,
    question_tokens: int = 64,
    answer_tokens: int = 30,
    n_best: int = 20,
    seed: int = 0,
) -> Squad:
    """BERT with questions of SQuAD 1.1; metrics are F1, the headline, and exact match.

    weights: .safetensors or .bin with Hugging Face's names; None draws them with `seed`, for shapes and time
    but not for accuracy. tokenizer: a tokenizer.json or vocab.txt. config: `base`, `large`, sizes or a
    config.json, by default the one beside the weights or else the tokenizer, or else `base`. evaluation,
    calibration: dev-v1.1.json and train-v1.1.json, of which `evaluation_questions` (None: all) and
    `calibration_questions` are taken evenly. A window has `tokens` tokens, padded, and begins `stride` tokens
    of context behind the one before it; questions are cut at `question_tokens`, answers have at most
    `answer_tokens`, among `n_best` starts and ends. Raises AccelsimError, for absent files with where they
    are published.
    """
    name = "bert-squad"
    for value, what in (
        (calibration_questions, "calibration_questions"),
        (batch, "batch"),
        (tokens, "tokens"),
        (stride, "stride"),
        (question_tokens, "question_tokens"),
        (answer_tokens, "answer_tokens"),
        (n_best, "n_best"),
    ):
        positive(value, f"{name}: {what}")
    if evaluation_questions is not None:
        positive(evaluation_questions, f"{name}: evaluation_questions")
    file = None if isinstance(config, BertConfig) or config in SIZES else config
    require(
        name,
        [
            Needed("weights", weights, f"model.safetensors {_MODEL}"),
            Needed("tokens", tokenizer, f"tokenizer.json or vocab.txt {_MODEL}"),
            Needed("sizes", file, f"config.json {_MODEL}"),
            Needed("questions to evaluate", evaluation, _SQUAD.format(split="dev")),
            Needed("questions to calibrate on", calibration, _SQUAD.format(split="train")),
        ],
    )
    pieces = read_tokenizer(tokenizer)
    sizes = sizes_of(
        config, [path for path in (weights, tokenizer) if path is not None], pieces.get_vocab_size()
    )
    if pieces.get_vocab_size() > sizes.vocab_size or tokens > sizes.max_position_embeddings:
        raise AccelsimError(
            f"{name}: the tokenizer knows {pieces.get_vocab_size()} tokens and a window has {tokens}, "
            f"expected at most {sizes.vocab_size} and {sizes.max_position_embeddings}"
        )
    if question_tokens + 3 >= tokens:
        raise AccelsimError(
            f"{name}: question_tokens is {question_tokens}, expected less than tokens - 3, {tokens - 3}"
        )
    questions = spread(read_questions(evaluation), evaluation_questions)
    others = spread(read_questions(calibration), calibration_questions)
    model = seeded(lambda: BertForQuestions(sizes), seed)
    if weights is not None:
        state = published_names(read_state(weights), ("bert.pooler.",))
        load_state(model, state, str(weights))
    return Squad(
        name,
        model,
        questions,
        windows_of(questions, pieces, tokens, stride, question_tokens),
        windows_of(others, pieces, tokens, stride, question_tokens),
        padding=number_of(pieces, "[PAD]"),
        tokens=tokens,
        batch=batch,
        n_best=n_best,
        longest_answer=answer_tokens,
    )


def sizes_of(config: str | Path | BertConfig | None, beside: Sequence[str | Path], words: int) -> BertConfig:
    """Sizes as `bert_squad` takes them. beside: files whose folders may have a config.json; words: tokens of
    the vocabulary, where only `base` or `large` is known."""
    if isinstance(config, BertConfig):
        return config
    if config is None:
        there = [path for path in (Path(own).with_name("config.json") for own in beside) if path.is_file()]
        config = there[0] if there else "base"
    if isinstance(config, str) and config in SIZES:
        return replace(SIZES[config], vocab_size=words)
    return read_config(config)
