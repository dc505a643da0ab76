"""Networks for the tests of accelsim.torch, written out: ResNet-50, an encoder like BERT, small ones."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import nn

Tensor = torch.Tensor


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as training leaves them: statistics and affine parameters away from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                with torch.no_grad():
                    tensor.uniform_(low, high, generator=generator)
    return model.eval()


class Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet50(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for number, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
            parts = []
            for block in range(blocks):
                parts.append(Bottleneck(channels, width, 2 if number > 1 and block == 0 else 1))
                channels = 4 * width
            setattr(self, f"layer{number}", nn.Sequential(*parts))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class EncoderLayer(nn.Module):
    """Post-norm, attention as two matrix products."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        for name in ("query", "key", "value", "attention_output"):
            setattr(self, name, nn.Linear(width, width))
        self.attention_norm = nn.LayerNorm(width)
        self.ffn_up = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.ffn_down = nn.Linear(4 * width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, tokens, width = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.view(batch, tokens, self.heads, -1).transpose(1, 2)

        query, key, value = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // self.heads)
        probabilities = self.dropout(torch.softmax(scores + mask, -1))
        context = (probabilities @ value).transpose(1, 2).reshape(batch, tokens, width)
        x = self.attention_norm(x + self.dropout(self.attention_output(context)))
        return self.ffn_norm(x + self.dropout(self.ffn_down(self.gelu(self.ffn_up(x)))))


class Encoder(nn.Module):
    """BERT with its embeddings and pooler; BERT-base: width 768, 12 heads, 12 layers."""

    def __init__(self, width: int, heads: int, layers: int, words: int = 1000) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Embedding(512, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(EncoderLayer(width, heads) for _ in range(layers))
        self.pooler = nn.Linear(width, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        tokens = input_ids.shape[1]
        x = self.norm(self.words(input_ids) + self.positions(torch.arange(tokens)))
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cosine + torch.cat([-b, a], -1) * sine


class DecoderLayer(nn.Module):
    """Llama's: grouped query attention, rotary embedding, SwiGLU."""

    def __init__(self, width: int, heads: int, key_heads: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.key_heads, self.head = heads, key_heads, width // heads
        self.norm1, self.norm2 = RMSNorm(width), nn.RMSNorm(width)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, key_heads * self.head, bias=False)
        self.v_proj = nn.Linear(width, key_heads * self.head, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        y = self.norm1(x)

        def heads(z: Tensor, count: int) -> Tensor:
            return z.view(batch, tokens, count, self.head).transpose(1, 2)

        query = rotated(heads(self.q_proj(y), self.heads), cosine, sine)
        key = rotated(heads(self.k_proj(y), self.key_heads), cosine, sine)
        value = heads(self.v_proj(y), self.key_heads)
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        x = x + self.o_proj(y.transpose(1, 2).reshape(batch, tokens, -1))
        y = self.norm2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    """A small decoder-only language model whose head shares the embedding's weights."""

    def __init__(self, width: int = 64, layers: int = 2, words: int = 100) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.layers = nn.ModuleList(DecoderLayer(width, 4, 2, 3 * width) for _ in range(layers))
        self.norm = RMSNorm(width)
        self.lm_head = nn.Linear(width, words, bias=False)
        self.lm_head.weight = self.embed.weight
        self.head = width // 4

    def forward(self, input_ids: Tensor) -> Tensor:
        tokens = input_ids.shape[1]
        rates = 1e4 ** (-torch.arange(0, self.head, 2) / self.head)
        angles = torch.arange(tokens)[:, None] * rates
        angles = torch.cat([angles, angles], -1)
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        return self.lm_head(self.norm(x))


class Small(nn.Module):
    """A residual block, both pools, a depthwise convolution, a concat and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(16, 32, 3, padding=1)
        self.body = nn.Conv2d(32, 32, 3, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.body(x) + x)
        x = functional.max_pool2d(x, 2)
        x = torch.cat([x, self.depthwise(x)], 1)
        return self.out(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.ModuleList([nn.Linear(32, 32) for _ in range(3)])
        self.out, self.norm = nn.Linear(32, 32), nn.LayerNorm(32)

    def forward(self, x: Tensor) -> Tensor:
        n, t, w = x.shape
        q, k, v = (linear(x).reshape(n, t, 2, 16).transpose(1, 2) for linear in self.qkv)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, w)
        return self.norm(self.out(y) + x)
