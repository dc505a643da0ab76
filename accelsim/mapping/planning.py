"""Plan, the first stage of a run: where each layer's operands live, and how it is laid on the PEs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.program import LayerProgram
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.remembered import RememberingMapper
from accelsim.mapping.residency import PrologueStep, Residency, decide_run
from accelsim.mapping.search.mapper import Choice, Mapper
from accelsim.workload.layer import LayerSpec
from accelsim.workload.wiring import Wiring


@dataclass(frozen=True)
class PlanRequest:
    """layers: of a run, in order; wiring: which tensors they hand to each other; prices_pj: see `Mapper`."""

    arch: Arch
    layers: tuple[LayerSpec, ...]
    wiring: Wiring
    prices_pj: Dict[str, float] | None


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """Where a layer's operands live, what the mapper found for it, and its program by the best mapping, which
    is laid out when somebody asks for it: nobody does where its timing is kept."""

    layer: LayerSpec
    residency: Residency
    choice: Choice
    _mapper: Mapper = field(repr=False)

    @property
    def mapping(self) -> LayerMapping:
        return self.choice.best.mapping

    @cached_property
    def program(self) -> LayerProgram:
        return self._mapper.program(self.choice, self.layer, self.residency)


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
        plans.append(LayerPlan(layer, residency, choice, mapper))
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
