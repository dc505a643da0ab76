"""What is in a workload, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from accelsim.quantize.workload import Workload
from accelsim.trace.file import Trace
from accelsim.trace.manifest import EXTERNAL, LayerInfo

if TYPE_CHECKING:
    import pandas as pd


def workload_info(workload: Workload) -> tuple[pd.DataFrame, dict[str, Any]]:
    """One row a layer, and a summary of the whole workload, as `accelsim trace info` prints them."""
    import pandas as pd

    stored: dict[str, LayerInfo] = {}
    if isinstance(workload, Trace):
        stored = {info.name: info for info in workload.manifest.layers}
    rows = []
    for layer in workload.layers:
        g, info = layer.geometry, stored.get(layer.name)
        rows.append(
            {
                "layer": layer.name,
                "op": layer.op,
                **{size: getattr(g, size) for size in ("N", "C", "H", "W", "K", "R", "S", "P", "Q")},
                "stride": "x".join(map(str, g.stride)),
                "padding": "x".join(map(str, g.padding)),
                "dilation": "x".join(map(str, g.dilation)),
                "groups": g.groups,
                "activation": layer.activation,
                "input_signed": layer.input_signed,
                "weight_is_activation": layer.weight_is_activation,
                "weights": g.K * g.channels_per_group * g.R * g.S,
                "macs": g.macs,
                "floats": info is not None and info.has_floats,
                "variants": " ".join(_shown(key, [info]) for key in sorted(info.quantized)) if info else "",
            }
        )
    frame = pd.DataFrame(rows)
    summary = {
        "trace": workload.name,
        "model": workload.model,
        "synthetic": workload.synthetic,
        "layers": len(workload.layers),
        "nodes": len(workload.graph.nodes),
        "graph": "chain" if workload.graph.is_chain else "as listed",
        "graph_inputs": [name for name, _ in workload.graph.inputs],
        "graph_outputs": list(workload.graph.outputs),
        "weights": int(frame["weights"].sum()),
        "macs": int(frame["macs"].sum()),
        "has_floats": bool(frame["floats"].all()),
        "variants": [_shown(key, stored.values()) for key in workload.variants]
        if isinstance(workload, Trace)
        else [],
        "size_bytes": workload.size_bytes,
        "sha256": workload.sha256,
        "provenance": dict(workload.provenance),
    }
    return frame, summary


def _shown(key: str, layers: Iterable[LayerInfo]) -> str:
    """The variant as it is called, and whether words of any of the layers come from another program."""
    external = any(info.quantized[key].options is None for info in layers)
    return f"{key} ({EXTERNAL})" if external else key
