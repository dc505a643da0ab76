"""CIFAR-10 from disk: the official python and binary batches, or an .npz; pickles are read as data only."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.recipes.classify import normalised

CLASSES = 10
_PIXELS = 3 * 32 * 32
_BATCHES = {"test": ["test_batch"], "train": [f"data_batch_{number}" for number in range(1, 6)]}


@dataclass(frozen=True)
class CifarImages:
    """pixels: uint8[n, 32, 32, 3], RGB; labels: int64[n]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: NDArray[np.int64]) -> torch.Tensor:
        return normalised(self.pixels[rows])

    def first(self, count: int | None) -> CifarImages:
        """The first `count` images, all of them with None or where there are fewer."""
        return CifarImages(self.pixels[:count], self.labels[:count])


def read_cifar(path: str | Path, split: str) -> CifarImages:
    """Images of a file, or of a folder as the official archives unpack to: its `test` or `train` batches.

    A file is an .npz with `images` uint8[n, 32, 32, 3] and `labels`, a .bin of the binary version, or else a
    batch of the python version. Raises AccelsimError: the file, what it holds, what was expected.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, split)
    if path.suffix == ".npz":
        images = _read_npz(path)
    elif path.suffix == ".bin":
        images = _read_binary(path)
    else:
        images = _read_python(path)
    if not len(images.labels):
        raise AccelsimError(f"images {path}: holds none, expected at least one")
    if images.labels.min() < 0 or images.labels.max() >= CLASSES:
        raise AccelsimError(f"images {path}: label {images.labels.max()}, expected 0 to {CLASSES - 1}")
    return images


def _read_folder(folder: Path, split: str) -> CifarImages:
    for suffix in ("", ".bin"):
        files = [folder / f"{name}{suffix}" for name in _BATCHES[split]]
        there = [file for file in files if file.is_file()]
        if there and len(there) < len(files):
            absent = ", ".join(file.name for file in files if file not in there)
            raise AccelsimError(f"images {folder}: lacks {absent}, expected all {split} batches")
        if there:
            parts = [read_cifar(file, split) for file in files]
            return CifarImages(
                np.concatenate([part.pixels for part in parts]),
                np.concatenate([part.labels for part in parts]),
            )
    expected = " or ".join(f"{_BATCHES[split][0]}{suffix}" for suffix in ("", ".bin"))
    raise AccelsimError(f"images {folder}: no batches of CIFAR-10 in it, expected {expected}")


def _read_npz(path: Path) -> CifarImages:
    try:
        with np.load(path, allow_pickle=False) as file:
            pixels, labels = file["images"], file["labels"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise AccelsimError(
            f"images {path}: expected an .npz with images and labels ({str(error)[:80]})"
        ) from None
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (32, 32, 3):
        raise AccelsimError(
            f"images {path}: images are {pixels.dtype}{list(pixels.shape)}, expected uint8[n, 32, 32, 3]"
        )
    if labels.dtype.kind not in "iu" or labels.shape != pixels.shape[:1]:
        raise AccelsimError(
            f"images {path}: labels are {labels.dtype}{list(labels.shape)}, "
            f"expected whole numbers [{len(pixels)}]"
        )
    return CifarImages(pixels, labels.astype(np.int64))


def _read_binary(path: Path) -> CifarImages:
    raw = np.fromfile(path, np.uint8)
    if len(raw) % (_PIXELS + 1):
        raise AccelsimError(
            f"images {path}: {len(raw)} bytes, expected a multiple of {_PIXELS + 1}, a label and 32 x 32 RGB"
        )
    records = raw.reshape(-1, _PIXELS + 1)
    return CifarImages(_planes(records[:, 1:]), records[:, 0].astype(np.int64))


def _planes(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows of a red, a green and a blue plane, uint8[n, 3072], as uint8[n, 32, 32, 3]."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _read_python(path: Path) -> CifarImages:
    try:
        with path.open("rb") as file:
            raw = _Inert(file, encoding="bytes").load()
    except _Forbidden as error:
        raise AccelsimError(f"images {path}: {error}") from None
    # Whatever a damaged pickle makes of the few calls that are left to it.
    except Exception as error:
        kind = type(error).__name__
        raise AccelsimError(
            f"images {path}: is no python batch of CIFAR-10 ({kind}); expected one, an .npz or a .bin"
        ) from None
    batch = {_text(key): value for key, value in raw.items()} if isinstance(raw, dict) else {}
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise AccelsimError(f"images {path}: expected a dict with an array `data` and a list `labels`")
    if not all(type(label) is int for label in labels):
        raise AccelsimError(f"images {path}: labels hold something else, expected whole numbers")
    if data.shape != (len(labels), _PIXELS) or len(data.raw) != len(labels) * _PIXELS or data.fortran:
        raise AccelsimError(
            f"images {path}: data of shape {data.shape} for {len(labels)} labels, "
            f"expected {(len(labels), _PIXELS)} in C order"
        )
    rows = np.frombuffer(data.raw, np.uint8).reshape(data.shape)
    return CifarImages(_planes(rows), np.array(labels, np.int64))


def _text(key: object) -> object:
    return key.decode("latin1") if isinstance(key, bytes) else key


class _Forbidden(pickle.UnpicklingError):
    pass


class _Dtype:
    """Stands for numpy.dtype: only that of bytes."""

    def __init__(self, kind: object, *_: object) -> None:
        if _text(kind) != "u1":
            raise _Forbidden(f"holds an array of {_text(kind)!r}, expected uint8")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands for a numpy array: its shape and bytes, to be checked before an array is made of them."""

    def __init__(self, *_: object) -> None:
        self.shape: object = ()
        self.fortran: object = False
        self.raw = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, dtype, self.fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise _Forbidden("holds an array of objects, expected uint8")
        self.raw = raw


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order != "C", bytes(raw) if isinstance(raw, bytearray) else raw))
    return array


def _encode(text: object, encoding: object) -> bytes:
    """Stands for codecs.encode, by which protocol 2 writes bytes of Python 3."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Forbidden("holds text of another encoding, expected latin1")
    return text.encode("latin1")


_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_STAND_INS: dict[tuple[str, str], Any] = {
    **{(module, "_reconstruct"): _Array for module in _ARRAY_MODULES},
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Inert(pickle.Unpickler):
    """Reads plain values and arrays of bytes. Nothing that a pickle names is imported or called: the few
    names that batches contain lead to the stand-ins above, all others are refused."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise _Forbidden(
                f"the pickle names {module}.{name}, which is not loaded; expected arrays of bytes only"
            ) from None
