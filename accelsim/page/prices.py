"""Energy and area of a run by component, and the rows of the cost tables that both rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accelsim.errors import AccelsimError, listed
from accelsim.page.blocks import Chart, Grid
from accelsim.page.tables import Files, Table, short
from accelsim.report.inventory import SCOPES

_PJ_PER_UJ = 1e6
_UM2_PER_MM2 = 1e6
MOST_PARTS = 7  # that a chart tells apart; what is smaller is one part
SMALLER = "smaller parts"
_SAID = ("stimulus", "scaling", "source")


@dataclass(frozen=True)
class Prices:
    """components.csv and area.csv. rows: one a (scope, component, action, price) of the whole run."""

    layers: list[str]
    components: Table
    area: Table
    keys: list[int]  # of every row of components.csv, its row in `rows`
    rows: Table


def read_prices(files: Files, layers: Sequence[str]) -> Prices:
    """Raises AccelsimError."""
    numbers = ("count", "price_pj", "activity", "energy_per_action_pj", "energy_pj")
    texts = ("layer", "scope", "component", "action", "evidence")
    components = files.table("components.csv", numbers=numbers, texts=texts)
    area = files.table(
        "area.csv",
        numbers=("instances", "area_each_um2", "placed_area_um2"),
        texts=("scope", "component", "evidence", *_SAID),
    )
    known = set(layers)
    for name, table in (("components.csv", components), ("area.csv", area)):
        where = f"report {files.folder / name}"
        if strange := set(table["scope"]) - set(SCOPES):
            raise AccelsimError(f"{where}: scope {ascii(min(strange))[:40]}, expected {listed(SCOPES)}")
        if name == "components.csv" and (strange := set(table["layer"]) - known):
            raise AccelsimError(f"{where}: layer {ascii(min(strange))[:40]} is not in layers.csv")
    keys, rows = _whole_run(components, area)
    return Prices(list(layers), components, area, keys, rows)


def _whole_run(components: Table, area: Table) -> tuple[list[int], Table]:
    """As explained.csv is made: count x energy_per_action_pj = energy_pj, and what the price rests on."""
    by = list(zip(*(components[key] for key in (*_BY, "price_pj", "evidence")), strict=True))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(by))}
    keys = [numbers[key] for key in by]
    counts, energies = [0.0] * len(numbers), [0.0] * len(numbers)
    for key, count, energy in zip(keys, components["count"], components["energy_pj"], strict=True):
        counts[key] += count
        energies[key] += energy
    total = sum(energies)
    said = {name: number for number, name in enumerate(area["component"])}
    columns: dict[str, list[Any]] = {name: [key[n] for key in numbers] for n, name in enumerate(_BY)}
    columns["count"] = [int(count) if count.is_integer() else count for count in counts]
    each = [energy / count if count > 0 else None for energy, count in zip(energies, counts, strict=True)]
    columns["energy_per_action_pj"] = each
    columns["energy_pj"] = energies
    columns["share_percent"] = [100 * energy / total if total else 0.0 for energy in energies]
    columns["evidence"] = [key[4] for key in numbers]
    columns["price_pj"] = [key[3] for key in numbers]
    for name in _SAID:
        columns[name] = [area[name][said[key[1]]] if key[1] in said else "" for key in numbers]
    return keys, Table(columns)


_BY = ("scope", "component", "action")
_GRID = (*_BY, "count", "energy_per_action_pj", "energy_pj", "share_percent", "evidence", "source")


def price_grid(prices: Prices) -> Grid:
    """Rows of the whole run, and of every layer: a chart's bar and a layer's name set its filter."""
    about = (
        "Every energy is a sum of these rows: count times energy_per_action_pj, which is price_pj times the "
        "activity of the operands. components.csv by layer; stimulus, scaling and source from area.csv. "
        "docs/costs.md says what the kinds of evidence are. Bars and names of layers above choose rows here."
    )
    own = prices.components
    layer_of = {name: number for number, name in enumerate(prices.layers)}
    by_layer = {
        "names": prices.layers,
        "layer": [layer_of[name] for name in own["layer"]],
        "row": prices.keys,
        "count": own["count"],
        "energy_per_action_pj": [short(value) for value in own["energy_per_action_pj"]],
        "energy_pj": [short(value) for value in own["energy_pj"]],
    }
    return Grid(
        "Prices", about, prices.rows, _GRID, role="prices", extra={"layers": by_layer, "sorted": "energy_pj"}
    )


def energy_by_component(rows: Table) -> dict[tuple[str, str], float]:
    """Energy in pJ by (scope, component), innermost scope first."""
    found: dict[tuple[str, str], float] = {}
    for scope, component, energy in zip(rows["scope"], rows["component"], rows["energy_pj"], strict=True):
        found[scope, component] = found.get((scope, component), 0.0) + energy
    return dict(sorted(found.items(), key=lambda item: (SCOPES.index(item[0][0]), -item[1])))


def energy_of(prices: Prices) -> Chart:
    energy = energy_by_component(prices.rows)
    about = (
        "Energy of the whole run by component, coloured by scope; leakage and idle clocking are in their "
        "component. Sums of energy_pj in components.csv. A bar shows the prices that it rests on."
    )
    data = _by_scope({key: value / _PJ_PER_UJ for key, value in energy.items()}, "µJ")
    return Chart("bars", "Energy by component", about, data)


def area_of(prices: Prices) -> Chart:
    own = prices.area
    found = {
        (scope, component): placed / _UM2_PER_MM2
        for scope, component, placed in zip(
            own["scope"], own["component"], own["placed_area_um2"], strict=True
        )
        if scope != "system"
    }
    about = (
        "Placed area of the whole array by component: area.csv, placed_area_um2, which is instances times "
        "area_each_um2 over placement_utilization."
    )
    data = _by_scope(found, "mm²")
    data["target"] = "area"
    return Chart("bars", "Area by component", about, data)


def area_grid(prices: Prices) -> Grid:
    about = (
        "area.csv: cells of one instance, times instances, over placement_utilization is placed_area_um2, "
        "which adds up to the area of the array; leakage and delay are of the same rows."
    )
    shown = ("scope", "component", "instances", "area_each_um2", "placed_area_um2", "leakage_uw", "delay_ps")
    return Grid(
        "Area", about, prices.area, (*shown, "evidence", "source"), "area", {"sorted": "placed_area_um2"}
    )


def _by_scope(found: dict[tuple[str, str], float], unit: str) -> dict[str, Any]:
    """Bars from the largest down, one a component, each in the colour of its scope."""
    order = sorted((key for key, value in found.items() if value), key=lambda key: -found[key])
    series = []
    for scope in SCOPES:
        if any(own == scope for own, _ in order):
            values = [short(found[key]) if key[0] == scope else 0 for key in order]
            series.append({"name": scope, "values": values})
    names = [component for _, component in order]
    return {"names": names, "series": series, "unit": unit, "across": True, "link": "component"}


def by_layer(prices: Prices) -> Chart:
    """Energy of every layer by its largest components of the whole run."""
    energy = energy_by_component(prices.rows)
    largest = sorted(energy, key=lambda key: -energy[key])[:MOST_PARTS]
    names = [component for _, component in largest] + [SMALLER]
    place = {component: number for number, component in enumerate(names)}
    layer_of = {name: number for number, name in enumerate(prices.layers)}
    values = [[0.0] * len(prices.layers) for _ in names]
    own = prices.components
    for layer, component, pj in zip(own["layer"], own["component"], own["energy_pj"], strict=True):
        values[place.get(component, len(names) - 1)][layer_of[layer]] += pj / _PJ_PER_UJ
    about = (
        f"System energy of every layer by the {len(largest)} largest components of the run; energy_pj of "
        "components.csv. A bar shows that layer's prices."
    )
    series = [
        {"name": name, "values": [short(value) for value in row]}
        for name, row in zip(names, values, strict=True)
    ]
    data = {"names": prices.layers, "series": series, "unit": "µJ", "link": "layer"}
    return Chart("bars", "Energy by layer", about, data)
