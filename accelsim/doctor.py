"""What `accelsim doctor` looks at: whether this installation can run, and what it finds to work with."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from accelsim.errors import AccelsimError
from accelsim.system.kept import kept_folder
from accelsim.system.tools import find_tool, run_tool
from accelsim.version import __version__

# Program, how it says its version, what it is for. None of them is needed for a simulation.
TOOLS = (
    ("yosys", "-V", "costs characterise, rtl --synth"),
    ("verilator", "--version", "the testbench that rtl writes"),
    ("iverilog", "-V", "tests of the SystemVerilog, a second simulator"),
    ("chromium", "--version", "tests of pages"),
)
_PATIENCE_S = 20.0


def examine() -> dict[str, Any]:
    """Everything found, of types that JSON has (docs/commands.md, Doctor).

    `problems` are what keeps simulations from running, a line each; `notes` what makes them slow or smaller.
    """
    problems: list[str] = []
    notes: list[str] = []
    packages, python_expected = _packages()
    for own in packages:
        if own["extra"] is None and not own["fits"]:
            found = f"is {own['installed']}" if own["installed"] else "is not installed"
            problems.append(f"{own['package']} {found}, expected {own['expected'] or 'any version'}")
    if not packages:
        notes.append("accelsim is not installed, only in the path: which versions it expects is not known")
    if not SpecifierSet(python_expected).contains(platform.python_version(), prereleases=True):
        problems.append(f"Python is {platform.python_version()}, expected {python_expected}")
    kernels = _tried("kernels", _kernels, problems)
    if kernels and not kernels["cache_writable"]:
        notes.append("Numba can keep no code on disk, every run compiles anew: set NUMBA_CACHE_DIR")
    folder = kept_folder()
    kept = {
        "what": "mappings, timings",
        "cache_folder": None if folder is None else str(folder),
        "cache_writable": folder is not None and _writable(folder),
    }
    if not kept["cache_writable"]:
        notes.append(
            "mappings and timings are kept nowhere, every run searches and simulates anew: "
            "set ACCELSIM_CACHE_DIR"
        )
    traces = _tried("bundled traces", _traces, problems)
    if traces is not None and not traces:
        problems.append("no bundled trace is found: expected them in the package or beside it")
    return {
        "accelsim": __version__,
        "folder": str(Path(__file__).resolve().parent),
        "python": platform.python_version(),
        "python_expected": python_expected,
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": packages,
        "kernels": kernels,
        "kept": kept,
        "tools": [_tool(*tool) for tool in TOOLS],
        "traces": traces,
        "problems": problems,
        "notes": notes,
    }


def _packages() -> tuple[list[dict[str, Any]], str]:
    """One entry a requirement, `extra` None for those always needed; and the versions of Python."""
    try:
        own = metadata.metadata("accelsim")
    except metadata.PackageNotFoundError:
        return [], ""
    found = []
    extras = own.get_all("Provides-Extra") or []
    for text in own.get_all("Requires-Dist") or []:
        wanted = Requirement(text)
        marker = wanted.marker
        extra = next((e for e in extras if marker and marker.evaluate({"extra": e})), None)
        if marker and extra is None and not marker.evaluate({"extra": ""}):
            continue  # of another platform
        try:
            installed = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            installed = None
        fits = installed is not None and wanted.specifier.contains(installed, prereleases=True)
        found.append(
            {
                "package": wanted.name,
                "installed": installed,
                "expected": str(wanted.specifier),
                "extra": extra,
                "fits": fits,
            }
        )
    return found, "".join(own.get_all("Requires-Python") or [])


def _tried(what: str, look: Callable[[], Any], problems: list[str]) -> Any:
    """What is found, or None: a package that is broken is a problem to tell, whatever it raises."""
    try:
        return look()
    except Exception as error:
        problems.append(f"{what}: cannot be loaded: {type(error).__name__}: {error}")
        return None


def _kernels() -> dict[str, Any]:
    import llvmlite.binding as llvm
    from accelsim_kernels.cpu import has_vnni
    from accelsim_kernels.jit import cache_folder
    from numba import config

    folder = cache_folder()
    return {
        "cpu": llvm.get_host_cpu_name(),
        "instructions": "AVX-512 VNNI" if has_vnni() else "portable",
        "threads": config.NUMBA_NUM_THREADS,  # type: ignore[attr-defined]
        "cache_folder": folder,
        "cache_writable": folder is not None and _writable(Path(folder)),
    }


def _writable(folder: Path) -> bool:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK)


def _traces() -> list[dict[str, Any]]:
    from accelsim.trace.find import bundled_traces

    return [
        {"trace": name, "file": str(path), "bytes": path.stat().st_size}
        for name, path in bundled_traces().items()
    ]


def _tool(name: str, flag: str, used_by: str) -> dict[str, Any]:
    """`version`: the line of what it says that has one, None where it is not there or does not start."""
    path = version = None
    try:
        path = find_tool(name, name)
        with tempfile.TemporaryDirectory() as folder:
            said = run_tool([path, flag], Path(folder), _PATIENCE_S, name)
        version = next((line.strip() for line in said.splitlines() if re.search(r"\d\.\d", line)), None)
    except (AccelsimError, OSError):
        pass
    return {"tool": name, "path": path, "version": version, "used_by": used_by}
