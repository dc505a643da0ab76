"""How the energy of an operation follows what changes in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Curve:
    """(toggles / reference)^exponent: `below` the reference or `above` it."""

    reference: float
    below: float
    above: float

    def __call__(self, toggles: float) -> float:
        share = toggles / self.reference
        return float(share ** (self.below if share < 1 else self.above))


@dataclass(frozen=True)
class ActivityLaw:
    """Energy of one operation over its price.

    curves: (share of operations at which the weight operand changes, energy at the curve's reference over the
    price, curve), one or two, by ascending share; still: share of the price that is spent where nothing
    changes.
    """

    curves: tuple[tuple[float, float, Curve], ...]
    still: float = 0.0

    def times(self, count: int) -> ActivityLaw:
        """Of as many components that act at once, whose toggles are added up."""
        curves = (
            (share, energy, replace(curve, reference=count * curve.reference))
            for share, energy, curve in self.curves
        )
        return replace(self, curves=tuple(curves))

    def __call__(self, toggles: float, weight_changes: float) -> float:
        """toggles: bits that change in an operation; weight_changes: share of operations, 0 to 1."""
        shares = [share for share, _, _ in self.curves]
        switched = [energy * curve(toggles) for _, energy, curve in self.curves]
        return self.still + (1 - self.still) * float(np.interp(weight_changes, shares, switched))
