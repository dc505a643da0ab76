"""ONNX's Attention operation (opset 23) as two matrix products with a softmax between them."""

from __future__ import annotations

import math

import numpy as np

from accelsim.onnx.graph import Op, Value
from accelsim.onnx.products import Products


def expressible(op: Op) -> bool:
    """True without a cache of past keys, without a soft cap, and with nothing asked for but the result."""
    past = any(value is not None for value in op.inputs[4:])
    more = any(value is not None and (value.users or value.is_output) for value in op.outputs[1:])
    return not past and not more and not op.attribute("softcap", 0.0)


def take_apart(rules: Products, op: Op) -> None:
    if not expressible(op):
        return
    query, key, value = op.given[:3]
    flat = query.rank == 3
    if flat:
        heads, shared = int(op.attribute("q_num_heads")), int(op.attribute("kv_num_heads"))
        query = _heads(rules, op, query, heads)
        key, value = _heads(rules, op, key, shared), _heads(rules, op, value, shared)
    times = query.sizes[1] // key.sizes[1]
    key, value = _repeated(rules, op, key, times), _repeated(rules, op, value, times)
    scale = float(op.attribute("scale", 1 / math.sqrt(query.sizes[-1])))
    scores = rules.product(op, query, rules.transpose(op, key, [0, 1, 3, 2]), "scores")
    y = _softmax(rules, op, scores, scale)
    y = rules.product(op, y, value, "context")
    if flat:
        batch, heads, rows, width = y.sizes
        y = rules.reshape(op, rules.transpose(op, y, [0, 2, 1, 3]), batch, rows, heads * width)
    rules.program.replace(op, y)


def _heads(rules: Products, op: Op, value: Value, heads: int) -> Value:
    """[batch, rows, heads * width] as [batch, heads, rows, width]."""
    batch, rows, width = value.sizes
    cut = rules.reshape(op, value, batch, rows, heads, width // heads)
    return rules.transpose(op, cut, [0, 2, 1, 3])


def _repeated(rules: Products, op: Op, value: Value, times: int) -> Value:
    """Key or value heads, each repeated for the query heads that share it."""
    if times == 1:
        return value
    batch, heads, rows, width = value.sizes
    alone = rules.reshape(op, value, batch, heads, 1, rows, width)
    many = rules.expand(op, alone, batch, heads, times, rows, width)
    return rules.reshape(op, many, batch, heads * times, rows, width)


def _softmax(rules: Products, op: Op, scores: Value, scale: float) -> Value:
    """Softmax of scores, scaled and masked: one node."""
    program, dtype = rules.program, scores.dtype
    steps = [rules.add(op, "Mul", scores, program.constant("scale", np.array(scale, dtype)))]
    reads = [scores]
    mask = op.input(3)
    if op.attribute("is_causal", 0):
        seen = np.tril(np.ones(scores.sizes[-2:], bool))
        causal = program.constant("causal", np.where(seen, 0.0, -np.inf).astype(dtype))
        steps.append(rules.add(op, "Add", steps[-1], causal))
    if mask is not None:
        reads += [] if mask.is_constant else [mask]
        if mask.dtype == bool:
            zero, low = (program.constant("number", np.array(number, dtype)) for number in (0.0, -np.inf))
            mask = rules.add(op, "Where", mask, zero, low)
            steps.append(mask)
        steps.append(rules.add(op, "Add", steps[-1 if mask is not steps[-1] else -2], mask))
    y = rules.inferrer.program.insert(op, "Softmax", [steps[-1]], part="softmax", axis=-1)
    rules.inferrer.infer(y)
    for step in steps:
        assert step.maker is not None
        step.maker.part_of = True
    y.node = ("softmax", reads)
    return y.output
