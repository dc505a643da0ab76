"""accelsim.recipes: BERT on SQuAD 1.1, with windows, answers and scores checked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'accelsim[recipes]'")

from tiny_bert import SIZES, WORDS, write_folder  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import accelsim.torch  # noqa: E402
from accelsim import AccelsimError, open_workload  # noqa: E402
from accelsim.recipes import bert_squad  # noqa: E402
from accelsim.recipes.bert_squad import BertForQuestions, Squad, sizes_of  # noqa: E402
from accelsim.recipes.encoder import BERT_BASE, BERT_LARGE, BertConfig  # noqa: E402
from accelsim.recipes.squad_data import (  # noqa: E402
    Question,
    Window,
    answer_text,
    best_windows,
    exact_match,
    f1,
    normal_form,
    read_questions,
    window_starts,
    windows_of,
)
from accelsim.recipes.tokens import read_tokenizer  # noqa: E402

LONG = "The cat sat on a mat. The dog ran in Paris, the capital of France."
SHORT = "Rome was a city in 1906."


def squad(path: Path, paragraphs: list[tuple[str, list[tuple[str, list[str]]]]]) -> Path:
    """A file of SQuAD 1.1, an article for each paragraph (context, [(question, answers)])."""
    articles = [
        {
            "title": "x",
            "paragraphs": [
                {
                    "context": context,
                    "qas": [
                        {
                            "id": f"{number}.{index}",
                            "question": question,
                            "answers": [{"text": text, "answer_start": context.find(text)} for text in texts],
                        }
                        for index, (question, texts) in enumerate(questions)
                    ],
                }
            ],
        }
        for number, (context, questions) in enumerate(paragraphs)
    ]
    path.write_text(json.dumps({"version": "1.1", "data": articles}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    squad(
        tmp_path / "dev.json",
        [
            (LONG, [("Where was the dog?", ["Paris", "in Paris"]), ("Who sat?", ["The cat"])]),
            (SHORT, [("What was Rome?", ["a city"])]),
        ],
    )
    squad(tmp_path / "train.json", [(SHORT, [("What was a city?", ["Rome"])]), (LONG, [("Who?", ["cat"])])])
    return write_folder(tmp_path)


def small(folder: Path, **options: Any) -> Squad:
    given = {
        "tokenizer": folder / "vocab.txt",
        "evaluation": folder / "dev.json",
        "calibration": folder / "train.json",
        "batch": 2,
        "tokens": 20,
        "stride": 5,
        "question_tokens": 8,
    }
    return bert_squad(**{**given, **options})


# --- scores -------------------------------------------------------------------------------------------------


def test_answers_are_compared_in_normal_form() -> None:
    assert normal_form("  The U.S. -- an  Ally,\tanother day") == "us ally another day"
    assert exact_match("the Denver Broncos!", ["Broncos", "Denver  Broncos"])
    assert not exact_match("Denver", ["Denver Broncos"])


def test_f1_counts_common_words() -> None:
    assert f1("the cat sat on the mat", ["a cat sat"]) == pytest.approx(2 * 2 / (4 + 2))
    # a word twice in the answer, once in the truth, is common once
    assert f1("cat cat", ["cat dog sat"]) == pytest.approx(2 * 1 / (2 + 3))
    assert f1("cat", ["dog", "the cat"]) == 1 and f1("cat", ["dog"]) == 0
    assert f1("", ["cat"]) == 0 and f1("the", ["cat"]) == 0


# --- windows ------------------------------------------------------------------------------------------------


def test_windows_begin_a_stride_apart() -> None:
    assert window_starts(10, 4, 3) == [(0, 4), (3, 7), (6, 10)]
    assert window_starts(11, 4, 3) == [(0, 4), (3, 7), (6, 10), (9, 11)]
    assert window_starts(4, 4, 3) == [(0, 4)]
    assert window_starts(5, 2, 128) == [(0, 2), (2, 4), (4, 5)]  # none is skipped over
    # Of tokens 3 to 6 of two windows (0, 7), (3, 9): more around 3 in the first (3 and 3), around 5 and 6 in
    # the second (2 and 3, 3 and 2), around 4 in the first (4 and 2, against 1).
    assert best_windows([(0, 7), (3, 9)]) == [0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_a_window_is_question_and_part(folder: Path) -> None:
    tokenizer = read_tokenizer(folder / "vocab.txt")
    questions = read_questions(folder / "dev.json")
    found = windows_of(questions, tokenizer, 20, 5, 8)
    assert [window.question for window in found] == [0, 0, 0, 1, 1, 2]
    first = found[0]
    assert [WORDS[number] for number in first.ids] == (
        "[CLS] where was the dog ? [SEP] the cat sat on a mat [UNK] the dog ran in paris".split()[:12]
        + "mat . the dog ran in paris [SEP]".split()
    )
    assert first.first == 7 and len(first.ids) == 20
    assert [LONG[begin:end] for begin, end in first.spans][:3] == ["The", "cat", "sat"]
    second = found[1]
    assert LONG[slice(*second.spans[0])] == "mat" and second.first == 7
    # every token of the context has its one best window
    best = [span for window in found[:3] for span, own in zip(window.spans, window.best, strict=True) if own]
    assert sorted(best) == tokenizer.encode(LONG, add_special_tokens=False).offsets
    assert [len(window.ids) for window in windows_of(questions[:1], tokenizer, 40, 5, 2)] == [23]


def test_batches_are_padded_and_masked(folder: Path) -> None:
    task = small(folder)
    assert task.examples == 6 and task.headline == "f1"
    batches = [inputs for _, inputs in task.evaluation()]
    last = {name: values[1].tolist() for name, values in batches[2].items()}
    #  [CLS] what was rome ? [SEP] | rome was a city in 1906 [UNK or .] [SEP] | padding
    assert last["attention_mask"] == [1] * 14 + [0] * 6
    assert last["token_type_ids"] == [0] * 6 + [1] * 8 + [0] * 6
    assert [WORDS[number] for number in last["input_ids"]][5:] == (
        ["[SEP]", "rome", "was", "a", "city", "in", "1906", ".", "[SEP]"] + ["[PAD]"] * 6
    )
    assert [len(inputs["input_ids"]) for inputs in task.calibration()] == [2]  # of 3 windows


# --- answers ------------------------------------------------------------------------------------------------

QUESTION = Question("?", "aa bb cc dd", ("bb",))
SPANS = ((0, 2), (3, 5), (6, 8), (9, 11))


def logits(starts: dict[int, float], ends: dict[int, float], tokens: int = 8) -> np.ndarray:
    found = np.zeros((tokens, 2), np.float32)
    for side, values in enumerate((starts, ends)):
        for token, value in values.items():
            found[token, side] = value
    return found


def answered(*windows: tuple[Window, np.ndarray], n_best: int = 3, longest: int = 30) -> str:
    return answer_text(QUESTION, windows, n_best, longest)


def test_the_best_pair_that_is_allowed() -> None:
    """[CLS] ? [SEP] aa bb cc dd [SEP]"""
    window = Window(0, (0,) * 8, 3, SPANS, (True,) * 4)
    assert answered((window, logits({4: 5}, {5: 5}))) == "bb cc"
    # not in the question, not behind the part, not backwards: the next best
    assert answered((window, logits({1: 9, 4: 5}, {5: 5}))) == "bb cc"
    assert answered((window, logits({4: 5}, {7: 9, 5: 5}))) == "bb cc"
    assert answered((window, logits({6: 5, 4: 4}, {5: 5}))) == "bb cc"
    # three tokens, where two may be
    assert answered((window, logits({3: 5, 4: 4}, {5: 5})), longest=2) == "bb cc"
    assert answered((window, logits({3: 5, 4: 4}, {5: 5})), longest=3) == "aa bb cc"
    # only among the n best of each kind
    assert answered((window, logits({1: 9, 4: 5}, {5: 5})), n_best=1) == ""


def test_a_start_counts_where_it_has_most_around_it() -> None:
    first = Window(0, (0,) * 8, 3, SPANS, (True, True, True, False))
    second = Window(0, (0,) * 5, 3, SPANS[3:], (True,))
    low, high = logits({6: 9, 4: 1}, {6: 9, 4: 1}), logits({3: 3}, {3: 3}, 5)
    assert answered((first, low), (second, high)) == "bb cc dd"  # 1 + 9, over 3 + 3
    low[6] = 0
    assert answered((first, low), (second, high)) == "dd"


def test_metrics_from_outputs_made_by_hand(folder: Path) -> None:
    task = small(folder)
    outputs = np.zeros((6, 20, 2), np.float32)
    # Question 0, its second window: mat . the dog ran in paris , the capital of france from token 7
    outputs[1, 7 + 5, 0] = outputs[1, 7 + 6, 1] = 5
    # Question 1: [CLS] who sat ? [SEP] the cat sat ...: "cat sat" of the truth "The cat"
    outputs[3, 6, 0] = outputs[3, 7, 1] = 5
    # Question 2: "city in", of "a city"
    outputs[5, 9, 0] = outputs[5, 10, 1] = 5
    assert task.answers(outputs) == ["in Paris", "cat sat", "city in"]
    found = task.metrics(outputs)
    assert found["exact_match"] == pytest.approx(100 / 3)
    assert found["f1"] == pytest.approx(100 * (1 + 2 / 3 + 2 / 3) / 3)
    assert task.correct(outputs).tolist() == [True, False, False]
    with pytest.raises(AccelsimError, match=r"outputs are \[5, 20, 2\], expected \[6, 20, 2\]"):
        task.metrics(outputs[:5])


# --- the model and the recipe -------------------------------------------------------------------------------


def test_bert_base_has_the_published_parameters() -> None:
    with torch.device("meta"):
        model = BertForQuestions(BERT_BASE)
    assert sum(value.numel() for value in model.parameters()) == 108_893_186
    assert {name.split(".")[0] for name in model.state_dict()} == {"bert", "qa_outputs"}


def test_the_whole_recipe_with_random_weights(folder: Path, tmp_path: Path) -> None:
    task = small(folder)
    outputs = task.outputs(task.model)
    assert outputs.shape == (6, 20, 2)
    assert 0 <= task.metrics(outputs)["exact_match"] <= task.metrics(outputs)["f1"] <= 100
    state = {**task.model.state_dict(), "bert.pooler.dense.bias": torch.zeros(32)}
    torch.save(state, folder / "pytorch_model.bin")
    own = small(folder, weights=folder / "pytorch_model.bin", seed=1)
    assert np.array_equal(own.outputs(own.model), outputs)
    path = accelsim.torch.export(
        task.model, task.inputs, tmp_path / "net.safetensors", calibration=task.calibration()
    )
    layers = open_workload(path).layers
    assert len(layers) == 2 * 8 + 1
    # The counter passes over the fused attention of CPUs.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        task.model(**task.inputs)
    assert sum(layer.geometry.macs for layer in layers) == counter.get_total_flops() // 2


def test_what_stands_in_padding_changes_no_answer(folder: Path) -> None:
    task = small(folder)
    padded = 0
    for _, inputs in task.evaluation():
        own = inputs["attention_mask"] == 1
        padded += int((~own).sum())
        changed = {**inputs, "input_ids": torch.where(own, inputs["input_ids"], 5)}
        with torch.no_grad():
            same = torch.isclose(task.model(**inputs), task.model(**changed), atol=1e-5)
        assert same[own].all()
    assert padded > 5


def test_sizes_come_from_the_config_beside(folder: Path, tmp_path: Path) -> None:
    tiny = BertConfig(**{key: SIZES[key] for key in vars(BERT_BASE)})
    assert sizes_of(None, [folder / "vocab.txt"], 9) == tiny == sizes_of(folder / "config.json", [], 9)
    assert sizes_of(None, [tmp_path / "nowhere" / "vocab.txt"], 30522) == BERT_BASE
    assert sizes_of("large", [folder / "vocab.txt"], 30522) == BERT_LARGE
    assert sizes_of("base", [], 9).vocab_size == 9 and sizes_of(tiny, [], 9) is tiny


# --- refusals -----------------------------------------------------------------------------------------------


def test_absent_files_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(AccelsimError) as error:
        bert_squad(
            tmp_path / "a.bin",
            tokenizer=tmp_path / "b.txt",
            evaluation=tmp_path / "c.json",
            calibration=tmp_path / "d.json",
            config=tmp_path / "e.json",
        )
    text = str(error.value)
    for name in ("a.bin", "b.txt", "c.json", "d.json", "e.json"):
        assert f"{tmp_path / name}: " in text
    assert "csarron/bert-base-uncased-squad-v1" in text and "dev-v1.1.json at https://rajpurkar" in text


def test_files_that_are_no_squad_are_refused(folder: Path) -> None:
    path = folder / "bad.json"
    squad(path, [(SHORT, [("Answered?", ["a city"]), ("Not answered?", [])])])
    with pytest.raises(AccelsimError, match=r"'Not answered\?' has no answer; expected SQuAD 1.1"):
        read_questions(path)
    for text, said in (
        ("{", "expected JSON"),
        ("[1]", "after 0 questions it is not as SQuAD 1.1"),
        ('{"data": []}', "there are none, expected at least one"),
        ('{"data": [{"paragraphs": [{"qas": [1], "context": "x"}]}]}', "it is not as SQuAD 1.1 .TypeError"),
        ('{"data": [{"paragraphs": [{"context": "x"}]}]}', "KeyError: 'qas'"),
    ):
        path.write_text(text)
        with pytest.raises(AccelsimError, match=said):
            read_questions(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stride": 0}, "stride is 0, expected a whole number from 1"),
        ({"tokens": 41}, "a window has 41, expected at most 31 and 40"),
        ({"question_tokens": 17}, "question_tokens is 17, expected less than tokens - 3, 17"),
        ({"calibration_questions": 1, "batch": 6}, "windows to calibrate on, expected at least a batch of 6"),
        ({"config": "huge"}, "huge: sizes, published as config.json"),
    ],
)
def test_arguments_are_checked(folder: Path, options: Any, said: str) -> None:
    with pytest.raises(AccelsimError, match=said):
        small(folder, **options)
