"""Llama-class decoders: prefill of a prompt, and decode of one token with its KV cache in DRAM."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.synthetic.assembly import Assembly
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Shape
from accelsim.workload.layer import Layer


@dataclass(frozen=True)
class Sizes:
    """heads: of queries; kv_heads: of keys and values, each for heads / kv_heads of the queries' in a row."""

    blocks: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int

    @property
    def head(self) -> int:
        return self.width // self.heads


LLAMA_2_7B = Sizes(32, 4096, 32, 32, 11008, 32000)
"""Touvron et al., arXiv:2307.09288; hidden, vocabulary: config.json of meta-llama/Llama-2-7b-hf."""
LLAMA_3_8B = Sizes(32, 4096, 32, 8, 14336, 128256)
"""Grattafiori et al., arXiv:2407.21783, table 3; vocabulary: config.json of meta-llama/Meta-Llama-3-8B."""


@dataclass(frozen=True)
class _Decoder:
    """`batch` sequences. tokens: of each that run at once; context: that these attend to, with themselves;
    keeps: keys and values go to DRAM for tokens to come. Where context is more than tokens, attention reads
    the keys and values of all of it from DRAM, as inputs of the graph.
    """

    net: Assembly
    sizes: Sizes
    batch: int
    tokens: int
    context: int
    keeps: bool = True

    @property
    def hidden_shape(self) -> Shape:
        return 1, self.sizes.width, 1, self.batch * self.tokens

    def linear(self, name: str, source: str, outputs: int, input: str = "hidden") -> str:
        return self.net.linear(name, source, outputs, input, rows=self.batch * self.tokens, bias=None)

    def matmul(self, name: str, reads: tuple[str, str], reduction: int, outputs: int, input: str) -> str:
        """A group for each head of keys and values of each sequence; its pixels are the queries of all heads
        that share it, a token's in a row."""
        groups = self.batch * self.sizes.kv_heads
        queries = self.tokens * (self.sizes.heads // self.sizes.kv_heads)
        geometry = Geometry(N=1, C=groups * reduction, H=1, W=queries, K=groups * outputs, groups=groups)
        layer = Layer(name, "matmul", geometry, weight_is_activation=True)
        return self.net.layer(layer, reads, "head", input, None)

    def attention(self, name: str, source: str) -> str:
        net, own = self.net, self.sizes
        narrow = own.kv_heads * own.head
        sides = []
        for side, outputs in (("query", own.width), ("key", narrow)):
            made = self.linear(f"{name}.{side}", source, outputs)
            sides.append(net.node(f"{made}.rotary", "rotary", made))
        query, key = sides
        value = self.linear(f"{name}.value", source, narrow)
        value = net.node(f"{value}.requantize", "requantize", value)
        if self.keeps:
            net.output(key)
            net.output(value)
        probabilities = "probabilities"
        if self.context > self.tokens:
            # Vectors of keys run along the head, those of values along the tokens.
            key = net.input(f"{name}.key_cache", (self.batch, narrow, 1, self.context))
            value = net.input(f"{name}.value_cache", (self.batch, self.context, 1, narrow))
            probabilities = "all_probabilities"
        scores = self.matmul(f"{name}.scores", (query, key), own.head, self.context, "head")
        weights = net.node(f"{name}.softmax", "softmax", scores)
        context = self.matmul(f"{name}.context", (weights, value), self.context, own.head, probabilities)
        return self.linear(f"{name}.attention_output", context, own.width)

    def block(self, prefix: str, x: str) -> str:
        net, own = self.net, self.sizes
        normed = net.node(f"{prefix}attention_norm", "rms_norm", x)
        x = net.node(f"{prefix}attention_add", "add", self.attention(f"{prefix}attention", normed), x)
        normed = net.node(f"{prefix}ffn_norm", "rms_norm", x)
        gate = net.node(f"{prefix}silu", "silu", self.linear(f"{prefix}gate", normed, own.hidden))
        up = net.node(f"{prefix}multiply", "multiply", gate, self.linear(f"{prefix}up", normed, own.hidden))
        return net.node(f"{prefix}ffn_add", "add", self.linear(f"{prefix}down", up, own.width, "gated"), x)

    def whole(self) -> Assembly:
        """All blocks, the last norm, and the head on each sequence's last token."""
        net, own = self.net, self.sizes
        x = net.input("hidden_states", self.hidden_shape)
        for index in range(own.blocks):
            first = len(net.layers)
            x = self.block(f"layer{index}.", x)
            if index:  # all blocks have the tensors of the first, so that values are computed once
                net.share_tensors(first, "layer0.", f"layer{index}.")
        x = net.node("norm", "rms_norm", x)
        if self.tokens > 1:
            x = net.node("last_token", "select", x, shape=(1, own.width, 1, self.batch))
        net.linear("head", x, own.vocabulary, "hidden", rows=self.batch, bias=None)
        return net


def llama_block(batch: int, seq: int) -> Assembly:
    """One block of Llama 2 7B at prefill that keeps no cache, without the norm of the next."""
    net = Assembly()
    block = _Decoder(net, LLAMA_2_7B, batch, seq, seq, keeps=False)
    block.block("", net.input("hidden_states", block.hidden_shape))
    return net


def llama_block_decode(batch: int, seq: int) -> Assembly:
    """One block of Llama 2 7B, one token of each sequence that attends to `seq` tokens, itself among them."""
    net = Assembly()
    block = _Decoder(net, LLAMA_2_7B, batch, 1, seq)
    block.block("", net.input("hidden_states", block.hidden_shape))
    return net


def llama_2_7b(batch: int, seq: int) -> Assembly:
    return _Decoder(Assembly(), LLAMA_2_7B, batch, seq, seq).whole()


def llama_2_7b_decode(batch: int, seq: int) -> Assembly:
    return _Decoder(Assembly(), LLAMA_2_7B, batch, 1, seq).whole()


def llama_3_8b(batch: int, seq: int) -> Assembly:
    return _Decoder(Assembly(), LLAMA_3_8B, batch, seq, seq).whole()


def llama_3_8b_decode(batch: int, seq: int) -> Assembly:
    return _Decoder(Assembly(), LLAMA_3_8B, batch, 1, seq).whole()
