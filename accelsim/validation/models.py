"""How each published figure is modelled: `model` of its row names one of MODELS.

A model returns its figure at every scope where it has one, innermost first, or under "" where scopes say
nothing. Energies and areas are of the scope with those inside it (report/inventory.py).
"""

from __future__ import annotations

from collections.abc import Callable

from accelsim.costs import Technology
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.report.inventory import SCOPES
from accelsim.report.price import Report
from accelsim.validation.keller import clock_mhz, keller_share, timed_report
from accelsim.validation.published import Published
from accelsim.validation.runs import MATMUL, Runs
from accelsim.validation.split import energy_by_component

BASELINE = "8/8/-/-"
AREA_SCOPES = SCOPES[:-1]
NO_SCOPE = ""
_WORD_BITS = 32
_KIB_BITS = 8192
# Of a MAGNet accelerator: what the published shares add up.
_SHARES = {
    "memory": ("weight_buffer", "input_buffer", "accumulation_collector", "accumulation_buffer"),
    "movement": ("noc", "global_buffer"),
}

Figures = dict[str, float]
Model = Callable[[Published, Runs], Figures]


def energy_ratio(row: Published, runs: Runs) -> Figures:
    """Energy of the workload against 8/8/-/-."""
    own, base = _report(row, runs), _report(row, runs, BASELINE)
    return {scope: own.energy_pj(scope) / base.energy_pj(scope) for scope in SCOPES}


def area_ratio(row: Published, runs: Runs) -> Figures:
    """Placed area against 8/8/-/-."""
    own, base = _report(row, runs), _report(row, runs, BASELINE)
    return {scope: own.area_um2(scope) / base.area_um2(scope) for scope in AREA_SCOPES}


def energy_saved(row: Published, runs: Runs) -> Figures:
    return _saved_percent(energy_ratio(row, runs))


def area_saved(row: Published, runs: Runs) -> Figures:
    return _saved_percent(area_ratio(row, runs))


def storage_bits(row: Published, runs: Runs) -> Figures:
    """Bits of a weight with its share of the vector's scale, in the machine's words."""
    vector_size = load_arch(row.machine).vector_size
    weight = Scheme.parse(row.scheme).weight.in_blocks(vector_size)
    return {NO_SCOPE: weight.word_bits / vector_size}


def fj_per_op(row: Published, runs: Runs) -> Figures:
    """fJ per operation; a MAC is two."""
    report = _report(row, runs)
    return {scope: report.energy_pj(scope) * 1e3 / _operations(report) for scope in SCOPES}


def tops_per_mm2(row: Published, runs: Runs) -> Figures:
    """Operations per time and placed area, as achieved."""
    report = _report(row, runs)
    seconds = report.layers["cycles"].sum() / (report.arch.clock_ghz * 1e9)
    tops = _operations(report) / seconds / 1e12
    counts = {"datapath": report.arch.pes, "pe": report.arch.pes, "array": 1}
    return {scope: tops / (report.area_um2(scope) * counts[scope] / 1e6) for scope in AREA_SCOPES}


def energy_share(row: Published, runs: Runs) -> Figures:
    """Percent of the energy of PEs (pe) or the whole chip (array) in the parts that `row.part` names."""
    report = _report(row, runs)
    found = {}
    for scope in ("pe", "array"):
        parts = energy_by_component(report, scope)
        if row.part == "math":
            own = report.energy_pj("datapath")
        else:
            own = sum(pj for name, pj in parts.items() if name in _SHARES[row.part])
        found[scope] = 100 * own / sum(parts.values())
    return found


def keller_split(row: Published, runs: Runs) -> Figures:
    """Energy per MAC of a part of the PE over that of the datapath at 4/4/-/-."""
    base = runs.report(row.machine, row.workload, "4/4/-/-")
    unit_pj = keller_share(base, "datapath") / _operations(base)
    report = _report(row, runs)
    return {"pe": keller_share(report, row.part) / _operations(report) / unit_pj}


def keller_overhead(row: Published, runs: Runs) -> Figures:
    """Percent of energy that scales by vector add to 4/4/-/-."""
    base, own = runs.report(row.machine, row.workload, "4/4/-/-"), _report(row, runs)
    return {scope: 100 * (own.energy_pj(scope) / base.energy_pj(scope) - 1) for scope in ("datapath", "pe")}


def keller_area(row: Published, runs: Runs) -> Figures:
    """mm2 of the machine."""
    report = _report(row, runs)
    return {scope: report.area_um2(scope) / 1e6 for scope in ("datapath", "pe")}


def tops_per_w(row: Published, runs: Runs) -> Figures:
    """Operations per energy at a supply, at the clock that it allows."""
    report = timed_report(row, runs)
    return {scope: _operations(report) / report.energy_pj(scope) for scope in ("datapath", "pe")}


def operand_swap(row: Published, runs: Runs) -> Figures:
    """Percent of energy saved by having the operand with more zeros change at every step, at the densities
    of `row.part` (held, changing) and the other way."""
    dense, sparse = row.part.split("/")
    ways = f"{dense}/{sparse}", f"{sparse}/{dense}"
    own, other = (runs.report(row.machine, f"{MATMUL}@{way}", row.scheme, row.overrides) for way in ways)
    return {s: 100 * (1 - own.energy_pj(s) / other.energy_pj(s)) for s in ("datapath", "pe")}


def inferences_per_joule(row: Published, runs: Runs) -> Figures:
    """Runs of the workload per energy: inferences per second and watt."""
    report = timed_report(row, runs)
    return {scope: 1e12 / report.energy_pj(scope) for scope in ("datapath", "pe")}


def mac_area(row: Published, runs: Runs) -> Figures:
    """um2 of a dot product of one, its accumulator for `row.part` terms, and the accumulator's register."""
    library, scheme = runs.library(_technology(row)), Scheme.parse(row.scheme)
    widths = scheme.weight.bits, scheme.activation.bits
    terms = int(row.part.split()[0])
    bits = sum(widths) + (terms - 1).bit_length()
    costs = (
        library.dot_product(1, *widths, held_operand=False),
        library.accumulator(bits, sum(widths)),
        library.register(bits),
    )
    return {NO_SCOPE: sum(cost.area_um2 for cost in costs)}


def format_mac_area(row: Published, runs: Runs) -> Figures:
    """um2 of a dot product of one of a block format with its decoders, the sum of exponents, the aligner, an
    accumulator of `row.part` bits and its register."""
    library, scheme = runs.library(_technology(row)), Scheme.parse(row.scheme)
    accumulator, bits = int(row.part.split()[0]), scheme.weight.decoded_bits
    costs = (
        library.element_decode(2, values=row.scheme),
        library.dot_product(1, bits, bits, held_operand=False),
        library.scale_sum((accumulator + 2 * bits).bit_length(), values=row.scheme),
        library.align(2 * bits, accumulator, values=row.scheme),
        library.aligned_accumulator(accumulator, values=row.scheme),
        library.register(accumulator),
    )
    return {NO_SCOPE: sum(cost.area_um2 for cost in costs)}


def add_pj(row: Published, runs: Runs) -> Figures:
    """pJ of an addition of `row.part` bits."""
    bits = int(row.part)
    return {NO_SCOPE: runs.library(_technology(row)).accumulator(bits, bits).energy_pj["add"]}


def multiply_pj(row: Published, runs: Runs) -> Figures:
    """pJ of a dot product of one."""
    scheme = Scheme.parse(row.scheme)
    widths = scheme.weight.bits, scheme.activation.bits
    cost = runs.library(_technology(row)).dot_product(1, *widths, held_operand=False)
    return {NO_SCOPE: cost.energy_pj["op"]}


def sram_word_pj(row: Published, runs: Runs) -> Figures:
    """pJ to read 32 bits of a memory of `row.part` KB."""
    words = int(row.part) * _KIB_BITS // _WORD_BITS
    return {NO_SCOPE: runs.library(_technology(row)).sram(words, _WORD_BITS).energy_pj["read"]}


def dram_word_pj(row: Published, runs: Runs) -> Figures:
    """pJ to move 32 bits to or from a DRAM of kind `row.part`."""
    return {NO_SCOPE: runs.library(_technology(row)).dram(row.part).energy_pj["bit"] * _WORD_BITS}


MODELS: dict[str, Model] = {
    model.__name__: model
    for model in (
        *(energy_ratio, area_ratio, energy_saved, area_saved, storage_bits),
        *(fj_per_op, tops_per_mm2, energy_share),
        *(keller_split, keller_overhead, keller_area, tops_per_w, operand_swap, inferences_per_joule),
        clock_mhz,
        *(mac_area, format_mac_area, add_pj, multiply_pj, sram_word_pj, dram_word_pj),
    )
}


def _report(row: Published, runs: Runs, scheme: str | None = None) -> Report:
    return runs.report(row.machine, row.workload, scheme or row.scheme, row.overrides)


def _operations(report: Report) -> float:
    return 2 * float(report.layers["macs"].sum())


def _saved_percent(ratios: Figures) -> Figures:
    return {scope: 100 * (1 - ratio) for scope, ratio in ratios.items()}


def _technology(row: Published) -> Technology:
    values = dict(item.split("=") for item in row.overrides)
    return Technology(node_nm=float(values["node_nm"]), voltage_v=float(values["voltage_v"]))
