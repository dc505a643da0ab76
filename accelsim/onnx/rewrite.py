"""Convolutions, linear layers and matrix products of any spelling, each given its form as a layer.

Where a layer has no such form (uneven padding, products of vectors, transposed operands) the graph is
rewritten into one that has, in ONNX's own operations: what is recorded is what that graph computes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.onnx.attention import take_apart as take_attention_apart
from accelsim.onnx.einsum import take_apart as take_einsum_apart
from accelsim.onnx.graph import Form, Op, Program, Value
from accelsim.onnx.infer import Inferrer
from accelsim.onnx.products import Products


class Normalizer(Products):
    """Writes op.form. Ops whose shapes are not known are left as they are."""

    def __init__(self, program: Program, inferrer: Inferrer) -> None:
        super().__init__(program, inferrer)
        self.rules: dict[str, Callable[[Op], None]] = {
            "Conv": self.conv, "Gemm": self.gemm, "MatMul": self.matmul,
            "Einsum": lambda op: take_einsum_apart(self, op),
            "Attention": lambda op: take_attention_apart(self, op),
        }  # fmt: skip

    def run(self) -> None:
        for op in list(self.program.ops):
            rule = self.rules.get(op.kind)
            known = all(value.shape is not None for value in (*op.given, *op.made[:1]))
            if rule is not None and known and not op.is_folded():
                rule(op)

    # -- convolutions ----------------------------------------------------------------------------------------

    def conv(self, op: Op) -> None:
        x, weight = op.given[0], op.given[1]
        assert weight.constant is not None
        axes = weight.rank - 2
        bias = op.input(2)
        if bias is not None and bias.constant is None:
            raise AccelsimError(f"{op.place} computes its bias, expected a stored one")
        stride = tuple(op.attribute("strides", [1] * axes))
        dilation = tuple(op.attribute("dilations", [1] * axes))
        sides = _sides(op, x.sizes[2:], weight.sizes[2:], stride, dilation)
        padding = tuple(min(pair) for pair in sides)
        if str(op.attribute("auto_pad", "NOTSET")).startswith("SAME"):
            _set_padding(op, padding)  # onnxruntime does not take it with a dilation
        before = _zeros_around(x, axes) if x.maker is not None else None
        if before is not None and all(low == high for low, high in before):
            assert x.maker is not None
            x.maker.part_of = True
            padding = tuple(size + low for size, (low, _) in zip(padding, before, strict=True))
            source = x.maker.given[0]
        else:
            source = x
        extra = [(low - min(low, high), high - min(low, high)) for low, high in sides]
        if any(map(any, extra)):
            # A layer pads both sides alike; the rest is put on before it.
            if source is not x:
                assert x.maker is not None
                x.maker.part_of = False
                padding = tuple(min(pair) for pair in sides)
            source = self._padded(op, x, extra)
            self.program.set_input(op, 0, source)
            _set_padding(op, padding)
        op.form = Form(
            "conv", source, weight, op.output, weight.constant, None if bias is None else bias.constant,
            stride=stride, padding=padding, dilation=dilation, groups=int(op.attribute("group", 1)),
        )  # fmt: skip

    def _padded(self, op: Op, x: Value, extra: list[tuple[int, int]]) -> Value:
        sizes = [0, 0, *(low for low, _ in extra), 0, 0, *(high for _, high in extra)]
        if self.program.opset < 11:
            return self.add(op, "Pad", x, pads=sizes)
        return self.add(op, "Pad", x, self.whole(f"{x.name}_pads", tuple(sizes)))

    # -- products --------------------------------------------------------------------------------------------

    def gemm(self, op: Op) -> None:
        a, b, c = op.given[0], op.given[1], op.input(2)
        alpha, beta = float(op.attribute("alpha", 1.0)), float(op.attribute("beta", 1.0))
        if op.attribute("transA", 0):
            a = self.transpose(op, a, [1, 0])
        turned = bool(op.attribute("transB", 0))
        columns = b.sizes[0 if turned else 1]
        bias = _row(c, columns, beta)
        if b.constant is not None and not a.is_constant and (c is None or bias is not None):
            values = b.constant if turned else b.constant.T
            values = values if alpha == 1 else (values * np.float64(alpha)).astype(values.dtype)
            op.form = Form("linear", a, b, op.output, values, bias, turned=not turned, scaled=alpha != 1)
            return
        y = self.product(op, a, self.transpose(op, b, [1, 0]) if turned else b)
        if alpha != 1:
            y = self.add(op, "Mul", y, self._number(y, alpha))
        if c is not None:
            y = self.add(op, "Add", y, c if beta == 1 else self.add(op, "Mul", c, self._number(c, beta)))
        self.program.replace(op, y)

    def _number(self, like: Value, number: float) -> Value:
        return self.program.constant("number", np.array(number, like.dtype))

    def matmul(self, op: Op) -> None:
        a, b = op.given[0], op.given[1]
        if self._fits(a, b):
            op.form = self._form(a, b, op.output)
            return
        self.program.replace(op, self.reshape(op, self.product(op, a, b), *op.output.sizes))


def _row(c: Value | None, columns: int, beta: float) -> np.ndarray | None:
    """Gemm's C as a bias, where it is stored and the same for all rows."""
    if c is None or c.constant is None or c.sizes not in ((), (1,), (1, 1), (columns,), (1, columns)):
        return None
    values = c.constant if beta == 1 else (c.constant * np.float64(beta)).astype(c.constant.dtype)
    return np.broadcast_to(values.reshape(-1), (columns,))


def _sides(
    op: Op,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> list[tuple[int, int]]:
    """Zeros (before, after) on each axis."""
    axes, automatic = len(kernel), str(op.attribute("auto_pad", "NOTSET"))
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        sides = []
        for size, k, step, far in zip(sizes, kernel, stride, dilation, strict=True):
            total = max(0, (-(-size // step) - 1) * step + far * (k - 1) + 1 - size)
            pair = (total // 2, total - total // 2)
            sides.append(pair if automatic == "SAME_UPPER" else pair[::-1])
        return sides
    pads = [0] * (2 * axes) if automatic == "VALID" else list(op.attribute("pads", [0] * (2 * axes)))
    if any(size < 0 for size in pads):
        raise AccelsimError(f"{op.place} has pads {pads}, expected none below 0")
    return list(zip(pads[:axes], pads[axes:], strict=True))


def _set_padding(op: Op, padding: tuple[int, ...]) -> None:
    kept = [attribute for attribute in op.proto.attribute if attribute.name not in ("pads", "auto_pad")]
    del op.proto.attribute[:]
    op.proto.attribute.extend(kept)
    pads = op.proto.attribute.add()
    pads.name, pads.type = "pads", pads.INTS
    pads.ints.extend([*padding, *padding])


def _zeros_around(x: Value, axes: int) -> list[tuple[int, int]] | None:
    """(low, high) of the last axes, where x is zeros put around something that nobody else reads."""
    pad = x.maker
    if pad is None or pad.kind != "Pad" or x.only_reader is None:
        return None
    given, fill = pad.input(1), pad.input(2)
    sizes = pad.attribute("pads")
    if given is not None:
        sizes = None if given.constant is None else given.constant.reshape(-1).tolist()
    value = pad.attribute("value", 0.0) if fill is None else fill.constant
    if sizes is None or value is None or np.any(value) or pad.input(3) is not None:
        return None
    if str(pad.attribute("mode", "constant")) != "constant" or min(sizes) < 0:
        return None
    low, high = sizes[: x.rank], sizes[x.rank :]
    if any(low[:-axes]) or any(high[:-axes]):
        return None
    return [(int(a), int(b)) for a, b in zip(low[-axes:], high[-axes:], strict=True)]
