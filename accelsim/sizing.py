"""Sizes a machine's accumulators by a workload, before it is run: `accumulator_bits: weights` and `data`.

From then on the machine has a number of bits, and planning, timing, RTL and prices know no policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from accelsim.compute.widths import AccumulatorWidth
from accelsim.errors import AccelsimError
from accelsim.machine.accumulator import MAX_ACCUMULATOR_BITS, SIZED_BY_WORKLOAD
from accelsim.machine.arch import Arch
from accelsim.mapping.planning import plan
from accelsim.network import Progress, RunRequest
from accelsim.workload.layer import QuantizedLayer


def size_accumulators(request: RunRequest, progress: Progress | None = None) -> RunRequest:
    """The request with a width in place of a policy; as it is where the arch gives a width or `auto`.

    Raises AccelsimError where no values are computed, and for a width that no accumulator has.
    """
    policy = request.arch.accumulator_bits
    if policy not in SIZED_BY_WORKLOAD:
        return request
    where = f"arch {request.arch.name}: accumulator_bits is {policy}"
    if request.gated_fraction is not None:
        raise AccelsimError(f"{where}, which needs values: expected auto or a number where none are computed")
    found = (_by_weights if policy == "weights" else _by_data)(_Layers(request, progress))
    if found.bits > MAX_ACCUMULATOR_BITS:
        raise AccelsimError(
            f"{where}, scheme {request.scheme}: gives {found.bits}, expected at most {MAX_ACCUMULATOR_BITS}; "
            "raise product_shift or use :spN"
        )
    return replace(request, arch=_with_bits(request.arch, found.bits), accumulator=found)


def _with_bits(arch: Arch, bits: int | str) -> Arch:
    return arch.model_copy(update={"accumulator_bits": bits})


class _Layers:
    """A workload's layers, one at a time. `arch` has a width, though not yet the one looked for."""

    def __init__(self, request: RunRequest, progress: Progress | None) -> None:
        self.request, self.progress = request, progress
        self.arch = _with_bits(request.arch, "auto")
        self.names = [layer.name for layer in request.workload.layers]

    def __len__(self) -> int:
        return len(self.names)

    def quantized(self, index: int) -> QuantizedLayer:
        request = self.request
        return request.workload.quantized_layer(
            self.names[index], request.schemes[index], self.arch.vector_size, request.quantize_options
        )

    def bits(self, index: int, of: Callable[[QuantizedLayer], int]) -> int:
        found = of(self.quantized(index))
        if self.progress is not None:
            self.progress(f"{self.request.scheme} accumulators", index + 1, len(self))
        return found

    def splits(self, bits: int) -> list[int]:
        """PEs of each layer's chains on the machine with that width."""
        planned = replace(self.request, arch=_with_bits(self.arch, bits)).planned()
        return [layer.mapping.c_split for layer in plan(planned).layers]


def _by_weights(layers: _Layers) -> AccumulatorWidth:
    from accelsim.compute.accumulator import bits_for_weights

    widths = [layers.bits(index, partial(bits_for_weights, layers.arch)) for index in range(len(layers))]
    return AccumulatorWidth("weights", max(widths))


def _by_data(layers: _Layers) -> AccumulatorWidth:
    """Chains sum in parts, the mapper cuts them, and it looks at how many bits psums have: from the width
    of `auto` on, each width's own mapping is asked what it needs, until one needs itself."""
    from accelsim.compute.accumulator import bits_for_data, overflows_at

    known: dict[tuple[int, int], int] = {}  # (layer, c_split) -> bits

    def needed(splits: list[int]) -> list[int]:
        for index, split in enumerate(splits):
            if (index, split) not in known:
                known[index, split] = layers.bits(index, partial(bits_for_data, layers.arch, split))
        return [known[own] for own in enumerate(splits)]

    bits = layers.arch.accumulator_width(layers.request.scheme)
    fitting: dict[int, tuple[list[int], list[int]]] = {}  # width -> splits and needs, where they fit
    seen = set()
    while bits not in seen and bits <= MAX_ACCUMULATOR_BITS:
        seen.add(bits)
        splits = layers.splits(bits)
        needs = needed(splits)
        if max(needs) <= bits:
            fitting[bits] = splits, needs
        bits = max(needs)
    if not fitting:
        return AccumulatorWidth("data", bits)
    # Of widths that ask for each other's in a circle the largest fits.
    bits = min(fitting)
    splits, needs = fitting[bits]
    less = bits - 1
    overflows = sum(
        overflows_at(layers.arch, layers.quantized(index), less, splits[index])
        for index, own in enumerate(needs)
        if own > less
    )
    return AccumulatorWidth("data", bits, overflows)
