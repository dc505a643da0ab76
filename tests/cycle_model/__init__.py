"""The machine of docs/machine.md once more, stepped one cycle at a time and far too slow for real layers.

It shares nothing with accelsim.sim and accelsim.mapping but the Mapping record, so that a mistake in the
event model, or a sentence that can be read in two ways, shows as a difference between the two.
"""

from cycle_model.layer_run import STALL_REASONS
from cycle_model.machine import Deadlock, LayerResult, run

__all__ = ["STALL_REASONS", "Deadlock", "LayerResult", "run"]
