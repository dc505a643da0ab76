"""Matrix products, reshapes and transposes put into a program, each product with its form as a layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from accelsim.onnx.graph import Form, Op, Program, Value
from accelsim.onnx.infer import Inferrer


class Products:
    """Puts ops before others, with their shapes; of constants they are computed at once."""

    def __init__(self, program: Program, inferrer: Inferrer) -> None:
        self.program, self.inferrer = program, inferrer

    def add(self, before: Op, kind: str, *inputs: Value, **attributes: Any) -> Value:
        return self.inferrer.add(before, kind, list(inputs), **attributes)

    def reshape(self, before: Op, value: Value, *shape: int) -> Value:
        if value.shape == shape:
            return value
        return self.add(before, "Reshape", value, self.whole(f"{value.name}_shape", shape))

    def transpose(self, before: Op, value: Value, order: list[int]) -> Value:
        if order == list(range(value.rank)):
            return value
        return self.add(before, "Transpose", value, perm=order)

    def expand(self, before: Op, value: Value, *shape: int) -> Value:
        if value.shape == shape:
            return value
        return self.add(before, "Expand", value, self.whole(f"{value.name}_shape", shape))

    def whole(self, name: str, numbers: tuple[int, ...]) -> Value:
        return self.program.constant(name, np.array(numbers, np.int64))

    def _fits(self, a: Value, b: Value) -> bool:
        """True where a @ b is a layer as it stands."""
        if a.rank < 2 or b.rank < 2 or a.is_constant:
            return False
        if b.rank == 2:
            return b.is_constant or a.rank == 2
        return a.sizes[:-2] == b.sizes[:-2]

    def _form(self, a: Value, b: Value, output: Value) -> Form:
        if b.rank == 2 and b.constant is not None:
            return Form("linear", a, b, output, b.constant.T, turned=True)
        return Form("matmul", a, b, output, b.constant)

    def product(self, before: Op, a: Value, b: Value, part: str = "") -> Value:
        """a @ b in the cases of MatMul, with a layer in the middle."""
        if b.rank == 1:
            y = self.product(before, a, self.reshape(before, b, b.sizes[0], 1), part)
            return self.reshape(before, y, *y.sizes[:-1])
        if a.rank == 1:
            y = self.product(before, self.reshape(before, a, 1, a.sizes[0]), b, part)
            return self.reshape(before, y, *y.sizes[:-2], y.sizes[-1])
        if a.is_constant:
            # The stored operand is the weight: (a b)^T = b^T a^T.
            right, left = (self.transpose(before, value, _last_two_swapped(value.rank)) for value in (a, b))
            y = self.product(before, left, right, part)
            return self.transpose(before, y, _last_two_swapped(y.rank))
        if not self._fits(a, b) and b.rank == 2:
            *lead, rows, depth = a.sizes
            y = self.product(before, self.reshape(before, a, math.prod(lead) * rows, depth), b, part)
            return self.reshape(before, y, *lead, rows, b.sizes[1])
        if not self._fits(a, b):
            shared = np.broadcast_shapes(a.sizes[:-2], b.sizes[:-2])
            a, b = (self.expand(before, value, *shared, *value.sizes[-2:]) for value in (a, b))
        op = self.program.insert(before, "MatMul", [a, b], part=part)
        self.inferrer.infer(op)
        op.form = self._form(a, b, op.output)
        return op.output


def _last_two_swapped(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]
