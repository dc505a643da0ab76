"""The price of one component at given sizes, with what it rests on: `accelsim costs COMPONENT --set ...`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from accelsim.costs.library import CostLibrary
from accelsim.errors import AccelsimError, listed

COMPONENTS = (
    *("dot_product", "zero_detect", "scale_product", "scale_multiply", "accumulator", "register", "array"),
    *("block_accumulator", "block_sum"),
    *("sram", "ppu", "ppu_vector_scale", "ppu_select", "dram"),
    *("element_decode", "scale_sum", "align", "aligned_accumulator", "ppu_block_scale", "ppu_block_quantize"),
)
"""Methods of CostLibrary, whose arguments are the sizes."""
SHORT = {
    "V": "vector_size", "W": "weight_bits", "A": "activation_operand_bits", "ws": "weight_scale_bits",
    "as": "activation_scale_bits", "L": "lanes",
}  # fmt: skip
_USUAL = {"held_operand": True, "held": True, "scale_product_bits": 0}
"""What OS-LWS does, the dataflow of the presets; a scale product of full width."""
_TRUTH = {"true": True, "false": False, "yes": True, "no": False}


def price_component(library: CostLibrary, component: str, given: Sequence[str]) -> dict[str, Any]:
    """Sizes, area_um2, leakage_uw, delay_ps and energy_pj of one instance, then evidence, stimulus, scaling,
    the laws that lie behind it with their errors on the rows they were fitted to, and the source.

    given: KEY=VALUE of the component's sizes. Raises AccelsimError for what it has not, and what is missing.
    """
    if component not in COMPONENTS:
        raise AccelsimError(
            f"costs: {component} has no sizes to set, expected one of {listed(COMPONENTS, component)}"
        )
    sizes = _sizes(component, given)
    cost = getattr(library, component)(**sizes)
    laws = [_law(law) for law in library.laws() if str(law["law"]).startswith(component)]
    technology = library.technology
    return {
        "component": component,
        "sizes": sizes,
        "node_nm": technology.node_nm,
        "voltage_v": technology.voltage_v,
        "area_um2": cost.area_um2,
        "leakage_uw": cost.leakage_uw,
        "delay_ps": cost.delay_ps,
        "energy_pj": dict(cost.energy_pj),
        "evidence": cost.evidence,
        "stimulus": cost.stimulus,
        "scaling": dict(enumerate(cost.scaling, 1)),
        "laws between rows": dict(enumerate(laws, 1)),
        "source": cost.source,
    }


def _law(law: Mapping[str, Any]) -> str:
    median, worst = (f"{100 * law[name]:.1f} %" for name in ("median_error", "max_error"))
    what = f"{law['law']}, {law['quantity']}: {law['formula']}"
    return f"{what} ({law['rows']} rows, error {median} at the median, {worst} at worst)"


def _sizes(component: str, given: Sequence[str]) -> dict[str, Any]:
    parameters = dict(list(inspect.signature(getattr(CostLibrary, component)).parameters.items())[1:])
    sizes: dict[str, Any] = {name: _USUAL[name] for name in parameters if name in _USUAL}
    for item in given:
        key, equals, text = item.partition("=")
        name = SHORT.get(key, key)
        if not equals or name not in parameters:
            short = [f"{name} ({own})" if (own := _short(name)) else name for name in parameters]
            known = listed(short, key)
            raise AccelsimError(f"costs {component}: --set {item[:60]}: expected KEY=VALUE of {known}")
        kind = str(parameters[name].annotation)
        if kind == "int":
            if not text.isascii() or not text.isdigit():
                raise AccelsimError(f"costs {component}: --set {item}: expected a whole number")
            sizes[name] = int(text[:20])
        elif kind == "float | None":
            sizes[name] = _number(component, item, text)
        elif kind == "bool":
            if text not in _TRUTH:
                raise AccelsimError(f"costs {component}: --set {item}: expected true or false")
            sizes[name] = _TRUTH[text]
        elif kind.startswith("float"):
            try:
                sizes[name] = float(text)
            except ValueError:
                raise AccelsimError(f"costs {component}: --set {item}: expected a number") from None
        else:
            sizes[name] = text
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in sizes
    ]
    if missing:
        wanted = " ".join(f"--set {_short(name) or name}=..." for name in missing)
        raise AccelsimError(f"costs {component}: sizes are missing, expected {wanted}")
    return {name: sizes[name] for name in parameters if name in sizes}


def _number(component: str, item: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise AccelsimError(f"costs {component}: --set {item}: expected a number") from None


def _short(name: str) -> str:
    return next((short for short, own in SHORT.items() if own == name), "")
