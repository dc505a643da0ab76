"""Which instructions may be used: what the CPU has, narrowed by what Numba compiles for."""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

_VNNI_FEATURES = ("avx512f", "avx512bw", "avx512vnni")


@cache
def has_vnni() -> bool:
    """True when AVX-512 VNNI code may be compiled and run.

    Both the CPU and Numba's target must have it. NUMBA_CPU_NAME, NUMBA_CPU_FEATURES and NUMBA_ENABLE_AVX
    narrow the target; they cannot make this True on a CPU without the instructions, where compiling or
    executing them would abort the process.
    """
    try:
        host = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know this CPU
        return False
    target = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return all(host.get(feature) and f"+{feature}" in target for feature in _VNNI_FEATURES)
