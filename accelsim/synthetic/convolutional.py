"""ResNet-18, ResNet-50 and MobileNetV2 with torchvision's geometry and layer names, at 224x224."""

from __future__ import annotations

from dataclasses import replace

from accelsim.synthetic.recipe import RecipeLayer
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import GlobalPeWork, Layer

IMAGE = 224
CLASSES = 1000


class _Chain:
    """Layers in the order they run, with the channels and the size that the next one finds."""

    def __init__(self, batch: int) -> None:
        self.layers: list[RecipeLayer] = []
        self.batch, self.channels, self.size = batch, 3, IMAGE

    def conv(
        self,
        name: str,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: str = "relu",
        input: str = "relu",
    ) -> Geometry:
        """A convolution on what the last layer left, padded by kernel // 2 as torchvision pads it."""
        padding = kernel // 2
        geometry = Geometry(
            N=self.batch, C=self.channels, H=self.size, W=self.size, K=outputs, R=kernel, S=kernel,
            stride=(stride, stride), padding=(padding, padding), groups=groups,
        )  # fmt: skip
        layer = Layer(name, "conv", geometry, activation)
        self.layers.append(RecipeLayer(layer, "weight", input, "bias"))
        self.channels, self.size = outputs, geometry.P
        return geometry

    def follow(self, op: str) -> None:
        """Global-PE work on every output of the last layer."""
        last = self.layers.pop()
        elements = last.geometry.pixels * last.geometry.K
        work = (*last.global_pe, GlobalPeWork(op, elements))
        self.layers.append(replace(last, layer=replace(last.layer, global_pe=work)))

    def classify(self, name: str) -> None:
        """Average pool, then the classifier on one pixel an image."""
        self.follow("avg_pool")
        geometry = Geometry(N=self.batch, C=self.channels, H=1, W=1, K=CLASSES)
        self.layers.append(RecipeLayer(Layer(name, "linear", geometry), "weight", "pooled", "bias"))


def resnet(batch: int, blocks: tuple[int, int, int, int], *, bottleneck: bool) -> list[RecipeLayer]:
    """ResNet v1.5: the stride of a bottleneck is in its 3x3. Batch norm is folded into the convolutions.

    The ReLU after a residual add belongs to the add's pass over the elements ("add_relu").
    """
    chain = _Chain(batch)
    chain.conv("conv1", 64, 7, 2, input="image")
    chain.follow("max_pool")
    chain.size //= 2
    for stage, count in enumerate(blocks):
        width = 64 << stage
        outputs = 4 * width if bottleneck else width
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            stride = 2 if stage and not block else 1
            channels, size = chain.channels, chain.size
            if bottleneck:
                chain.conv(f"{name}.conv1", width, 1)
                chain.conv(f"{name}.conv2", width, 3, stride)
                chain.conv(f"{name}.conv3", outputs, 1, activation="none")
            else:
                chain.conv(f"{name}.conv1", width, 3, stride)
                chain.conv(f"{name}.conv2", width, 3, activation="none")
            if stride > 1 or channels != outputs:
                chain.channels, chain.size = channels, size
                chain.conv(f"{name}.downsample.0", outputs, 1, stride, activation="none")
            chain.follow("add_relu")
    chain.classify("fc")
    return chain.layers


def resnet18(batch: int) -> list[RecipeLayer]:
    return resnet(batch, (2, 2, 2, 2), bottleneck=False)


def resnet50(batch: int) -> list[RecipeLayer]:
    return resnet(batch, (3, 4, 6, 3), bottleneck=True)


# Expansion, output channels, blocks, stride of the first (Sandler et al., CVPR 2018, table 2).
_INVERTED = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2(batch: int) -> list[RecipeLayer]:
    """Width 1.0; ReLU6 counts as relu. The bottlenecks between blocks are linear, so signed."""
    chain = _Chain(batch)
    chain.conv("features.0.0", 32, 3, 2, input="image")
    block = 1
    for expansion, outputs, count, first_stride in _INVERTED:
        for repeat in range(count):
            channels, hidden = chain.channels, chain.channels * expansion
            name, step = f"features.{block}.conv", 0
            if expansion > 1:
                chain.conv(f"{name}.0.0", hidden, 1, input="linear")
                step = 1
            stride = 1 if repeat else first_stride
            chain.conv(f"{name}.{step}.0", hidden, 3, stride, groups=hidden)
            chain.conv(f"{name}.{step + 1}", outputs, 1, activation="none")
            if stride == 1 and channels == outputs:
                chain.follow("add")
            block += 1
    chain.conv(f"features.{block}.0", 1280, 1, input="linear")
    chain.classify("classifier.1")
    return chain.layers
