"""A folder as a published BERT's is, with a vocabulary and sizes of a few."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] the a cat dog sat ran mat on was is un ##able ##s in 1906 , . ? who what where "
    "paris france capital of rome city"
).split()
SIZES: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def write_folder(folder: Path, **sizes: Any) -> Path:
    """config.json, vocab.txt and the tokenizer.json that follows from it."""
    from accelsim.recipes.tokens import read_tokenizer

    (folder / "config.json").write_text(json.dumps({**SIZES, **sizes}))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    read_tokenizer(folder / "vocab.txt").save(str(folder / "tokenizer.json"))
    return folder
