"""outputs.safetensors: the integers of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from accelsim.compute.activity import LayerActivity
from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch


def dump_tensors(arch: Arch, activities: Sequence[LayerActivity]) -> bytes:
    """Integer operands, scales, psums, overflow counts and PPU outputs of every layer, as safetensors.

    The metadata key `accelsim` says, per layer, what else is needed to compute them again.
    Raises AccelsimError where tensors were not kept.
    """
    from safetensors.numpy import save

    tensors: dict[str, np.ndarray] = {}
    facts: dict[str, dict[str, Any]] = {}
    for activity in activities:
        layer, values = activity.computed.operands, activity.computed.values
        if layer is None or values is None:
            raise AccelsimError(f"dump of layer {activity.layer.name}: its tensors were not kept")
        named = {
            "weight_words": layer.weight_words,
            "weight_scales": layer.weight_scales,
            "weight_gamma": layer.weight_gamma,
            "input_words": layer.input_words,
            "input_scales": layer.input_scales,
            "bias": layer.bias,
            "psums": values.psums,
            "overflows": values.overflow_map,
            "output": values.output,
            "output_scales": values.output_scales,
        }
        for name, tensor in named.items():
            if tensor is not None:
                tensors[f"{layer.name}/{name}"] = np.ascontiguousarray(tensor)
        facts[layer.name] = {
            "scheme": str(layer.scheme),
            "geometry": asdict(layer.geometry),
            "vector_size": layer.vector_size,
            "packed_im2col": layer.spec.packed_im2col,
            "input_gamma": layer.input_gamma,
            "activation": layer.activation,
            "output": {
                **layer.output.to_dict(),
                "gamma": layer.output_gamma,
                "fraction_bits": layer.output.fraction_bits,
            },
            "output_gamma": layer.output_gamma,
            "accumulator_bits": arch.accumulator_width(layer.scheme),
            "product_shift": arch.product_shift,
            "overflow": arch.overflow,
            "c_split": activity.mapping.c_split,
        }
    # One metadata key: with several, safetensors writes them in random order.
    return save(tensors, metadata={"accelsim": json.dumps(facts, sort_keys=True)})
