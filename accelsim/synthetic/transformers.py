"""BERT, ViT and one Llama block, laid out like the bundled trace minilm_layer0 (traces/minilm/export.py).

A linear layer's pixels are all tokens of the batch; the two matmuls of attention have a group a head and a
sequence, and their weight operand is an activation.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.synthetic.recipe import RecipeLayer
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import GlobalPeWork, Layer


@dataclass(frozen=True)
class _Block:
    """Sizes of one transformer block on `batch` sequences of `seq` tokens."""

    batch: int
    seq: int
    width: int
    heads: int
    hidden: int
    bias: str | None = "bias"

    @property
    def tokens(self) -> int:
        return self.batch * self.seq

    def work(self, op: str, channels: int = 0) -> GlobalPeWork:
        """On `channels` values a token; 0: on the width."""
        return GlobalPeWork(op, self.tokens * (channels or self.width))

    def linear(self, name: str, inputs: int, outputs: int, input: str, *work: GlobalPeWork) -> RecipeLayer:
        geometry = Geometry(N=1, C=inputs, H=1, W=self.tokens, K=outputs)
        return RecipeLayer(Layer(name, "linear", geometry, global_pe=work), "weight", input, self.bias)

    def matmul(self, name: str, reduction: int, outputs: int, input: str, *work: GlobalPeWork) -> RecipeLayer:
        """A group for each head of each sequence; one pixel a query."""
        groups = self.batch * self.heads
        geometry = Geometry(N=1, C=groups * reduction, H=1, W=self.seq, K=groups * outputs, groups=groups)
        layer = Layer(name, "matmul", geometry, weight_is_activation=True, global_pe=work)
        return RecipeLayer(layer, "head", input, None)

    def attention(self, name: str, *rotary: GlobalPeWork) -> list[RecipeLayer]:
        """Queries to the residual add and norm. rotary: work on queries and on keys.

        The values are consumed along the tokens, but a PPU makes vectors along its output channels: the
        global PE requantizes them. The scores' 1 / sqrt(head width) belongs to the softmax.
        """
        width, head = self.width, self.width // self.heads
        softmax = GlobalPeWork("softmax", self.batch * self.heads * self.seq**2)
        return [
            self.linear(f"{name}.query", width, width, "hidden", *rotary),
            self.linear(f"{name}.key", width, width, "hidden", *rotary),
            self.linear(f"{name}.value", width, width, "hidden", self.work("requantize")),
            self.matmul(f"{name}.scores", head, self.seq, "head", softmax),
            self.matmul(f"{name}.context", self.seq, head, "probabilities"),
            self.linear(f"{name}.attention_output", width, width, "hidden", *self.residual()),
        ]

    def residual(self) -> tuple[GlobalPeWork, GlobalPeWork]:
        return self.work("add"), self.work("layer_norm")

    def encoder(self, name: str) -> list[RecipeLayer]:
        up = self.linear(f"{name}.ffn_up", self.width, self.hidden, "hidden", self.work("gelu", self.hidden))
        down = self.linear(f"{name}.ffn_down", self.hidden, self.width, "gelu", *self.residual())
        return [*self.attention(name), up, down]


def bert(batch: int, seq: int, layers: int, width: int, heads: int) -> list[RecipeLayer]:
    """The encoder: no embedding look-up, no pooler, no head for a task."""
    block = _Block(batch, seq, width, heads, 4 * width)
    return [layer for index in range(layers) for layer in block.encoder(f"layer{index}")]


def bert_base(batch: int, seq: int) -> list[RecipeLayer]:
    return bert(batch, seq, 12, 768, 12)


def bert_large(batch: int, seq: int) -> list[RecipeLayer]:
    return bert(batch, seq, 24, 1024, 16)


def vit_b16(batch: int) -> list[RecipeLayer]:
    """224x224 in 14x14 patches and a class token; norms come before attention and FFN, so the last layer
    of one part carries the norm of the next."""
    width, patches = 768, 14
    block = _Block(batch, patches**2 + 1, width, 12, 4 * width)
    patch = Geometry(N=batch, C=3, H=224, W=224, K=width, R=16, S=16, stride=(16, 16))
    first = Layer("patch_embedding", "conv", patch, global_pe=block.residual())
    embedding = RecipeLayer(first, "weight", "image", "bias")
    last = Layer("head", "linear", Geometry(batch, width, 1, 1, 1000))
    head = RecipeLayer(last, "weight", "hidden", "bias")
    return [embedding, *(layer for i in range(12) for layer in block.encoder(f"layer{i}")), head]


def llama_block(batch: int, seq: int) -> list[RecipeLayer]:
    """One block of Llama 2 7B at prefill. RMSNorm counts as layer_norm; masked scores are computed too."""
    block = _Block(batch, seq, 4096, 32, 11008, None)
    gate = block.linear("gate", 4096, 11008, "hidden", block.work("silu", 11008))
    up = block.linear("up", 4096, 11008, "hidden", block.work("multiply", 11008))
    down = block.linear("down", 11008, 4096, "gated", *block.residual())
    return [*block.attention("attention", block.work("rotary")), gate, up, down]
