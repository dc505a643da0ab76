"""In which formats a tensor is stored, by who reads it (docs/residency.md, Formats)."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.formats.operand import Operand


@dataclass(frozen=True)
class Use:
    """Who reads a tensor: layers, as their input or weight operand, and nodes on the global PE."""

    by_layers: bool
    by_nodes: bool


UNREAD = Use(by_layers=False, by_nodes=False)


def formats_of(own: Operand, residual: Operand | None, use: Use) -> tuple[Operand, ...]:
    """A tensor's formats: of the copy for layers, `own`, and of the one for nodes; one where one will do.

    residual: the format of what nodes read, or None where that is `own`. Formats that take as many bits are
    one copy, in `own`. What neither reads, an output of the graph or what the host takes, is in `own`.
    """
    if residual is None or not use.by_nodes or _as_large(own, residual):
        return (own,)
    return (own, residual) if use.by_layers else (residual,)


def _as_large(a: Operand, b: Operand) -> bool:
    return (a.bits, a.scale.bits) == (b.bits, b.scale.bits)
