"""What callers ask for, opened, read and checked: the arguments of `accelsim.api` as one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelsim.arguments import expect, shown, texts_of
from accelsim.costs import CostLibrary
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.accumulator import SIZED_BY_WORKLOAD
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.network import FloatOutputs, Progress, RunRequest
from accelsim.open import open_workload
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.workload import Workload
from accelsim.report.inventory import Part, build_inventory, check_priced
from accelsim.report.library import Costs, library_of
from accelsim.report.stages import in_fewest_stages
from accelsim.sizing import size_accumulators


def request_of(
    trace: str | Path | Workload,
    arch: str | Path | Arch,
    scheme: str | Scheme,
    overrides: Sequence[str],
    options: QuantizeOptions | None,
    costs: Costs | None,
    *,
    gated_fraction: float | None = None,
    prices: bool = True,
    **kept: Any,
) -> RunRequest:
    """What is asked for, opened and read; the same scheme for every layer, `kept` as it is. May raise.

    prices: False for none.
    """
    expect(prices, bool, "prices", "True or False")
    if costs is not None and not prices:
        raise AccelsimError("costs are given, expected none where nothing is priced")
    workload, wanted = workload_of(trace), scheme_of(scheme)
    machine = machine_of(arch, overrides).in_mode(wanted)
    machine.check_scheme(wanted)  # before floats are convolved for the SQNR
    if prices:
        check_priced(machine, wanted)
    expect(options, (QuantizeOptions, type(None)), "options", "QuantizeOptions, or None")
    return RunRequest(
        workload,
        machine,
        (wanted,) * len(workload.layers),
        library_of(machine, costs) if prices else None,
        options,
        FloatOutputs(workload) if gated_fraction is None else None,
        gated_fraction=gated_fraction,
        **kept,
    )


def workload_of(trace: str | Path | Workload) -> Workload:
    if isinstance(trace, (str, Path)):
        return open_workload(trace)
    if not hasattr(trace, "quantized_layer"):
        raise AccelsimError(f"trace is {shown(trace)}, expected a path, a name or an open workload")
    return trace


def machine_of(arch: str | Path | Arch, overrides: Sequence[str]) -> Arch:
    changes = texts_of(overrides, "overrides", "KEY=VALUE")
    if not isinstance(arch, Arch):
        return load_arch(arch, changes)
    if changes:
        raise AccelsimError("overrides apply to an arch given by name or file, not to an Arch object")
    return arch


def sized_machine(
    trace: str | Path | Workload, arch: str | Path | Arch, scheme: Scheme, overrides: Sequence[str]
) -> Arch:
    """The machine of the trace at a scheme; the trace is opened only where it sizes accumulators."""
    machine = machine_of(arch, overrides).in_mode(scheme)
    machine.check_scheme(scheme)
    if machine.accumulator_bits not in SIZED_BY_WORKLOAD:
        return in_fewest_stages(machine, scheme, library_of(machine, None))
    request = request_of(trace, machine, scheme, (), None, None, gated_fraction=0.0)
    return sized(replace(request, gated_fraction=None)).arch


def sized(request: RunRequest, progress: Progress | None = None) -> RunRequest:
    """The request on a machine of numbers alone: in stages that its clock chooses, and with accumulators as
    wide as its workload wants. May raise."""
    arch = request.arch
    if request.library is not None:
        arch = in_fewest_stages(arch, request.scheme, request.library)
    elif arch.lane_stages != "given":
        raise AccelsimError(
            f"arch {arch.name}: lane_stages is fewest, expected given where nothing is priced"
        )
    return size_accumulators(replace(request, arch=arch), progress)


def inventory_of(machine: Arch, scheme: Scheme, costs: Costs | None) -> tuple[list[Part], CostLibrary]:
    machine = machine.in_mode(scheme)
    machine.check_scheme(scheme)
    library = library_of(machine, costs)
    return build_inventory(in_fewest_stages(machine, scheme, library), scheme, library), library


def scheme_of(scheme: str | Scheme) -> Scheme:
    return scheme if isinstance(scheme, Scheme) else Scheme.parse(scheme)
