"""A space of points, as a YAML file describes it (docs/sweep.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from accelsim.arguments import path_of
from accelsim.errors import AccelsimError, listed
from accelsim.machine.arch import PRICE_KEYS, Arch
from accelsim.machine.arch_file import presets
from accelsim.machine.plain_yaml import load_yaml
from accelsim.sweep.accuracy import FROM, AccuracyTable, Measured, check_name, checked, read_table

MOST_POINTS = 10_000_000
_MOST_FILE_BYTES = 1 << 19

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

Changes = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Point:
    """One point of a space. changes: of parameters of the arch, by name, in order; costs: as `run` takes
    them, () for the package's."""

    network: str
    scheme: str
    arch: str
    changes: Changes
    costs: tuple[str, ...]
    gated_fraction: float

    def labels(self) -> dict[str, Any]:
        """Where in the space it is: columns of the table of results."""
        costs = {"costs": " ".join(self.costs)} if self.costs else {}
        return {
            "network": self.network,
            "scheme": self.scheme,
            "arch": self.arch,
            **dict(self.changes),
            **costs,
        }


class Limits(BaseModel):
    """What a figure may be."""

    model_config = _STRICT

    min: float | None = None
    max: float | None = None


class Tune(BaseModel):
    """What a tuner looks for: directions of figures, or of what `accuracy` has, and limits of any of them."""

    model_config = _STRICT

    objectives: dict[str, Literal["min", "max"]] = Field(min_length=1)
    constraints: dict[str, Limits] = {}


class Space(BaseModel):
    """Networks x schemes x archs x machines x set x prices.

    networks, archs: as `run` takes them; machines: changes to an arch that go together; set: values of one
    parameter each, of which every combination is a point; prices: changes of parameters that only prices
    depend on, and `costs`; accuracy: of networks, of schemes, what was measured, {"top-1 (%)": 89.8}, or a
    CSV table of it, see AccuracyTable; tune: what `accelsim tune` looks for.
    """

    model_config = _STRICT

    networks: tuple[str, ...] = Field(min_length=1, strict=False)
    schemes: tuple[str, ...] = Field(min_length=1, strict=False)
    archs: tuple[str, ...] = Field(("magnet16",), min_length=1, strict=False)
    machines: tuple[dict[str, Any], ...] = Field(({},), min_length=1, strict=False)
    set: dict[str, list[Any]] = {}
    prices: tuple[dict[str, Any], ...] = Field(({},), min_length=1, strict=False)
    gated_fraction: float = Field(0.0, ge=0, le=1)
    accuracy: dict[str, dict[str, dict[str, float]]] = {}
    tune: Tune | None = None
    _sources: dict[tuple[str, str], str] = PrivateAttr(default_factory=dict)
    """Of networks at schemes where their accuracy came from."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what in ("networks", "schemes", "archs"):
            own = getattr(self, what)
            if len(set(own)) < len(own):
                raise ValueError(f"{what} has {next(o for o in own if own.count(o) > 1)} twice")
        for key, values in self.set.items():
            _check_key(key, "set", Arch.model_fields)
            if not values:
                raise ValueError(f"set: {key} has no values, expected one at least")
        for machine in self.machines:
            for key in machine:
                _check_key(key, "machines", Arch.model_fields)
                if key in self.set:
                    raise ValueError(f"machines: {key} is in set as well, expected it in one of them")
        elsewhere = {*self.set, *(key for machine in self.machines for key in machine)}
        for price in self.prices:
            for key, value in price.items():
                _check_key(key, "prices", ["costs", *sorted(PRICE_KEYS)])
                if key in elsewhere:
                    raise ValueError(
                        f"prices: {key} is in set or machines as well, expected it in one of them"
                    )
                if key != "costs":
                    continue
                if not isinstance(value, (str, list)) or not all(isinstance(own, str) for own in value):
                    raise ValueError("prices: costs is no text or list of texts, expected paths")
        for name in {name for own in self.accuracy.values() for found in own.values() for name in found}:
            check_name(name)
            if name in self.axes:
                raise ValueError(f"accuracy: {name} is a parameter that varies, expected another name")
        return self

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """A file. Files that it names are looked for beside it. Raises AccelsimError naming file and key."""
        path = path_of(path, "space")
        where = f"space {str(path)[:200]}"
        try:
            if path.stat().st_size > _MOST_FILE_BYTES:
                raise AccelsimError(f"{where}: more than {_MOST_FILE_BYTES} bytes")
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise AccelsimError(f"{where}: cannot be read as UTF-8 text: {reason}") from None
        data = load_yaml(text, where)
        if isinstance(data, dict) and (table := _table_of(data)):
            given = {"file": table} if isinstance(table, str) else table
            data = data | {"accuracy": given | {"file": _beside(path, given["file"])}}
        space = cls.of(data, where)
        networks, archs = (
            tuple(_beside(path, own) for own in names) for names in (space.networks, space.archs)
        )
        prices = tuple(
            {**own, "costs": [_beside(path, one) for one in _costs_of(own)]} if "costs" in own else own
            for own in space.prices
        )
        accuracy = {_beside(path, name): own for name, own in space.accuracy.items()}
        new = space.model_copy(
            update={"networks": networks, "archs": archs, "prices": prices, "accuracy": accuracy}
        )
        new._sources = {(_beside(path, name), own): said for (name, own), said in space._sources.items()}
        return new

    @classmethod
    def of(cls, data: Any, where: str = "space") -> Self:
        """From plain values. Raises AccelsimError naming the key."""
        if not isinstance(data, dict):
            raise AccelsimError(f"{where}: expected a mapping with {', '.join(cls.model_fields)}")
        table = _table_of(data)
        if not table:
            return _validated(cls, data, where)
        given = _validated(AccuracyTable, {"file": table} if isinstance(table, str) else table, where)
        space = _validated(cls, {key: own for key, own in data.items() if key != "accuracy"}, where)
        return space._with(read_table(given, space.networks, space.schemes), where)

    def with_accuracy(self, measure: Callable[[str, str], Mapping[str, float] | None]) -> Self:
        """This space with what `measure(network, scheme)` says, {"top-1 (%)": 89.8}, or None where it knows
        nothing. It is called here, once for each network and scheme, before anything is swept; what the space
        had of accuracy is gone. Raises AccelsimError where it says anything else.
        """
        if not callable(measure):
            raise AccelsimError(f"accuracy: is {measure!r:.60}, expected a function of network and scheme")
        name = f"{getattr(measure, '__module__', '?')}:{getattr(measure, '__qualname__', '?')}"
        found = Measured()
        for network, scheme in product(self.networks, self.schemes):
            said = checked(measure(network, scheme), f"accuracy of {network} at {scheme}")
            if said:
                found.values.setdefault(network, {})[scheme] = said
                found.sources[network, scheme] = name
        return self._with(found, "space")

    def _with(self, measured: Measured, where: str) -> Self:
        data = self.model_dump(exclude_unset=True) | {"accuracy": measured.values}
        new = _validated(type(self), data, where)
        new._sources = measured.sources
        return new

    @property
    def size(self) -> int:
        """How many points there are."""
        return math.prod(len(side) for side in self.sides.values())

    def check_size(self) -> None:
        """Raises AccelsimError for one that cannot be swept."""
        if self.size > MOST_POINTS:
            raise AccelsimError(
                f"space: {self.size:,} points, expected at most {MOST_POINTS:,}: `accelsim tune` takes more"
            )

    @property
    def axes(self) -> list[str]:
        """Parameters of the arch that differ between points."""
        changed = [key for own in (*self.machines, *self.prices) for key in own if key != "costs"]
        return list(dict.fromkeys([*changed, *self.set]))

    @cached_property
    def sides(self) -> dict[str, Sequence[Any]]:
        """What a point takes one of each of; what only prices depend on comes last."""
        keys = sorted(self.set, key=lambda key: key in PRICE_KEYS)
        return {
            "network": self.networks,
            "scheme": self.schemes,
            "arch": self.archs,
            "machine": self.machines,
            **{f"set {key}": self.set[key] for key in keys},
            "price": self.prices,
        }

    def points(self) -> Iterator[Point]:
        """All of them, the last side fastest: points of one run follow each other."""
        return (self.point(chosen) for chosen in product(*self.sides.values()))

    def point(self, chosen: Sequence[Any]) -> Point:
        """The one that takes these, one of each of `sides`."""
        network, scheme, arch, machine, *values, price = chosen
        names = [name.removeprefix("set ") for name in list(self.sides)[4:-1]]
        priced = {key: value for key, value in price.items() if key != "costs"}
        changes = {**machine, **dict(zip(names, values, strict=True)), **priced}
        return Point(network, scheme, arch, tuple(changes.items()), _costs_of(price), self.gated_fraction)

    def accuracy_of(self, point: Point) -> dict[str, float]:
        """What was measured of its network at its scheme."""
        return self.accuracy.get(point.network, {}).get(point.scheme, {})

    def accuracy_columns(self, point: Point) -> dict[str, Any]:
        """The same as columns of a table, and where it came from, if that is known."""
        found: dict[str, Any] = dict(self.accuracy_of(point))
        if self._sources:
            found[FROM] = self._sources.get((point.network, point.scheme), "")
        return found


M = TypeVar("M", bound=BaseModel)


def _validated(model: type[M], data: Any, where: str) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise AccelsimError(f"{where}: {_first_problem(error, model)}") from None


def _table_of(data: dict[str, Any]) -> str | dict[str, Any] | None:
    """What a space says of an accuracy table, None where its accuracy is written out."""
    own = data.get("accuracy")
    if isinstance(own, str) or (isinstance(own, dict) and isinstance(own.get("file"), str)):
        return own
    return None


def _check_key(key: Any, what: str, known: Any) -> None:
    name = key.partition(".")[0] if isinstance(key, str) else ""
    if name not in known:
        raise ValueError(f"{what}: unknown key '{str(key)[:60]}'; known keys are {listed(known, key)}")


def _costs_of(price: dict[str, Any]) -> tuple[str, ...]:
    given = price.get("costs", ())
    return (given,) if isinstance(given, str) else tuple(given)


def _beside(path: Path, name: str) -> str:
    """A file or folder beside the space's, or the name as it is."""
    if name in presets():
        return name
    try:
        found = path.parent / name
        is_path = found.is_file() or (found.is_dir() and any(found.glob("*.csv")))  # a folder of cost tables
        return str(found) if is_path else name
    except (OSError, ValueError):
        return name


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])[:80]
    if problem["type"] == "extra_forbidden":
        if problem["loc"][0] == "tune" and len(problem["loc"]) > 1:
            model = Tune if len(problem["loc"]) == 2 else Limits
        return f"unknown key '{where}'; known keys are {listed(model.model_fields, where)}"
    if problem["type"] == "missing":
        return f"key '{where}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
