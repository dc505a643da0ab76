"""`accelsim doctor`: whether this installation can run, and what it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from accelsim.cli.json_output import JsonOption, print_json
from accelsim.errors import AccelsimError


def doctor_command(as_json: JsonOption = False) -> None:
    """Check versions, compiled kernels, caches, tools and bundled traces; status 0 where it can run."""
    from accelsim.doctor import examine

    found = examine()
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["problems"]:
        raise AccelsimError(f"cannot run: {'; '.join(found['problems'])}")


def _print(found: Mapping[str, Any]) -> None:
    from accelsim.cli.terminal import print_mapping

    sections: dict[str, dict[str, Any]] = {
        "accelsim": {
            "version": f"{found['accelsim']} in {found['folder']}",
            "Python": f"{found['python']} ({found['python_expected'] or 'any'}), {found['executable']}",
            "platform": found["platform"],
        },
        "packages": {own["package"]: _package(own) for own in found["packages"] if own["extra"] is None},
        "extras (pip install 'accelsim[NAME]')": _extras(found),
        "kernels": found["kernels"] or {},
        "kept on disk": found["kept"],
        "tools": {own["tool"]: _tool(own) for own in found["tools"]},
        "bundled traces": {
            own["trace"]: f"{own['bytes'] / 1e6:.1f} MB, {own['file']}" for own in found["traces"] or []
        },
    }
    for title, lines in sections.items():
        typer.echo(title)
        print_mapping({f"  {name}": value for name, value in lines.items()})
    for note in found["notes"]:
        typer.echo(f"note: {note}")
    for problem in found["problems"]:
        typer.echo(f"problem: {problem}")
    if not found["problems"]:
        typer.echo("ready to run")


def _package(own: Mapping[str, Any]) -> str:
    wanted = own["expected"] or "any version"
    return f"{own['installed'] or 'missing'} ({wanted}{'' if own['fits'] else ': NOT MET'})"


def _extras(found: Mapping[str, Any]) -> dict[str, str]:
    by_extra: dict[str, list[Mapping[str, Any]]] = {}
    for own in found["packages"]:
        if own["extra"] is not None:
            by_extra.setdefault(own["extra"], []).append(own)
    said = {}
    for extra, members in by_extra.items():
        missing = [f"{own['package']}{own['expected']}" for own in members if not own["fits"]]
        said[extra] = "complete" if not missing else f"missing {', '.join(missing)}"
    return said


def _tool(own: Mapping[str, Any]) -> str:
    state = own["version"] or ("does not start" if own["path"] else "not found")
    return f"{state} ({own['used_by']})"
