"""BERT and ViT, laid out like the bundled trace minilm_layer0 (traces/minilm/export.py).

A linear layer's pixels are all tokens of the batch; the two matmuls of attention have a group a head and a
sequence, and their weight operand is an activation.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.synthetic.assembly import Assembly
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Shape
from accelsim.workload.layer import Layer


@dataclass(frozen=True)
class _Blocks:
    """Transformer blocks on `batch` sequences of `seq` tokens, added to a network."""

    net: Assembly
    batch: int
    seq: int
    width: int
    heads: int
    hidden: int

    @property
    def hidden_shape(self) -> Shape:
        return 1, self.width, 1, self.batch * self.seq

    def linear(self, name: str, source: str, outputs: int, input: str = "hidden") -> str:
        tokens = self.batch * self.seq
        return self.net.linear(name, source, outputs, input, rows=tokens)

    def matmul(self, name: str, reads: tuple[str, str], reduction: int, outputs: int, input: str) -> str:
        """A group for each head of each sequence; one pixel a query."""
        groups = self.batch * self.heads
        geometry = Geometry(N=1, C=groups * reduction, H=1, W=self.seq, K=groups * outputs, groups=groups)
        layer = Layer(name, "matmul", geometry, weight_is_activation=True)
        return self.net.layer(layer, reads, "head", input, None)

    def attention(self, name: str, source: str) -> str:
        """Queries to the output projection.

        The values are consumed along the tokens, but a PPU makes vectors along its output channels: the
        global PE requantizes them. The scores' 1 / sqrt(head width) belongs to the softmax.
        """
        net, head = self.net, self.width // self.heads
        query, key = (self.linear(f"{name}.{side}", source, self.width) for side in ("query", "key"))
        value = self.linear(f"{name}.value", source, self.width)
        value = net.node(f"{value}.requantize", "requantize", value)
        scores = self.matmul(f"{name}.scores", (query, key), head, self.seq, "head")
        probabilities = net.node(f"{name}.softmax", "softmax", scores)
        context = self.matmul(f"{name}.context", (probabilities, value), self.seq, head, "probabilities")
        return self.linear(f"{name}.attention_output", context, self.width)

    def feed_forward(self, name: str, source: str) -> str:
        up = self.linear(f"{name}.ffn_up", source, self.hidden)
        up = self.net.node(f"{name}.gelu", "gelu", up)
        return self.linear(f"{name}.ffn_down", up, self.width, "gelu")


def bert(batch: int, seq: int, layers: int, width: int, heads: int, *, share: bool = False) -> Assembly:
    """The encoder: no embedding look-up, no pooler, no head for a task. Norms follow the residual adds.

    share: all blocks have the tensors of the first, so that values are computed once.
    """
    net = Assembly()
    blocks = _Blocks(net, batch, seq, width, heads, 4 * width)
    x = net.input("hidden_states", blocks.hidden_shape)
    for index in range(layers):
        name, first = f"layer{index}", len(net.layers)
        for part, made in (("attention", blocks.attention), ("ffn", blocks.feed_forward)):
            x = net.node(f"{name}.{part}_add", "add", made(name, x), x)
            x = net.node(f"{name}.{part}_norm", "layer_norm", x)
        if share and index:
            net.share_tensors(first, "layer0.", f"{name}.")
    return net


def bert_base(batch: int, seq: int) -> Assembly:
    return bert(batch, seq, 12, 768, 12)


def bert_large(batch: int, seq: int) -> Assembly:
    return bert(batch, seq, 24, 1024, 16, share=True)


def vit_b16(batch: int) -> Assembly:
    """224x224 in 14x14 patches and a class token; norms come before attention and FFN.

    Class token and position embeddings, which are weights, come as an input of the graph.
    """
    width, patches = 768, 14
    net = Assembly()
    blocks = _Blocks(net, batch, patches**2 + 1, width, 12, 4 * width)
    image = net.input("image", (batch, 3, 224, 224))
    positions = net.input("class_token_and_positions", (1, width, 1, patches**2 + 1))
    patch = Geometry(N=batch, C=3, H=224, W=224, K=width, R=16, S=16, stride=(16, 16))
    x = net.layer(Layer("patch_embedding", "conv", patch), (image,), "weight", "image", "bias")
    x = net.node("embedding_add", "add", x, positions, shape=blocks.hidden_shape)
    for index in range(12):
        name = f"layer{index}"
        for part, made in (("attention", blocks.attention), ("ffn", blocks.feed_forward)):
            normed = net.node(f"{name}.{part}_norm", "layer_norm", x)
            x = net.node(f"{name}.{part}_add", "add", made(name, normed), x)
    x = net.node("norm", "layer_norm", x)
    x = net.node("class_token", "select", x, shape=(batch, width, 1, 1))
    net.linear("head", x, 1000, "hidden", images=batch)
    return net
