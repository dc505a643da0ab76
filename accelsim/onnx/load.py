"""ONNX files read as data: size and structure checked, tensors taken from the model's own folder only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from accelsim.errors import AccelsimError

MAX_BYTES = (1 << 31) - 1
"""Of a file without its external data: what protobuf can hold."""
MAX_VALUES = (1 << 31) - 1
"""Of one tensor."""
_MAX_NODES = 1 << 20
_OLDEST_OPSET = 7


def load_model(model: str | Path | onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """(the model without its initializers, their values by name), local functions inlined.

    The initializers stand among the model's inputs. Raises AccelsimError for what is no valid model, and for
    external data that is not in the model's folder.
    """
    if isinstance(model, onnx.ModelProto):
        where, folder, loaded = "model", None, onnx.ModelProto()
        loaded.CopyFrom(model)
    else:
        where, folder = f"model {model}", Path(model).parent
        loaded = _read(Path(model), where)
    try:
        if not loaded.graph.node:
            raise AccelsimError("holds no graph of operations, expected an ONNX model")
        _check_functions(loaded)
        values = _take_initializers(loaded, folder)
        for tensor in _attribute_tensors(loaded.graph):
            _check_tensor(tensor, "a constant")
            if tensor.data_location == TensorProto.EXTERNAL:
                raise AccelsimError(
                    f"constant {tensor.name!r} has external data, expected it of initializers only"
                )
        _check(loaded)
        if loaded.functions:
            loaded = onnx.inliner.inline_local_functions(loaded)
    except AccelsimError as error:
        raise AccelsimError(f"{where}: {error}") from None
    except Exception as error:
        raise AccelsimError(f"{where}: is not a valid ONNX model ({first_line(error)})") from None
    return loaded, values


def _read(path: Path, where: str) -> onnx.ModelProto:
    try:
        if not path.is_file():
            raise AccelsimError(f"{where}: no such file, expected an .onnx")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise AccelsimError(f"{where}: has {size} bytes, expected at most {MAX_BYTES} in one protobuf")
        loaded: onnx.ModelProto = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise AccelsimError(f"{where}: cannot be read ({error.strerror or error})") from None
    except DecodeError as error:
        raise AccelsimError(f"{where}: is not a protobuf of an ONNX model ({first_line(error)})") from None
    return loaded


def first_line(error: BaseException) -> str:
    """The first line of a message, short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def opset_of(model: onnx.ModelProto) -> int:
    """Of the standard operations."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _check(model: onnx.ModelProto) -> None:
    """Structure, by onnx; the tensors are out of it."""
    version = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if not _OLDEST_OPSET <= version <= newest:
        raise AccelsimError(f"has opset {version}, expected {_OLDEST_OPSET} to {newest}")
    # Types of outputs are found anew; the checker asks for more of them than onnxruntime does.
    for value in model.graph.output:
        value.ClearField("type")
        value.type.tensor_type.elem_type = TensorProto.FLOAT
        value.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model)


def _check_functions(model: onnx.ModelProto) -> None:
    """Inlining ends: no function calls itself, and what comes of it has a size."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[Any, int] = {}

    def size(nodes: Any, path: tuple[Any, ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            total += 1
            if key in path:
                raise AccelsimError(f"function {node.op_type} calls itself, expected none that does")
            if key in functions:
                if key not in sizes:
                    sizes[key] = size(functions[key].node, (*path, key))
                total += sizes[key]
            for attribute in node.attribute:
                for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    total += size(graph.node, path)
            if total > _MAX_NODES:
                raise AccelsimError(f"has more than {_MAX_NODES} operations, expected fewer")
        return total

    size(model.graph.node, ())
    for key, function in functions.items():
        size(function.node, (key,))


def _take_initializers(model: onnx.ModelProto, folder: Path | None) -> dict[str, NDArray[Any]]:
    graph = model.graph
    if graph.sparse_initializer:
        raise AccelsimError("has sparse initializers, expected dense ones")
    values: dict[str, NDArray[Any]] = {}
    known = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name in values:
            raise AccelsimError(f"initializer {tensor.name!r} is given twice, expected each once")
        values[tensor.name] = array_of(tensor, folder)
        if tensor.name not in known:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    del graph.initializer[:]
    return values


def _attribute_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from inner.initializer
                yield from _attribute_tensors(inner)


def _check_tensor(tensor: onnx.TensorProto, what: str) -> int:
    """Its number of values."""
    dims = list(tensor.dims)
    count = math.prod(dims)
    if any(size < 0 for size in dims) or count > MAX_VALUES:
        raise AccelsimError(f"{what} {tensor.name!r} has shape {dims}, expected at most {MAX_VALUES} values")
    return count


def array_of(tensor: onnx.TensorProto, folder: Path | None = None) -> NDArray[Any]:
    """A tensor's values. folder: of the model, the only place where external data may be."""
    count = _check_tensor(tensor, "initializer")
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, folder, count)
    try:
        values: NDArray[Any] = numpy_helper.to_array(tensor)
    except Exception as error:
        raise AccelsimError(
            f"initializer {tensor.name!r} is damaged ({first_line(error)}), expected values for "
            f"{list(tensor.dims)}"
        ) from None
    return values


def _external(tensor: onnx.TensorProto, folder: Path | None, count: int) -> NDArray[Any]:
    where = f"initializer {tensor.name!r}"
    if folder is None:
        raise AccelsimError(f"{where} has external data, expected a model given by its path")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path, base = folder / location, folder.resolve()
    inside = location and "\0" not in location and not Path(location).is_absolute()
    if not inside or ".." in Path(location).parts or not path.resolve().is_relative_to(base):
        raise AccelsimError(
            f"{where} names external data {location!r}, expected a file in the model's folder"
        )
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError:
        raise AccelsimError(f"{where} has an offset or length that is no whole number") from None
    path = path.resolve()
    if not path.is_file():
        raise AccelsimError(f"{where} names external data {location!r}, which is not there")
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    packed = tensor.data_type in _PACKED
    needed = (count * _PACKED[tensor.data_type] + 7) // 8 if packed else count * dtype.itemsize
    held = path.stat().st_size - offset
    if offset < 0 or needed > held or (length is not None and length != needed):
        raise AccelsimError(
            f"{where} takes {needed} bytes of {location!r} from {offset}, which holds {max(0, held)} there"
            + (f" and is said to be {length}" if length is not None else "")
        )
    if not needed:
        return np.zeros(tuple(tensor.dims), dtype)
    data = np.memmap(path, np.uint8, mode="r", offset=offset, shape=(needed,))
    if packed:
        inline = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=data.tobytes())
        return array_of(inline)
    return data.view(dtype.newbyteorder("<")).reshape(tuple(tensor.dims))


_PACKED = {
    getattr(TensorProto, name): bits
    for name, bits in {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}.items()
    if hasattr(TensorProto, name)
}
"""Bits of types of which several share a byte."""
