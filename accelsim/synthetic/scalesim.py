"""SCALE-Sim topology files, conv and GEMM form, as recipes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from accelsim.errors import AccelsimError
from accelsim.synthetic.networks import Request
from accelsim.synthetic.parameters import CONVOLUTIONAL, TRANSFORMER
from accelsim.synthetic.recipe import Recipe, RecipeLayer
from accelsim.synthetic.topology import GEMM, Row, Topology, read_file
from accelsim.trace.json_fields import fail, show
from accelsim.trace.manifest import check_layer_name
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph
from accelsim.workload.layer import Layer

Depthwise = Literal["by-name", "never"]


def read_topology(path: Path, request: Request, depthwise: Depthwise = "by-name") -> Recipe:
    """The file's layers as a recipe. Warns of what is not read, and of layers that are taken for depthwise by
    their names. Raises AccelsimError: file, line, found, expected."""
    if depthwise not in get_args(Depthwise):
        raise AccelsimError(f"depthwise is {show(depthwise)}, expected {' or '.join(get_args(Depthwise))}")
    try:
        topology = read_file(path)
        recipe, taken = _recipe(path, topology, request, depthwise)
    except AccelsimError as error:
        raise AccelsimError(f"trace {path}: {error}") from None
    for note in (*topology.notes, *taken):
        warnings.warn(f"trace {path}: {note}", stacklevel=3)
    return recipe


def _recipe(
    path: Path, topology: Topology, request: Request, depthwise: Depthwise
) -> tuple[Recipe, list[str]]:
    """The recipe, and which layers were taken for depthwise by their names."""
    gemm = topology.columns is GEMM
    if request.seq is not None:
        fail(f"seq is {request.seq}, expected none for a topology file")
    if gemm and request.batch is not None:
        fail(f"batch is {request.batch}, expected none for matrix products: M holds it")
    layers: dict[str, RecipeLayer] = {}
    by_name = []
    for row in topology.rows:
        where = f"line {row.line}"
        name = _name(row.name, where, layers)
        if row.batch is not None and request.batch is not None:
            fail(f"batch is {request.batch}, expected none: the file has a column of it")
        apart = row.kind == "depthwise"
        if row.kind is None and not gemm and depthwise == "by-name" and _named_depthwise(row):
            apart = True
            by_name.append(name)
        try:
            if gemm:
                layers[name] = _gemm(name, row)
            else:
                batch = row.batch or request.batch or 1
                layers[name] = _conv(name, row, batch, first=not layers, depthwise=apart)
        except AccelsimError as error:
            fail(f"{where}: {error}")
    if not layers:
        fail("has no layer after its header, expected at least one")
    distributions = TRANSFORMER if gemm else CONVOLUTIONAL
    used = {part for layer in layers.values() for part in (layer.weight, layer.input, layer.bias)}
    own = [layer.layer for layer in layers.values()]
    batches = sorted({layer.geometry.N for layer in own})
    recipe = Recipe(
        model=path.stem,
        seed=request.seed or 0,
        provenance={
            "topology": path.name,
            "format": "SCALE-Sim",
            "batch": batches[0] if len(batches) == 1 else batches,
            "tensors": "random, see docs/workloads.md",
        },
        distributions={key: value for key, value in distributions.items() if key in used},
        graph=Graph.chain(own),
        layers=tuple(layers.values()),
    )
    said = f"taken for depthwise by name and Num Filter 1: {', '.join(by_name[:6])}"
    said += f"{', ...' if len(by_name) > 6 else ''} (with depthwise 'never' they are dense)"
    return recipe, [said] if by_name else []


def _named_depthwise(row: Row) -> bool:
    """SCALE-Sim's own files write a depthwise layer with one filter and DP or DW in its name."""
    words = re.split(r"[^A-Za-z]+", row.name.lower())
    named = bool({"dp", "dw", "depthwise"} & set(words))
    return named and row.sizes["num filter"] == 1 and row.sizes["channels"] > 1


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


def _conv(name: str, row: Row, batch: int, *, first: bool, depthwise: bool) -> RecipeLayer:
    """SCALE-Sim has no padding column and makes ceil((ifmap - filter + stride) / stride) outputs.

    Where that is one more than fit the input, the missing rows are padding. It is symmetric here, so the
    first half of them, rounded up, lies before the input; the count of outputs and of MACs is SCALE-Sim's.
    """
    sizes: Mapping[str, int] = row.sizes
    height, width = sizes["ifmap height"], sizes["ifmap width"]
    rows, columns = sizes["filter height"], sizes["filter width"]
    if rows > height or columns > width:
        fail(f"the {rows}x{columns} filter is larger than the {height}x{width} ifmap, expected one that fits")
    channels, filters = sizes["channels"], sizes["num filter"]
    if depthwise:
        if filters not in (1, channels):
            fail(f"a depthwise layer has num filter {filters}, expected 1 or the {channels} channels")
        filters = channels
    missing = [
        -(size - taps) % stride
        for size, taps, stride in zip((height, width), (rows, columns), row.strides, strict=True)
    ]
    geometry = Geometry(
        N=batch, C=channels, H=height, W=width, K=filters, R=rows, S=columns, stride=row.strides,
        padding=(-(-missing[0] // 2), -(-missing[1] // 2)), groups=channels if depthwise else 1,
    )  # fmt: skip
    source = "image" if first else "relu"
    return RecipeLayer(Layer(name, "conv", geometry, "relu"), "weight", source, "bias")


def _gemm(name: str, row: Row) -> RecipeLayer:
    sizes = row.sizes
    geometry = Geometry(N=row.batch or 1, C=sizes["k"], H=1, W=sizes["m"], K=sizes["n"])
    return RecipeLayer(Layer(name, "linear", geometry), "weight", "hidden", "bias")
