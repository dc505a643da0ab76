"""The section of a run: what was run, where cycles, energy and area go, and what each price rests on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.page.blocks import Chart, Grid, Section, Tile, files_grid
from accelsim.page.prices import area_grid, area_of, by_layer, energy_of, price_grid, read_prices
from accelsim.page.tables import LARGEST, Files, Table, short
from accelsim.page.timeline import timeline_chart
from accelsim.report.inventory import SCOPES
from accelsim.sim.layer_run import STALL_REASONS

_NAMED = {"pe": "PE", "system": "system"}
_MOST_LAYERS = 5_000
_MOST_CHARACTERS = 500
_PJ_PER_UJ = 1e6
_UM2_PER_MM2 = 1e6
_SHOWN = (
    "layer",
    "op",
    "macs",
    "cycles",
    "utilization",
    "bound_by",
    "energy_pe_pj",
    "energy_system_pj",
    "fj_per_op",
    "sqnr_db",
    "weights_from",
    "input_from",
    "output_to",
)


def summary_of(files: Files) -> dict[str, Any]:
    """summary.json, with the keys that a section needs. Raises AccelsimError."""
    summary, where = files.json("summary.json"), f"report {files.folder / 'summary.json'}"
    for key in ("trace", "scheme", "arch", "accelsim_version", "trace_sha256"):
        value = summary.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= _MOST_CHARACTERS:
            raise AccelsimError(f"{where}: {key} is {ascii(value)[:40]}, expected a text")
    for key in ("macs", "cycles", "utilization", "bound_utilization"):
        _number(summary, key, where)
    for key in ("energy_pj", "area_um2", "fj_per_op"):
        if summary.get(key) is not None:
            if not isinstance(summary[key], dict):
                raise AccelsimError(f"{where}: {key} is no object, expected a number by scope")
            for scope in SCOPES[:3] if key == "area_um2" else SCOPES:
                if not (key == "area_um2" and scope == "system"):
                    _number(summary[key], scope, f"{where}: {key}")
    if not isinstance(summary.get("synthetic"), bool):
        raise AccelsimError(f"{where}: synthetic is no truth value, expected true or false")
    return summary


def is_number(value: object) -> bool:
    """One that a run may have written."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def _number(values: dict[str, Any], key: str, where: str) -> None:
    value = values.get(key)
    if not is_number(value):
        raise AccelsimError(f"{where}: {key} is {ascii(value)[:40]}, expected a number")


def run_section(folder: Path) -> Section:
    """Of a folder that `accelsim run` wrote. Raises AccelsimError."""
    files = Files(folder)
    summary = summary_of(files)
    try:
        arch = Arch.model_validate(summary.get("arch_parameters"))
    except ValueError as error:
        reason = next((line for line in str(error).splitlines()[1:] if line.strip()), "")[:80]
        raise AccelsimError(
            f"report {folder / 'summary.json'}: arch_parameters are no arch ({reason})"
        ) from None
    shares = [f"{reason}_share" for reason in STALL_REASONS]
    needed = ("macs", "cycles", "utilization", "bound_cycles", "dram_read_bits", "dram_write_bits", *shares)
    layers = files.table("layers.csv", numbers=needed, texts=("layer", "bound_by"))
    if len(layers) > _MOST_LAYERS:
        raise AccelsimError(
            f"report {folder / 'layers.csv'}: {len(layers):,} layers, expected at most {_MOST_LAYERS:,}"
        )
    if min(min(layers["cycles"]), min(layers["macs"]), min(layers["bound_cycles"])) < 1:
        raise AccelsimError(f"report {folder / 'layers.csv'}: expected macs, cycles and bound_cycles above 0")
    blocks: list[Chart | Grid] = []
    notes = []
    blocks += [_layers_grid(layers), _roofline(layers, arch), _stalls(layers), _utilization(layers, arch)]
    if files.has("components.csv"):
        prices = read_prices(files, layers["layer"])
        blocks[1:1] = [energy_of(prices), by_layer(prices), area_of(prices)]
        blocks += [price_grid(prices), area_grid(prices)]
    else:
        notes.append("Without prices (--no-prices): no energy, no area.")
    if files.has("timeline.json"):
        blocks.append(timeline_chart(files, arch.pes))
    else:
        notes.append("No timeline.json: accelsim run --timeline writes one.")
    blocks += [_machine(summary["arch_parameters"]), files_grid(files.hashes)]
    return Section(title_of(summary), _facts(summary), _tiles(summary, arch), blocks, notes)


def title_of(summary: dict[str, Any]) -> str:
    return f"{summary['trace']} at {summary['scheme']} on {summary['arch']}"


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was run, from summary.json."""
    facts = [("trace", summary["trace"]), ("scheme", summary["scheme"]), ("arch", summary["arch"])]
    facts.append(("tensors", "synthetic" if summary["synthetic"] else "of the trace"))
    if is_number(gated := summary.get("assumed_gated_fraction")):
        facts.append(("values", f"not computed (--no-data), {gated} of lane steps taken for gated"))
    if is_number(bits := summary.get("accumulator_bits")):
        facts.append(("accumulator", f"{bits} bits ({str(summary.get('accumulator_policy'))[:40]})"))
    evidence = summary.get("energy_evidence")
    if isinstance(evidence, dict) and all(map(is_number, evidence.values())):
        parts = sorted(evidence.items(), key=lambda item: -item[1])
        facts.append(
            ("system energy rests on", ", ".join(f"{name} {100 * share:.3g} %" for name, share in parts))
        )
    facts += [("accelsim", summary["accelsim_version"]), ("trace sha256", summary["trace_sha256"])]
    return facts


def _tiles(summary: dict[str, Any], arch: Arch) -> list[Tile]:
    def tile(label: str, value: str, key: str, rows: tuple[str, str] | None = None) -> Tile:
        return Tile(label, value, f"summary.json: {key}", rows)

    tiles = [
        tile("cycles", f"{summary['cycles']:,}", "cycles"),
        tile(
            f"latency at {arch.clock_ghz:g} GHz",
            f"{summary['cycles'] / arch.clock_ghz / 1e6:.4g} ms",
            "cycles / clock_ghz",
        ),
        tile(
            f"utilization (bound {summary['bound_utilization']:.3f})",
            f"{summary['utilization']:.3f}",
            "utilization, bound_utilization",
        ),
        tile("MACs", f"{summary['macs']:,}", "macs"),
    ]
    if (energy := summary.get("energy_pj")) is not None:
        for scope in ("pe", "system"):
            rows = ("prices", "scope:" + "|".join(SCOPES[: SCOPES.index(scope) + 1]))
            value = f"{energy[scope] / _PJ_PER_UJ:,.4g} µJ"
            tiles.append(tile(f"energy, {_NAMED[scope]}", value, f"energy_pj.{scope}", rows))
        fj = summary.get("fj_per_op")
        if fj is not None:
            tiles.append(tile("energy an operation, system", f"{fj['system']:.4g} fJ", "fj_per_op.system"))
    if (area := summary.get("area_um2")) is not None:
        shown = f"{area['array'] / _UM2_PER_MM2:.4g} mm²"
        tiles.append(tile("area, array", shown, "area_um2.array", ("area", "")))
        if is_number(density := summary.get("tops_per_mm2")):
            tiles.append(tile("throughput over area", f"{density:.4g} TOPS/mm²", "tops_per_mm2"))
    for key, label in (("sqnr_db", "SQNR"), ("ppu_sqnr_db", "SQNR behind the PPU")):
        if is_number(ratio := summary.get(key)):
            tiles.append(tile(label, f"{ratio:.2f} dB", key))
    if is_number(overflows := summary.get("overflows")):
        tiles.append(tile("overflows", f"{overflows:,}", "overflows"))
    return tiles


def _layers_grid(layers: Table) -> Grid:
    about = "layers.csv; its columns are defined in docs/results.md. A layer's name shows its prices."
    return Grid("Layers", about, layers, _SHOWN, role="layers")


def _roofline(layers: Table, arch: Arch) -> Chart:
    """Operations a cycle over operations a DRAM byte; None where a layer has no DRAM traffic."""
    peak, byte_rate = 2 * arch.pes * arch.lanes * arch.vector_size, arch.dram_bits / 8
    points = []
    columns = ("layer", "bound_by", "macs", "cycles", "dram_read_bits", "dram_write_bits")
    for name, bound, macs, cycles, read, write in zip(*(layers[key] for key in columns), strict=True):
        moved = (read + write) / 8
        points.append(
            [name, bound, short(2 * macs / moved) if moved >= 0.125 else None, short(2 * macs / cycles)]
        )
    about = (
        "Operations a cycle over operations a DRAM byte, a point a layer; one MAC is two operations. Layers "
        "without DRAM traffic stand at the right edge. From macs, cycles, dram_read_bits and dram_write_bits "
        f"of layers.csv; the roof is the machine's peak of {peak:,} operations a cycle and its DRAM port of "
        f"{byte_rate:g} bytes a cycle. Weights fetched during the layer before may lift a point above it."
    )
    data = {"peak": peak, "bytes_per_cycle": short(byte_rate), "points": points}
    return Chart("roofline", "Roofline", about, data)


def stack(
    names: Sequence[str], series: Sequence[tuple[str, Sequence[Any]]], unit: str, **more: Any
) -> dict[str, Any]:
    """Data of a chart of kind `bars`: one value a name of every series, stacked."""
    rows = [{"name": name, "values": [short(value) for value in values]} for name, values in series]
    return {"names": list(names), "series": rows, "unit": unit, **more}


def _stalls(layers: Table) -> Chart:
    series = []
    for reason in STALL_REASONS:
        shares = zip(layers[f"{reason}_share"], layers["cycles"], strict=True)
        series.append((reason.replace("_", " "), [float(share * cycles) for share, cycles in shares]))
    about = (
        "Cycles of a layer, mean over the PEs, by what they go to: layers.csv, cycles times ..._share. "
        "docs/timing.md defines the reasons; stalls.csv has every PE."
    )
    data = stack(layers["layer"], series, "cycles", link="layer", states=True)
    return Chart("bars", "Stalls by layer", about, data)


def _utilization(layers: Table, arch: Arch) -> Chart:
    peak = arch.pes * arch.lanes * arch.vector_size
    bounds = zip(layers["macs"], layers["bound_cycles"], strict=True)
    series = [
        ("achieved", layers["utilization"]),
        ("at the layer's bound", [min(1.0, macs / (cycles * peak)) for macs, cycles in bounds]),
    ]
    about = "Share of peak: layers.csv, utilization, and macs over bound_cycles times peak (docs/mapping.md)."
    data = stack(layers["layer"], series, "share of peak", link="layer", side_by_side=True)
    return Chart("bars", "Utilization by layer", about, data)


def _machine(parameters: dict[str, Any]) -> Grid:
    flat: dict[str, str] = {}
    for key, value in parameters.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": _shown(own) for inner, own in value.items()}
        else:
            flat[key] = _shown(value)
    table = Table({"parameter": list(flat), "value": list(flat.values())})
    about = "summary.json: arch_parameters; docs/arch.md defines them."
    return Grid("Machine", about, table, folded=True)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
