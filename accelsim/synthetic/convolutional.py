"""ResNet-18, ResNet-50 and MobileNetV2 with torchvision's geometry and layer names, at 224x224."""

from __future__ import annotations

from accelsim.synthetic.assembly import Assembly

IMAGE = 224
CLASSES = 1000


def _pooled(net: Assembly, source: str, classifier: str) -> str:
    """Average pool, then the classifier on one pixel an image."""
    batch, channels, *_ = net.shapes[source]
    pooled = net.node("avgpool", "avg_pool", source, shape=(batch, channels, 1, 1))
    return net.linear(classifier, pooled, CLASSES, "pooled", images=batch)


def resnet(batch: int, blocks: tuple[int, int, int, int], *, bottleneck: bool) -> Assembly:
    """ResNet v1.5: the stride of a bottleneck is in its 3x3. Batch norm is folded into the convolutions.

    The ReLU after a residual add belongs to the add's pass over the elements ("add_relu").
    """
    net = Assembly()
    image = net.input("image", (batch, 3, IMAGE, IMAGE))
    first = net.conv("conv1", image, 64, 7, 2, input="image")
    size = net.shapes[first][2] // 2
    x = net.node("maxpool", "max_pool", first, shape=(batch, 64, size, size))
    for stage, count in enumerate(blocks):
        width = 64 << stage
        outputs = 4 * width if bottleneck else width
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            stride = 2 if stage and not block else 1
            if bottleneck:
                inside = net.conv(f"{name}.conv1", x, width, 1)
                inside = net.conv(f"{name}.conv2", inside, width, 3, stride)
                inside = net.conv(f"{name}.conv3", inside, outputs, 1, activation="none")
            else:
                inside = net.conv(f"{name}.conv1", x, width, 3, stride)
                inside = net.conv(f"{name}.conv2", inside, width, 3, activation="none")
            if stride > 1 or net.shapes[x][1] != outputs:
                x = net.conv(f"{name}.downsample.0", x, outputs, 1, stride, activation="none")
            x = net.node(f"{name}.add", "add_relu", inside, x)
    _pooled(net, x, "fc")
    return net


def resnet18(batch: int) -> Assembly:
    return resnet(batch, (2, 2, 2, 2), bottleneck=False)


def resnet50(batch: int) -> Assembly:
    return resnet(batch, (3, 4, 6, 3), bottleneck=True)


# Expansion, output channels, blocks, stride of the first (Sandler et al., CVPR 2018, table 2).
_INVERTED = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2(batch: int) -> Assembly:
    """Width 1.0; ReLU6 counts as relu. The bottlenecks between blocks are linear, so signed."""
    net = Assembly()
    image = net.input("image", (batch, 3, IMAGE, IMAGE))
    x = net.conv("features.0.0", image, 32, 3, 2, input="image")
    block = 1
    for expansion, outputs, count, first_stride in _INVERTED:
        for repeat in range(count):
            channels = net.shapes[x][1]
            hidden = channels * expansion
            name, step, inside = f"features.{block}.conv", 0, x
            if expansion > 1:
                inside = net.conv(f"{name}.0.0", x, hidden, 1, input="linear")
                step = 1
            stride = 1 if repeat else first_stride
            inside = net.conv(f"{name}.{step}.0", inside, hidden, 3, stride, groups=hidden)
            inside = net.conv(f"{name}.{step + 1}", inside, outputs, 1, activation="none")
            residual = stride == 1 and channels == outputs
            x = net.node(f"features.{block}.add", "add", inside, x) if residual else inside
            block += 1
    x = net.conv(f"features.{block}.0", x, 1280, 1, input="linear")
    _pooled(net, x, "classifier.1")
    return net
