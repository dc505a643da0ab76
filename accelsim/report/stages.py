"""The stages of the lanes' dot product and scaling: as many as given, or as few as meet the clock."""

from __future__ import annotations

from accelsim.costs import CostLibrary
from accelsim.formats.scheme import Scheme
from accelsim.machine.accumulator import MAX_ACCUMULATOR_BITS
from accelsim.machine.arch import Arch
from accelsim.report.frequency import meets_clock
from accelsim.report.lane_parts import datapath_parts
from accelsim.report.modes import modes_served

# Of parts that take so many cycles: one that is made early takes one in any case.
STAGES = {
    "dot_stages": ("dot_product", "scale_product", "scale_sum"),
    "scale_stages": ("scale_multiply", "align"),
}


def in_fewest_stages(arch: Arch, scheme: Scheme, library: CostLibrary) -> Arch:
    """With `lane_stages: fewest` the arch in the fewest stages with which the scheme's lanes meet its clock,
    at most as many as it gives; as it is where they are `given`, and with all of them where none meets it."""
    if arch.lane_stages == "given":
        return arch
    for key, names in STAGES.items():
        most = getattr(arch, key)
        for stages in range(1, most + 1):
            arch = arch.model_copy(update={key: stages})
            # Their width is no matter here, and may not be known yet.
            wide = arch.model_copy(update={"accumulator_bits": MAX_ACCUMULATOR_BITS})
            parts = datapath_parts(modes_served(wide, scheme), library)
            delays_ps = [part.cost.delay_ps or 0.0 for part in parts if part.name in names]
            if all(meets_clock(arch, delay_ps) for delay_ps in delays_ps):
                break
    return arch
