"""SQuAD 1.1: its JSON, windows of tokens with a stride, answers from logits, exact match and F1.

Rajpurkar et al. (2016); windows and answers as in Devlin et al. (2019) and the code published with it.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.recipes.tokens import number_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Question:
    """answers: the texts that people marked, at least one."""

    text: str
    context: str
    answers: tuple[str, ...]


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a SQuAD 1.1 file, in its order. Raises AccelsimError: file, question, its fault."""
    try:
        raw = json.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AccelsimError(f"questions {path}: expected JSON ({error})") from None
    found: list[Question] = []
    try:
        for article in raw["data"]:
            for paragraph in article["paragraphs"]:
                found.extend(_question(entry, paragraph["context"]) for entry in paragraph["qas"])
    except (KeyError, TypeError, IndexError) as error:
        raise AccelsimError(
            f"questions {path}: after {len(found)} questions it is not as SQuAD 1.1 "
            f"({type(error).__name__}: {error}); expected data, paragraphs, context, qas, question, answers"
        ) from None
    except AccelsimError as error:
        raise AccelsimError(f"questions {path}: {error}") from None
    if not found:
        raise AccelsimError(f"questions {path}: there are none, expected at least one")
    return found


def _question(entry: Any, context: str) -> Question:
    question = Question(entry["question"], context, tuple(answer["text"] for answer in entry["answers"]))
    if not all(isinstance(text, str) for text in (question.text, context, *question.answers)):
        raise TypeError("a text is no string")
    if not question.answers:
        raise AccelsimError(f"{question.text[:60]!r} has no answer; expected SQuAD 1.1, where all have one")
    return question


@dataclass(frozen=True)
class Window:
    """Tokens of a question and of a part of its context: [CLS] question [SEP] part [SEP].

    ids: without padding; first: where the part begins in it; spans: of each of the part's tokens the
    characters of the context that it stands for, from and to; best: for each, whether no other window has
    more around it.
    """

    question: int
    ids: tuple[int, ...]
    first: int
    spans: tuple[tuple[int, int], ...]
    best: tuple[bool, ...]


def windows_of(
    questions: Sequence[Question], tokenizer: Tokenizer, length: int, stride: int, longest_question: int
) -> list[Window]:
    """Windows of at most `length` tokens, each `stride` tokens of context behind the one before it, in the
    order of the questions, whose tokens beyond `longest_question` are dropped."""
    cls, sep = number_of(tokenizer, "[CLS]"), number_of(tokenizer, "[SEP]")
    asked = tokenizer.encode_batch([own.text for own in questions], add_special_tokens=False)
    contexts = list(dict.fromkeys(own.context for own in questions))
    encoded = tokenizer.encode_batch(contexts, add_special_tokens=False)
    tokens_of = {context: (own.ids, own.offsets) for context, own in zip(contexts, encoded, strict=True)}
    found = []
    for number, own in enumerate(questions):
        ids, offsets = tokens_of[own.context]
        head = [cls, *asked[number].ids[:longest_question], sep]
        starts = window_starts(len(ids), length - len(head) - 1, stride)
        best = best_windows(starts)
        for window, (start, stop) in enumerate(starts):
            found.append(
                Window(
                    number,
                    (*head, *ids[start:stop], sep),
                    len(head),
                    tuple(offsets[start:stop]),
                    tuple(best[token] == window for token in range(start, stop)),
                )
            )
    return found


def window_starts(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Of each window over `tokens` tokens, of which `room` fit in, the first and the one behind its last."""
    found = []
    start = 0
    while True:
        stop = min(start + room, tokens)
        found.append((start, stop))
        if stop == tokens:
            return found
        start += min(stop - start, stride)


def best_windows(starts: Sequence[tuple[int, int]]) -> list[int]:
    """For each token, which window has the most context around it: the larger of min(tokens before it, tokens
    behind it) + 0.01 times the window's tokens, the first of equal ones."""
    best: list[tuple[float, int]] = []
    for window, (start, stop) in enumerate(starts):
        for token in range(start, stop):
            score = min(token - start, stop - 1 - token) + 0.01 * (stop - start)
            if token == len(best):
                best.append((score, window))
            elif score > best[token][0]:
                best[token] = (score, window)
    return [window for _, window in best]


def answer_text(
    question: Question,
    windows: Iterable[tuple[Window, NDArray[np.float32]]],
    n_best: int,
    longest_answer: int,
) -> str:
    """The part of the context with the greatest sum of start and end logits; "" where no pair is allowed.

    windows: of this question, with logits float32[tokens, 2] of start and end. In each, starts and ends are
    among the `n_best` of their kind, lie in the context, end not before start, with at most
    `longest_answer` tokens, and the start is where no other window has more context around it.
    """
    best, text = -np.inf, ""
    for window, logits in windows:
        starts, ends = (np.argsort(-logits[:, side], kind="stable")[:n_best] for side in (0, 1))
        part = range(window.first, window.first + len(window.spans))
        for start in starts:
            if start not in part or not window.best[start - window.first]:
                continue
            for end in ends:
                if end not in part or not 0 <= end - start < longest_answer:
                    continue
                score = float(logits[start, 0]) + float(logits[end, 1])
                if score > best:
                    spans = window.spans[start - window.first], window.spans[end - window.first]
                    best, text = score, question.context[spans[0][0] : spans[1][1]]
    return text


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normal_form(text: str) -> str:
    """Lower case, without ASCII punctuation and articles, words parted by one blank: as SQuAD's evaluation
    compares answers."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, truths: Sequence[str]) -> bool:
    return any(normal_form(answer) == normal_form(truth) for truth in truths)


def f1(answer: str, truths: Sequence[str]) -> float:
    """0 to 1: the best harmonic mean of precision and recall of the words, counted, over the true answers."""
    return max(_f1(normal_form(answer).split(), normal_form(truth).split()) for truth in truths)


def _f1(answer: list[str], truth: list[str]) -> float:
    common = sum((Counter(answer) & Counter(truth)).values())
    return 2 * common / (len(answer) + len(truth)) if common else 0.0
