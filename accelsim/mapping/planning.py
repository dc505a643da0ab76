"""Plan, the first stage of a run: where each layer's operands live, and how it is laid on the PEs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from itertools import islice

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.program import LayerProgram
from accelsim.mapping.remembered import RememberingMapper
from accelsim.mapping.residency import PrologueStep, Residency, decide_run
from accelsim.mapping.search.mapper import Choice
from accelsim.workload.layer import LayerSpec
from accelsim.workload.wiring import Wiring


@dataclass(frozen=True)
class PlanRequest:
    """layers: of a run, in order; wiring: which tensors they hand to each other; prices_pj: see `Mapper`."""

    arch: Arch
    layers: tuple[LayerSpec, ...]
    wiring: Wiring
    prices_pj: Dict[str, float] | None


@dataclass(frozen=True)
class LayerPlan:
    """Where a layer's operands live, what the mapper found for it, and its program by the best mapping."""

    residency: Residency
    choice: Choice
    program: LayerProgram


@dataclass(frozen=True)
class Plan:
    """prologue: what runs before the first layer."""

    prologue: tuple[PrologueStep, ...]
    layers: tuple[LayerPlan, ...]


def choice_of(request: PlanRequest, index: int) -> tuple[Residency, Choice]:
    """Where a layer's operands live and what the mapper finds for it; the layers after it are left out."""
    residencies = decide_run(request.arch, request.layers, request.wiring).layers
    found = RememberingMapper(request.arch, request.prices_pj).choices(request.layers, residencies)
    return residencies[index], next(islice(found, index, None))


def plan(request: PlanRequest, on_layer: Callable[[int, LayerPlan], None] | None = None) -> Plan:
    """The plan of a run. `on_layer(index, plan)` is called as each is made, while others are not yet.

    Raises AccelsimError where a layer does not fit the machine, naming what is too small.
    """
    run = decide_run(request.arch, request.layers, request.wiring)
    mapper = RememberingMapper(request.arch, request.prices_pj)
    plans: list[LayerPlan] = []
    found = mapper.choices(request.layers, run.layers)
    for index, (layer, residency, choice) in enumerate(zip(request.layers, run.layers, found, strict=True)):
        _check_sign(request.arch, layer)
        plans.append(LayerPlan(residency, choice, mapper.program(choice, layer, residency)))
        if on_layer is not None:
            on_layer(index, plans[-1])
    return Plan(run.prologue, tuple(plans))


def _check_sign(arch: Arch, layer: LayerSpec) -> None:
    if arch.activation_sign == "both":
        return
    needs = "signed" if layer.input_signed else "unsigned"
    if needs != arch.activation_sign:
        raise AccelsimError(
            f"layer {layer.name}: its input is {needs}, the machine's activation_sign is "
            f"{arch.activation_sign}, expected {needs} or both"
        )
