"""Write text_direction.safetensors: the network of network.py on lines of a photographed page.

Needs torch and the page (pip install --no-deps scikit-image==0.26.0). Sums are torch's: on another CPU or in
another version the last bits of the tensors may differ.
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

# Rows and columns of pieces of lines, each some 12 letters.
ROWS = ((9, 36), (48, 67), (64, 83), (81, 100), (97, 116), (113, 133))
COLUMNS = ((4, 94), (94, 184), (184, 274), (274, 364))
LEFT_OUT = {(0, 3), (5, 2), (5, 3)}  # blank
EVALUATED = 4  # "determine ma"
CALIBRATION_VALUES = 1 << 15  # of a layer, or one image where that is more

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
    """float32[3, 48, 192] in [-1, 1], as PaddleOCR prepares a line: 48 rows, zeros on the right."""
    height, width = piece.shape
    wanted = min(WIDTH, math.ceil(HEIGHT * width / height))
    resized = resample(height, HEIGHT) @ piece @ resample(width, wanted).T
    image = np.zeros((3, HEIGHT, WIDTH), np.float32)
    image[:, :, :wanted] = resized * 2 - 1
    return image


def load_pieces(*, turned: bool = False) -> Floats:
    """float32[pieces, 3, 48, 192], line by line from the left; turned: each by 180 degrees."""
    page = read_page()
    boxes = [
        page[top:bottom, left:right]
        for row, (top, bottom) in enumerate(ROWS)
        for column, (left, right) in enumerate(COLUMNS)
        if (row, column) not in LEFT_OUT
    ]
    return np.stack([prepare(box[::-1, ::-1] if turned else box) for box in boxes])


def scores(images: Floats) -> Floats:
    """float32[N, 2]: probabilities of upright, and of turned."""
    with torch.no_grad():
        return torch.softmax(load_network()(torch.from_numpy(images)), 1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "text_direction.safetensors")
    out = parser.parse_args().out
    pieces = load_pieces()
    provenance = {
        "made_by": "traces/text_direction/export.py",
        "weights": "ch_ppocr_mobile_v2.0_cls of PaddleOCR (Apache-2.0), batch norm folded",
        "weights_package": "rapidocr==3.10.0",
        "image": "page.png of scikit-image 0.26.0 (BSD-3-Clause)",
        "image_sha256": PAGE_SHA256,
        "evaluated": f"piece {EVALUATED} of {len(pieces)}",
        "calibration": f"the other {len(pieces) - 1}",
    }
    accelsim.torch.export(
        load_network(),
        torch.from_numpy(pieces[EVALUATED : EVALUATED + 1]),
        out,
        calibration=[torch.from_numpy(np.delete(pieces, EVALUATED, axis=0))],
        name="text_direction",
        calibration_values=CALIBRATION_VALUES,
        provenance=provenance,
    )
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")
    for turned, wanted in ((False, 0), (True, 1)):
        found = scores(load_pieces(turned=turned)).argmax(axis=1)
        print(f"{'turned' if turned else 'upright'}: {(found == wanted).sum()} of {len(pieces)} right")


if __name__ == "__main__":
    main()
