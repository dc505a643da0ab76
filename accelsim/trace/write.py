"""Writing traces: deterministic bytes, all or nothing (docs/trace_format.md)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.arguments import expect, path_of
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.layers import check_float_layer, quantize_layer
from accelsim.system.whole import whole_file
from accelsim.trace.file import ITEM_BYTES, Trace, hash_values
from accelsim.trace.find import has_manifest
from accelsim.trace.manifest import (
    FLOAT_TENSORS,
    METADATA_KEY,
    LayerInfo,
    Manifest,
    Variant,
    check_layer_name,
    check_provenance,
    parse_manifest,
    show,
    variant_key,
)
from accelsim.workload.graph import Graph
from accelsim.workload.layer import FloatLayer, QuantizedLayer

_DTYPES = {"float32": "F32", "float64": "F64", "int8": "I8", "uint8": "U8", "uint16": "U16"}
_ORDER = ("F64", "F32", "U16", "I8", "U8")
_VARIANT_TENSORS = ("weight_words", "weight_scales", "weight_gamma", "input_words", "input_scales")


@dataclass(frozen=True)
class _Source:
    """A tensor to be written: its values are asked for only when their turn comes."""

    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], NDArray[Any]]

    @classmethod
    def of(cls, values: NDArray[Any]) -> _Source:
        return cls(_DTYPES[values.dtype.name], values.shape, lambda: values)


def write_trace(
    path: str | Path,
    model: str,
    layers: Sequence[FloatLayer],
    provenance: Mapping[str, Any],
    *,
    graph: Graph | None = None,
    synthetic: bool = False,
    quantized: Sequence[QuantizedLayer] = (),
    keep_floats: bool = True,
) -> Path:
    """Write a trace: beside the target first, checked, then renamed.

    graph: what each layer reads, and the work between layers; None: a chain of the layers, without such work.
    quantized: stored variants, matched to `layers` by name; a name without a float layer becomes a layer of
    its own, and one whose provenance has no "options" is recorded as made by another program. keep_floats:
    False drops all floats but the biases. Raises AccelsimError for bad content and for a file that cannot be
    written; the target is then as it was.
    """
    path = path_of(path, "trace")
    expect(model, str, f"trace {path}: model", "a name")
    expect(provenance, Mapping, f"trace {path}: provenance", "a mapping for JSON")
    expect(graph, (Graph, type(None)), f"trace {path}: graph", "a Graph, or None")
    expect(layers, Iterable, f"trace {path}: layers", "a list of FloatLayer")
    expect(quantized, Iterable, f"trace {path}: quantized", "a list of QuantizedLayer")
    infos: dict[str, LayerInfo] = {}
    sources: dict[str, _Source] = {}
    for layer in layers:
        expect(layer, FloatLayer, f"trace {path}: one of layers", "a FloatLayer")
        if layer.name in infos:
            raise AccelsimError(f"layer {layer.name}: is given twice, expected unique layer names")
        check_layer_name(layer.name)
        check_float_layer(layer)
        tensors = {}
        for tensor in FLOAT_TENSORS if keep_floats else ("bias",):
            values = getattr(layer, tensor)
            if values is not None:
                stored = _float32(f"layer {layer.name}: {tensor}", values)
                tensors[tensor] = _add(sources, f"{layer.name}/{tensor}", stored)
        infos[layer.name] = LayerInfo(layer.layer, tensors, {})
    for words in quantized:
        expect(words, QuantizedLayer, f"trace {path}: one of quantized", "a QuantizedLayer")
        if words.name not in infos:
            check_layer_name(words.name)
            tensors = {}
            if words.bias is not None:
                stored = _float32(f"layer {words.name}: bias", words.bias)
                tensors["bias"] = _add(sources, f"{words.name}/bias", stored)
            infos[words.name] = LayerInfo(words.layer, tensors, {})
        infos[words.name] = _with_variant(infos[words.name], words, sources)
    if not infos:
        raise AccelsimError(f"trace {path}: layers is empty, expected at least one layer")
    graph = graph or Graph.chain([info.layer for info in infos.values()])
    manifest = Manifest(model, synthetic, provenance, graph, tuple(infos.values()))
    return _write(path, manifest, sources)


def quantize_trace(
    source: Trace | str | Path,
    target: str | Path,
    schemes: Sequence[Scheme],
    vector_size: int,
    options: QuantizeOptions | None = None,
    *,
    keep_floats: bool = True,
) -> Path:
    """Copy a trace with float tensors, adding stored variants; a variant of the same key is replaced.

    One layer's floats are in memory at a time. Raises AccelsimError when the trace has no floats.
    """
    trace = source if isinstance(source, Trace) else Trace.open(source)
    sources: dict[str, _Source] = {}
    infos = []
    for info in trace.manifest.layers:
        layer = trace.float_layer(info.name)
        kept = {t: digest for t, digest in info.tensors.items() if keep_floats or t == "bias"}
        stored = {f"{info.name}/{tensor}": getattr(layer, tensor) for tensor in kept}
        for key, variant in info.quantized.items():
            names = (f"{info.name}/{key}/{tensor}" for tensor in variant.tensors)
            stored |= {name: trace.tensor(name) for name in names}
        for name, values in stored.items():
            sources[name] = replace(_Source.of(values), load=_reader(trace, name))
        new = replace(info, tensors=kept)
        for scheme in schemes:
            new = _with_variant(new, quantize_layer(layer, scheme, vector_size, options), sources)
        infos.append(new)
    manifest = Manifest(trace.model, trace.synthetic, trace.provenance, trace.graph, tuple(infos))
    return _write(Path(target), manifest, sources)


def check_overwrite(target: Path, source: Path) -> None:
    """Refuse to write over the source or over a file that is not a trace. Raises AccelsimError."""
    if not target.is_file():
        return
    if target.samefile(source):
        raise AccelsimError(f"trace {target}: is the trace that is read, expected another file to write")
    if not has_manifest(target, if_damaged=False):
        raise AccelsimError(
            f"trace {target}: is a file but not a trace, expected a new file or an older trace"
        )


def _reader(trace: Trace, name: str) -> Callable[[], NDArray[Any]]:
    return lambda: trace.tensor(name)


def _with_variant(info: LayerInfo, words: QuantizedLayer, sources: dict[str, _Source]) -> LayerInfo:
    """The layer with one more stored variant, whose tensors are added to `sources`."""
    key = variant_key(words.scheme, words.vector_size)
    if info.layer != words.layer:
        raise AccelsimError(f"layer {info.name}: variant {key} describes another layer of the same name")
    options = words.provenance.get("options")
    if options is not None and not isinstance(options, dict):
        raise AccelsimError(
            f"layer {info.name}: variant {key} options are {show(options)}, expected those it was "
            "quantized with, or none where another program made it"
        )
    tensors = {}
    for tensor in _VARIANT_TENSORS:
        values = getattr(words, tensor)
        if values is not None:
            if values.dtype.name not in _DTYPES:
                raise AccelsimError(
                    f"layer {info.name}: variant {key} {tensor} has dtype {values.dtype}, "
                    f"expected one of {', '.join(_DTYPES)}"
                )
            tensors[tensor] = _add(sources, f"{info.name}/{key}/{tensor}", values)
    bias, place = _own_bias(info, words), f"{info.name}/{key}/bias"
    sources.pop(place, None)  # of a variant that this one replaces
    if bias is not None:
        tensors["bias"] = _add(sources, place, bias)
    variant = Variant(
        scheme=words.scheme.words_scheme,
        vector_size=words.vector_size,
        fold=words.spec.fold,
        input_gamma=float(words.input_gamma),
        output=words.output,
        output_gamma=float(words.output_gamma),
        options=None if options is None else QuantizeOptions.from_dict(options),
        tensors=tensors,
        sum_exponent=words.sum_exponent,
    )
    return replace(info, quantized={**info.quantized, key: variant})


def _own_bias(info: LayerInfo, words: QuantizedLayer) -> NDArray[np.float32] | None:
    """The bias to store beside the words, None where the layer's own is theirs."""
    own = info.tensors.get("bias")
    if words.bias is None:
        return None if own is None else np.zeros(words.geometry.K, np.float32)
    bias = _float32(f"layer {info.name}: bias", words.bias)
    return None if own == hash_values(bias) else bias


def _float32(where: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """What is stored of floats. Raises AccelsimError for a number that float32 does not reach."""
    with np.errstate(over="ignore"):
        stored: NDArray[np.float32] = values.astype("<f4", copy=False)
    outside = np.isinf(stored) & np.isfinite(values)
    if outside.any():
        largest = np.finfo(np.float32).max
        raise AccelsimError(
            f"{where} holds {values[outside][0]:.6g}, "
            f"expected magnitudes up to {largest:.6g}, the largest float32"
        )
    return stored


def _add(sources: dict[str, _Source], name: str, values: NDArray[Any]) -> str:
    """Remember a tensor for writing and return its hash."""
    sources[name] = _Source.of(values)
    return hash_values(values)


def _write(path: Path, manifest: Manifest, sources: Mapping[str, _Source]) -> Path:
    """Header and tensors, in the order the safetensors library writes them: by dtype (largest items first,
    which keeps every tensor aligned), then name. Read back and checked before it takes the target's name."""
    check_provenance(manifest.provenance)
    text = manifest.to_json()
    parse_manifest(text)
    names = sorted(sources, key=lambda name: (_ORDER.index(sources[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: text}}
    offset = 0
    for name in names:
        source = sources[name]
        end = offset + math.prod(source.shape) * ITEM_BYTES[source.dtype]
        header[name] = {"dtype": source.dtype, "shape": list(source.shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    try:
        with whole_file(path) as temporary:
            with temporary.open("xb") as file:
                file.write(len(encoded).to_bytes(8, "little"))
                file.write(encoded)
                for name in names:
                    file.write(np.ascontiguousarray(sources[name].load()).data)
                file.flush()
                os.fsync(file.fileno())
            try:
                Trace.open(temporary)
            except AccelsimError as error:
                raise AccelsimError(str(error).replace(str(temporary), str(path), 1)) from None
    except OSError as error:
        raise AccelsimError(f"trace {path}: cannot be written ({error.strerror or error})") from None
    return path
