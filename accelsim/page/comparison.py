"""The section of a comparison: what each scheme saves, beside what was published, and every scheme's run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.page.blocks import Chart, Grid, Section, Tile, files_grid
from accelsim.page.prices import MOST_PARTS, SMALLER, energy_by_component, read_prices
from accelsim.page.run import is_number, run_section, stack, summary_of
from accelsim.page.tables import Files, Table, short
from accelsim.validation.published import Published, published

_MOST_SCHEMES = 64
_PJ_PER_UJ = 1e6
_UM2_PER_MM2 = 1e6
_SAVED = {
    "area_datapath_saved_percent": "area, datapath",
    "area_pe_saved_percent": "area, PE",
    "area_array_saved_percent": "area, array",
    "energy_datapath_saved_percent": "energy, datapath",
    "energy_pe_saved_percent": "energy, PE",
    "energy_array_saved_percent": "energy, array",
    "energy_system_saved_percent": "energy, system",
    "cycles_saved_percent": "cycles",
}
_SHOWN = ("scheme", "cycles", "utilization", "sqnr_db", "energy_pe_pj", "energy_system_pj", "area_pe_um2")
_SHOWN_SAVED = ("energy_pe_saved_percent", "area_pe_saved_percent", "cycles_saved_percent")


def comparison_section(folder: Path) -> Section:
    """Of a folder that `accelsim compare` wrote. Raises AccelsimError."""
    files = Files(folder)
    table = files.table("comparison.csv", numbers=("macs", "cycles"), texts=("scheme",))
    schemes = table["scheme"]
    if len(set(schemes)) != len(schemes) or len(schemes) > _MOST_SCHEMES:
        raise AccelsimError(
            f"report {folder / 'comparison.csv'}: expected at most {_MOST_SCHEMES} schemes, each once"
        )
    folders = [folder / scheme.replace("/", "_").replace(":", "_") for scheme in schemes]
    for own in folders:
        if (
            own.parent != folder
            or own.name == ".."
            or len(own.name) > 100
            or not (own / "summary.json").is_file()
        ):
            raise AccelsimError(f"report {folder}: no {own.name}/summary.json, expected a run of each scheme")
    summaries = [summary_of(Files(own)) for own in folders]
    first = summaries[0]
    measured = _measured(table)
    blocks: list[Chart | Grid] = [
        Grid(
            "Schemes",
            f"comparison.csv; ..._saved_percent is against {schemes[0]} (docs/results.md).",
            table,
            (*_SHOWN, *measured, *_SHOWN_SAVED),
        )
    ]
    if len(schemes) > 1:
        blocks.append(_savings(table, first))
    if all((own / "components.csv").is_file() for own in folders):
        blocks += _breakdowns(folders, schemes)
    if files.has("sensitivity.csv"):
        blocks += _sensitivity(files, schemes)
    blocks.append(files_grid(files.hashes))
    runs = [replace(run_section(own), title=scheme) for own, scheme in zip(folders, schemes, strict=True)]
    facts = [
        ("trace", first["trace"]),
        ("arch", first["arch"]),
        ("schemes", ", ".join(schemes)),
        ("tensors", "synthetic" if first["synthetic"] else "of the trace"),
        ("accelsim", first["accelsim_version"]),
        ("trace sha256", first["trace_sha256"]),
    ]
    title = f"{first['trace']} on {first['arch']}: {len(schemes)} schemes"
    return Section(title, facts, _tiles(table), blocks, _notes(table, first), inner=runs)


def _notes(table: Table, first: dict[str, Any]) -> list[str]:
    """What cannot be seen in prices without values: of formats beside integers they are of other operands."""
    formats = ["/" not in scheme for scheme in table["scheme"]]  # they have names, integers have W/A/ws/as
    valueless = is_number(first.get("assumed_gated_fraction"))
    if not valueless or "energy_pe_pj" not in table or len(set(formats)) == 1:
        return []
    return [
        "Block formats are priced on real tensors, integers on the tables' operands, which change less "
        "(docs/costs.md, Block formats)."
    ]


def _measured(table: Table) -> list[str]:
    """Columns of accuracy that was measured elsewhere: they name their unit in brackets."""
    return [name for name in table.columns if "(" in name and not table.is_text(name)]


def _tiles(table: Table) -> list[Tile]:
    """What the scheme that saves most PE energy, and most area, saves."""
    tiles = []
    for key, label in (("energy_pe_saved_percent", "PE energy"), ("area_pe_saved_percent", "PE area")):
        if key in table and not table.is_text(key) and None not in table[key] and len(table) > 1:
            best = max(range(1, len(table)), key=lambda row: table[key][row])
            name = table["scheme"][best]
            tiles.append(
                Tile(f"most {label} saved: {name}", f"{table[key][best]:.1f} %", f"comparison.csv: {key}")
            )
    return tiles


def _savings(table: Table, first: dict[str, Any]) -> Chart:
    kinds = [key for key in _SAVED if key in table and not table.is_text(key)]
    names = [_SAVED[key] for key in kinds]
    others = range(1, len(table))
    series = [(table["scheme"][row], [table[key][row] for key in kinds]) for row in others]
    points = []
    for row in published().values():
        saved = _published_saving(row, table["scheme"][0], first)
        key = f"{row.quantity}_{row.scope}_saved_percent"
        if saved is not None and row.scheme in table["scheme"][1:] and key in kinds:
            said = [row.claim, f"of {row.workload}, {row.source}", f"evidence: {row.evidence}"]
            points.append([_SAVED[key], row.scheme, short(saved), *said])
    about = (
        f"Saved against {table['scheme'][0]}, percent: comparison.csv. Diamonds are published figures "
        "(accelsim/validation/published.csv): energies of this workload, areas of this machine; "
        f"{len(points)} of them say something of these schemes."
    )
    data = stack(names, series, "% saved", side_by_side=True, published=points)
    return Chart("bars", "Savings", about, data)


def _published_saving(row: Published, baseline: str, first: dict[str, Any]) -> float | None:
    """Percent; None where the figure is another, or of something else."""
    if row.relative_to != baseline or row.machine != first["arch"] or row.overrides or row.part:
        return None
    if row.quantity != "area" and row.workload != first["trace"]:
        return None
    if row.quantity not in ("area", "energy"):
        return None
    return {"percent saved": row.value, "ratio": 100 * (1 - row.value)}.get(row.unit)


def _sensitivity(files: Files, schemes: list[str]) -> list[Chart | Grid]:
    texts, numbers = ("knob", "of", "scheme", "scope", "why"), ("low_is", "high_is", *_ENDS.values())
    table = files.table("sensitivity.csv", texts=texts, numbers=numbers)
    about = (
        f"Energy saved against {schemes[0]}, percent, with one uncertain price at its low and its high end "
        "and the others as they are: a bar a price, the one that moves most on top; the line is the saving "
        "as priced. sensitivity.csv, the table below, whose filter chooses bars; column why and "
        "docs/costs.md say where the ends are from."
    )
    data = {
        "role": "sensitivity",
        "by": ["scheme", "scope"],
        "first": {"scope": "system"},
        "name": "knob",
        "of": "of",
        "low_is": "low_is",
        "high_is": "high_is",
        **_ENDS,
        "why": "why",
        "unit": f"energy saved against {schemes[0]}, %",
        "short_unit": "% saved",
        "points": "points",
        "set": "as priced",
    }
    shown = "sensitivity.csv: energy saved as priced, and at the ends of each price (docs/costs.md)."
    return [
        Chart("tornado", "Sensitivity to prices", about, data),
        Grid("Savings at the ends of prices", shown, table, role="sensitivity"),
    ]


_ENDS = {"as_set": "saved_percent_as_priced", "low": "saved_percent_low", "high": "saved_percent_high"}


def _breakdowns(folders: list[Path], schemes: list[str]) -> list[Chart]:
    """Energy and area of every scheme by their largest components."""
    energies: list[dict[str, float]] = []
    areas: list[dict[str, float]] = []
    for folder in folders:
        files = Files(folder)
        prices = read_prices(files, files.table("layers.csv", texts=("layer",))["layer"])
        found = energy_by_component(prices.rows)
        energies.append({component: value / _PJ_PER_UJ for (_, component), value in found.items()})
        own = prices.area
        placed = zip(own["scope"], own["component"], own["placed_area_um2"], strict=True)
        areas.append({name: value / _UM2_PER_MM2 for scope, name, value in placed if scope != "system"})
    where = "Each scheme's own section below has the prices."
    return [
        Chart(
            "bars",
            "Energy by component",
            f"Energy of the run by its {MOST_PARTS} largest components: energy_pj of components.csv. {where}",
            _largest(energies, schemes, "µJ"),
        ),
        Chart(
            "bars",
            "Area by component",
            f"Placed area of the array by its {MOST_PARTS} largest components: area.csv. {where}",
            _largest(areas, schemes, "mm²"),
        ),
    ]


def _largest(found: list[dict[str, float]], schemes: list[str], unit: str) -> dict[str, Any]:
    names = dict.fromkeys(name for own in found for name in own)
    order = sorted(names, key=lambda name: -max(own.get(name, 0.0) for own in found))
    kept, rest = order[:MOST_PARTS], order[MOST_PARTS:]
    series = [(name, [own.get(name, 0.0) for own in found]) for name in kept]
    series.append((SMALLER, [sum(own.get(name, 0.0) for name in rest) for own in found]))
    return stack(schemes, series, unit, totals=True)
