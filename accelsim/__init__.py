"""accelsim: a cycle-level, bit-exact simulator of DNN inference accelerators.

>>> import accelsim                                                             # doctest: +SKIP
>>> accelsim.compare("digits", schemes=["8/8/-/-", "4/4/4/4"])                  # doctest: +SKIP

The names below are all that a user needs; each is imported when it is first used, so that `import accelsim`
loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from accelsim.version import __version__

if TYPE_CHECKING:
    from accelsim.api import bits, compare, run, validate
    from accelsim.capture.record import CalibrationSampler
    from accelsim.errors import AccelsimError
    from accelsim.formats.scheme import Scheme
    from accelsim.machine.arch import Arch
    from accelsim.machine.arch_file import load_arch
    from accelsim.open import open_workload
    from accelsim.quantize.arrays import QuantizeOptions
    from accelsim.report.bits import BitsResult
    from accelsim.report.results import Comparison, RunResult
    from accelsim.trace.file import Trace
    from accelsim.trace.write import write_trace
    from accelsim.workload.geometry import Geometry
    from accelsim.workload.graph import Graph, LayerStep, Node
    from accelsim.workload.layer import FloatLayer, Layer

_MODULE_OF = {
    "AccelsimError": "errors",
    "Arch": "machine.arch",
    "BitsResult": "report.bits",
    "CalibrationSampler": "capture.record",
    "Comparison": "report.results",
    "FloatLayer": "workload.layer",
    "Geometry": "workload.geometry",
    "Graph": "workload.graph",
    "Layer": "workload.layer",
    "LayerStep": "workload.graph",
    "Node": "workload.graph",
    "QuantizeOptions": "quantize.arrays",
    "RunResult": "report.results",
    "Scheme": "formats.scheme",
    "Trace": "trace.file",
    "bits": "api",
    "compare": "api",
    "load_arch": "machine.arch_file",
    "open_workload": "open",
    "run": "api",
    "validate": "api",
    "write_trace": "trace.write",
}

__all__ = [
    "AccelsimError",
    "Arch",
    "BitsResult",
    "CalibrationSampler",
    "Comparison",
    "FloatLayer",
    "Geometry",
    "Graph",
    "Layer",
    "LayerStep",
    "Node",
    "QuantizeOptions",
    "RunResult",
    "Scheme",
    "Trace",
    "__version__",
    "bits",
    "compare",
    "load_arch",
    "open_workload",
    "run",
    "validate",
    "write_trace",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'accelsim' has no attribute '{name}'")
    return getattr(import_module(f"accelsim.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
