"""The 5 nm PE of Keller et al., JSSC 58(4), 2023, on the preset keller5: its parts and clock."""

from __future__ import annotations

from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.report.inventory import build_inventory, technology_of
from accelsim.report.price import Report
from accelsim.validation.published import Published, published
from accelsim.validation.runs import Runs
from accelsim.validation.split import energy_by_component

# Parts of Table II. Its operand A stays for 16 cycles, as weights do here; B changes every cycle (sec. V-E).
_PARTS = {
    "a_buffer": ("weight_buffer",),
    "b_buffer": ("input_buffer",),
    "accumulation_collector": ("accumulation_collector",),
}
# A clock that netlists mapped for area meet at every supply.
_SLOW_GHZ = 0.1


def keller_share(report: Report, part: str) -> float:
    """pJ of a part of Table II: datapath, a_buffer, b_buffer, accumulation_collector, or other: the rest."""
    if part == "datapath":
        return report.energy_pj("datapath")
    components = energy_by_component(report, "pe")
    own = {name: sum(components[each] for each in names) for name, names in _PARTS.items()}
    if part == "other":
        return report.energy_pj("pe") - report.energy_pj("datapath") - sum(own.values())
    return own[part]


def clock_mhz(row: Published, runs: Runs) -> dict[str, float]:
    """The clock at a supply: that of the row which sets it, times the delay of logic there over that here."""
    anchor = next(other for other in published().values() if other.sets == "clock")
    return {"": anchor.value * _delay_ps(anchor, runs) / _delay_ps(row, runs)}


def timed_report(row: Published, runs: Runs) -> Report:
    """Tables of the row's workload at its supply, at the clock that the supply allows."""
    clock_ghz = clock_mhz(row, runs)[""] / 1e3
    overrides = (*row.overrides, f"clock_ghz={clock_ghz!r}")
    return runs.report(row.machine, row.workload, row.scheme, overrides)


def _delay_ps(row: Published, runs: Runs) -> float:
    """Delay of the dot product at the row's supply; all logic scales alike. At a clock that every netlist
    meets: a chip has the same one at all supplies."""
    scheme = Scheme.parse(row.scheme)
    arch = load_arch(row.machine, [*row.overrides, f"clock_ghz={_SLOW_GHZ}"]).in_mode(scheme)
    inventory = build_inventory(arch, scheme, runs.library(technology_of(arch)))
    return next(part.cost.delay_ps for part in inventory if part.name == "dot_product") or 0.0
