"""BERT's encoder (Devlin et al., 2019), named as Hugging Face names its tensors; MiniLM is a smaller one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from accelsim.errors import AccelsimError


@dataclass(frozen=True)
class BertConfig:
    """Sizes under the names of config.json; by default those of BERT-base, uncased."""

    hidden_size: int = 768
    num_attention_heads: int = 12
    num_hidden_layers: int = 12
    intermediate_size: int = 3072
    vocab_size: int = 30522
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise AccelsimError(
                f"config: hidden_size is {self.hidden_size}, expected a multiple of the "
                f"{self.num_attention_heads} heads"
            )


BERT_BASE = BertConfig()
BERT_LARGE = BertConfig(
    hidden_size=1024, num_attention_heads=16, num_hidden_layers=24, intermediate_size=4096
)

# What this encoder computes, where config.json says it.
_FIXED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


def read_config(path: str | Path) -> BertConfig:
    """Sizes of a config.json; keys that inference does not need are passed over. Raises AccelsimError: the
    file, the key, what it is, what was expected."""
    try:
        raw = json.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AccelsimError(f"config {path}: expected JSON ({error})") from None
    if not isinstance(raw, dict):
        raise AccelsimError(f"config {path}: is no object, expected the sizes of a BERT by name")
    for key, wanted in _FIXED.items():
        if raw.get(key, wanted) != wanted:
            raise AccelsimError(f"config {path}: {key} is {raw[key]!r}, expected {wanted!r}")
    sizes = {}
    for key, default in vars(BERT_BASE).items():
        value = raw.get(key, default if key == "layer_norm_eps" else None)
        if isinstance(value, bool) or not isinstance(value, type(default)) or value <= 0:
            raise AccelsimError(f"config {path}: {key} is {value!r}, expected a positive number")
        sizes[key] = value
    return BertConfig(**sizes)


class Embeddings(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None) -> torch.Tensor:
        # Positions 0 to tokens - 1, and the first token type where there is one only, are constants.
        x = self.word_embeddings(input_ids) + self.position_embeddings.weight[: input_ids.shape[1]]
        if token_type_ids is None:
            x = x + self.token_type_embeddings.weight[0]
        else:
            x = x + self.token_type_embeddings(token_type_ids)
        return self.LayerNorm(x)


class SelfAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        batch, tokens, width = x.shape

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)

        context = functional.scaled_dot_product_attention(
            heads(self.query(x)), heads(self.key(x)), heads(self.value(x)), attn_mask=mask
        )
        return context.transpose(1, 2).reshape(batch, tokens, width)


class AddedNormed(nn.Module):
    """A linear layer, what went around it added, and a layer norm."""

    def __init__(self, channels: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(channels, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dense(x) + around)


class EncoderLayer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(config), "output": AddedNormed(config.hidden_size, config)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = AddedNormed(config.intermediate_size, config)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(functional.gelu(self.intermediate["dense"](x)), x)


class Bert(nn.Module):
    """Embeddings and encoder layers, without the pooler.

    input_ids int64[batch, tokens] -> float32[batch, tokens, hidden_size]. attention_mask: 1 for tokens and
    0 for padding, which no token then attends to; token_type_ids: int64; both [batch, tokens] or None.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))}
        )
        self.apply(_initial)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = self.embeddings(input_ids, token_type_ids)
        mask = None if attention_mask is None else (attention_mask != 0)[:, None, None, :]
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        return x


def _initial(module: nn.Module) -> None:
    """BERT's weights before training: normal, deviation 0.02, biases zero."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def published_names(state: Mapping[str, torch.Tensor], unread: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A published state dict without parts called `unread`, and layer norms called as today: checkpoints
    that came from TensorFlow say gamma and beta."""
    return {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        ): tensor
        for name, tensor in state.items()
        if not name.startswith(unread)
    }
