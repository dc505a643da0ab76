"""Einsum of two operands as one matrix product between transposes and reshapes."""

from __future__ import annotations

import math
from typing import NamedTuple

from accelsim.onnx.graph import Op, Value
from accelsim.onnx.products import Products


class Letters(NamedTuple):
    """Axes of a[...] times b[...]: of both and kept, of a alone, summed over, of b alone; and all of each."""

    batch: str
    left: str
    summed: str
    right: str
    a: str
    b: str
    out: str


def letters_of(op: Op) -> Letters | None:
    """None for an equation that is no matrix product of two operands."""
    text = str(op.attribute("equation", "")).replace(" ", "")
    left, arrow, out = text.partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not (terms[0] + terms[1]).isalpha():
        return None
    a, b = terms
    if not arrow:
        out = "".join(sorted(letter for letter in set(a + b) if (a + b).count(letter) == 1))
    if len(set(a)) != len(a) or len(set(b)) != len(b) or len(set(out)) != len(out) or set(out) - set(a + b):
        return None
    shared = [letter for letter in a if letter in b]
    if any(letter not in out and letter not in shared for letter in a + b):
        return None
    return Letters(
        "".join(letter for letter in shared if letter in out),
        "".join(letter for letter in a if letter not in b),
        "".join(letter for letter in shared if letter not in out),
        "".join(letter for letter in b if letter not in a),
        a, b, out,
    )  # fmt: skip


def take_apart(rules: Products, op: Op) -> None:
    letters = letters_of(op)
    if letters is None:
        return
    a, b = op.given
    if any(
        a.sizes[letters.a.index(c)] != b.sizes[letters.b.index(c)] for c in letters.batch + letters.summed
    ):
        return  # one of them is 1 and is broadcast
    size = dict(zip(letters.a, a.sizes, strict=True)) | dict(zip(letters.b, b.sizes, strict=True))

    def sizes(names: str) -> list[int]:
        return [size[letter] for letter in names]

    def matrices(value: Value, own: str, first: str, second: str) -> Value:
        order = [own.index(letter) for letter in letters.batch + first + second]
        turned = rules.transpose(op, value, order)
        shape = [*sizes(letters.batch), math.prod(sizes(first)), math.prod(sizes(second))]
        return rules.reshape(op, turned, *shape)

    y = rules.product(
        op,
        matrices(a, letters.a, letters.left, letters.summed),
        matrices(b, letters.b, letters.summed, letters.right),
    )
    made = letters.batch + letters.left + letters.right
    y = rules.reshape(op, y, *sizes(made))
    rules.program.replace(op, rules.transpose(op, y, [made.index(letter) for letter in letters.out]))
