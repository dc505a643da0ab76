"""BERT's WordPiece tokens, by the tokenizers library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def read_tokenizer(path: str | Path) -> Tokenizer:
    """A tokenizer.json, or a vocab.txt: a token a line, its number the line's.

    A vocab.txt is lower-cased unless the tokenizer_config.json beside it says `do_lower_case: false`. No
    padding, no truncation. Raises AccelsimError without the library, and for files that are neither.
    """
    try:
        import tokenizers
    except ImportError:
        raise AccelsimError(
            "tokenizers is not installed, expected it for text: pip install 'accelsim[recipes]'"
        ) from None
    path = Path(path)
    if path.suffix == ".json":
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise AccelsimError(f"tokenizer {path}: expected a tokenizer.json ({str(error)[:100]})") from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
    else:
        tokenizer = _word_piece(path)
    absent = [token for token in SPECIAL if tokenizer.token_to_id(token) is None]
    if absent:
        raise AccelsimError(f"tokenizer {path}: lacks {', '.join(absent)}, expected BERT's special tokens")
    return tokenizer


def number_of(tokenizer: Tokenizer, token: str) -> int:
    """The number of a token that `read_tokenizer` has seen to be there."""
    number = tokenizer.token_to_id(token)
    assert number is not None
    return number


def _word_piece(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    try:
        words = path.read_text("utf-8").splitlines()
        settings = path.with_name("tokenizer_config.json")
        said = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AccelsimError(f"tokenizer {path}: expected UTF-8 text, a token a line ({error})") from None
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    lowercase = not isinstance(said, dict) or said.get("do_lower_case", True) is not False
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if "[CLS]" in vocabulary and "[SEP]" in vocabulary:
        tokenizer.post_processor = processors.BertProcessing(
            ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
        )
    return tokenizer
