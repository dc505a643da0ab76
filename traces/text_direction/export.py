"""Write text_direction.safetensors: the network of network.py on lines of a photographed page.

Needs torch and the page (pip install --no-deps scikit-image==0.26.0). Sums are torch's: another CPU or version
may round the last bits of the tensors otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from importlib.util import find_spec
from pathlib import Path

import matplotlib.image
import numpy as np
import torch
from network import HEIGHT, WIDTH, load_network
from numpy.typing import NDArray

import accelsim.torch

HERE = Path(__file__).parent
PAGE_SHA256 = "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3"

# Rows and columns of pieces of lines: the words "Region-based", "segmentation", "Let us first", and so on.
ROWS = ((9, 36), (48, 67), (64, 83), (81, 100), (97, 116), (113, 133))
COLUMNS = ((4, 94), (94, 184), (184, 274), (274, 364))
LEFT_OUT = {(0, 3), (5, 2), (5, 3)}  # blank
EVALUATED = 5  # the second piece of the second line
CALIBRATION = 8
CALIBRATION_VALUES = 1 << 16  # of a layer

Floats = NDArray[np.float32]


def read_page() -> NDArray[np.float64]:
    """float64[191, 384], 0 black to 1 white."""
    package = find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("page missing: pip install --no-deps scikit-image==0.26.0")
    path = Path(package.submodule_search_locations[0]) / "data" / "page.png"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != PAGE_SHA256:
        raise SystemExit(f"{path}: sha256 is {digest}, expected {PAGE_SHA256}")
    return np.asarray(matplotlib.image.imread(path), np.float64)


def resample(size: int, wanted: int) -> NDArray[np.float64]:
    """float64[wanted, size]: linear interpolation between the centres of pixels."""
    at = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    first = np.minimum(np.floor(at).astype(int), size - 2)
    matrix = np.zeros((wanted, size))
    matrix[np.arange(wanted), first] = 1 - (at - first)
    matrix[np.arange(wanted), first + 1] = at - first
    return matrix


def prepare(piece: NDArray[np.float64]) -> Floats:
    """float32[3, 48, 192] in [-1, 1], as PaddleOCR prepares a line: as high as it must be, zeros on the right."""
    height, width = piece.shape
    wanted = min(WIDTH, math.ceil(HEIGHT * width / height))
    resized = resample(height, HEIGHT) @ piece @ resample(width, wanted).T
    image = np.zeros((3, HEIGHT, WIDTH), np.float32)
    image[:, :, :wanted] = resized * 2 - 1
    return image


def load_pieces() -> Floats:
    """float32[pieces, 3, 48, 192], line by line from the left."""
    page = read_page()
    return np.stack(
        [
            prepare(page[top:bottom, left:right])
            for row, (top, bottom) in enumerate(ROWS)
            for column, (left, right) in enumerate(COLUMNS)
            if (row, column) not in LEFT_OUT
        ]
    )


def turned(images: Floats) -> Floats:
    """Upside down, as a page that lies the wrong way; the padding stays on the right."""
    filled = int((images != 0).any(axis=(0, 1, 2)).sum())
    out = images.copy()
    out[..., :filled] = images[..., ::-1, filled - 1 :: -1] if filled == WIDTH else images[..., ::-1, :filled][..., ::-1]
    return out


def right(images: Floats) -> tuple[int, int]:
    """Of the pieces as they are and of the pieces turned, how many the network sees as what they are."""
    network = load_network()
    with torch.no_grad():
        upright = network(torch.from_numpy(images)).argmax(1)
        upside_down = network(torch.from_numpy(turned(images))).argmax(1)
    return int((upright == 0).sum()), int((upside_down == 1).sum())


if __name__ == "__main__":
    p = load_pieces(); print(p.shape, right(p))
    net = load_network()
    with torch.no_grad(): print(torch.softmax(net(torch.from_numpy(p)),1)[:,0].numpy().round(2)); print(torch.softmax(net(torch.from_numpy(turned(p))),1)[:,1].numpy().round(2))
    import matplotlib; matplotlib.use("Agg"); import matplotlib.pyplot as plt
    f,a=plt.subplots(8,3,figsize=(14,12))
    for ax,i in zip(a.flat,p): ax.imshow(i[0],cmap="gray"); ax.axis("off")
    f.savefig("/tmp/pieces.png")
