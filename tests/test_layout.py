"""Arrows never turn back: who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import simpy

from accelsim.trace.find import bundled_traces

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in (ROOT, ROOT / "kernels")
    for package in ("accelsim", "accelsim_kernels")
    for path in sorted((folder / package).rglob("*.py"))
}


def imports(name: str) -> set[str]:
    """Modules that `name` imports, anywhere in it; `from package import module` counts as the module."""
    found = set()
    for node in ast.walk(ast.parse(SOURCES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & set(SOURCES)) or {str(node.module)}
    return found


def room(module: str) -> str:
    """The first name below accelsim: the room a module stands in. accelsim itself is ""."""
    return module.split(".")[1] if "." in module else ""


def own(name: str) -> set[str]:
    """Rooms that module `name` imports from: {"sim", "machine"}."""
    return {room(module) for module in imports(name) if module.split(".")[0] == "accelsim"}


def members(part: str) -> list[str]:
    prefix = f"accelsim.{part}"
    return [name for name in SOURCES if name == prefix or name.startswith(prefix + ".")]


# Which rooms may be entered from which; each from itself.
WHAT = {"errors", "arguments", "system", "formats", "workload", "quantize", "trace"}
WHEN = {"errors", "formats", "workload", "machine", "mapping", "sim"}
MAY_IMPORT = {
    "errors": set(),
    "arguments": {"errors"},
    "system": {"errors"},
    "version": set(),
    "formats": {"errors", "arguments"},
    "workload": {"errors", "arguments", "formats"},
    "quantize": {"errors", "arguments", "formats", "workload"},
    "trace": WHAT,
    "synthetic": WHAT,
    "open": {"errors", "arguments", "trace", "synthetic"},
    "recipes": {"errors"},
    "capture": WHAT,
    "machine": {"errors", "arguments", "formats"},
    "mapping": {"errors", "system", "formats", "workload", "machine"},
    "sim": {"errors", "system", "workload", "machine", "mapping"},
    "compute": WHEN | {"arguments", "system", "quantize"},
    "costs": {"errors"},
    "characterise": {"errors", "arguments", "system", "version", "formats", "machine", "costs"},
    "inference": {"errors", "formats", "workload", "quantize", "machine", "compute"},
    "torch": WHAT | {"capture", "machine", "compute", "inference"},
    "onnx": WHAT | {"capture"},
    "report": WHEN | {"arguments", "system", "compute", "costs"},
    "rtl": WHEN | {"arguments", "system", "quantize", "compute", "costs", "characterise", "report"},
    "network": WHAT | WHEN | {"compute", "costs", "report", "version"},
    "sizing": {"errors", "workload", "machine", "mapping", "compute", "network"},
    "validation": WHAT | WHEN | {"open", "synthetic", "compute", "costs", "report", "network"},
    "request": WHAT | {"open", "machine", "costs", "report", "network", "sizing"},
    "sweep": WHAT | WHEN | {"open", "synthetic", "compute", "report", "network", "sizing"},
    "api": WHAT
    | {"open", "machine", "mapping", "compute", "costs", "characterise", "report", "rtl", "network"}
    | {"sizing", "request", "validation"},
    "page": {"errors", "arguments", "system", "trace", "machine", "sim", "report", "validation", "version"},
    "cli": WHAT
    | {"synthetic", "machine", "open", "report", "sweep", "page", "api", "version"}
    | {"torch", "onnx", "doctor"},
    "doctor": {"errors", "system", "version", "trace"},
    "__main__": {"cli"},
}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_arrows_point_one_way(part: str) -> None:
    assert members(part)
    for name in members(part):
        assert own(name) <= MAY_IMPORT[part] | {part}, name


def test_every_module_stands_in_a_room() -> None:
    assert {room(name) for name in SOURCES if name.startswith("accelsim.")} == set(MAY_IMPORT)


def test_no_arrow_runs_back_up() -> None:
    """Prints the rooms from the ground up: each may be entered only from those below it."""
    graph = {
        part: {target for name in members(part) for target in own(name)} - {part, ""} for part in MAY_IMPORT
    }
    floors: list[list[str]] = []
    done: set[str] = set()
    while ready := sorted(part for part, needs in graph.items() if part not in done and needs <= done):
        floors.append(ready)
        done |= set(ready)
    for number, rooms in enumerate(floors):
        for part in rooms:
            print(f"{number:2} {part:13} {', '.join(sorted(graph[part]))}")
    assert done == set(graph)


def test_kernels_stand_alone() -> None:
    kernels = [name for name in SOURCES if name.startswith("accelsim_kernels")]
    assert len(kernels) > 5
    for name in kernels:
        outside = {module.split(".")[0] for module in imports(name)} - set(sys.stdlib_module_names)
        assert outside <= {"accelsim_kernels", "numpy", "numba", "llvmlite"}, name


def test_one_way_to_compile() -> None:
    """accelsim_kernels.jit, which goes on where compiled code cannot be kept."""

    def takes_it(name: str) -> bool:
        return "numba.njit" in re.sub(
            r"from numba import .*\bnjit\b", "numba.njit", SOURCES[name].read_text()
        )

    assert {name for name in SOURCES if takes_it(name)} == {"accelsim_kernels.jit"}


def test_only_the_report_knows_counts_and_prices() -> None:
    both = {room(name) for name in SOURCES if {"sim", "costs"} <= own(name)}
    assert both == {"report", "network"}
    assert not any("costs" in own(name) for name in members("sim") + members("mapping"))
    assert not any({"sim", "mapping"} & own(name) for name in members("costs"))


def test_one_reader_of_yaml_and_one_simpy_clock() -> None:
    assert {name for name in SOURCES if "yaml" in imports(name)} == {"accelsim.machine.plain_yaml"}
    simpy_users = {name for name in SOURCES if "simpy" in {module.split(".")[0] for module in imports(name)}}
    assert simpy_users == {"accelsim.sim.clock"}


def simpy_private_names() -> set[str]:
    clock = simpy.Environment()
    known = [name for kind in (simpy.Environment, simpy.Event, simpy.Process) for name in dir(kind)]
    known += [*vars(clock), *vars(clock.event()), *simpy.Event.__annotations__]
    return {name for name in known if name.startswith("_") and not name.startswith("__")}


def test_simpys_private_names_stand_in_the_clock_only() -> None:
    """Of other objects, that is: what a class calls its own (`self._queue`) is its own affair."""
    private = simpy_private_names()
    assert {"_now", "_queue", "_eid", "_ok", "_value"} <= private
    files = [
        path
        for folder in ("accelsim", "kernels", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    users = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in private:
                if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                    users.add(path.relative_to(ROOT).as_posix())
    assert users == {"accelsim/sim/clock.py"}


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name: imports(name) & set(SOURCES) - {name} for name in SOURCES}
    done: set[str] = set()
    while ready := {name for name, needs in graph.items() if name not in done and needs <= done}:
        done |= ready
    assert set(graph) == done


def test_modules_are_short() -> None:
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in SOURCES.items()}
    # Numba's cache notices changes of a function's own file alone, so what emits a kernel stays beside it.
    whole = {"accelsim_kernels.tiles"}
    assert {name for name, count in lines.items() if count > 400} <= whole
    assert all(lines[name] <= 560 for name in whole)


def test_the_public_names() -> None:
    import accelsim

    assert set(accelsim.__all__) == {*accelsim._MODULE_OF, "__version__"}
    for name in accelsim.__all__:
        assert getattr(accelsim, name) is not None and name in dir(accelsim)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        accelsim.nothing  # noqa: B018


def test_the_command_line_starts_without_heavy_modules() -> None:
    heavy = ["numba", "pandas", "matplotlib", "scipy", "simpy", "safetensors", "torch", "onnx", "onnxruntime"]
    program = (
        f"import sys, accelsim, accelsim.cli.main; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_every_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    files = (ROOT / "accelsim").rglob("__init__.py")
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in files}
    assert there <= set(project["tool"]["setuptools"]["packages"])


def test_every_file_of_a_package_is_installed() -> None:
    """By the lists of pyproject.toml; `make package` installs the wheel and runs it."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    installed: set[Path] = set()
    for package in setuptools["packages"]:
        folder = ROOT / setuptools["package-dir"].get(package, package.replace(".", "/"))
        for pattern in ["*.py", *setuptools["package-data"].get(package, [])]:
            assert pattern == "*.py" or any(folder.glob(pattern)), f"{package}: nothing is {pattern}"
            installed |= set(folder.glob(pattern))
        for pattern in setuptools["exclude-package-data"].get(package, []):
            installed -= set(folder.glob(pattern))
    there = {
        path
        for folder in ("accelsim", "kernels/accelsim_kernels")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there <= installed, there - installed
    assert set(bundled_traces().values()) <= installed
