"""Arch files and presets: read, changed, and checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from accelsim.arguments import expect, texts_of
from accelsim.errors import AccelsimError, listed
from accelsim.machine.arch import Arch, MappingPins, PpuLatency
from accelsim.machine.plain_yaml import load_yaml, shown_value

_MAX_FILE_BYTES = 1 << 18
_MAX_NAME = 200


def presets() -> list[str]:
    """Names of the machines that come with the package."""
    files = resources.files("accelsim.machine.presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_arch(name: str | Path, overrides: list[str] | None = None) -> Arch:
    """A preset by name or an arch file by path, with `KEY=VALUE` overrides (nested: `mapping.order=PK`).

    An arch file may start from another with `base: <preset>` and give only what differs.
    Raises AccelsimError naming the file, the key and what was expected.
    """
    expect(name, (str, Path), "arch", "the name of a preset, or a path")
    where = f"arch {str(name)[:_MAX_NAME]}"
    data = _read(name, where, depth=0)
    for item in texts_of([] if overrides is None else overrides, "overrides", "KEY=VALUE"):
        _override(data, item)
    return _checked(data, where)


def changed(arch: Arch, changes: Mapping[str, Any]) -> Arch:
    """The machine with other values of parameters (nested: `mapping.order`). Raises AccelsimError."""
    data, where = arch.model_dump(), f"arch {arch.name}"
    for key, value in changes.items():
        _put(data, key, value, where)
    return _checked(data, where)


def _checked(data: dict[str, Any], where: str) -> Arch:
    try:
        return Arch.model_validate(data)
    except ValidationError as error:
        raise AccelsimError(f"{where}: {_first_problem(error)}") from None


def _read(name: str | Path, where: str, depth: int) -> dict[str, Any]:
    if depth > 8:
        raise AccelsimError(f"{where}: 'base' refers back to itself")
    if str(name) in presets():
        path = None
        text = (resources.files("accelsim.machine.presets") / f"{name}.yaml").read_text("utf-8")
    else:
        path = Path(name)
        text = _file_text(path, where)
    data = load_yaml(text, where)
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise AccelsimError(f"{where}: expected a mapping of parameter names to values")
    base = data.pop("base", None)
    if base is not None:
        if not isinstance(base, str) or len(base) > _MAX_NAME:
            raise AccelsimError(
                f"{where}: base is {shown_value(base)}, expected the name of a preset or file"
            )
        # A base file is looked for beside the file that names it.
        beside = path.parent / base if path is not None else Path(base)
        found = base if base in presets() or not beside.is_file() else beside
        merged = _read(found, f"{where}, base {base}", depth + 1)
        data.setdefault("name", path.stem if path is not None else str(name))
        data = merged | data
    return data


def _file_text(path: Path, where: str) -> str:
    try:
        size = path.stat().st_size if "\0" not in str(path) and path.is_file() else None
        if size is not None and size <= _MAX_FILE_BYTES:
            return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AccelsimError(f"{where}: cannot be read as UTF-8 text: {reason}") from None
    if size is None:
        raise AccelsimError(f"{where}: no such file or preset; presets are {', '.join(presets())}")
    raise AccelsimError(f"{where}: {size} bytes, expected at most {_MAX_FILE_BYTES}")


def _override(data: dict[str, Any], item: str) -> None:
    where = f"--set {item[:80]}"
    key, equals, text = item.partition("=")
    if not equals or not key.strip() or not text.strip():
        raise AccelsimError(f"{where}: expected KEY=VALUE")
    _put(data, key.strip(), load_yaml(text, where), where)


def _put(data: dict[str, Any], key: str, value: Any, where: str) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        nested = data.get(parent) or {}
        if not isinstance(nested, dict):
            raise AccelsimError(f"{where}: {parent} has no keys of its own")
        data[parent] = dict(nested)
        data = data[parent]
    data[leaf] = value


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"] if part not in ("int", "str"))
    if problem["type"] == "extra_forbidden":
        nested: dict[str, type[BaseModel]] = {"mapping": MappingPins, "ppu_latency_cycles": PpuLatency}
        owner: type[BaseModel] = nested.get(where.partition(".")[0], Arch)
        return f"unknown key '{where[:60]}'; known keys are {listed(owner.model_fields, where)}"
    if problem["type"] == "missing":
        return f"key '{where}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where} = {shown_value(problem['input'])}: {message}" if where else message
