"""The text direction classifier: MobileNetV3-small at 0.35 of its width, with its weights.

Widths follow from the weights; what the table below says is what they do not tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).parent
HEIGHT, WIDTH = 48, 192


class Block(NamedTuple):
    """A bottleneck: its name, hard-swish or ReLU, with squeeze-and-excitation or not, stride of the rows."""

    name: str
    hard_swish: bool
    squeeze: bool
    stride: int = 1


BLOCKS = (
    Block("conv2", False, True, 2),
    Block("conv3", False, False, 2),
    Block("conv4", False, False),
    Block("conv5", True, True, 2),
    Block("conv6", True, True),
    Block("conv7", True, True),
    Block("conv8", True, True),
    Block("conv9", True, True),
    Block("conv10", True, True, 2),
    Block("conv11", True, True),
    Block("conv12", True, True),
)

Weights = dict[str, Tensor]


class ConvNorm(nn.Module):
    """A convolution without bias, batch norm, and perhaps an activation after them."""

    def __init__(
        self,
        weights: Weights,
        name: str,
        stride: tuple[int, int] = (1, 1),
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        weight = weights[f"{name}_weights"]
        outputs, depth, size, _ = weight.shape
        depthwise = name.endswith("_depthwise")
        self.conv = nn.Conv2d(
            outputs if depthwise else depth,
            outputs,
            size,
            stride,
            padding=size // 2,
            groups=outputs if depthwise else 1,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(outputs, eps=1e-5)
        self.activation = activation or nn.Identity()
        self.conv.weight.data = weight
        self.norm.weight.data, self.norm.bias.data = weights[f"{name}_bn_scale"], weights[f"{name}_bn_offset"]
        self.norm.running_mean = weights[f"{name}_bn_mean"]
        self.norm.running_var = weights[f"{name}_bn_variance"]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class Squeeze(nn.Module):
    """Channels weighed by what they average to. Paddle's hard sigmoid has slope 0.2, torch's one sixth."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        inside, outside = weights[f"{name}_1_weights"].shape[:2]
        self.reduce, self.expand = nn.Conv2d(outside, inside, 1), nn.Conv2d(inside, outside, 1)
        for conv, part in ((self.reduce, "1"), (self.expand, "2")):
            assert conv.bias is not None
            conv.weight.data = weights[f"{name}_{part}_weights"]
            conv.bias.data = weights[f"{name}_{part}_offset"]

    def forward(self, x: Tensor) -> Tensor:
        inside = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * torch.clamp(self.expand(inside) * 0.2 + 0.5, 0.0, 1.0)


class Bottleneck(nn.Module):
    def __init__(self, weights: Weights, block: Block) -> None:
        super().__init__()

        def activation() -> nn.Module:
            return nn.Hardswish() if block.hard_swish else nn.ReLU()

        name = block.name
        self.expand = ConvNorm(weights, f"{name}_expand", activation=activation())
        self.depthwise = ConvNorm(weights, f"{name}_depthwise", (block.stride, 1), activation())
        self.squeeze = Squeeze(weights, f"{name}_se") if block.squeeze else nn.Identity()
        self.linear = ConvNorm(weights, f"{name}_linear")
        self.adds = block.stride == 1 and self.expand.conv.in_channels == self.linear.conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.adds else y


class TextDirection(nn.Module):
    """Images float32[N, 3, 48, 192] to scores float32[N, 2]: upright, and turned by 180 degrees."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.conv1 = ConvNorm(weights, "conv1", (2, 2), nn.Hardswish())
        self.blocks = nn.ModuleDict({block.name: Bottleneck(weights, block) for block in BLOCKS})
        self.conv_last = ConvNorm(weights, "conv_last", activation=nn.Hardswish())
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(*weights["fc_0.w_0"].shape)
        self.fc.weight.data, self.fc.bias.data = weights["fc_0.w_0"].T.contiguous(), weights["fc_0.b_0"]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.blocks.values():
            x = block(x)
        x = self.pool(self.conv_last(x))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def load_network() -> TextDirection:
    return TextDirection(load_file(HERE / "weights.safetensors")).eval()
