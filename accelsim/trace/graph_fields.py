"""The graph of a trace or recipe as JSON (docs/trace_format.md), and what version 1 has in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from accelsim.trace.json_fields import check_keys, choice, fail, integer, show, value_of
from accelsim.workload.graph import Graph, LayerStep, Node, Shape, Unit
from accelsim.workload.layer import Layer

MAX_SIZE = (1 << 31) - 1
MAX_ELEMENTS = 1 << 48
_GRAPH_KEYS = ("chain", "inputs", "outputs", "steps")
_NODE_KEYS = ("node", "op", "reads", "shape", "unit", "elements")


def graph_to_dict(graph: Graph) -> dict[str, Any]:
    """Plain JSON of a graph, a list for whatever has an order."""
    return {
        "chain": graph.is_chain,
        "inputs": [{"name": name, "shape": list(shape)} for name, shape in graph.inputs],
        "outputs": list(graph.outputs),
        "steps": [_step_to_dict(step) for step in graph.steps],
    }


def _step_to_dict(step: LayerStep | Node) -> dict[str, Any]:
    if isinstance(step, LayerStep):
        return {"layer": step.layer, "reads": list(step.reads)}
    return {
        "node": step.name,
        "op": step.op,
        "reads": list(step.reads),
        "shape": list(step.shape),
        "unit": step.unit,
        "elements": step.elements,
    }


def parse_graph(raw: dict[str, Any], layers: Sequence[Layer]) -> Graph:
    """Check and convert the graph of these layers. Raises AccelsimError naming the step."""
    check_keys(raw, "graph", _GRAPH_KEYS)
    inputs = []
    for entry in value_of(raw, "inputs", list, "graph"):
        if not isinstance(entry, dict):
            fail(f"graph: inputs holds {show(entry)}, expected objects")
        check_keys(entry, "graph: an input", ("name", "shape"))
        name = _text(entry, "name", "graph: an input")
        inputs.append((name, _shape(entry, f"graph input {name}")))
    graph = Graph(
        tuple(inputs),
        tuple(_parse_step(entry) for entry in value_of(raw, "steps", list, "graph")),
        _names(raw, "outputs", "graph"),
        value_of(raw, "chain", bool, "graph"),
    )
    graph.check(layers)
    return graph


def _parse_step(raw: Any) -> LayerStep | Node:
    if not isinstance(raw, dict):
        fail(f"graph: steps holds {show(raw)}, expected objects")
    if "layer" in raw:
        check_keys(raw, "graph: a layer", ("layer", "reads"))
        return LayerStep(_text(raw, "layer", "graph: a layer"), _names(raw, "reads", "graph: a layer"))
    check_keys(raw, "graph: a node", _NODE_KEYS)
    name = _text(raw, "node", "graph: a node")
    where = f"graph: node {name}"
    elements = None
    if raw["elements"] is not None:
        elements = integer(raw, "elements", 0, MAX_ELEMENTS, where)
    unit: Unit = choice(raw, "unit", get_args(Unit), where)  # type: ignore[assignment]
    return Node(
        name, _text(raw, "op", where), _names(raw, "reads", where), _shape(raw, where), unit, elements
    )


def _text(raw: dict[str, Any], key: str, where: str) -> str:
    text: str = value_of(raw, key, str, where)
    if not text.isprintable() or not 0 < len(text) <= 200:
        fail(f"{where}: {key} is {show(text)}, expected 1 to 200 printable characters")
    return text


def _names(raw: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    names = value_of(raw, key, list, where)
    if not all(isinstance(name, str) for name in names):
        fail(f"{where}: {key} is {show(names)}, expected names of tensors")
    return tuple(names)


def _shape(raw: dict[str, Any], where: str) -> Shape:
    sizes = value_of(raw, "shape", list, where)
    if len(sizes) != 4 or any(type(size) is not int or not 0 < size <= MAX_SIZE for size in sizes):
        fail(f"{where}: shape is {show(sizes)}, expected four sizes N, C, H, W")
    return sizes[0], sizes[1], sizes[2], sizes[3]


def parse_work(raw: dict[str, Any], where: str) -> list[tuple[str, int]]:
    """Of a layer of version 1 the work that follows it: (op, elements)."""
    works = []
    for entry in value_of(raw, "global_pe", list, where):
        if not isinstance(entry, dict):
            fail(f"{where}: global_pe holds {show(entry)}, expected objects")
        check_keys(entry, f"{where}: global_pe", ("op", "elements"))
        elements = integer(entry, "elements", 0, MAX_ELEMENTS, f"{where}: global_pe")
        op = value_of(entry, "op", str, f"{where}: global_pe")
        if not op.isprintable():
            fail(f"{where}: global_pe op is {show(op)}, expected printable text")
        works.append((op, elements))
    return works
