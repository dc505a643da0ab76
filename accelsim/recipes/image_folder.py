"""Images in folders as ImageNet's: class folders, or one flat folder with a list of labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from accelsim.errors import AccelsimError
from accelsim.recipes.classify import normalised

_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class ImageFiles:
    """Images read when they are asked for: the shorter side made `resize` pixels, the middle `crop` taken."""

    paths: tuple[Path, ...]
    resize: int
    crop: int
    interpolation: str

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, rows: NDArray[np.int64]) -> torch.Tensor:
        return normalised(np.stack([self.pixels(self.paths[row]) for row in rows]))

    def pixels(self, path: Path) -> NDArray[np.uint8]:
        """uint8[crop, crop, 3], RGB."""
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise AccelsimError(
                f"image {path}: cannot be read ({str(error)[:80]}), expected a picture"
            ) from None
        # Sizes and the corner of the crop are rounded as torchvision rounds them: the published accuracies
        # were measured so. Pillow's filters widen with the reduction (antialiasing), as was done then.
        short = min(image.size)
        width, height = (
            self.resize if side == short else int(self.resize * side / short) for side in image.size
        )
        image = image.resize((width, height), INTERPOLATIONS[self.interpolation])
        left, top = round((width - self.crop) / 2), round((height - self.crop) / 2)
        return np.asarray(image.crop((left, top, left + self.crop, top + self.crop)))


def image_paths(folder: Path) -> list[Path]:
    """Images at any depth below a folder, in order. Raises AccelsimError where there is none."""
    if folder.is_dir():
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if found:
            return found
    raise AccelsimError(f"images {folder}: expected a folder with {', '.join(_SUFFIXES)} files in it")


def labelled_images(
    folder: Path, labels: str | Path | None, synsets: str | Path | None, classes: int
) -> list[tuple[Path, int]]:
    """Images below a folder with their classes, in order.

    Without `labels` every image is in a folder of its class, and classes are numbered in the order of
    `synsets` (a file that begins each line with a class's folder name), by default in the order of the
    folders' names, which must then be as many as `classes`. labels: a file with a line `name label` (or
    `name,label`; what follows is passed over) for each image, where name may lack its suffix and label is a
    number from 0, or a name numbered likewise. Raises AccelsimError: file or folder, what it lacks.
    """
    paths = image_paths(folder)
    if labels is None:
        loose = [path for path in paths if path.parent == folder]
        if loose:
            raise AccelsimError(
                f"images {folder}: {loose[0].name} is in no folder of its class; expected class folders, "
                "or a file of labels"
            )
        named = [(path, path.relative_to(folder).parts[0]) for path in paths]
    else:
        given = _read_labels(Path(labels))
        named = [(path, given.get(path.name, given.get(path.stem, ""))) for path in paths]
        bare = [path for path, label in named if not label]
        if bare:
            raise AccelsimError(f"labels {labels}: no line for {bare[0].name}, expected one for every image")
    names = {name for _, name in named}
    if all(name.isdecimal() for name in names) and labels is not None:
        numbers = {name: int(name) for name in names}
    elif synsets is not None:
        numbers = _read_synsets(Path(synsets))
    else:
        # All classes that the labels name, also those without an image here.
        known = sorted(names if labels is None else set(given.values()))
        if len(known) != classes:
            raise AccelsimError(
                f"images {folder}: {len(known)} classes, expected {classes}; of fewer, a file `synsets` says "
                "which is which"
            )
        numbers = {name: number for number, name in enumerate(known)}
    for path, name in named:
        if not 0 <= numbers.get(name, -1) < classes:
            raise AccelsimError(
                f"images {folder}: {path.name} is of class {name!r}, expected one of {classes} classes"
                + ("" if synsets is None else f" that {synsets} lists")
            )
    return [(path, numbers[name]) for path, name in named]


def _lines(path: Path, what: str) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise AccelsimError(f"{what} {path}: expected text in UTF-8 ({error})") from None


def _read_labels(path: Path) -> dict[str, str]:
    found = {}
    for number, line in enumerate(_lines(path, "labels"), 1):
        parts = re.split(r"[,\s]+", line.strip())
        if len(parts) < 2:
            raise AccelsimError(f"labels {path}: line {number} is {line[:60]!r}, expected a name and a label")
        if parts[0] != "ImageId":  # the header of the Kaggle challenge's file
            found[parts[0].rpartition("/")[2]] = parts[1]
    return found


def _read_synsets(path: Path) -> dict[str, int]:
    names = [line.split()[0] for line in _lines(path, "synsets")]
    if len(set(names)) != len(names):
        raise AccelsimError(f"synsets {path}: a class is listed twice, expected each once")
    return {name: number for number, name in enumerate(names)}
