"""A recipe: a network's geometry and the distributions of its tensors, as JSON (docs/trace_format.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError, listed
from accelsim.synthetic.distributions import GENERATOR_VERSION, Distribution
from accelsim.trace.graph_fields import graph_to_dict, parse_graph
from accelsim.trace.json_fields import check_keys, fail, integer, load_json, show, value_of
from accelsim.trace.manifest import MAX_PIXELS, check_layer_name, check_provenance, parse_layer, take_work
from accelsim.workload.graph import Graph
from accelsim.workload.layer import HasLayer, Layer

FORMAT, VERSION = "accelsim-recipe", 3  # only a recipe with `tensors` says 3
MAX_SEED = (1 << 63) - 1
MAX_RECIPE_BYTES = 16 << 20
MAX_TENSOR_VALUES = (1 << 47) - 1
_KEYS = (
    *("format", "version", "generator_version", "model", "seed"),
    *("provenance", "distributions", "layers"),
)  # and from version 2 on "graph"
_GEOMETRY_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("N", "H", "W", "R", "S", "groups"), 1),
    "stride": [1, 1],
    "padding": [0, 0],
    "dilation": [1, 1],
}
_LAYER_DEFAULTS: dict[str, Any] = {"activation": "none", "weight_is_activation": False}


@dataclass(frozen=True)
class RecipeLayer(HasLayer):
    """One layer, and the names of the distributions that its tensors are drawn from.

    The weight's standard deviation is that of its distribution over sqrt(fan-in), except where the weight is
    an activation. bias: a distribution's name, or None for a layer without bias. tensors: an earlier layer of
    the same sizes and distributions, whose tensors are this one's too, or None for its own. In a Recipe the
    layer's sign is that of the distribution of its input.
    """

    layer: Layer
    weight: str
    input: str
    bias: str | None
    tensors: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Without what has its default value, so that a whole network is a few KB."""
        geometry = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self.geometry).items()}
        rest = {
            "activation": self.activation,
            "weight_is_activation": self.weight_is_activation,
        }
        return {
            "name": self.name,
            "op": self.op,
            "geometry": {key: v for key, v in geometry.items() if v != _GEOMETRY_DEFAULTS.get(key)},
            **{key: value for key, value in rest.items() if value != _LAYER_DEFAULTS[key]},
            "weight": self.weight,
            "input": self.input,
            "bias": self.bias,
            **({} if self.tensors is None else {"tensors": self.tensors}),
        }


@dataclass(frozen=True)
class Recipe:
    """A network without weights. Raises AccelsimError for content that `from_json` would refuse."""

    model: str
    seed: int
    provenance: Mapping[str, Any]
    distributions: Mapping[str, Distribution]
    graph: Graph
    layers: tuple[RecipeLayer, ...]

    def __post_init__(self) -> None:
        layers = _parse(load_json(self.text, "recipe"))["layers"]
        object.__setattr__(self, "layers", layers)  # the same, with their signs

    @cached_property
    def text(self) -> str:
        """The recipe as JSON, a line for each layer; the same content always gives the same text."""
        head = {
            "format": FORMAT,
            "version": VERSION if any(layer.tensors for layer in self.layers) else VERSION - 1,
            "generator_version": GENERATOR_VERSION,
            "model": self.model,
            "seed": self.seed,
            "provenance": dict(self.provenance),
        }
        lines = [f'"{key}":{_compact(value)}' for key, value in head.items()]
        shapes = [f'  "{name}":{_compact(own.to_dict())}' for name, own in sorted(self.distributions.items())]
        layers = ["  " + _compact(layer.to_dict()) for layer in self.layers]
        lines.append('"distributions":{\n' + ",\n".join(shapes) + "}")
        graph = graph_to_dict(self.graph)
        steps = ",\n".join("  " + _compact(step) for step in graph.pop("steps"))
        lines.append(f'"graph":{_compact(graph)[:-1]},"steps":[\n{steps}]}}')
        lines.append('"layers":[\n' + ",\n".join(layers) + "]")
        return "{" + ",\n".join(lines) + "}\n"

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the text, which is that of the written file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Check and convert. Raises AccelsimError naming layer and field."""
        return cls(**_parse(load_json(text, "recipe")))

    @classmethod
    def open(cls, path: Path) -> Recipe:
        """Read a recipe file. Raises AccelsimError: file, layer, field, found, expected."""
        try:
            if path.stat().st_size > MAX_RECIPE_BYTES:
                fail(f"is a recipe of {path.stat().st_size} bytes, expected at most {MAX_RECIPE_BYTES}")
            return cls.from_json(path.read_text("utf-8-sig"))
        except AccelsimError as error:
            raise AccelsimError(f"trace {path}: {error}") from None
        except UnicodeDecodeError:
            raise AccelsimError(f"trace {path}: is not UTF-8 text, expected a recipe") from None
        except OSError as error:
            raise AccelsimError(f"trace {path}: cannot be read ({error.strerror or error})") from None


def looks_like_recipe(path: Path) -> bool:
    """True for what is to be read as one: a .json, or any file whose text begins as an object does. (A
    safetensors file may also start with '{', but it has NUL bytes soon after.)"""
    if path.suffix.lower() == ".json":
        return True
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        return False
    return start.lstrip().startswith(b"{") and b"\0" not in start


def says_recipe(path: Path) -> bool:
    """True for a file that says of itself to be one, as what may be written over."""
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            return False
        raw = load_json(path.read_text("utf-8-sig"), "recipe")
    except (AccelsimError, OSError, UnicodeDecodeError):
        return False
    return isinstance(raw, dict) and raw.get("format") == FORMAT


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _parse(raw: Any) -> dict[str, Any]:
    """The fields of a Recipe."""
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else raw
        fail(f"recipe: format is {show(found)}, expected '{FORMAT}'")
    for key, known in (("version", (1, 2, VERSION)), ("generator_version", (GENERATOR_VERSION,))):
        if type(raw.get(key)) is not int or raw[key] not in known:
            readable = " and ".join(map(str, known))
            fail(f"recipe: {key} is {show(raw.get(key))}, this accelsim reads {readable}")
    check_keys(raw, "recipe", _KEYS if raw["version"] == 1 else (*_KEYS, "graph"))
    model = value_of(raw, "model", str, "recipe")
    if not model.isprintable() or not 0 < len(model) <= 200:
        fail(f"recipe: model is {show(model)}, expected 1 to 200 printable characters")
    provenance = value_of(raw, "provenance", dict, "recipe")
    check_provenance(provenance)
    distributions = {
        name: Distribution.parse(entry, f"recipe: distribution {show(name)}")
        for name, entry in value_of(raw, "distributions", dict, "recipe").items()
    }
    version = raw["version"]
    layers: dict[str, RecipeLayer] = {}
    work: dict[str, list[tuple[str, int]]] = {}
    for index, entry in enumerate(value_of(raw, "layers", list, "recipe")):
        follows = []
        if raw["version"] == 1 and isinstance(entry, dict) and "global_pe" in entry:
            follows = take_work(entry, f"layer {index}")
        layer = _parse_layer(entry, f"layer {index}", distributions, may_share=version >= VERSION)
        work[layer.name] = follows
        if layer.name in layers:
            fail(f"layer {layer.name}: is given twice, expected unique layer names")
        if layer.tensors is not None:
            _check_shared(layer, layers.get(layer.tensors))
        layers[layer.name] = layer
    if not layers:
        fail("recipe: layers is empty, expected at least one layer")
    own = [layer.layer for layer in layers.values()]
    if raw["version"] == 1:
        graph = Graph.chain(own, work)
    else:
        graph = parse_graph(value_of(raw, "graph", dict, "recipe"), own)
    return {
        "model": model,
        "seed": integer(raw, "seed", 0, MAX_SEED, "recipe"),
        "provenance": provenance,
        "distributions": distributions,
        "graph": graph,
        "layers": tuple(layers.values()),
    }


def _check_shared(layer: RecipeLayer, of: RecipeLayer | None) -> None:
    """Raise AccelsimError unless a layer may have the tensors of `of`."""
    where = f"layer {layer.name}: tensors is {show(layer.tensors)}"
    if of is None:
        fail(f"{where}, expected the name of an earlier layer")
    if of.tensors is not None:
        fail(f"{where}, which has those of {show(of.tensors)}, expected a layer with its own")
    if replace(layer, layer=of.layer, tensors=None) != of or replace(layer.layer, name=of.name) != of.layer:
        fail(f"{where}, expected a layer of the same sizes and distributions")


def _parse_layer(
    raw: Any, where: str, distributions: Mapping[str, Distribution], *, may_share: bool
) -> RecipeLayer:
    if not isinstance(raw, dict):
        fail(f"{where}: is {show(raw)}, expected an object")
    if isinstance(raw.get("name"), str):
        check_layer_name(raw["name"])
        where = f"layer {raw['name']}"
    expected = ("name", "op", "geometry", *_LAYER_DEFAULTS, "weight", "input", "bias")
    raw = {**_LAYER_DEFAULTS, **raw}
    tensors = None
    if may_share and "tensors" in raw:
        tensors = value_of(raw, "tensors", str, where)
        del raw["tensors"]
    check_keys(raw, where, expected)
    chosen = {key: raw.pop(key) for key in ("weight", "input", "bias")}
    for key, name in chosen.items():
        if not (isinstance(name, str) and name in distributions) and (key != "bias" or name is not None):
            fail(f"{where}: {key} is {show(name)}, expected one of {listed(distributions, name)}")
    geometry = {**_GEOMETRY_DEFAULTS, **value_of(raw, "geometry", dict, where)}
    info = parse_layer(
        {
            **raw,
            "geometry": geometry,
            "input_signed": distributions[chosen["input"]].signed,
            "tensors": {},
            "quantized": {},
        },
        where,
    )
    for key in ("weight", "bias"):
        if chosen[key] is not None and distributions[chosen[key]].kind == "softmax":
            fail(f"{where}: {key} is softmax, expected a distribution without rows")
    g = info.geometry
    largest = max(g.K * g.R * g.S * g.channels_per_group, g.N * g.H * g.W * g.C)
    if largest > MAX_TENSOR_VALUES:
        fail(f"{where}: has a tensor of {largest} values, expected at most {MAX_TENSOR_VALUES}")
    if g.N * g.H * g.W > MAX_PIXELS:
        fail(f"{where}: has {g.N * g.H * g.W} input positions, expected at most {MAX_PIXELS}")
    if distributions[chosen["input"]].kind == "softmax" and (g.N, g.H, g.R * g.S) != (1, 1, 1):
        fail(f"{where}: input is softmax, expected a matmul with N = H = R = S = 1")
    return RecipeLayer(info.layer, chosen["weight"], chosen["input"], chosen["bias"], tensors)
