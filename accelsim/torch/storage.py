"""In which format each tensor of a captured graph is stored, by who reads it (docs/inference.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import fx

from accelsim.capture.calls import LayerCall, NodeCall
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.torch import ops
from accelsim.torch.catalogue import TRANSPARENT, name_of, not_negative
from accelsim.torch.lower import CALL
from accelsim.workload.storage import Use, formats_of


@dataclass
class Readers:
    """Who reads a tensor, also through views: layers as their input or weight operand, nodes, the caller."""

    node: fx.Node
    inputs: list[LayerCall] = field(default_factory=list)
    weights: list[LayerCall] = field(default_factory=list)
    nodes: list[NodeCall] = field(default_factory=list)
    is_output: bool = False


def is_view(node: fx.Node) -> bool:
    """True for what only moves a tensor, or takes a part of it."""
    return name_of(node.target) in TRANSPARENT


def find_readers(module: fx.GraphModule) -> dict[str, Readers]:
    """Of every layer and node that writes a tensor, by name."""
    found = {}
    for node in module.graph.nodes:
        call = node.meta.get(CALL)
        if call is None or is_view(node):
            continue
        readers = Readers(node)
        _follow(node, readers)
        found[call.name] = readers
    return found


def _follow(node: fx.Node, readers: Readers) -> None:
    for user in node.users:
        call = user.meta.get(CALL)
        if user.op == "output":
            readers.is_output = True
        elif is_view(user):
            _follow(user, readers)
        elif isinstance(call, LayerCall):
            if user.args[0] is node:
                readers.inputs.append(call)
            if user.target is ops.matmul and user.args[1] is node:
                readers.weights.append(call)
        elif isinstance(call, NodeCall):
            readers.nodes.append(call)


def storage_of(
    readers: Readers, scheme: Scheme, scheme_of: Callable[[str], Scheme], residual: Operand | None
) -> tuple[Operand, ...]:
    """The formats of a tensor, without their gammas; none of one that only the caller reads, or that the
    host makes.

    For layers that which they multiply, the widest where their schemes (`scheme_of` a layer) differ; for
    nodes that of residuals, by default the scheme's activations.
    """
    call = readers.node.meta[CALL]
    if isinstance(call, NodeCall) and call.node.unit == "none":
        return ()
    signed = not _never_negative(readers.node, call)
    waiting = None if residual is None else residual.of_sign(signed)
    use = Use(
        bool(readers.inputs or readers.weights), any(node.node.unit != "none" for node in readers.nodes)
    )
    if not (use.by_layers or use.by_nodes):
        return ()
    if readers.inputs:
        widest = _widest(scheme_of(reader.name).activation for reader in readers.inputs)
        own = widest.of_sign(any(reader.layer.input_signed for reader in readers.inputs))
    elif readers.weights:
        own = _widest(scheme_of(reader.name).weight for reader in readers.weights)
    else:
        own = scheme.activation.of_sign(signed)
    return formats_of(own, waiting, use)


def _widest(operands: Iterable[Operand]) -> Operand:
    return max(operands, key=lambda operand: (operand.bits, operand.scale.bits))


def _never_negative(node: fx.Node, call: LayerCall | NodeCall) -> bool:
    if isinstance(call, LayerCall):
        return call.layer.activation == "relu"
    return not_negative(node, [])
