"""What is known of ONNX's operations: which are views, which are nodes and under what name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from accelsim.onnx.graph import Op, Value

LAYERS = frozenset("Conv Gemm MatMul".split())

TRANSPARENT = frozenset(
    """Cast CastLike DequantizeLinear Dropout Expand Flatten Identity QuantizeLinear Reshape Slice Split
    Squeeze Tile Transpose Unsqueeze""".split()
)
"""Other views of a tensor, or parts of it: who reads them reads the tensor below."""

CREATED = frozenset("Constant ConstantOfShape EyeLike Range Shape Size".split())

REDUCTIONS = {
    "ArgMax": "argmax", "ArgMin": "argmin", "ReduceL1": "norm", "ReduceL2": "norm", "ReduceLogSum": "sum",
    "ReduceLogSumExp": "logsumexp", "ReduceMax": "amax", "ReduceMean": "mean", "ReduceMin": "amin",
    "ReduceProd": "prod", "ReduceSum": "sum", "ReduceSumSquare": "sum",
}  # fmt: skip
"""Nodes whose time goes by what they read."""

_NAMED = {
    "Add": "add", "And": "logical_and", "AveragePool": "avg_pool", "BatchNormalization": "batch_norm",
    "BitShift": "bitwise_shift", "BitwiseAnd": "bitwise_and", "BitwiseNot": "bitwise_not",
    "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor", "Clip": "clamp", "Concat": "concat",
    "CumSum": "cumsum", "DepthToSpace": "pixel_shuffle", "Div": "divide", "Equal": "eq", "Gather": "gather",
    "GatherElements": "gather", "GatherND": "index", "GlobalAveragePool": "avg_pool",
    "GlobalMaxPool": "max_pool", "Greater": "gt", "GreaterOrEqual": "ge", "GroupNormalization": "group_norm",
    "HardSigmoid": "hardsigmoid", "HardSwish": "hardswish", "InstanceNormalization": "instance_norm",
    "IsInf": "isinf", "IsNaN": "isnan", "LRN": "local_response_norm", "LayerNormalization": "layer_norm",
    "LeakyRelu": "leaky_relu", "Less": "lt", "LessOrEqual": "le", "LogSoftmax": "log_softmax",
    "Max": "maximum", "MaxPool": "max_pool", "Mean": "mean", "Min": "minimum", "Mod": "remainder",
    "Mul": "multiply", "Neg": "negate", "Not": "logical_not", "OneHot": "one_hot", "Or": "logical_or",
    "PRelu": "prelu", "Pad": "pad", "RMSNormalization": "rms_norm", "ScatterElements": "scatter",
    "ScatterND": "index_put", "SpaceToDepth": "pixel_unshuffle", "Sub": "subtract", "Sum": "add",
    "Swish": "silu", "ThresholdedRelu": "threshold", "TopK": "topk", "Trilu": "triu", "Xor": "logical_xor",
    "ai.onnx.ml.ArrayFeatureExtractor": "gather", "ai.onnx.ml.Normalizer": "normalize",
    "ai.onnx.ml.Scaler": "scale",
}  # fmt: skip
_SAME = frozenset(
    """Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu Hardmax Log Mish Pow
    Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh
    Where""".split()
)
"""Nodes whose name is the op's in lower case."""

_OTHERS = frozenset("Resize Upsample Attention Einsum".split())

_NOT_NEGATIVE = frozenset(
    """Abs Exp HardSigmoid IsNaN Not ReduceL1 ReduceL2 ReduceSumSquare Relu Sigmoid Softmax Softplus
    Sqrt""".split()
)
_KEEPS_NOT_NEGATIVE = frozenset(
    """Add AveragePool Concat CumSum DepthToSpace Div Gather GatherElements GlobalAveragePool GlobalMaxPool
    Max MaxPool Mean Min Mul Pow Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum SpaceToDepth
    Sum Where""".split()
)
"""Of operands of which none is negative."""


def supported(op: Op) -> bool:
    """True for what is a layer, a node or a view of a tensor; of a convolution, by the rank of its weight."""
    kind = op.kind
    if kind == "Conv":
        weight = op.inputs[1]
        sizes = op.attribute("kernel_shape") or (weight.shape[2:] if weight and weight.shape else [])
        return bool(weight and weight.is_constant) and len(sizes) <= 2
    known = LAYERS | TRANSPARENT | CREATED | _SAME | _OTHERS
    return kind in known or kind in REDUCTIONS or kind in _NAMED


def op_of(op: Op) -> str:
    """The op of a node as graphs call it."""
    kind = op.kind
    if kind == "ReduceMean" and spatial_mean(op):
        return "avg_pool"
    if kind == "Clip" and bounds(op) == (0.0, 6.0):
        return "relu6"
    if kind == "Gather":
        data = op.input(0)
        return "embedding" if data is not None and data.is_constant else "index_select"
    if kind in ("Resize", "Upsample"):
        mode = str(op.attribute("mode", "nearest"))
        axes = {3: "1d", 4: "2d"}.get(op.output.rank, "")
        names = {"nearest": f"upsample_nearest{axes}", "linear": "upsample_linear1d"}
        if axes == "2d":
            names |= {"linear": "upsample_bilinear2d", "cubic": "upsample_bicubic2d"}
        return names.get(mode, "upsample")
    return REDUCTIONS.get(kind) or _NAMED.get(kind) or kind.split(".")[-1].lower()


def bounds(op: Op) -> tuple[float, float]:
    """(lowest, highest) of a Clip; NaN where they are computed."""

    def bound(place: int, name: str, default: float) -> float:
        value = op.input(place)
        if value is None:
            return float(op.attribute(name, default))
        return float(value.constant.reshape(-1)[0]) if value.constant is not None else math.nan

    return bound(1, "min", -math.inf), bound(2, "max", math.inf)


def axes_of(op: Op) -> list[int] | None:
    """Axes of a reduction, from 0; all where none are given. None where they are computed."""
    rank = op.given[0].rank
    axes: Any = op.attribute("axes")
    given = op.input(1)
    if given is not None:
        if given.constant is None:
            return None
        axes = given.constant.reshape(-1).tolist()
    return sorted(int(axis) % rank for axis in axes) if axes else list(range(rank))


def spatial_mean(op: Op) -> bool:
    """A mean over height and width of N, C, H, W."""
    return op.given[0].rank == 4 and axes_of(op) == [2, 3]


def is_view(op: Op) -> bool:
    """True for views, and for one index taken along an axis."""
    if op.kind in TRANSPARENT:
        return True
    data, index = op.input(0), op.input(1)
    if op.kind != "Gather" or data is None or index is None or data.is_constant:
        return False
    return index.is_constant and index.rank == 0


def is_relu(op: Op) -> bool:
    """ReLU, or what is the same: a Clip from 0, a maximum with 0, a quantizer whose lowest code is 0."""
    if op.kind == "Relu":
        return True
    if op.kind == "Clip":
        low, high = bounds(op)
        return low == 0 and high > float(np.finfo(np.float32).max) / 2
    return op.kind == "Max" and len(op.given) == 2 and any(_is_zero(value) for value in op.given)


def _is_zero(value: Value) -> bool:
    return value.constant is not None and value.constant.size == 1 and not value.constant.any()


def quantizer_range(op: Op) -> tuple[int, int, int] | None:
    """(lowest code, highest code, zero point) of QuantizeLinear or DequantizeLinear with one zero point."""
    place = op.output if op.kind == "QuantizeLinear" else op.input(0)
    zero = op.input(2)
    dtype = place.dtype if place is not None else None
    if dtype is None or not np.issubdtype(dtype, np.integer) or dtype.itemsize > 2:
        return None
    if zero is not None and (zero.constant is None or zero.constant.size < 1):
        return None
    points = np.zeros(1, np.int64) if zero is None else np.asarray(zero.constant).astype(np.int64).reshape(-1)
    if (points != points[0]).any():
        return None
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max), int(points[0])


def not_negative(op: Op, operands: list[bool]) -> bool:
    """True where op cannot make a negative number. operands: the same of the tensors it reads, in order."""
    kind = op.kind
    if kind in _NOT_NEGATIVE or is_relu(op):
        return True
    if kind in ("QuantizeLinear", "DequantizeLinear"):
        known = quantizer_range(op)
        return bool(operands and operands[0]) or (known is not None and known[0] == known[2])
    if kind == "Clip":
        return bounds(op)[0] >= 0
    if kind == "Pow":
        power = op.given[1].constant
        even = power is not None and power.size == 1 and float(power.reshape(-1)[0]) % 2 == 0
        return even or all(operands)
    if kind == "Mul" and len(op.given) == 2 and op.given[0] is op.given[1]:
        return True
    if kind == "Pad":
        if str(op.attribute("mode", "constant")) != "constant":
            return operands[0]
        value = op.input(2)
        fill = op.attribute("value", 0.0) if value is None else value.constant
        return operands[0] and fill is not None and float(np.asarray(fill).reshape(-1)[0]) >= 0
    if kind == "Resize":
        return operands[0] and str(op.attribute("mode", "nearest")) != "cubic"
    if kind == "Where":
        return len(operands) == 3 and all(operands[1:])
    if kind in ("CumSum", "Gather", "GatherElements") or kind in REDUCTIONS or is_view(op):
        operands = operands[:1]  # the others are axes and indices
    keeps = kind in _KEEPS_NOT_NEGATIVE or is_view(op)
    return keeps and bool(operands) and all(operands)
