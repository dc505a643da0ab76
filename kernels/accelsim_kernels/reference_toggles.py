"""The plain NumPy twin of the kernel that counts bits which change: naive and slow, as reference.py."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim_kernels.reference import limit, scale_products
from accelsim_kernels.spec import LaneSpec
from accelsim_kernels.toggles import GATE_DOT, NO_GATING, Runs, Toggles, lane_widths

Values = NDArray[np.int64]


def toggles_reference(
    weight_words: NDArray[np.int8],
    weight_scales: NDArray[np.uint16] | None,
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    runs: Runs,
    spec: LaneSpec,
    operand_bits: int,
    gating: int = NO_GATING,
    blocks: int = 1,
) -> Toggles:
    """Twin of `toggles`: the registers of a lane, step by step, compared bit by bit."""
    size = weight_words.shape[2]
    w_bits, a_bits, ws_bits, as_bits, d_bits, s_bits, p_bits, n_bits, _, shift = lane_widths(
        spec, operand_bits, size // blocks
    )
    sums = dict.fromkeys(Toggles._fields, 0)

    def factors(ws: Values, a_s: Values) -> Values:
        """Of every block."""
        pairs = zip(ws, a_s, strict=True)
        return np.array([scale_products(np.array([x]), np.array([y]), spec)[0, 0] for x, y in pairs])

    def dots(w: Values, a: Values) -> Values:
        return (w * a).reshape(blocks, -1).sum(axis=1)

    def addends(dot: Values, scale: Values) -> Values:
        return (dot * scale + ((1 << shift) >> 1)) >> shift

    def alive(codes: Values, scales: Values) -> bool:
        return bool((codes.reshape(blocks, -1).any(axis=1) & (scales > 0)).any())

    ones = np.ones(blocks, np.int64)

    for channel, start, taps in zip(runs.channels, runs.first, runs.taps, strict=True):
        pixels, chosen = range(len(taps)), range(start, start + runs.vectors)
        order = [(d, j) for d in pixels for j in chosen]
        if runs.held:
            order.sort(key=lambda step: step[1])

        def operands(d: int, j: int, channel: int = channel, taps: NDArray[np.int32] = taps) -> tuple:
            g, index = runs.part[j], taps[d, j]
            ws = ones if weight_scales is None else weight_scales[channel, g].reshape(-1).astype(np.int64)
            a_s = ones if activation_scales is None else activation_scales[index].reshape(-1).astype(np.int64)
            inside = bool(index >= 0)
            activations = activation_words[index].astype(np.int64) * inside
            return weight_words[channel, g].astype(np.int64), ws, activations, a_s * inside, inside

        psums = []
        for d in pixels:
            earlier = [operands(d, j)[:4] for j in range(start)]
            total = sum(int(addends(dots(w, a), factors(ws, a_s)).sum()) for w, ws, a, a_s in earlier)
            psums.append(int(limit(np.array(total), spec)))
        zeros, none = np.zeros(size, np.int64), np.zeros(blocks, np.int64)
        w, ws, a, a_s = zeros, none, zeros, none
        dot = scale = added = none
        psum = 0
        before = (len(taps) - 1, start - 1 if start else len(runs.part) - 1)
        for number, (d, j) in enumerate([before, *order]):
            own_w, own_ws, own_a, own_as, inside = operands(d, j)
            load, fresh = number == 0 or not runs.held or d == 0, alive(own_a, own_as)
            new_w, new_ws, new_a, new_as = w, ws, a, a_s
            if load:
                new_w, new_ws = (own_w, own_ws) if alive(own_w, own_ws) else (zeros, none)
            live = fresh and bool(new_w.any())
            some = not spec.scale_product_shift or bool(factors(new_ws, own_as).any())
            product = live and (gating == NO_GATING or some)
            if product if gating == GATE_DOT else fresh:
                new_a = own_a
            if inside if gating == GATE_DOT else fresh:
                new_as = own_as
            adds = product or gating == NO_GATING or j == 0
            in_register = 0 if gating == GATE_DOT else as_bits
            changes = {
                "steps": 1,
                "live_steps": int(live),
                "products": int(product),
                "additions": int(adds),
                "weight_loads": int(load),
                "input_reads": int(inside),
                "dot_product": _changed_products(w, new_w, w_bits, a, new_a, a_bits),
                "scale_product": _changed_products(ws, new_ws, ws_bits, a_s, new_as, as_bits),
                "weight_register": _changed(w, new_w, w_bits) + _changed(ws, new_ws, ws_bits),
                "input_register": _changed(a, new_a, a_bits) + _changed(a_s, new_as, in_register),
            }
            w, ws, a, a_s = new_w, new_ws, new_a, new_as
            new_added = none
            if product:
                new_dot, new_scale = dots(w, a), factors(ws, a_s)
                changes["scale_multiply"] = _changed_products(dot, new_dot, d_bits, scale, new_scale, s_bits)
                changes["pipeline"] = _changed(dot, new_dot, d_bits) + _changed(psum, psums[d], n_bits)
                if s_bits:
                    products = dot * scale, new_dot * new_scale
                    changes["pipeline"] += _changed(scale, new_scale, s_bits)
                    changes["pipeline"] += _changed(*products, p_bits + shift)
                new_added = addends(new_dot, new_scale)
                dot, scale = new_dot, new_scale
            if adds:
                changes["accumulator"] = _changed(added, new_added, p_bits) + _changed(psum, psums[d], n_bits)
                added, psum = new_added, psums[d]
            if number:
                psums[d] = int(limit(np.array(psums[d] + int(new_added.sum())), spec))
                for name, count in changes.items():
                    sums[name] += count
    return Toggles(**sums)


def _bits(values: Values | int, width: int) -> NDArray[np.int64]:
    return np.asarray(values)[..., None] >> np.arange(width) & 1


def _changed(old: Values | int, new: Values | int, width: int) -> int:
    return int((_bits(old, width) != _bits(new, width)).sum())


def _changed_products(
    x: Values | int,
    x_new: Values | int,
    x_bits: int,
    y: Values | int,
    y_new: Values | int,
    y_bits: int,
) -> int:
    old, new = (
        _bits(a, x_bits)[..., :, None] & _bits(b, y_bits)[..., None, :] for a, b in ((x, y), (x_new, y_new))
    )
    return int((old != new).sum())
