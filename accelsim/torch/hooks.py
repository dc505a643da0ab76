"""Layers of a model that torch.export cannot trace, seen by hooks in one forward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from accelsim.capture.builder import Names
from accelsim.capture.calls import LayerCall, NodeCall, OnLayer, OnNode, rows_and_images
from accelsim.errors import AccelsimError
from accelsim.torch.calls import as_floats, operands_of, output_of
from accelsim.torch.tracing import arguments_of, inference
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph
from accelsim.workload.layer import Layer

_KNOWN = (nn.Linear, nn.Conv1d, nn.Conv2d)
_UNSUPPORTED = (
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Conv3d, nn.RNNBase, nn.RNNCellBase,
    nn.Bilinear, nn.MultiheadAttention,
)  # fmt: skip


class HookRunner:
    """A chain of Conv and Linear modules, in the order in which one run calls them.

    A run that calls them in another order, or on other shapes, is refused. Matrix products between
    activations are not seen. Raises AccelsimError for modules whose layers hooks cannot see.
    """

    def __init__(self, model: nn.Module, inputs: Any, leave_to_host: bool = False) -> None:
        self.model = model
        self.modules = {name: module for name, module in model.named_modules() if isinstance(module, _KNOWN)}
        missing = [
            f"{type(module).__name__} in '{name}'"
            for name, module in model.named_modules()
            if isinstance(module, _UNSUPPORTED) or self._pads(module)
        ]
        if missing and not leave_to_host:
            raise AccelsimError(
                f"model {type(model).__name__}: torch.export cannot trace it, and hooks cannot capture "
                f"{'; '.join(missing)}; expected Linear, and Conv1d and Conv2d padded alike on both sides"
            )
        self.notes = (f"left out: {', '.join(missing)}",) if missing else ()
        self.modules = {name: module for name, module in self.modules.items() if not self._pads(module)}
        self.steps: tuple[LayerCall | NodeCall, ...] = ()
        calls: list[LayerCall] = []
        names = Names()
        batch = next((len(x) for x in _tensors(inputs) if x.dim()), None)

        def see(name: str, module: nn.Module, x: torch.Tensor) -> None:
            layer = _layer(names.unique(name), module, x, batch)
            weight = as_floats(module.weight).reshape(
                layer.geometry.K, layer.geometry.channels_per_group, layer.geometry.R, layer.geometry.S
            )
            bias = None if module.bias is None else as_floats(module.bias)
            calls.append(LayerCall(layer, weight, bias, (calls[-1].name if calls else "input",)))

        self._hooked(inputs, lambda name, module, x, y: see(name, module, x))
        if not calls:
            raise AccelsimError("model: has no convolution or linear layer, expected at least one")
        self.steps = tuple(calls)
        self.graph = Graph.chain([call.layer for call in calls])

    @staticmethod
    def _pads(module: nn.Module) -> bool:
        """A convolution whose padding no layer has."""
        if not isinstance(module, (nn.Conv1d, nn.Conv2d)):
            return False
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        uneven = module.padding == "same" and any(size % 2 for size in reach)
        return module.padding_mode != "zeros" or uneven

    def run(self, inputs: Any, on_layer: OnLayer | None, on_node: OnNode | None) -> Any:
        """As Captured.run; there are no nodes."""
        remaining = [step for step in self.steps if isinstance(step, LayerCall)]

        def replace(name: str, module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
            call = remaining.pop(0) if remaining else None
            if call is None or math.prod(x.shape) != _elements(call):
                found = call.name if call is not None else "nothing"
                raise AccelsimError(
                    f"model: this run calls '{name}' with {list(x.shape)}, expected {found} as captured, "
                    "and the same shapes"
                )
            values = None if on_layer is None else on_layer(call, operands_of(call, x))
            return None if values is None else output_of(call, values, tuple(y.shape))

        return self._hooked(inputs, replace)

    def _hooked(self, inputs: Any, function: Any) -> Any:
        handles = [
            module.register_forward_hook(
                lambda module, args, y, name=name: function(name, module, args[0], y)
            )
            for name, module in self.modules.items()
        ]
        args, kwargs = arguments_of(inputs)
        try:
            with inference(self.model):
                return self.model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()


def _elements(call: LayerCall) -> int:
    g = call.layer.geometry
    return g.N * g.C * g.H * g.W


def _tensors(inputs: Any) -> list[torch.Tensor]:
    args, kwargs = arguments_of(inputs)
    return [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]


def _layer(name: str, module: nn.Module, x: torch.Tensor, batch: int | None) -> Layer:
    shape = tuple(x.shape)
    if isinstance(module, nn.Linear):
        n, width = rows_and_images(math.prod(shape[:-1]), len(shape), batch)
        return Layer(name, "linear", Geometry(N=n, C=shape[-1], H=1, W=width, K=module.out_features))
    assert isinstance(module, (nn.Conv1d, nn.Conv2d))
    axes = len(module.kernel_size)
    padding: Any = module.padding
    if isinstance(padding, str):
        reach = [d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        padding = reach if padding == "same" else [0] * axes
    n = shape[0] if len(shape) == axes + 2 else 1
    height, width = (1, *shape[-axes:])[-2:]
    r, s = (1, *module.kernel_size)[-2:]

    def pair(sizes: Any, least: int) -> tuple[int, int]:
        first, second = (least, *sizes)[-2:]
        return int(first), int(second)

    geometry = Geometry(
        N=n, C=module.in_channels, H=height, W=width, K=module.out_channels, R=r, S=s,
        stride=pair(module.stride, 1), padding=pair(padding, 0), dilation=pair(module.dilation, 1),
        groups=module.groups,
    )  # fmt: skip
    return Layer(name, "conv", geometry)
