"""ONNX models as traces: read as data, lowered to layers and nodes, run by onnxruntime (docs/onnx.md).

Needs onnx and onnxruntime (`pip install 'accelsim[onnx]'`), and no torch; nothing else imports it.
"""

from __future__ import annotations

from accelsim.errors import AccelsimError

try:
    import onnx as _onnx  # noqa: F401
    import onnxruntime as _onnxruntime  # noqa: F401
except ImportError as error:
    if error.name not in ("onnx", "onnxruntime"):
        raise
    raise AccelsimError(
        f"{error.name} is not installed, expected onnx and onnxruntime: pip install 'accelsim[onnx]'"
    ) from None

from accelsim.onnx.write import export

__all__ = ["export"]
