"""Every constant as a tidy row, for `accelsim costs [COMPONENT ...]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from accelsim.costs.ppu import QUICK
from accelsim.costs.tables import Row
from accelsim.errors import AccelsimError, listed

COLUMNS = (
    "component", "item", "quantity", "value", "unit", "node_nm", "vdd_v", "source", "status",
)  # fmt: skip
FAMILY_COMPONENTS = {
    "mul": "dot_product", "dot": "dot_product", "scale_product": "scale_product",
    "scaling_mul": "scale_multiply",
    "fast_dot": "dot_product", "fast_scale_product": "scale_product", "fast_scaling_mul": "scale_multiply",
    "fast_accumulator": "accumulator", "register_path": "register",
    "block_accumulator": "accumulator", "pair_accumulator": "accumulator", "block_sum": "block_sum",
    "fast_block_accumulator": "accumulator", "fast_pair_accumulator": "accumulator",
    "accumulator": "accumulator", "acc_add": "adder", "register": "register", "array": "array",
    "zero_detect": "zero_detect", "ppu_requant": "ppu", "ppu_shift": "ppu", "ppu_relu": "ppu",
    "ppu_clip": "ppu", "ppu_bias_add": "ppu", "ppu_vmax": "other_blocks", "ppu_recip": "other_blocks",
    "ppu_magnitude": "ppu_vector_scale", "ppu_running_max": "ppu_vector_scale",
    "ppu_scale": "ppu_vector_scale",
    "ppu_partial": "ppu", "ppu_sum": "ppu", "ppu_scaled": "ppu", "ppu_bias": "ppu", "ppu_round": "ppu",
    "ppu_code": "ppu_vector_scale", "ppu_scale_add": "ppu_vector_scale",
    "ppu_quotient": "ppu_vector_scale",
    "ppu_reciprocal": "ppu_vector_scale", "ppu_select": "ppu_select",
    "fast_ppu_partial": "ppu", "fast_ppu_sum": "ppu", "fast_ppu_reciprocal": "ppu_vector_scale",
    "element_decode": "element_decode", "scale_sum": "scale_sum", "align": "align",
    "ppu_block_scale": "ppu_block_scale", "ppu_block_round": "ppu_block_scale",
    "ppu_block_shared": "ppu_block_scale", "ppu_block_shift": "ppu_block_quantize",
    "ppu_block_code": "ppu_block_quantize",
    "fp4_mul": "other_blocks", "fp4_dot": "other_blocks", "e8m0_add": "other_blocks",
    "e4m3_mul": "other_blocks",
    "align_shift": "other_blocks",
}  # fmt: skip
LOGIC_QUANTITIES = (("area_um2", "um2"), ("leakage_nw", "nW"), ("delay_ps", "ps"), ("energy_fj", "fJ"))
SRAM_QUANTITIES = (
    ("read_energy_pj", "pJ"), ("write_energy_pj", "pJ"), ("leakage_mw", "mW"), ("area_mm2", "mm2"),
    ("cycle_time_ns", "ns"),
)  # fmt: skip
CLOCK_QUANTITIES = (
    ("pin_ff", "fF"), ("load_ff", "fF"), ("energy_fj", "fJ"), ("area_um2", "um2"), ("leakage_nw", "nW"),
    ("delay_ps", "ps"),
)  # fmt: skip
SCALING_QUANTITIES = (
    "area_relative", "energy_a2", "energy_a1", "energy_a0", "delay_d3", "delay_d2", "delay_d1", "delay_d0",
)  # fmt: skip


def _entry(component: str, item: str, quantity: str, value: float, unit: str, row: Row, status: str) -> dict:
    return {
        "component": component, "item": item, "quantity": quantity, "value": value, "unit": unit,
        "node_nm": row.numbers.get("node_nm"), "vdd_v": row.numbers.get("vdd_v"),
        "source": row.text["source"], "status": status,
    }  # fmt: skip


def _datapath(rows: Sequence[Row]) -> Iterator[dict]:
    listed: set[tuple[str, str]] = set()
    for row in rows:
        block, stimulus = row.text["block"], row.text["stimulus"]
        component = FAMILY_COMPONENTS.get(row.text["family"].removeprefix(QUICK), "other_blocks")
        for quantity, unit in LOGIC_QUANTITIES:
            if quantity == "energy_fj":
                yield _entry(component, block, f"energy, {stimulus}", row[quantity], unit, row, "synthesis")
            elif (block, quantity) not in listed:
                listed.add((block, quantity))
                yield _entry(
                    component, block, quantity[: quantity.rindex("_")], row[quantity], unit, row, "synthesis"
                )


def list_constants(tables: Mapping[str, Sequence[Row]], component: str | None) -> list[dict]:
    """All constants, or one component's; keys component, item, quantity, value, unit, node_nm, vdd_v, source,
    status."""
    found = list(_datapath(tables["datapath"]))
    for row in tables["clock_cells"]:
        item = f"{row.text['role']}, {row.text['cell']}"
        found += [
            _entry("clock_tree", item, name[: name.rindex("_")], row[name], unit, row, "primary")
            for name, unit in CLOCK_QUANTITIES
            if name in row.numbers
        ]
    for row in tables["sram"]:
        item = f"{row.text['device']} {row['words']:g} x {row['width_bits']:g}"
        found += [
            _entry("sram", item, name[: name.rindex("_")], row[name], unit, row, "cacti")
            for name, unit in SRAM_QUANTITIES
        ]
    for row in tables["sram_area"]:
        found.append(
            _entry("sram", row.text["macro"], "area, comparison only", row["area_um2"], "um2", row, "primary")
        )
    for row in tables["bitcell"]:
        item = f"6T cell {row['node_nm']:g} nm"
        found.append(_entry("sram", item, "area", row["area_um2"], "um2", row, row.text["status"]))
    for row in tables["logic_scaling"]:
        item = f"logic {row['node_nm']:g} nm"
        found += [
            _entry("scaling", item, name, row[name], "coefficient", row, row.text["status"])
            for name in SCALING_QUANTITIES
        ]
    for row in tables["system"]:
        text = row.text
        item = f"{text['key']} ({text['used']})"
        found.append(
            _entry(text["component"], item, text["quantity"], row["value"], text["unit"], row, text["status"])
        )
    if component is None:
        return found
    names = sorted({entry["component"] for entry in found})
    if component not in names:
        known = listed(names, component)
        raise AccelsimError(f"costs: component '{component}' is unknown, expected one of {known}")
    return [entry for entry in found if entry["component"] == component]
