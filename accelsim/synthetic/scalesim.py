"""SCALE-Sim topology files, conv and GEMM form, as recipes.

Conv: `Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,`.
GEMM: `Layer, M, N, K,`. The first line is a header, as SCALE-Sim has it.
"""

from __future__ import annotations

import re
from pathlib import Path

from accelsim.errors import AccelsimError
from accelsim.synthetic.networks import Request
from accelsim.synthetic.parameters import CONVOLUTIONAL, TRANSFORMER
from accelsim.synthetic.recipe import Recipe, RecipeLayer
from accelsim.trace.json_fields import fail, show
from accelsim.trace.manifest import check_layer_name
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph
from accelsim.workload.layer import Layer

MAX_BYTES = 4 << 20
MAX_SIZE = 1 << 24
_CONV = (
    *("ifmap height", "ifmap width", "filter height", "filter width"),
    *("channels", "num filter", "strides"),
)
_GEMM = ("m", "n", "k")


def read_topology(path: Path, request: Request) -> Recipe:
    """The file's layers as a recipe. Raises AccelsimError: file, line, found, expected."""
    try:
        if path.stat().st_size > MAX_BYTES:
            fail(f"trace {path}: is a CSV of {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise AccelsimError(f"trace {path}: is not UTF-8 text, expected a SCALE-Sim topology") from None
    except OSError as error:
        raise AccelsimError(f"trace {path}: cannot be read ({error.strerror or error})") from None
    rows = [(number, _cells(line)) for number, line in enumerate(lines, 1)]
    rows = [(number, cells) for number, cells in rows if cells]
    try:
        return _recipe(path, rows, request)
    except AccelsimError as error:
        raise AccelsimError(f"trace {path}: {error}") from None


def _cells(line: str) -> list[str]:
    """Stripped cells without the trailing comma's empty one; none for a blank line."""
    cells = [cell.strip() for cell in line.split(",")]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _recipe(path: Path, rows: list[tuple[int, list[str]]], request: Request) -> Recipe:
    header = [cell.lower() for cell in rows[0][1]] if rows else []
    columns = {len(_CONV): _CONV, len(_GEMM): _GEMM}.get(len(header) - 1)
    if columns is None or tuple(header[1:]) != columns:
        expected = f"'Layer name, {', '.join(_CONV)},' or 'Layer, M, N, K,'"
        fail(
            f"line {rows[0][0] if rows else 1}: is {show(', '.join(header))}, expected the header {expected}"
        )
    if request.seq is not None:
        fail(f"seq is {request.seq}, expected none for a topology file")
    if columns is _GEMM and request.batch is not None:
        fail(f"batch is {request.batch}, expected none for matrix products: M holds it")
    layers: dict[str, RecipeLayer] = {}
    for number, cells in rows[1:]:
        where = f"line {number}"
        if len(cells) != len(header):
            fail(f"{where}: has {len(cells)} columns, expected {len(header)}")
        sizes = dict(zip(columns, (_size(cell, where) for cell in cells[1:]), strict=True))
        name = _name(cells[0], where, layers)
        try:
            if columns is _CONV:
                layers[name] = _conv(name, sizes, request.batch or 1, first=not layers)
            else:
                layers[name] = _gemm(name, sizes)
        except AccelsimError as error:
            fail(f"{where}: {error}")
    if not layers:
        fail("has no layer after its header, expected at least one")
    distributions = CONVOLUTIONAL if columns is _CONV else TRANSFORMER
    used = {part for layer in layers.values() for part in (layer.weight, layer.input, layer.bias)}
    return Recipe(
        model=path.stem,
        seed=request.seed or 0,
        provenance={
            "topology": path.name,
            "format": "SCALE-Sim",
            "batch": request.batch or 1,
            "tensors": "random, see docs/workloads.md",
        },
        distributions={key: value for key, value in distributions.items() if key in used},
        graph=Graph.chain([layer.layer for layer in layers.values()]),
        layers=tuple(layers.values()),
    )


def _size(cell: str, where: str) -> int:
    if not (cell.isascii() and cell.isdigit() and 1 <= int(cell[:20]) <= MAX_SIZE):
        fail(f"{where}: has {show(cell)}, expected a whole number from 1 to {MAX_SIZE}")
    return int(cell)


def _name(cell: str, where: str, taken: dict[str, RecipeLayer]) -> str:
    """The layer's name with other characters than a trace allows as '_', and _2, _3 where it repeats."""
    base = re.sub(r"[^A-Za-z0-9_.\-]", "_", cell).lstrip(".-")
    name, copy = base, 1
    while name in taken:
        copy += 1
        name = f"{base}_{copy}"
    try:
        check_layer_name(name)
    except AccelsimError as error:
        fail(f"{where}: {error}")
    return name


def _conv(name: str, sizes: dict[str, int], batch: int, *, first: bool) -> RecipeLayer:
    """SCALE-Sim has no padding column and makes ceil((ifmap - filter + stride) / stride) outputs.

    Where that is one more than fit the input, the missing rows are padding. Padding is symmetric here, so the
    first half of them, rounded up, lies before the input; the count of outputs and of MACs is SCALE-Sim's.
    """
    height, width, rows, columns, channels, filters, stride = (sizes[key] for key in _CONV)
    missing = [-(size - taps) % stride for size, taps in ((height, rows), (width, columns))]
    geometry = Geometry(
        N=batch, C=channels, H=height, W=width, K=filters, R=rows, S=columns,
        stride=(stride, stride), padding=(-(-missing[0] // 2), -(-missing[1] // 2)),
    )  # fmt: skip
    source = "image" if first else "relu"
    return RecipeLayer(Layer(name, "conv", geometry, "relu"), "weight", source, "bias")


def _gemm(name: str, sizes: dict[str, int]) -> RecipeLayer:
    geometry = Geometry(N=1, C=sizes["k"], H=1, W=sizes["m"], K=sizes["n"])
    return RecipeLayer(Layer(name, "linear", geometry), "weight", "hidden", "bias")
