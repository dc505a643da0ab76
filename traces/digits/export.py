"""Write digits.safetensors from weights.safetensors: the same bytes on every machine, without torch.

Every sum runs in a fixed order, as elementwise float64 multiplies and adds: a BLAS would choose the order
by CPU and thread count, and the bits of the trace with it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from accelsim.trace.write import write_trace
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph, LayerStep, Node, output_shape
from accelsim.workload.layer import FloatLayer, Layer

HERE = Path(__file__).parent
HELD_OUT_EVERY = 5  # images 4, 9, 14, ... are held out: 359 of 1797
EVALUATED_IMAGES = 16
CALIBRATION_IMAGES = 64

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LayerSizes:
    op: str
    C: int
    K: int
    R: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    activation: str = "relu"


LAYERS = {
    "conv1": LayerSizes("conv", 1, 16, R=3, padding=1),
    "conv2": LayerSizes("conv", 16, 32, R=3, padding=1),
    "depthwise3": LayerSizes("conv", 32, 32, R=3, padding=1, groups=32),
    "pointwise4": LayerSizes("conv", 32, 64),
    "conv5": LayerSizes("conv", 64, 64, R=3, stride=2, padding=1),
    "fc": LayerSizes("linear", 256, 10, activation="none"),
}
POOL_AFTER = "conv2"  # 2x2 max pooling, 8x8 to 4x4


@dataclass(frozen=True)
class Images:
    """x: float32[images, 1, 8, 8], values in [0, 1]; y: int64[images]."""

    train_x: Floats
    train_y: NDArray[np.int64]
    test_x: Floats
    test_y: NDArray[np.int64]


def load_images() -> Images:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images[:, None] / 16).astype(np.float32)
    y = digits.target.astype(np.int64)
    held_out = np.arange(len(x)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return Images(x[~held_out], y[~held_out], x[held_out], y[held_out])


def geometry_of(spec: LayerSizes, x: Floats) -> Geometry:
    """x: the layer's input, float32[N, C, H, W]."""
    n, c, h, w = x.shape
    return Geometry(
        n, c, h, w, spec.K, spec.R, spec.R, (spec.stride,) * 2, (spec.padding,) * 2, groups=spec.groups
    )


def convolve(x: Floats, weight: Floats, bias: Floats, geometry: Geometry) -> Floats:
    """float32[N, K, P, Q], summed in float64 in the order bias, then r, s, c."""
    g = geometry
    padded = np.zeros((g.N, g.C, g.H + 2 * g.padding[0], g.W + 2 * g.padding[1]))
    padded[:, :, g.padding[0] : g.padding[0] + g.H, g.padding[1] : g.padding[1] + g.W] = x
    out = np.empty((g.N, g.K, g.P, g.Q))
    out[:] = bias[:, None, None]
    for r in range(g.R):
        for s in range(g.S):
            tap = padded[:, :, r :: g.stride[0], s :: g.stride[1]][:, :, : g.P, : g.Q]
            tap = tap.reshape(g.N, g.groups, g.channels_per_group, g.P, g.Q)
            for c in range(g.channels_per_group):
                channel = np.repeat(tap[:, :, c], g.outputs_per_group, axis=1)
                out += channel * weight[:, c, r, s, None, None].astype(np.float64)
    return out.astype(np.float32)


def forward(weights: dict[str, Floats], images: Floats) -> tuple[dict[str, Floats], Floats]:
    """Every layer's input as float32[N, C, H, W], and the logits as float32[images, 10]."""
    inputs: dict[str, Floats] = {}
    x = images
    for name, spec in LAYERS.items():
        weight = weights[f"{name}.weight"]
        if spec.op == "linear":
            # The images become the rows of a matmul: [1, features, 1, images].
            x = np.ascontiguousarray(x.reshape(len(x), -1).T)[None, :, None, :]
            weight = weight[:, :, None, None]
        inputs[name] = x
        x = convolve(x, weight, weights[f"{name}.bias"], geometry_of(spec, x))
        if spec.activation == "relu":
            x = np.maximum(x, np.float32(0))
        if name == POOL_AFTER:
            n, c, h, w = x.shape
            x = x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))
    return inputs, x[0, :, 0].T


def load_weights() -> dict[str, Floats]:
    return load_file(HERE / "weights.safetensors")


def evaluated_images(images: Images) -> Floats:
    return images.test_x[:EVALUATED_IMAGES]


def accuracy(weights: dict[str, Floats], images: Images) -> float:
    _, logits = forward(weights, images.test_x)
    return float((logits.argmax(axis=1) == images.test_y).mean())


def build_layers(weights: dict[str, Floats], images: Images) -> list[FloatLayer]:
    inputs, _ = forward(weights, evaluated_images(images))
    calibration, _ = forward(weights, images.train_x[:CALIBRATION_IMAGES])
    layers = []
    for name, spec in LAYERS.items():
        geometry = geometry_of(spec, inputs[name])
        weight = weights[f"{name}.weight"]
        layers.append(
            FloatLayer(
                Layer(
                    name=name,
                    op=spec.op,
                    geometry=geometry,
                    activation=spec.activation,
                    input_signed=False,  # pixels in [0, 1], then ReLU everywhere
                ),
                weight=weight.reshape(spec.K, spec.C // spec.groups, spec.R, spec.R),
                bias=weights[f"{name}.bias"],
                input=inputs[name],
                calibration_input=calibration[name],
            )
        )
    return layers


def build_graph(layers: list[FloatLayer]) -> Graph:
    """One layer after another, with a pool between two of them; fc reads all positions as channels."""
    first = layers[0].geometry
    steps: list[LayerStep | Node] = []
    last = "image"
    for layer in layers:
        steps.append(LayerStep(layer.name, (last,)))
        last = layer.name
        if last == POOL_AFTER:
            n, k, p, q = output_shape(layer.layer)
            steps.append(Node("pool", "max_pool", (last,), (n, k, p // 2, q // 2)))
            last = "pool"
    return Graph((("image", (first.N, first.C, first.H, first.W)),), tuple(steps), (last,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "digits.safetensors")
    out = parser.parse_args().out
    weights, images = load_weights(), load_images()
    layers = build_layers(weights, images)
    provenance: dict[str, object] = {
        "made_by": "traces/digits/export.py",
        "weights": "traces/digits/weights.safetensors",
        "dataset": "UCI Optical Recognition of Handwritten Digits (CC BY 4.0), copy in scikit-learn",
        "evaluated": f"the first {EVALUATED_IMAGES} held-out images",
        "calibration": f"the first {CALIBRATION_IMAGES} training images",
    }
    write_trace(out, "digits", layers, provenance, graph=build_graph(layers))
    macs = sum(layer.geometry.macs for layer in layers)
    print(f"{out}: {len(layers)} layers, {macs / 1e6:.2f} M MACs, {out.stat().st_size / 1e6:.2f} MB")
    print(f"held-out accuracy {100 * accuracy(weights, images):.2f} % of {len(images.test_y)} images")


if __name__ == "__main__":
    main()
