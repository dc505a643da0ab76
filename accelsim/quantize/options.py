"""Quantize options as KEY=VALUE texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.quantize.arrays import PERCENTILE_IS_SPLIT, PRESETS, Preset, QuantizeOptions


def quantize_options(items: Sequence[str]) -> QuantizeOptions:
    """QuantizeOptions from `KEY=VALUE` texts, of what has floats, but not the model that they are of.

    Raises AccelsimError for an unknown key or value, and for a preset that is fitted to the model.
    """
    preset, items = split_preset(items)
    if preset not in (None, "plain"):
        raise AccelsimError(
            f"--quantize preset={preset}: is fitted to a model, which no trace holds, expected a trace of "
            f"`accelsim export MODEL --scheme SCHEME --quantize preset={preset}`, without --quantize"
        )
    known = {field.name: field for field in fields(QuantizeOptions)}
    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if key == "percentile":
            raise AccelsimError(f"--quantize {item}: {PERCENTILE_IS_SPLIT}")
        if not equals or key not in known:
            raise AccelsimError(
                f"--quantize {item}: expected KEY=VALUE with KEY one of preset, {', '.join(known)}"
            )
        values[key] = text
        if isinstance(known[key].default, float):
            try:
                values[key] = float(text)
            except ValueError:
                raise AccelsimError(f"--quantize {item}: expected a number") from None
    return QuantizeOptions(**values)


def split_preset(items: Sequence[str]) -> tuple[Preset | None, list[str]]:
    """(NAME of the last `preset=NAME`, the other texts). Raises AccelsimError for a name that is none."""
    preset, rest = None, []
    for item in items:
        key, _, text = item.partition("=")
        if key != "preset":
            rest.append(item)
        elif text not in PRESETS:
            raise AccelsimError(
                f"--quantize {item}: expected preset=NAME with NAME one of {', '.join(PRESETS)}"
            )
        else:
            preset = text
    return preset, rest
