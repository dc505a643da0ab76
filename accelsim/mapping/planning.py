"""Plan, the first stage of a run: where each layer's operands live, and how it is laid on the PEs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Mapping as Dict
from dataclasses import dataclass

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.program import LayerProgram
from accelsim.mapping.residency import Storage, decide_storage
from accelsim.mapping.search.mapper import Choice, Mapper
from accelsim.workload.layer import LayerSpec


@dataclass(frozen=True)
class PlanRequest:
    """layers: of a run, in order; prices_pj: of what depends on the mapping, see `Mapper`."""

    arch: Arch
    layers: tuple[LayerSpec, ...]
    prices_pj: Dict[str, float]


@dataclass(frozen=True)
class LayerPlan:
    """Where a layer's operands live, what the mapper found for it, and its program by the best mapping."""

    storage: Storage
    choice: Choice
    program: LayerProgram


def choices(request: PlanRequest, mapper: Mapper) -> Iterator[tuple[Storage, Choice]]:
    """Layer by layer where its operands live and what the mapper finds; later layers only when asked for."""
    storages = decide_storage(request.arch, request.layers)
    yield from zip(storages, mapper.choices(request.layers, storages), strict=True)


def choice_of(request: PlanRequest, index: int) -> tuple[Storage, Choice]:
    """The same for one layer; those after it are left out."""
    found = choices(request, Mapper(request.arch, request.prices_pj))
    for _ in range(index):
        next(found)
    return next(found)


def plan(
    request: PlanRequest, on_layer: Callable[[int, LayerPlan], None] | None = None
) -> tuple[LayerPlan, ...]:
    """The plan of every layer. `on_layer(index, plan)` is called as each is made, while others are not yet.

    Raises AccelsimError where a layer does not fit the machine, naming what is too small.
    """
    mapper = Mapper(request.arch, request.prices_pj)
    plans = []
    for index, (layer, (storage, choice)) in enumerate(
        zip(request.layers, choices(request, mapper), strict=True)
    ):
        _check_sign(request.arch, layer)
        plans.append(LayerPlan(storage, choice, mapper.program(choice, layer, storage)))
        if on_layer is not None:
            on_layer(index, plans[-1])
    return tuple(plans)


def _check_sign(arch: Arch, layer: LayerSpec) -> None:
    if arch.activation_sign == "both":
        return
    needs = "signed" if layer.input_signed else "unsigned"
    if needs != arch.activation_sign:
        raise AccelsimError(
            f"layer {layer.name}: its input is {needs}, the machine's activation_sign is "
            f"{arch.activation_sign}, expected {needs} or both"
        )
