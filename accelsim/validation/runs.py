"""Simulations behind the modelled figures: equal work is run once, and priced at each technology."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from accelsim.compute.computed import StepToggles
from accelsim.costs import CostLibrary, Technology
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.network import RunRequest, run_network
from accelsim.open import open_workload
from accelsim.quantize.workload import Workload
from accelsim.report.inventory import PART_NAMES, technology_of
from accelsim.report.price import PriceRequest, Report, price
from accelsim.report.results import RunResult
from accelsim.report.stages import STAGES, in_fewest_stages
from accelsim.synthetic.matmul import MATMUL, matmul

# Overrides that change what counts cost, not how often they happen.
PRICES_ONLY = ("voltage_v", "clock_ghz", "node_nm", "sram_energy_factor", "operand_wires")


@dataclass
class Runs:
    """costs: a folder of cost tables, by default the package's; gated_fraction: None computes values.

    Raises AccelsimError as `accelsim.run` does.
    """

    costs: Path | None = None
    gated_fraction: float | None = 0.0
    _workloads: dict[str, Workload] = field(default_factory=dict)
    _results: dict[tuple[object, ...], RunResult] = field(default_factory=dict)

    def report(self, machine: str, workload: str, scheme: str, overrides: tuple[str, ...] = ()) -> Report:
        """The tables of a workload at a scheme on a preset."""
        wanted = Scheme.parse(scheme)
        arch = load_arch(machine, list(overrides)).in_mode(wanted)
        arch = in_fewest_stages(arch, wanted, self.library(technology_of(arch)))
        rest = [item for item in overrides if item.partition("=")[0] not in PRICES_ONLY]
        stages = {key: getattr(arch, key) for key in STAGES}
        own = load_arch(machine, rest).in_mode(wanted).model_copy(update=stages)
        result = self._result(own, workload, scheme)
        if result.report.arch == arch:
            return result.report
        activities = result.activities
        return price(PriceRequest(arch, wanted, activities, self.library(technology_of(arch))))

    def library(self, technology: Technology) -> CostLibrary:
        return CostLibrary(technology, self.costs)

    def _result(self, arch: Arch, workload: str, scheme: str) -> RunResult:
        own, _, stated = workload.partition("@")
        still = own == MATMUL and bool(stated) and not any(densities(stated))
        # Of stated densities what switches is the point; where all is zero nothing does, and all is gated.
        gated = (1.0 if still else None) if own == MATMUL and stated else self.gated_fraction
        key = (arch, workload, scheme, gated)
        if key not in self._results:
            opened = self._open(workload)
            schemes = (Scheme.parse(scheme),) * len(opened.layers)
            library = self.library(technology_of(arch))
            request = RunRequest(opened, arch, schemes, library, gated_fraction=gated)
            result = run_network(request)
            self._results[key] = _of_zeros(result, library) if still else result
        return self._results[key]

    def _open(self, name: str) -> Workload:
        if name not in self._workloads:
            own, _, stated = name.partition("@")
            if own == MATMUL:
                # Of zeros no values are computed.
                self._workloads[name] = matmul(*filter(None, densities(stated)))
            else:
                self._workloads[name] = open_workload(name)
        return self._workloads[name]


def _of_zeros(result: RunResult, library: CostLibrary) -> RunResult:
    """A run without values, priced as one whose registers and wires never change."""
    nothing = StepToggles(dict.fromkeys(PART_NAMES, 0.0), 0.0, 0)
    activities = tuple(
        replace(activity, computed=replace(activity.computed, toggles=nothing))
        for activity in result.activities
    )
    report = price(PriceRequest(result.report.arch, result.report.scheme, activities, library))
    return replace(result, report=report, activities=activities)


def densities(text: str) -> tuple[float, ...]:
    """Shares of operands that are not 0, `weights/activations`; none where nothing is stated."""
    return tuple(float(share) for share in text.split("/") if share)
