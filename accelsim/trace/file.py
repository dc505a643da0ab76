"""Reading traces: one `.safetensors` file per model, checked as a whole before anything uses it.

docs/trace_format.md describes the file; trace_write.py writes it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from accelsim.arguments import path_of
from accelsim.errors import AccelsimError, listed
from accelsim.formats.scheme import Scheme
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.layers import check_float_layer, output_format, quantize_layer
from accelsim.quantize.workload import Tell
from accelsim.trace.manifest import (
    METADATA_KEY,
    LayerInfo,
    Manifest,
    TensorSpec,
    fail,
    load_json,
    parse_manifest,
    show,
    variant_key,
    variant_specs,
)
from accelsim.workload.graph import Graph
from accelsim.workload.layer import FloatLayer, Layer, LayerSpec, QuantizedLayer
from accelsim.workload.wiring import Wiring, wire

MAX_HEADER_BYTES = 32 << 20
SUFFIX = ".safetensors"
ITEM_BYTES = {"F32": 4, "F64": 8, "I8": 1, "U8": 1, "U16": 2}


@dataclass(frozen=True, repr=False)
class Trace:
    """An open, fully checked trace. Tensors are read from the memory-mapped file when a layer is asked for.

    Build it with `Trace.open`. Pickling keeps only the path: the receiving process opens the file again.
    """

    path: Path
    manifest: Manifest
    sha256: str
    """Hex digest of the whole file as it was opened, whatever bears its name since."""
    _file: Any

    @classmethod
    def open(cls, path: str | Path) -> Trace:
        """Open and check every byte, tensor by tensor. Raises AccelsimError: file, layer, found, expected."""
        path = path_of(path, "trace")
        try:
            header, manifest, sha256 = _read_header(path)
            _check_header(header, manifest)
            # Of a file that takes its place in between, tensors have other hashes than the manifest says.
            trace = cls(path, manifest, sha256, safe_open(path, framework="numpy"))
            for layer in manifest.layers:
                trace._check_values(layer)
        except AccelsimError as error:
            raise AccelsimError(f"trace {path}: {error}") from None
        except SafetensorError as error:
            raise AccelsimError(f"trace {path}: is not a valid safetensors file ({error})") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise AccelsimError(f"trace {path}: cannot be read ({reason})") from None
        return trace

    def __repr__(self) -> str:
        return f"<Trace {self.name}: {len(self.layers)} layers of {self.model}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Trace.open, (self.path,))

    @property
    def name(self) -> str:
        """The file name without its suffix."""
        return self.path.name.removesuffix(SUFFIX)

    @property
    def model(self) -> str:
        return self.manifest.model

    @property
    def synthetic(self) -> bool:
        return self.manifest.synthetic

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.manifest.provenance

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(info.layer for info in self.manifest.layers)

    @property
    def graph(self) -> Graph:
        return self.manifest.graph

    @cached_property
    def _wiring(self) -> Wiring:
        return wire(self.graph, self.layers)

    @property
    def has_floats(self) -> bool:
        """True when every layer has its float tensors, so that any scheme can be made from it."""
        return all(info.has_floats for info in self.manifest.layers)

    @property
    def variants(self) -> tuple[str, ...]:
        """Stored variants ("4/4/4/4@16") that every layer has, sorted."""
        return tuple(sorted(set.intersection(*(set(info.quantized) for info in self.manifest.layers))))

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size

    def layer(self, name: str) -> Layer:
        """Raises AccelsimError for an unknown name."""
        return self.info(name).layer

    def info(self, name: str) -> LayerInfo:
        """What the file holds of a layer. Raises AccelsimError for an unknown name."""
        for info in self.manifest.layers:
            if info.name == name:
                return info
        names = listed((info.name for info in self.manifest.layers), name)
        raise AccelsimError(f"trace {self.path}: has no layer {show(name)}, expected one of {names}")

    def floats(self, name: str) -> FloatLayer | None:
        """The layer before quantization, or None where the trace holds no floats of it."""
        info = self.info(name)
        if not info.has_floats:
            return None
        return FloatLayer(info.layer, **{tensor: self.tensor(f"{name}/{tensor}") for tensor in info.tensors})

    def float_layer(self, name: str) -> FloatLayer:
        """The layer before quantization. Raises AccelsimError when the trace holds no floats of it."""
        layer = self.floats(name)
        if layer is None:
            stored = ", ".join(self.info(name).quantized)
            raise AccelsimError(f"trace {self.path}: layer {name} has no float tensors, only {stored}")
        return layer

    def outline(
        self, name: str, scheme: Scheme, vector_size: int, options: QuantizeOptions | None = None
    ) -> LayerSpec:
        """Sizes and formats of the layer at a scheme, from the manifest alone."""
        info = self.info(name)
        variant = info.quantized.get(variant_key(scheme, vector_size))
        if variant is not None and variant.made_with(options):
            fold, output = variant.fold, variant.output
        else:
            fold, output = (options or QuantizeOptions()).fold, output_format(info.layer, scheme)
        spec = LayerSpec(
            layer=info.layer,
            scheme=scheme,
            vector_size=scheme.block or vector_size,
            fold=fold,
            output=output,
            global_pe=self._wiring.work[name],
        )
        return spec.in_vectors(vector_size)

    def quantized_layer(
        self, name: str, scheme: Scheme, vector_size: int, options: QuantizeOptions | None = None
    ) -> QuantizedLayer:
        """The stored variant where there is one (made with `options`, if given), else made from the floats.

        Raises AccelsimError when neither is possible.
        """
        info = self.info(name)
        key = variant_key(scheme, vector_size)
        variant = info.quantized.get(key)
        if variant is None or not variant.made_with(options):
            if info.has_floats:
                words = quantize_layer(self.float_layer(name), scheme, vector_size, options)
                return self._outlined(words, vector_size, options)
            if variant is None:
                stored = ", ".join(info.quantized)
                reason = f"is not stored as {key} and has no floats to quantize; stored: {stored}"
            elif variant.options is None:
                reason = (
                    f"is stored as {key} in words made elsewhere, which no quantize options describe, "
                    f"and has no floats to quantize; expected no --quantize, and a machine with fold: auto "
                    f"and scale_rounding: up"
                )
            else:
                reason = f"is stored as {key} with other quantize options and has no floats to quantize"
            raise AccelsimError(f"trace {self.path}: layer {name} {reason}")

        def stored_tensor(tensor: str) -> Any:
            return self.tensor(f"{name}/{key}/{tensor}") if tensor in variant.tensors else None

        bias = stored_tensor("bias")
        if bias is None and "bias" in info.tensors:
            bias = self.tensor(f"{name}/bias")
        words = QuantizedLayer(
            spec=self.outline(name, scheme, scheme.block or vector_size, options),
            weight_words=stored_tensor("weight_words"),
            weight_scales=stored_tensor("weight_scales"),
            weight_gamma=stored_tensor("weight_gamma"),
            input_words=stored_tensor("input_words"),
            input_scales=stored_tensor("input_scales"),
            input_gamma=variant.input_gamma,
            output_gamma=variant.output_gamma,
            bias=bias,
            sum_exponent=variant.sum_exponent,
            provenance={} if variant.options is None else {"options": asdict(variant.options)},
        )
        return words.in_vectors(vector_size)

    def quantized_parts(
        self,
        name: str,
        scheme: Scheme,
        vector_size: int,
        options: QuantizeOptions | None = None,
        tell: Tell | None = None,
    ) -> Iterator[QuantizedLayer]:
        """The layer as a whole: a file holds no more than memory does."""
        yield self.quantized_layer(name, scheme, vector_size, options)

    def tensors_of(self, name: str) -> str:
        return name

    def _outlined(
        self, words: QuantizedLayer, vector_size: int, options: QuantizeOptions | None
    ) -> QuantizedLayer:
        """The words in vectors, with all that the trace says of their layer."""
        words = words.in_vectors(vector_size)
        return replace(words, spec=self.outline(words.name, words.scheme, vector_size, options))

    def tensor(self, name: str) -> NDArray[Any]:
        """One tensor by its full name, copied out of the file."""
        values: NDArray[Any] = self._file.get_tensor(name)
        return values

    def _check_values(self, info: LayerInfo) -> None:
        """Hashes, finite floats, code and scale ranges, zero padding of one layer."""
        if info.has_floats:
            layer = self.float_layer(info.name)
            check_float_layer(layer)
            for tensor, digest in info.tensors.items():
                _check_hash(info.name, tensor, getattr(layer, tensor), digest)
            del layer
        elif "bias" in info.tensors:
            bias = self.tensor(f"{info.name}/bias")
            _check_finite(f"layer {info.name}: bias", bias)
            _check_hash(info.name, "bias", bias, info.tensors["bias"])
        for key, variant in info.quantized.items():
            specs = variant_specs(info.layer, variant)
            for tensor, digest in variant.tensors.items():
                values = self.tensor(f"{info.name}/{key}/{tensor}")
                _check_codes(f"layer {info.name}: {key}/{tensor}", specs[tensor], values)
                _check_hash(info.name, f"{key}/{tensor}", values, digest)


def hash_values(values: NDArray[Any]) -> str:
    """SHA-256 of the row-major bytes, in hex."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _check_hash(layer: str, tensor: str, values: NDArray[Any], digest: str) -> None:
    found = hash_values(values)
    if found != digest:
        fail(
            f"layer {layer}: {tensor} has SHA-256 {found[:12]}..., expected {digest[:12]}...: file is damaged"
        )


def _check_finite(where: str, values: NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        fail(f"{where} holds NaN or infinity, expected finite numbers")


def _check_codes(where: str, spec: TensorSpec, values: NDArray[Any]) -> None:
    if spec.low is None and spec.gamma is None:
        _check_finite(where, values)
        return
    if spec.low is None or spec.high is None:
        if not (np.isfinite(values) & (values > 0)).all():
            fail(f"{where} holds {values.min():.6g}, expected finite numbers above 0")
        one = {"none": 1, "tensor": values.flat[0]}.get(spec.gamma or "")
        if one is not None and (values != one).any():
            fail(f"{where} holds {values[values != one][0]:.6g}, expected {one:.6g} of all channels")
        return
    for extreme in (int(values.min()), int(values.max())):
        if not spec.low <= extreme <= spec.high:
            fail(f"{where} holds {extreme}, expected {spec.low} to {spec.high}")
    if spec.refused and (wrong := np.isin(values, spec.refused)).any():
        fail(f"{where} holds code {int(values[wrong][0])}, which is no number")
    if spec.tail is not None:
        run, used = spec.tail
        padding = values.reshape(-1, run, values.shape[-1])[:, -1, used:]
        if padding.any():
            fail(f"{where} holds {int(padding[padding != 0][0])} in the padding of a vector, expected 0")


def _read_header(path: Path) -> tuple[dict[str, Any], Manifest, str]:
    """The tensor table, the manifest and the SHA-256 of the whole file, of one and the same file; sizes are
    checked against it before anything is allocated."""
    if "\0" in str(path) or not path.exists():
        fail("no such file")
    if not path.is_file():
        fail("is not a file")
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if file_bytes < 10 or length < 2:
            fail(f"file of {file_bytes} bytes is not a safetensors file")
        if length > MAX_HEADER_BYTES:
            fail(f"header of {length} bytes declared, expected at most {MAX_HEADER_BYTES}: not a trace")
        if length > file_bytes - 8:
            fail(f"header of {length} bytes declared, only {file_bytes - 8} follow: file is truncated")
        try:
            text = file.read(length).decode("utf-8")
        except UnicodeDecodeError:
            fail("header is not UTF-8: not a safetensors file")
        header, manifest = _parse_header(text, file_bytes - 8 - length)
        file.seek(0)
        return header, manifest, hashlib.file_digest(file, "sha256").hexdigest()


def _parse_header(text: str, tensor_bytes: int) -> tuple[dict[str, Any], Manifest]:
    """The tensor table and the manifest. tensor_bytes: what the file holds after its header."""
    header = load_json(text, "header")
    if not isinstance(header, dict):
        fail(f"header is {show(header)}, expected an object")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(METADATA_KEY), str):
        fail(f"metadata has no key '{METADATA_KEY}' with a manifest: not an accelsim trace")
    if len(metadata) != 1:
        fail(f"metadata has {len(metadata)} keys, expected only '{METADATA_KEY}'")
    end = 0
    for name, entry in header.items():
        well_formed = isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"}
        if not (well_formed and _sizes(entry["shape"]) and _sizes(entry["data_offsets"], 2)):
            fail(f"header: tensor {show(name)} is {show(entry)}, expected dtype, shape and data_offsets")
        end = max(end, entry["data_offsets"][1])
    if end != tensor_bytes:
        reason = "file is truncated" if end > tensor_bytes else "file has trailing bytes"
        fail(f"tensors take {end} bytes, the file holds {tensor_bytes}: {reason}")
    return header, parse_manifest(metadata[METADATA_KEY])


def _sizes(value: object, count: int | None = None) -> bool:
    if not isinstance(value, list) or (count is not None and len(value) != count):
        return False
    return all(type(v) is int and 0 <= v < 1 << 62 for v in value)


def _check_header(header: dict[str, Any], manifest: Manifest) -> None:
    """Every declared tensor is there with its dtype and shape, and nothing else is."""
    undeclared = set(header)
    for layer in manifest.layers:
        for name, spec in layer.tensor_specs().items():
            if name not in header:
                fail(f"layer {layer.name}: tensor {name} is missing")
            undeclared.discard(name)
            dtype, shape = header[name]["dtype"], header[name]["shape"]
            if dtype != spec.dtype:
                fail(f"layer {layer.name}: tensor {name} has dtype {show(dtype)}, expected {spec.dtype}")
            fits = len(shape) == len(spec.shape) and all(
                found == size if size else found > 0 for found, size in zip(shape, spec.shape, strict=True)
            )
            if not fits:
                expected = "[" + ", ".join(str(size) if size else "any" for size in spec.shape) + "]"
                fail(f"layer {layer.name}: tensor {name} has shape {show(shape)}, expected {expected}")
            start, end = header[name]["data_offsets"]
            if end - start != math.prod(shape) * ITEM_BYTES[dtype]:
                fail(f"layer {layer.name}: tensor {name} takes {end - start} bytes, its shape says otherwise")
    if undeclared:
        fail(f"tensor {show(min(undeclared))} is in the file but not in the manifest")
