"""Sentence embeddings (Reimers and Gurevych, 2019) on the STS benchmark."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from accelsim.errors import AccelsimError
from accelsim.recipes.choose import positive
from accelsim.recipes.encoder import Bert, BertConfig, published_names, read_config
from accelsim.recipes.files import Needed, load_state, read_state, require
from accelsim.recipes.random_weights import seeded
from accelsim.recipes.task import Floats, Task
from accelsim.recipes.tokens import read_tokenizer

_MODEL = "sentence-transformers/all-MiniLM-L6-v2 at huggingface.co (Apache-2.0)"
_STSB = "data/stsb-en-{split}.csv at github.com/PhilipMay/stsb-multi-mt"


class SentenceEncoder(nn.Module):
    """input_ids int64[batch, tokens], nothing padded -> float32[batch, hidden_size] of length 1: the mean
    over all tokens of BERT's last layer."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = Bert(config)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.bert(input_ids).mean(1))


class SentencePairs(Task):
    """Spearman correlation of cosine similarities with human scores.

    Examples are the first sentences of all pairs, then the second ones. A batch has sentences of one number
    of tokens, so that nothing is padded: `inputs` and `calibration` have the number that most sentences of
    the calibration have (of those that fill a batch of the evaluation), `calibration_of_all_shapes` has all.
    """

    headline = "spearman"
    classifies = False

    def __init__(
        self,
        name: str,
        model: nn.Module,
        evaluated: list[list[int]],
        scores: NDArray[np.float64],
        calibrated: list[list[int]],
        batch: int,
    ) -> None:
        self.name, self.model = name, model
        self.examples, self.scores = len(evaluated), scores
        self.batch = positive(batch, f"{name}: batch")
        self._evaluated, self._calibrated = by_length(evaluated), by_length(calibrated)
        common = self._evaluated.keys() & self._calibrated.keys()
        if not common:
            raise AccelsimError(
                f"{name}: no sentence to calibrate on has as many tokens as one to evaluate, expected some"
            )

        def size(tokens: int) -> int:
            return min(self.batch, *(len(group[tokens][0]) for group in (self._evaluated, self._calibrated)))

        # Whole batches if there can be, of as many sentences as there can be, then of as few tokens.
        self._tokens = max(common, key=lambda own: (size(own), len(self._calibrated[own][0]), -own))
        self._size = size(self._tokens)
        self.inputs = self._evaluated[self._tokens][1][: self._size]

    def calibration(self) -> Iterator[torch.Tensor]:
        """Whole batches: sentences beyond the last whole one are left out."""
        yield from whole_batches(self._calibrated[self._tokens][1], self._size)

    def calibration_of_all_shapes(self) -> Iterator[torch.Tensor]:
        """Whole batches of every number of tokens, that of `inputs` first; where there are fewer sentences
        than a batch has, all of them are one."""
        yield from self.calibration()
        for tokens in sorted(self._calibrated.keys() - {self._tokens}):
            ids = self._calibrated[tokens][1]
            yield from whole_batches(ids, min(self.batch, len(ids)))

    def evaluation(self) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        for tokens in sorted(self._evaluated):
            rows, ids = self._evaluated[tokens]
            for first in range(0, len(rows), self.batch):
                yield rows[first : first + self.batch], ids[first : first + self.batch]

    def metrics(self, outputs: Floats) -> dict[str, float]:
        return {"spearman": 100 * spearman(self._similarities(outputs), self.scores)}

    def interval(self, outputs: Floats, reference: Floats) -> tuple[float, float] | None:
        """Paired bootstrap (Efron and Tibshirani, 1993, section 13.3): percentiles of the difference over
        1000 draws of pairs with replacement, always the same ones."""
        a, b = self._similarities(outputs), self._similarities(reference)
        draws = np.random.default_rng(0).integers(0, len(a), (1000, len(a)))
        found = [
            100 * (spearman(a[rows], self.scores[rows]) - spearman(b[rows], self.scores[rows]))
            for rows in draws
        ]
        low, high = np.nanpercentile(found, [2.5, 97.5])
        return float(low), float(high)

    def _similarities(self, outputs: Floats) -> NDArray[np.float64]:
        """Cosine similarity of every pair. outputs: float32[2 * pairs, width]."""
        pairs = len(self.scores)
        if outputs.ndim != 2 or len(outputs) != 2 * pairs:
            raise AccelsimError(f"outputs are {list(outputs.shape)}, expected [{2 * pairs}, width]")
        a, b = outputs[:pairs].astype(np.float64), outputs[pairs:].astype(np.float64)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.divide(np.sum(a * b, axis=1), lengths, out=np.zeros(pairs), where=lengths > 0)


def whole_batches(ids: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    for first in range(0, len(ids) - size + 1, size):
        yield ids[first : first + size]


def by_length(sentences: Sequence[list[int]]) -> dict[int, tuple[NDArray[np.int64], torch.Tensor]]:
    """By number of tokens: which sentences have it, int64[n], and their tokens, int64[n, tokens]."""
    groups: dict[int, list[int]] = {}
    for number, ids in enumerate(sentences):
        groups.setdefault(len(ids), []).append(number)
    return {
        tokens: (np.array(rows), torch.tensor([sentences[row] for row in rows]))
        for tokens, rows in groups.items()
    }


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's rank correlation, -1 to 1: Pearson's of the ranks; equal values have the mean of theirs. NaN
    where all of a or all of b are equal."""
    x, y = (average_ranks(values) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    lengths = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / lengths if lengths else math.nan


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, float64[n]; equal values have the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def read_pairs(path: str | Path, most: int | None = None) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """First sentences, second ones and scores (0 to 5, float64[pairs]) of a CSV file without header, columns
    sentence, sentence, score; its first `most` pairs, all with None. Raises AccelsimError: file, line, what
    was found and expected."""
    first, second, scores = [], [], []
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            for row in itertools.islice(reader, most):
                score = _score(row[2]) if len(row) == 3 else math.nan
                if not 0 <= score <= 5:
                    raise AccelsimError(
                        f"pairs {path}: line {reader.line_num} has {len(row)} columns, the last "
                        f"{row[-1][:20] if row else ''!r}; expected sentence, sentence, score from 0 to 5"
                    )
                first.append(row[0])
                second.append(row[1])
                scores.append(score)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AccelsimError(f"pairs {path}: expected a CSV file in UTF-8 ({error})") from None
    if len(set(scores)) < 2:
        raise AccelsimError(f"pairs {path}: {len(scores)} pairs, expected at least two of different scores")
    return first, second, np.array(scores)


def _score(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def sentence_embeddings(
    model: str | Path,
    *,
    evaluation: str | Path,
    calibration: str | Path,
    trained: bool = True,
    evaluation_pairs: int | None = None,
    batch: int = 16,
    seed: int = 0,
) -> SentencePairs:
    """A sentence encoder with pairs of the STS benchmark; the headline is the Spearman correlation.

    model: a folder with model.safetensors, config.json and tokenizer.json, of BERT's kind with mean pooling;
    trained=False draws the weights with `seed` and needs no model.safetensors. Sentences are cut at
    max_seq_length of sentence_bert_config.json, where that is there. evaluation: a CSV of sentence, sentence,
    score, of which the first `evaluation_pairs` (None: all) are used; calibration: a text file, a sentence a
    line. Raises AccelsimError, for absent files with where they are published.
    """
    name = "sentence-embeddings"
    if evaluation_pairs is not None:
        positive(evaluation_pairs, f"{name}: evaluation_pairs")
    folder = Path(model)
    weights = folder / "model.safetensors"
    require(
        name,
        [
            Needed("weights", weights if trained else None, f"model.safetensors of {_MODEL}"),
            Needed("sizes", folder / "config.json", f"config.json of {_MODEL}"),
            Needed("tokens", folder / "tokenizer.json", f"tokenizer.json of {_MODEL}"),
            Needed("pairs to evaluate", evaluation, _STSB.format(split="dev")),
            Needed("sentences to calibrate on, a line each", calibration, _STSB.format(split="train")),
        ],
    )
    config = read_config(folder / "config.json")
    first, second, scores = read_pairs(evaluation, evaluation_pairs)
    try:
        sentences = Path(calibration).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AccelsimError(f"sentences {calibration}: expected text in UTF-8 ({error})") from None
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise AccelsimError(
            f"{name}: the tokenizer knows {tokenizer.get_vocab_size()} tokens, "
            f"expected no more than vocab_size {config.vocab_size}"
        )
    tokenizer.enable_truncation(_longest(folder, config))
    evaluated, calibrated = (
        [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        for texts in ([*first, *second], [line for line in sentences if line.strip()])
    )
    encoder = seeded(lambda: SentenceEncoder(config), seed)
    assert isinstance(encoder, SentenceEncoder)
    if trained:
        state = {own.removeprefix("bert."): tensor for own, tensor in read_state(weights).items()}
        load_state(encoder.bert, published_names(state, ("pooler.",)), str(weights))
    return SentencePairs(name, encoder, evaluated, scores, calibrated, batch)


def _longest(folder: Path, config: BertConfig) -> int:
    """How many tokens a sentence may have."""
    path = folder / "sentence_bert_config.json"
    if not path.is_file():
        return config.max_position_embeddings
    try:
        longest = json.loads(path.read_text("utf-8"))["max_seq_length"]
    except (OSError, ValueError, KeyError, TypeError):
        longest = None
    if type(longest) is not int or not 3 <= longest <= config.max_position_embeddings:
        raise AccelsimError(
            f"config {path}: max_seq_length is {longest!r}, expected 3 to {config.max_position_embeddings}"
        )
    return longest
