"""The manifest of a trace: what a `.safetensors` trace may contain (docs/trace_format.md), no file access.

Errors raised here name layer and field; the reader puts the file in front.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import INT, SCHEMES, integer_operand
from accelsim.formats.scale import MAX_SCALE_BITS
from accelsim.formats.scheme import Scheme
from accelsim.quantize.arrays import PERCENTILES, QuantizeOptions
from accelsim.trace.graph_fields import graph_to_dict, parse_graph, parse_work
from accelsim.trace.json_fields import check_keys, choice, fail, integer, load_json, positive, show, value_of
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph
from accelsim.workload.layer import ACTIVATIONS, OPS, HasLayer, Layer, OutputFormat

FORMAT, VERSION = "accelsim-trace", 2
METADATA_KEY = "accelsim"
EXTERNAL = "external"
"""In place of options, of words that another program made."""
MAX_VECTOR_SIZE = 1024
MAX_PIXELS = (1 << 31) - 1
FLOAT_TENSORS = ("weight", "input", "bias", "calibration_input", "calibration_weight")
_LAYER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STORED = {np.int8: "I8", np.uint8: "U8", np.uint16: "U16", np.float32: "F32"}
_GEOMETRY_SIZES = ("N", "C", "H", "W", "K", "R", "S", "groups")
_GEOMETRY_PAIRS = ("stride", "padding", "dilation")
_LAYER_KEYS = (
    *("name", "op", "geometry", "activation", "input_signed", "weight_is_activation"),
    *("tensors", "quantized"),
)
_KEYS = ("format", "version", "model", "synthetic", "provenance", "layers")
_VARIANT_KEYS = ("scheme", "vector_size", "fold", "input_gamma", "output", "options", "tensors")


@dataclass(frozen=True)
class TensorSpec:
    """What one tensor must look like. A shape entry of 0 means any size of at least 1.

    low, high bound the values (None: finite floats), of which `refused` are no numbers; gamma is of factors,
    which are above 0: all 1 ("none"), all equal ("tensor") or any ("channel"); tail is (vectors, used): in
    every run of `vectors` words along the last axis but one, the last word has only `used` codes, the others
    must be 0.
    """

    dtype: str
    shape: tuple[int, ...]
    low: int | None = None
    high: int | None = None
    tail: tuple[int, int] | None = None
    refused: tuple[int, ...] = ()
    gamma: str | None = None


@dataclass(frozen=True)
class Variant:
    """One stored quantization of a layer.

    options: how its words were made, None where another program made them; tensors: name -> SHA-256 of its
    bytes. Among them is "bias" where the variant's is not the layer's own. sum_exponent: QuantizedLayer's.
    """

    scheme: Scheme
    vector_size: int
    fold: str
    input_gamma: float
    output: OutputFormat
    output_gamma: float
    options: QuantizeOptions | None
    tensors: Mapping[str, str]
    sum_exponent: int | None = None

    @property
    def key(self) -> str:
        return variant_key(self.scheme, self.vector_size)

    def made_with(self, options: QuantizeOptions | None) -> bool:
        """True where it is what is asked for: None asks for nothing, and external words have no options."""
        return options is None or options == self.options

    def to_dict(self) -> dict[str, Any]:
        return {
            "scheme": str(self.scheme),
            "vector_size": self.vector_size,
            "fold": self.fold,
            "input_gamma": self.input_gamma,
            "output": {**self.output.to_dict(), "gamma": self.output_gamma},
            "options": EXTERNAL if self.options is None else asdict(self.options),
            "tensors": dict(self.tensors),
            **({} if self.sum_exponent is None else {"sum_exponent": self.sum_exponent}),
        }


@dataclass(frozen=True)
class LayerInfo(HasLayer):
    """A layer of a trace without its tensors. tensors: name -> SHA-256 of its bytes."""

    layer: Layer
    tensors: Mapping[str, str]
    quantized: Mapping[str, Variant]

    @property
    def has_floats(self) -> bool:
        return "weight" in self.tensors

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "op": self.op,
            "geometry": asdict(self.geometry),
            "activation": self.activation,
            "input_signed": self.input_signed,
            "weight_is_activation": self.weight_is_activation,
            "tensors": dict(self.tensors),
            "quantized": {key: variant.to_dict() for key, variant in self.quantized.items()},
        }

    def tensor_specs(self) -> dict[str, TensorSpec]:
        """Tensor name in the file -> what it must be, for every tensor this layer declares."""
        g = self.geometry
        shapes = {
            "weight": (g.K, g.channels_per_group, g.R, g.S),
            "input": (g.N, g.C, g.H, g.W),
            "bias": (g.K,),
            "calibration_input": (0, 0 if self.weight_is_activation else g.C, 0, 0),
            "calibration_weight": (0, 0, g.R, g.S),
        }
        specs = {f"{self.name}/{tensor}": TensorSpec("F32", shapes[tensor]) for tensor in self.tensors}
        for key, variant in self.quantized.items():
            for tensor, spec in variant_specs(self.layer, variant).items():
                specs[f"{self.name}/{key}/{tensor}"] = spec
        return specs


@dataclass(frozen=True)
class Manifest:
    """The whole description of a trace."""

    model: str
    synthetic: bool
    provenance: Mapping[str, Any]
    graph: Graph
    layers: tuple[LayerInfo, ...]

    def to_json(self) -> str:
        """Sorted, compact, ASCII: the same content always gives the same bytes."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "synthetic": self.synthetic,
            "provenance": dict(self.provenance),
            "graph": graph_to_dict(self.graph),
            "layers": [layer.to_dict() for layer in self.layers],
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def variant_key(scheme: Scheme, vector_size: int) -> str:
    """'4/4/4/4@16': the stored words of a scheme, in its own block or else in vectors of `vector_size`.

    `:spN` changes no stored word and is left out.
    """
    return f"{scheme.words_text}@{scheme.block or vector_size}"


def variant_specs(layer: Layer, variant: Variant) -> dict[str, TensorSpec]:
    """Tensor name within the variant -> what it must be."""
    g, scheme, size = layer.geometry, variant.scheme, variant.vector_size
    vectors = g.vectors(size, variant.fold)
    if g.packed_im2col(size, variant.fold):
        run, words = vectors, g.pixels * g.groups * vectors
        used = (g.R * g.S * g.channels_per_group - 1) % size + 1
    else:
        run = -(-g.channels_per_group // size)
        words = g.N * g.H * g.W * g.groups * run
        used = (g.channels_per_group - 1) % size + 1
    activation = scheme.activation.of_sign(layer.input_signed)
    specs = {"weight_gamma": TensorSpec("F64", (g.K,), gamma=scheme.weight.scale.gamma)}
    for side, operand, shape in (("weight", scheme.weight, (g.K, vectors)), ("input", activation, (words,))):
        element, scale = operand.element, operand.scale
        dtype, (low, high) = _STORED[element.dtype], element.stored_range
        no_numbers = element.special_between
        specs[f"{side}_words"] = TensorSpec(dtype, (*shape, size), low, high, (run, used), no_numbers)
        if scale.kind != "none":
            specs[f"{side}_scales"] = TensorSpec(_STORED[scale.dtype], shape, 0, scale.max_code)
    if "bias" in variant.tensors:
        specs["bias"] = TensorSpec("F32", (g.K,))
    return specs


def parse_manifest(text: str) -> Manifest:
    """Check and convert the manifest. Raises AccelsimError naming layer and field."""
    raw = load_json(text, "manifest")
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else raw
        fail(f"manifest: format is {show(found)}, expected '{FORMAT}'")
    version = raw.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        fail(f"manifest: version is {show(version)}, this accelsim reads versions 1 to {VERSION}")
    check_keys(raw, "manifest", _KEYS if version == 1 else (*_KEYS, "graph"))
    model = value_of(raw, "model", str, "manifest")
    if not model.isprintable() or not 0 < len(model) <= 200:
        fail(f"manifest: model is {show(model)}, expected 1 to 200 printable characters")
    provenance = value_of(raw, "provenance", dict, "manifest")
    check_provenance(provenance)
    layers: dict[str, LayerInfo] = {}
    work: dict[str, list[tuple[str, int]]] = {}
    for index, entry in enumerate(value_of(raw, "layers", list, "manifest")):
        follows = take_work(entry, f"layer {index}") if version == 1 else []
        layer = parse_layer(entry, f"layer {index}")
        work[layer.name] = follows
        if layer.name in layers:
            fail(f"layer {layer.name}: is given twice, expected unique layer names")
        if not layer.quantized and not layer.has_floats:
            fail(f"layer {layer.name}: has neither floats nor quantized words")
        layers[layer.name] = layer
    if not layers:
        fail("manifest: layers is empty, expected at least one layer")
    own = [layer.layer for layer in layers.values()]
    if version == 1:
        graph = Graph.chain(own, work)
    else:
        graph = parse_graph(value_of(raw, "graph", dict, "manifest"), own)
    synthetic = value_of(raw, "synthetic", bool, "manifest")
    return Manifest(model, synthetic, provenance, graph, tuple(layers.values()))


def take_work(entry: Any, where: str) -> list[tuple[str, int]]:
    """Take `global_pe`, which version 1 has and later ones have not, out of a layer and convert it."""
    if not isinstance(entry, dict) or "global_pe" not in entry:
        fail(f"{where}: key 'global_pe' is missing")
    work = parse_work(entry, f"layer {entry['name']}" if isinstance(entry.get("name"), str) else where)
    del entry["global_pe"]
    return work


def check_provenance(provenance: Mapping[str, Any]) -> None:
    """Raise AccelsimError unless it is plain finite JSON that can be printed."""
    try:
        json.dumps(provenance, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        fail(f"manifest: provenance is not plain JSON ({show(str(error))})")


def check_layer_name(name: str) -> None:
    """Raise AccelsimError unless the name can be part of a tensor name and of a file name."""
    if not _LAYER_NAME.fullmatch(name):
        fail(f"layer {show(name)}: expected a name of up to 128 letters, digits, '_', '.', '-'")


def parse_layer(raw: Any, where: str) -> LayerInfo:
    """Check and convert one layer; it may have neither floats nor words. Raises AccelsimError."""
    if not isinstance(raw, dict):
        fail(f"{where}: is {show(raw)}, expected an object")
    name = value_of(raw, "name", str, where)
    check_layer_name(name)
    where = f"layer {name}"
    check_keys(raw, where, _LAYER_KEYS)
    geometry = _parse_geometry(value_of(raw, "geometry", dict, where), where)
    tensors = _hashes(raw, where, FLOAT_TENSORS)
    signs = [value_of(raw, key, bool, where) for key in ("input_signed", "weight_is_activation")]
    if ("weight" in tensors) != ("input" in tensors):
        fail(f"{where}: tensors has only one of weight and input, expected both or neither")
    for extra in ("calibration_input", "calibration_weight"):
        if extra in tensors and "weight" not in tensors:
            fail(f"{where}: tensors has {extra} without weight and input")
    if "calibration_weight" in tensors and not signs[1]:
        fail(
            f"{where}: tensors has calibration_weight, expected none because the weight is not an activation"
        )
    layer = Layer(
        name=name,
        op=choice(raw, "op", OPS, where),
        geometry=geometry,
        activation=choice(raw, "activation", ACTIVATIONS, where),
        input_signed=signs[0],
        weight_is_activation=signs[1],
    )
    quantized = {
        key: _parse_variant(layer, key, entry, f"{where}: variant {show(key)}")
        for key, entry in value_of(raw, "quantized", dict, where).items()
    }
    return LayerInfo(layer, tensors, quantized)


def _parse_geometry(raw: dict[str, Any], where: str) -> Geometry:
    check_keys(raw, f"{where}: geometry", (*_GEOMETRY_SIZES, *_GEOMETRY_PAIRS))
    sizes: dict[str, Any] = {
        key: integer(raw, key, 1, (1 << 31) - 1, f"{where}: geometry") for key in _GEOMETRY_SIZES
    }
    pairs: dict[str, Any] = {}
    for key in _GEOMETRY_PAIRS:
        given = value_of(raw, key, list, f"{where}: geometry")
        counts = (2, 4) if key == "padding" else (2,)
        if len(given) not in counts or any(type(v) is not int or not 0 <= v < 1 << 31 for v in given):
            expected = "two integers, or four" if len(counts) > 1 else "two integers"
            fail(f"{where}: geometry {key} is {show(given)}, expected {expected}")
        pairs[key] = tuple(given)
    try:
        geometry = Geometry(**sizes, **pairs)
    except AccelsimError as error:
        fail(f"{where}: {error}")
    if geometry.pixels > MAX_PIXELS:
        fail(f"{where}: geometry gives {geometry.pixels} output pixels, expected at most {MAX_PIXELS}")
    return geometry


def _parse_variant(layer: Layer, key: str, raw: Any, where: str) -> Variant:
    if not isinstance(raw, dict):
        fail(f"{where}: is {show(raw)}, expected an object")
    given = "sum_exponent" in raw  # older traces have none, and cannot be executed in block formats
    check_keys(raw, where, (*_VARIANT_KEYS, "sum_exponent") if given else _VARIANT_KEYS)
    try:
        scheme = Scheme.parse(value_of(raw, "scheme", str, where))
    except AccelsimError as error:
        fail(f"{where}: {error}")
    size = integer(raw, "vector_size", 1, MAX_VECTOR_SIZE, where)
    if scheme.scale_product_bits or key != f"{raw['scheme']}@{size}" or key != variant_key(scheme, size):
        fail(f"{where}: holds scheme {show(raw['scheme'])} at vector size {size}, expected the key to say so")
    output, output_gamma = _parse_output(value_of(raw, "output", dict, where), f"{where}: output")
    input_gamma = positive(raw, "input_gamma", where)
    if scheme.activation.scale.gamma == "none" and input_gamma != 1:
        fail(f"{where}: input_gamma is {input_gamma:.6g}, expected 1: {scheme} has none")
    options = _parse_options(raw["options"], where)
    fold = choice(raw, "fold", ("auto", "never"), where)
    sum_exponent = integer(raw, "sum_exponent", -1000, 1000, where) if given else None
    if given and not scheme.is_aligned:
        fail(f"{where}: has a sum_exponent, expected none: {scheme} aligns nothing")
    variant = Variant(scheme, size, fold, input_gamma, output, output_gamma, options, {}, sum_exponent)
    names = tuple(variant_specs(layer, variant))
    tensors = _hashes(raw, where, (*names, "bias"))
    for name in names:
        if name not in tensors:
            fail(f"{where}: tensors lacks '{name}'")
    return replace(variant, tensors=tensors)


def _parse_options(raw: Any, where: str) -> QuantizeOptions | None:
    """Older traces have one `percentile`, which was that of weights, activations and gamma alike, and one
    rounding of scales."""
    if raw == EXTERNAL:
        return None
    if not isinstance(raw, dict):
        fail(f"{where}: options is {show(raw)}, expected an object or '{EXTERNAL}'")
    if "percentile" in raw and not any(name in raw for name in PERCENTILES):
        rest = {key: value for key, value in raw.items() if key != "percentile"}
        raw = rest | dict.fromkeys(PERCENTILES, raw["percentile"])
    if "scale_rounding" in raw:
        raw = {"activation_scale_rounding": raw["scale_rounding"]} | raw
    check_keys(raw, f"{where}: options", tuple(QuantizeOptions.__dataclass_fields__))
    try:
        return QuantizeOptions.from_dict(raw)
    except AccelsimError as error:
        fail(f"{where}: {error}")


def _parse_output(raw: dict[str, Any], where: str) -> tuple[OutputFormat, float]:
    """(format, gamma) of {bits, signed, scale_bits, gamma}, or of {scheme, signed, gamma} of a name."""
    if "scheme" in raw:
        raw = {"signed": True} | raw
        check_keys(raw, where, ("scheme", "signed", "gamma"))
        operand = SCHEMES[choice(raw, "scheme", tuple(SCHEMES), where)][1]
        operand = operand.of_sign(value_of(raw, "signed", bool, where))
        if operand.element.signed != raw["signed"]:
            fail(f"{where}: signed is false, expected true: {raw['scheme']} has no unsigned twin")
        gamma = positive(raw, "gamma", where)
        if operand.scale.gamma == "none" and gamma != 1:
            fail(f"{where}: gamma is {gamma:.6g}, expected 1: {raw['scheme']} has none")
        return OutputFormat(operand), gamma
    check_keys(raw, where, ("bits", "signed", "scale_bits", "gamma"))
    bits = integer(raw, "bits", min(INT), max(INT), where)
    signed = value_of(raw, "signed", bool, where)
    scale_bits = integer(raw, "scale_bits", 0, MAX_SCALE_BITS, where)
    output = OutputFormat(integer_operand(bits, scale_bits, signed=signed))
    if output.fraction_bits < 0:
        fail(f"{where}: leaves the PPU {output.fraction_bits} fraction bits, expected at least 0")
    return output, positive(raw, "gamma", where)


def _hashes(raw: dict[str, Any], where: str, names: tuple[str, ...]) -> dict[str, str]:
    tensors: dict[str, str] = value_of(raw, "tensors", dict, where)
    for name, digest in tensors.items():
        if name not in names:
            fail(f"{where}: tensors has {show(name)}, expected only {', '.join(names)}")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            fail(f"{where}: tensors {name} is {show(digest)}, expected the SHA-256 of its bytes in hex")
    return tensors
