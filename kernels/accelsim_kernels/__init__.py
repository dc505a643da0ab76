"""Bit-exact integer kernels of vector-MAC lanes with per-vector scales, and their NumPy twins.

Depends on NumPy and Numba only. `reference.py` holds the slow twin of every function here.
"""

from accelsim_kernels.accumulate import PackedWeights, accumulate, add_psums, pack_weights
from accelsim_kernels.aligned import AlignedWeights, accumulate_aligned, pack_aligned
from accelsim_kernels.counts import (
    Profile,
    activation_profile,
    gated_vectors,
    live_block_products,
    live_products,
    weight_profile,
    zero_operand_macs,
)
from accelsim_kernels.ppu import ppu_static, ppu_values, ppu_vector
from accelsim_kernels.scales import Scales
from accelsim_kernels.scan import Scan, scan
from accelsim_kernels.spec import ERROR, SATURATE, WRAP, AlignSpec, LaneSpec
from accelsim_kernels.toggles import Runs, Toggles, toggles

__all__ = [
    "ERROR",
    "SATURATE",
    "WRAP",
    "AlignSpec",
    "AlignedWeights",
    "LaneSpec",
    "PackedWeights",
    "Profile",
    "Runs",
    "Scales",
    "Scan",
    "Toggles",
    "accumulate",
    "accumulate_aligned",
    "activation_profile",
    "add_psums",
    "gated_vectors",
    "live_block_products",
    "live_products",
    "pack_aligned",
    "pack_weights",
    "ppu_static",
    "ppu_values",
    "ppu_vector",
    "scan",
    "toggles",
    "weight_profile",
    "zero_operand_macs",
]
