"""Bit-exact integer kernels of vector-MAC lanes with per-vector scales, and their NumPy twins.

Depends on NumPy and Numba only. `reference.py` holds the slow twin of every function here.
"""

from accelsim_kernels.accumulate import PackedWeights, accumulate, add_psums, pack_weights
from accelsim_kernels.counts import (
    Profile,
    activation_profile,
    gated_vectors,
    live_products,
    weight_profile,
    zero_operand_macs,
)
from accelsim_kernels.ppu import ppu_static, ppu_vector
from accelsim_kernels.scan import Scan, scan
from accelsim_kernels.spec import ERROR, SATURATE, WRAP, LaneSpec
from accelsim_kernels.toggles import Runs, Toggles, toggles

__all__ = [
    "ERROR",
    "SATURATE",
    "WRAP",
    "LaneSpec",
    "PackedWeights",
    "Profile",
    "Runs",
    "Scan",
    "Toggles",
    "accumulate",
    "activation_profile",
    "add_psums",
    "gated_vectors",
    "live_products",
    "pack_weights",
    "ppu_static",
    "ppu_vector",
    "scan",
    "toggles",
    "weight_profile",
    "zero_operand_macs",
]
