"""Accelergy's energy and area reference tables (ERT, ART), read and written.

Versions 0.3 and 0.4 list tables and actions by name; 0.2 has them as keys. Energies are in pJ, areas in um2,
of one instance; `leak` is the leakage of a cycle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.costs.component import ComponentCost
from accelsim.costs.own import OwnPrice, number
from accelsim.errors import AccelsimError
from accelsim.machine.plain_yaml import load_yaml

LEAK = "leak"
_VERSION = 0.4
_UW_PER_PJ_GHZ = 1e3


@dataclass(frozen=True)
class Entry:
    """Instances of one component: name, such as `magnet16.pe.weight_buffer`."""

    name: str
    instances: int
    cost: ComponentCost


def tables_of(entries: Iterable[Entry], clock_ghz: float) -> dict[str, str]:
    """File name -> YAML text of ERT and ART."""
    ert, art = ([f"{kind}:", f"  version: {_VERSION}", "  tables:"] for kind in ("ERT", "ART"))
    for entry in entries:
        name = entry.name + (f"[0..{entry.instances - 1}]" if entry.instances > 1 else "")
        energy_pj = dict(entry.cost.energy_pj)
        if entry.cost.leakage_uw:
            energy_pj[LEAK] = entry.cost.leakage_uw / clock_ghz / _UW_PER_PJ_GHZ
        ert += [f"  - name: {name}", "    actions:"]
        for action, energy in energy_pj.items():
            ert += [f"    - name: {action}", "      arguments: {}", f"      energy: {_float(energy)}"]
        art += [f"  - name: {name}", f"    area: {_float(entry.cost.area_um2)}"]
    return {f"{kind}.yaml": "\n".join([*lines, ""]) for kind, lines in (("ERT", ert), ("ART", art))}


def _float(value: float) -> str:
    """As YAML 1.1 reads a float: an exponent takes a point before it."""
    text = repr(float(value))
    return text if "." in text or "e" not in text else text.replace("e", ".0e")


def read_accelergy(path: Path, clock_ghz: float) -> list[OwnPrice]:
    """Prices of an ERT or ART file, or of one with both; a component is what the last part of its name says.

    Raises AccelsimError for a file that is neither, and for an action with several energies.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AccelsimError(f"prices {path}: cannot be read ({type(error).__name__})") from None
    content = load_yaml(text, f"prices {path}")
    known = [kind for kind in ("ERT", "ART") if isinstance(content, dict) and kind in content]
    if not known:
        raise AccelsimError(f"prices {path}: has neither ERT nor ART at its top, expected one of them")
    found: list[OwnPrice] = []
    for kind in known:
        for name, table in _named(_tables(content[kind], f"prices {path}: {kind}"), f"prices {path}: {kind}"):
            component = re.sub(r"\[[^]]*\]", "", name).rpartition(".")[2]
            where = f"prices {path}: {kind} of {name[:80]}"
            if kind == "ART":
                area = number(_field(table, "area", where), f"{where}: area")
                found.append(OwnPrice(component, "area", "", area, where))
            else:
                found += _energies(component, table, where, clock_ghz)
    return found


def _energies(component: str, table: Any, where: str, clock_ghz: float) -> Iterator[OwnPrice]:
    actions = table.get("actions", table) if isinstance(table, dict) else table
    energies: dict[str, set[float]] = {}
    for action, entry in _named(actions, where):
        for one in entry if isinstance(entry, list) else [entry]:
            energy = number(_field(one, "energy", where), f"{where}: energy of {action[:60]}")
            energies.setdefault(action, set()).add(energy)
    for action, values in energies.items():
        if len(values) > 1:
            raise AccelsimError(
                f"{where}: {action[:60]} has {len(values)} energies by its arguments, expected one"
            )
        value = values.pop()
        if action == LEAK:
            yield OwnPrice(component, "leakage", "", value * clock_ghz * _UW_PER_PJ_GHZ, where)
        else:
            yield OwnPrice(component, "energy", action, value, where)


def _tables(content: Any, where: str) -> Any:
    return _field(content, "tables", where)


def _named(items: Any, where: str) -> Iterator[tuple[str, Any]]:
    """(name, rest) of a list of {name, ...}, or of a mapping by name."""
    if isinstance(items, Mapping):
        yield from ((str(name), rest) for name, rest in items.items())
    elif isinstance(items, list):
        for item in items:
            yield str(_field(item, "name", where)), item
    else:
        raise AccelsimError(f"{where}: is '{str(items)[:60]}', expected a list of names")


def _field(item: Any, name: str, where: str) -> Any:
    if not isinstance(item, Mapping) or name not in item:
        raise AccelsimError(f"{where}: no {name} in '{str(item)[:60]}', expected one")
    return item[name]
