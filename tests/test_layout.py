"""Arrows never turn back: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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


def own(name: str) -> set[str]:
    """Parts of accelsim that module `name` imports: {"sim", "config"}."""
    return {
        module.split(".")[1] if "." in module else ""
        for module in imports(name)
        if module.split(".")[0] == "accelsim"
    }


def members(part: str) -> list[str]:
    prefix = f"accelsim.{part}"
    return [name for name in SOURCES if name == prefix or name.startswith(prefix + ".")]


NO_HARDWARE = {
    *("errors", "scheme", "workload", "quantize", "quantize_tensor", "quantize_loops", "calibration"),
    "layer_output",
}
TRACES = {"trace", "trace_files", "trace_format", "trace_write", "json_fields"}
MAY_IMPORT = {
    "errors": set(),
    "scheme": {"errors"},
    "workload": {"errors", "scheme"},
    **dict.fromkeys(sorted(NO_HARDWARE - {"errors", "scheme", "workload"}), NO_HARDWARE),
    **dict.fromkeys(sorted(TRACES), NO_HARDWARE | TRACES),
    "synthetic": NO_HARDWARE | TRACES | {"synthetic"},
    "open_workload": NO_HARDWARE | TRACES | {"synthetic"},
    "config": {"errors", "scheme", "presets"},
    "costs": {"errors", "costs"},
    "dataflows": {"config", "dataflows"},
    "mapping": {"errors", "scheme", "workload", "config", "dataflows", "mapping"},
    "lanes": {"errors", "scheme", "workload", "config", "layer_output"},
    "sim": {"errors", "scheme", "workload", "config", "dataflows", "lanes", "mapping", "sim"},
    "inventory": {"errors", "scheme", "config", "costs", "dataflows"},
}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_arrows_point_one_way(part: str) -> None:
    assert members(part)
    for name in members(part):
        assert own(name) <= MAY_IMPORT[part], name


def test_kernels_stand_alone() -> None:
    kernels = [name for name in SOURCES if name.startswith("accelsim_kernels")]
    assert len(kernels) > 5
    for name in kernels:
        outside = {module.split(".")[0] for module in imports(name)} - set(sys.stdlib_module_names)
        assert outside <= {"accelsim_kernels", "numpy", "numba", "llvmlite"}, name


def test_only_the_report_knows_counts_and_prices() -> None:
    both = {name for name in SOURCES if {"sim", "costs"} <= own(name)}
    assert both == {"accelsim.report", "accelsim.network"}
    assert not any("costs" in own(name) for name in members("sim") + members("mapping"))
    assert not any({"sim", "mapping"} & own(name) for name in members("costs"))


def test_one_reader_of_yaml_and_one_simpy_clock() -> None:
    assert {name for name in SOURCES if "yaml" in imports(name)} == {"accelsim.config"}
    assert {name.split(".")[1] for name in SOURCES if "simpy" in imports(name)} == {"sim"}


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name: imports(name) & set(SOURCES) - {name} for name in SOURCES}
    # results and tables name each other's types under TYPE_CHECKING only; those are not in the way.
    graph["accelsim.tables"] = graph["accelsim.plots"] = set()
    done: set[str] = set()
    while ready := {name for name, needs in graph.items() if name not in done and needs <= done}:
        done |= ready
    assert set(graph) == done


def test_modules_are_short() -> None:
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in SOURCES.items()}
    # One compiled loop over one heap of events; its parts would share all of its forty arrays.
    assert lines.pop("accelsim.mapping.model") < 450
    assert not {name for name, count in lines.items() if count > 400}


def test_the_command_line_starts_without_heavy_modules() -> None:
    heavy = ["numba", "pandas", "matplotlib", "scipy", "simpy", "safetensors"]
    program = f"import sys, accelsim.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_every_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    files = (ROOT / "accelsim").rglob("__init__.py")
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in files}
    assert there <= set(project["tool"]["setuptools"]["packages"])
