# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""How code of the mapper is compiled, and what it calls of machine/, which the event model calls as it is.

What Python calls is `compiled`. What that calls is `inlined` into it as a rule: Numba would compile it anew
for every combination of constants that it is called with, and optimize it again within each caller.
"""

from __future__ import annotations

from accelsim_kernels.jit import njit
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from accelsim.machine import dataflows, timing

compiled = njit(cache=True, nogil=True)
inlined = njit(cache=True, inline="always")

block_slots = inlined(dataflows.block_slots)
block_counts = inlined(dataflows.block_counts)
output_hops = inlined(timing.output_hops)
psum_hops = inlined(timing.psum_hops)
output_bank = inlined(timing.output_bank)
port_cycles = inlined(timing.port_cycles)
psum_port_cycles = inlined(timing.psum_port_cycles)
dram_transfer = inlined(timing.dram_transfer)
global_pe_step = inlined(timing.global_pe_step)
share_bits = inlined(timing.share_bits)


@intrinsic
def unowned(typing_context, value):
    """The same tuple of arrays, which are no longer counted by reference; whoever calls holds them.

    Each use of an array by another name counts it up and down: of a loop that does little else for each of
    its events that took half of the time.
    """

    def generate(context, builder, signature, arguments):
        return _without_owner(context, builder, signature.args[0], arguments[0])

    return value(value), generate


def _without_owner(context, builder, kind, value):
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = ir.Constant(array.meminfo.type, None)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        for i, item in enumerate(kind):
            stripped = _without_owner(context, builder, item, builder.extract_value(value, i))
            value = builder.insert_value(value, stripped, i)
    return value
