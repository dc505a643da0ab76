"""PyTorch models as traces: torch.export's graph, lowered to layers and nodes (docs/export.md).

Needs torch (`pip install 'accelsim[torch]'`); nothing else of the package does, and nothing else imports it.
"""

from __future__ import annotations

from accelsim.errors import AccelsimError

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    if error.name != "torch":
        raise
    raise AccelsimError(
        "torch is not installed, expected torch>=2.13: pip install 'accelsim[torch]'"
    ) from None

from accelsim.torch.calibrate import calibrate
from accelsim.torch.prepare import Preparation, prepare
from accelsim.torch.refine import Methods
from accelsim.torch.sensitivity import layer_gains
from accelsim.torch.simulate import Simulated, simulate
from accelsim.torch.write import export

__all__ = ["Methods", "Preparation", "Simulated", "calibrate", "export", "layer_gains", "prepare", "simulate"]
