"""How blocks are mapped and loaded: what the Liberty files do not say, or what the user wants pinned."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from accelsim.arguments import path_of
from accelsim.errors import AccelsimError
from accelsim.machine.plain_yaml import load_yaml

RECIPES = "accelsim.characterise.recipes"


class Recipe(BaseModel):
    """Every field may be left out: cells are then found by function, loads and times from the cells.

    Cells are named as in the library. `avoid`: glob patterns of cells not to be chosen by the mapper.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    avoid: list[str] = Field(default_factory=list)
    full_adder: str | None = None
    half_adder: str | None = None
    clock_gate: str | None = None
    latch_high: str | None = None
    latch_low: str | None = None
    clock_buffer: str | None = None
    driving_cell: str | None = None
    or_gates: dict[int, str] | None = None
    # Delay the mapper aims at, and the load it sees on mapped outputs.
    target_ps: float | None = Field(default=None, gt=0)
    mapping_load_ff: float | None = Field(default=None, ge=0)
    # Load of every block output and slew of every block input in timing and simulation.
    output_load_ff: float | None = Field(default=None, ge=0)
    input_slew_ps: float | None = Field(default=None, gt=0)
    # When operands of clocked blocks change after the edge; None: when the slowest clock branch has switched.
    hold_ps: float | None = Field(default=None, ge=0)
    max_fanout: int = Field(default=20, ge=2)
    timeout_s: float = Field(default=3600, gt=0)
    # What the `source` column calls the library; None: its file names.
    library: str | None = None


def load_recipe(name: str | Path | None) -> Recipe:
    """A shipped recipe by name, a recipe file by path, or an empty one for None."""
    if name is None:
        return Recipe()
    path = path_of(name, "recipe")
    where = f"recipe {str(name)[:200]}"
    shipped = {file.name for file in resources.files(RECIPES).iterdir()}
    try:
        if f"{name}.yaml" in shipped:
            text = (resources.files(RECIPES) / f"{name}.yaml").read_text("utf-8")
        else:
            text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        names = ", ".join(sorted(file.removesuffix(".yaml") for file in shipped if file.endswith(".yaml")))
        reason = getattr(error, "strerror", None) or "not text"
        raise AccelsimError(f"{where}: {reason}, expected a file or one of {names}") from None
    try:
        return Recipe.model_validate(load_yaml(text, where))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise AccelsimError(f"{where}: {key}: {first['msg']}") from None
