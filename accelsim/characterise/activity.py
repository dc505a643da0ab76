"""How the energy of a block follows the bits that change in it: the rows of activity.csv.

A multiplier, or a tree of them, is charged by its partial products (the AND of a bit of either factor) that
change from one operation to the next; an adder and a register by the bits of their inputs that do. Each block
is simulated under operands that change little, as usual, and much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelsim.characterise import format_steps
from accelsim.characterise.block import Block
from accelsim.characterise.steps import SCALE_BITS

_CHANGING = ("dnn", "dnn_sparse", "dnn_dense", "uniform")
_HELD = ("dnn_ws16", "dnn_sparse_ws16", "dnn_dense_ws16")
_SIZE = 16
_STIMULI = {
    "dot": (*_CHANGING, *_HELD),
    "scale_product": ("dnn", "dnn_calm", "uniform", "dnn_ws16"),
    "scaling_mul": ("dnn", "dnn_calm", "uniform", "dnn_ws16"),
    "accumulator": ("dnn", "dnn_calm", "uniform"),
    "register": ("en1", "en1_held", "en1_half_zero"),
}


def stimuli_of(block: Block) -> tuple[str, ...]:
    """Those under which a block has a row; none where energy does not follow operands here."""
    columns = block.columns
    if block.family == "dot" and (columns["vector_size"], columns["activation_signed"]) != (_SIZE, 1):
        return ()
    if block.name in format_steps.OWN_BLOCKS:
        return ()
    if block.family == "register" and columns["kind"] != "icgen":
        return ()
    if block.family == "scaling_mul" and int(columns["scale_product_bits"]) > SCALE_BITS:
        return _STIMULI[block.family][:-1]
    formats = format_steps.formats_of(block) if block.family == "dot" else ()
    return (*_STIMULI.get(block.family, ()), *formats)


def toggles(block: Block, words: Mapping[str, Sequence[int]], warm_up: int) -> float:
    """Bits that change in an operation, mean over those after the warm-up."""
    ports = [port for port in block.inputs if port.name in ("w", "a", "d")]
    counted = range(max(1, warm_up), len(next(iter(words.values()))))
    if block.family in ("accumulator", "register"):
        total = sum((words[p.name][i] ^ words[p.name][i - 1]).bit_count() for p in ports for i in counted)
    else:
        total = sum(
            _changed_products(*((words[p.name][i - 1], words[p.name][i], p.element_bits) for p in ports))
            for i in counted
        )
    return total / len(counted)


def _changed_products(w: tuple[int, int, int], a: tuple[int, int, int]) -> int:
    """Partial products that change between two words of each factor, (before, after, bits of an element)."""
    changed = 0
    while w[0] or w[1] or a[0] or a[1]:
        (w0, w1), (a0, a1) = ([word & ((1 << own[2]) - 1) for word in own[:2]] for own in (w, a))
        changed += w0.bit_count() * a0.bit_count() + w1.bit_count() * a1.bit_count()
        changed -= 2 * (w0 & w1).bit_count() * (a0 & a1).bit_count()
        w, a = ((own[0] >> own[2], own[1] >> own[2], own[2]) for own in (w, a))
    return changed
