"""Graphs of networks: what they refuse, who hosts which node, which tensors cross steps."""

from __future__ import annotations

import pytest

import accelsim
from accelsim.errors import AccelsimError
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.residency import decide_run
from accelsim.open import open_workload
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph, LayerStep, Node, Shape
from accelsim.workload.layer import Layer, NodeWork
from accelsim.workload.storage import UNREAD, Use
from accelsim.workload.wiring import Tensor, Wiring, wire

SHAPE: Shape = (1, 8, 4, 4)


def layer(name: str, *, weight_is_activation: bool = False) -> Layer:
    return Layer(name, "conv", Geometry(1, 8, 4, 4, 8), weight_is_activation=weight_is_activation)


def tensors(wiring: Wiring) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in wiring.tensors}


FOR_LAYERS, FOR_NODES = Use(by_layers=True, by_nodes=False), Use(by_layers=False, by_nodes=True)


def residual() -> tuple[Graph, list[Layer]]:
    """x -> a -> b, y = b + x, c reads y: the block's input is read by a layer and by a node."""
    steps = (
        LayerStep("a", ("x",)),
        LayerStep("b", ("a",)),
        Node("y", "add", ("b", "x"), SHAPE),
        LayerStep("c", ("y",)),
    )
    return Graph((("x", SHAPE),), steps, ("c",)), [layer(name) for name in "abc"]


def test_the_last_layer_that_a_node_needs_hosts_it() -> None:
    graph, layers = residual()
    graph.check(layers)
    wiring = wire(graph, layers)
    assert wiring.work == {"a": (), "b": (NodeWork("add", 128, 256, 128, FOR_LAYERS),), "c": ()}
    found = tensors(wiring)
    assert list(found) == ["x", "a", "y", "c"]  # b is gone with its step
    assert wiring.uses == {
        **{"x": Use(by_layers=True, by_nodes=True), "a": FOR_LAYERS, "b": FOR_NODES},
        **{"y": FOR_LAYERS, "c": UNREAD},
    }
    assert (found["x"].input_of, found["x"].operand_of, found["x"].in_dram) == ((0,), (1,), True)
    assert (found["y"].made_in, found["y"].readers, found["y"].output) == (1, (2,), False)
    assert (found["c"].made_in, found["c"].readers, found["c"].output) == (2, (), True)


def test_a_node_after_a_node_has_its_host() -> None:
    """Pools count what they read, others what is written; nodes wait for no layer that they do not need."""
    steps = (
        LayerStep("a", ("x",)),
        LayerStep("b", ("x",)),
        Node("half", "max_pool", ("a",), (1, 8, 2, 2)),
        Node("gelu", "gelu", ("half",), (1, 8, 2, 2)),
        Node("both", "add", ("gelu", "small"), (1, 8, 2, 2)),
    )
    graph = Graph((("x", SHAPE), ("small", (1, 8, 2, 2))), steps, ("both", "b"))
    layers = [layer("a"), layer("b")]
    graph.check(layers)
    wiring = wire(graph, layers)
    assert wiring.work["a"] == (
        NodeWork("max_pool", 128, 128, 32, FOR_NODES),
        NodeWork("gelu", 32, 32, 32, FOR_NODES),
        NodeWork("add", 32, 64, 32, UNREAD),
    )
    assert wiring.work["b"] == ()
    assert tensors(wiring)["small"].operand_of == (0,)
    assert list(tensors(wiring)) == ["x", "small", "b", "both"]  # as listed, whenever they are made


def test_nodes_before_any_layer_are_steps_of_their_own() -> None:
    steps = (
        Node("norm", "rms_norm", ("x",), SHAPE),
        Node("scaled", "multiply", ("norm", "x"), SHAPE),
        LayerStep("a", ("scaled",)),
        Node("sum", "add", ("a", "norm"), SHAPE),
    )
    graph = Graph((("x", SHAPE),), steps, ("sum",))
    graph.check([layer("a")])
    wiring = wire(graph, [layer("a")])
    assert [work.op for work in wiring.prologue] == ["rms_norm", "multiply"]
    found = tensors(wiring)
    assert (found["x"].operand_of, found["norm"].made_in, found["norm"].operand_of) == ((0, 1), 0, (1, 2))
    assert (found["scaled"].made_in, found["scaled"].input_of) == (1, (2,))
    assert (found["sum"].made_in, found["sum"].output) == (2, True)


def test_a_node_on_the_host_cuts_the_graph() -> None:
    """What it reads goes to DRAM, what it makes is there; it takes no time of the machine."""
    steps = (
        LayerStep("a", ("x",)),
        Node("odd", "fancy", ("a",), SHAPE, "none"),
        LayerStep("b", ("odd",)),
        Node("sum", "add", ("b", "odd"), SHAPE),
    )
    graph = Graph((("x", SHAPE),), steps, ("sum",))
    graph.check([layer("a"), layer("b")])
    wiring = wire(graph, [layer("a"), layer("b")])
    assert wiring.work["a"] == () and len(wiring.work["b"]) == 1
    found = tensors(wiring)
    assert (found["a"].output, found["a"].readers) == (True, ())
    assert (found["odd"].in_dram, found["odd"].made_in, found["odd"].readers) == (True, 0, (1,))


def test_weight_operands_are_read_apart() -> None:
    steps = (
        LayerStep("a", ("x",)),
        LayerStep("b", ("x",)),
        LayerStep("c", ("a", "b")),
    )
    layers = [
        layer("a"),
        layer("b"),
        Layer("c", "matmul", Geometry(1, 8, 4, 4, 16), weight_is_activation=True),
    ]
    graph = Graph((("x", SHAPE),), steps, ("c",))
    graph.check(layers)
    found = tensors(wire(graph, layers))
    assert (found["a"].input_of, found["b"].weights_of, found["x"].input_of) == ((2,), (2,), (0, 1))


@pytest.mark.parametrize(
    ("steps", "outputs", "message"),
    [
        ((LayerStep("a", ("b",)), LayerStep("b", ("x",))), ("a",), "layer a reads 'b', expected an input"),
        ((LayerStep("b", ("x",)), LayerStep("a", ("b",))), ("a",), "in their order, first at b"),
        ((LayerStep("a", ("x",)),), ("a",), "in their order, 1 of 2"),
        ((LayerStep("a", ("x",)), LayerStep("b", ("a",))), ("b", "b"), "one twice"),
        ((LayerStep("a", ("x",)), LayerStep("b", ("x",))), ("b",), "tensor 'a' is read by nobody"),
        ((LayerStep("a", ("x", "x")), LayerStep("b", ("a",))), ("b",), "layer a reads 2 tensors, expected 1"),
        (
            (LayerStep("a", ("x",)), Node("p", "max_pool", ("a",), (1, 8, 2, 2)), LayerStep("b", ("p",))),
            ("b",),
            "layer b takes 'p' of 32 elements as its input, expected 128",
        ),
        (
            (
                LayerStep("a", ("x",)),
                Node("odd", "relu", ("a",), SHAPE, "none"),
                Node("sum", "residual_add", ("a", "odd"), SHAPE),
                LayerStep("b", ("sum",)),
            ),
            ("b",),
            "node sum reads 'odd', which the host makes after layer a, expected a layer between",
        ),
    ],
)
def test_graphs_that_are_none(
    steps: tuple[LayerStep | Node, ...], outputs: tuple[str, ...], message: str
) -> None:
    with pytest.raises(AccelsimError, match=message) as error:
        Graph((("x", SHAPE),), steps, outputs).check([layer("a"), layer("b")])
    assert "\n" not in str(error.value)


def test_a_chain_takes_layers_as_they_come() -> None:
    layers = [layer("a"), layer("m", weight_is_activation=True)]
    chain = Graph.chain(layers, {"a": [("gelu", 7), ("gelu", 9)]})
    chain.check(layers)
    assert [step.name for step in chain.steps] == ["a", "a.gelu", "a.gelu_", "m"]
    assert chain.steps[-1].reads == ("a.gelu_", "m.weight")
    assert wire(chain, layers).work["a"] == (
        NodeWork("gelu", 7, 7, 7, FOR_NODES),
        NodeWork("gelu", 9, 9, 9, FOR_LAYERS),
    )


def test_resnet_keeps_what_its_branches_need() -> None:
    """A bottleneck's input is read by conv1, then by the downsample or the add, and is kept till then."""
    workload, scheme = open_workload("resnet50"), accelsim.Scheme.parse("4/4/4/4")
    arch = load_arch("magnet16", ["global_buffer_kb=65536"])
    specs = [workload.outline(own.name, scheme, 16) for own in workload.layers]
    run = decide_run(arch, specs, wire(workload.graph, workload.layers))
    by_name = dict(zip((own.name for own in workload.layers), run.layers, strict=True))
    assert all(residency.input == "gb" for name, residency in by_name.items() if name != "conv1")
    assert not any(residency.spilled_bits for residency in run.layers)
    assert [name for name, residency in by_name.items() if residency.written_bits] == ["fc"]
    block_input = 256 * 56 * 56 * 4 + 256 * 56 * 56 // 16 * 4
    # While conv2 of a later block runs, its own tensors are there and the block's input for the add.
    inside = 64 * 56 * 56 * 4 + 64 * 56 * 56 // 16 * 4
    assert by_name["layer1.1.conv2"].kept_bits == block_input + 2 * inside
