"""Everything the command line does, from Python; results come back as DataFrames.

>>> import accelsim                                                             # doctest: +SKIP
>>> accelsim.compare("digits", schemes=["8/8/-/-", "4/4/4/4"]).to_frame()       # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.arguments import check_gated, check_progress, expect, list_of, texts_of
from accelsim.compute.widths import DEFAULT_WIDTHS, check_widths
from accelsim.costs import CostLibrary, Technology
from accelsim.costs.check import check_tables
from accelsim.costs.query import price_component
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine import actions
from accelsim.machine.arch import Arch
from accelsim.network import (
    DATA,
    Progress,
    choose_mapping,
    measure_network,
    run_network,
)
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.workload import Workload
from accelsim.report.accelergy import tables_of
from accelsim.report.bits import BitsResult
from accelsim.report.comparison import comparison_table
from accelsim.report.explain import accelergy_entries, price_list
from accelsim.report.frequency import frequencies
from accelsim.report.inventory import check_priced
from accelsim.report.library import Costs, library_of, tables_folder
from accelsim.report.results import Comparison, RunResult
from accelsim.request import (
    inventory_of,
    machine_of,
    request_of,
    scheme_of,
    sized,
    sized_machine,
    workload_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.characterise import Characterised
    from accelsim.validation.result import ValidationResult

DEFAULT_SCHEMES = ("8/8/-/-", "4/4/4/4", "4/4/4/6", "4/8/6/10")


def run(
    trace: str | Path | Workload,
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    overrides: Sequence[str] = (),
    options: QuantizeOptions | None = None,
    costs: Costs | None = None,
    progress: Progress | None = None,
    keep_tensors: bool = True,
    gated_fraction: float | None = None,
    timeline: bool = False,
    activity: str = DATA,
    prices: bool = True,
) -> RunResult:
    """Simulate a workload at one scheme on one machine.

    trace: a file, the name of a bundled trace or a network, or an open workload; arch: a preset, a file or an
    Arch; overrides: `KEY=VALUE` changes to the arch; options: how a float trace is quantized; costs: a folder
    of cost tables, by default the package's, files of prices, or both (docs/costs.md); keep_tensors: keep
    operands and values of every layer in the result (`activities`, and for `write(dump=True)`); without them
    memory stays that of a layer or two; gated_fraction: compute no values, only cycles and energy, and assume
    that this share of the lane steps is gated (those in the image's padding are anyway). timeline: record
    what happens when, for `write` to put into timeline.*; activity: energy of the lanes by the bits that
    change in them (`data`; without values as `tables`), or by the operands of the cost tables (`tables`).
    prices: False leaves out energy and area, which not every scheme has.
    Raises AccelsimError on bad input, with one clear line.
    """
    check_progress(progress)
    request = request_of(
        trace,
        arch,
        scheme,
        overrides,
        options,
        costs,
        keep_tensors=keep_tensors,
        gated_fraction=gated_fraction,
        timeline=timeline,
        activity=activity,
        prices=prices,
    )
    return run_network(sized(request, progress), progress)


def compare(
    trace: str | Path | Workload,
    arch: str | Path | Arch = "magnet16",
    schemes: Sequence[str | Scheme] = DEFAULT_SCHEMES,
    *,
    overrides: Sequence[str] = (),
    options: QuantizeOptions | None = None,
    costs: Costs | None = None,
    progress: Progress | None = None,
    keep_tensors: bool = True,
    gated_fraction: float | None = None,
    timeline: bool = False,
    activity: str = DATA,
    prices: bool = True,
) -> Comparison:
    """Simulate a workload at several schemes; savings are against the first. Raises as `run` does."""
    given = list_of(schemes, "compare: schemes", "schemes such as ['8/8/-/-', '4/4/4/4']")
    wanted = [scheme_of(scheme) for scheme in given]
    if not wanted:
        raise AccelsimError("compare: no scheme given, expected at least one such as 8/8/-/-")
    if len(set(wanted)) != len(wanted):
        raise AccelsimError(f"compare: a scheme is given twice in {', '.join(map(str, wanted))}")
    check_progress(progress)
    machine = machine_of(arch, overrides)
    for scheme in wanted:
        own = machine.in_mode(scheme)
        own.check_scheme(scheme)  # all of them, before anything is opened or run
        if prices:
            check_priced(own, scheme)
    first = request_of(
        trace,
        machine,
        wanted[0],
        (),
        options,
        costs,
        keep_tensors=keep_tensors,
        narrow=gated_fraction is None,
        gated_fraction=gated_fraction,
        timeline=timeline,
        activity=activity,
        prices=prices,
    )
    count = len(first.workload.layers)
    each = (replace(first, arch=machine.in_mode(own), schemes=(own,) * count) for own in wanted)
    runs = tuple(run_network(sized(request, progress), progress) for request in each)
    return Comparison(runs, comparison_table(runs, first.library))


def bits(
    trace: str | Path | Workload,
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    widths: Iterable[int] = DEFAULT_WIDTHS,
    overrides: Sequence[str] = (),
    options: QuantizeOptions | None = None,
    costs: Costs | None = None,
    progress: Progress | None = None,
) -> BitsResult:
    """How many bits the values of a workload take: what sizes accumulators, multipliers and zero detection.

    widths: accumulator widths to try, by default 16 to 32 bits; the other arguments are those of `run`, whose
    mapping is used, because chains of PEs sum in their own order. Every value is looked at, none is sampled.
    Raises AccelsimError on bad input, with one clear line.
    """
    wanted = check_widths(widths)
    check_progress(progress)
    request = request_of(trace, arch, scheme, overrides, options, costs)
    return measure_network(sized(request, progress), wanted, progress)


def validate(
    *,
    costs: Costs | None = None,
    gated_fraction: float | None = 0.0,
    tornado: bool = False,
    progress: Progress | None = None,
) -> ValidationResult:
    """Published figures of area, energy and clock beside modelled ones (docs/validate.md).

    costs: a folder of cost tables; gated_fraction: as in `run`, but by default no values are computed;
    tornado: also with each parameter that VS-Quant leaves open at two ends. Raises as `run` does.
    """
    from accelsim.validation import result

    check_gated(gated_fraction)
    return result.validate(tables_folder(costs), gated_fraction, progress, tornado=tornado)


def cost_table(
    component: str | None = None,
    arch: str | Path | Arch = "magnet16",
    *,
    costs: Costs | None = None,
) -> pd.DataFrame:
    """Every constant, or those of one component, with unit, node, source and evidence."""
    import pandas as pd

    expect(component, (str, type(None)), "component", "a name, or None")
    return pd.DataFrame(library_of(machine_of(arch, ()), costs).rows(component))


def check_costs(costs: Costs | None = None) -> pd.DataFrame:
    """How well the tables predict themselves: every row left out of its law in turn, one line a law and
    quantity (docs/costs.md, How well the tables predict themselves). costs: a folder of cost tables. Raises
    AccelsimError."""
    import pandas as pd

    return pd.DataFrame(check_tables(tables_folder(costs)))


def component_price(
    component: str, sizes: Sequence[str], arch: str | Path | Arch = "magnet16", *, costs: Costs | None = None
) -> dict[str, Any]:
    """What one component costs at these sizes, `KEY=VALUE`, at the arch's node and supply, and what that
    rests on: scaling, laws with their errors, source (docs/costs.md). Raises AccelsimError."""
    expect(component, str, "component", "a name")
    given = texts_of(sizes, "sizes", "KEY=VALUE")
    return price_component(library_of(machine_of(arch, ()), costs), component, given)


def cost_list(
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    overrides: Sequence[str] = (),
    costs: Costs | None = None,
) -> pd.DataFrame:
    """What one instance of every part of a machine costs at a scheme, in the columns of `cost_table`; written
    to a CSV file, and changed, it is an argument `costs`. Raises AccelsimError."""
    inventory, library = inventory_of(machine_of(arch, overrides), scheme_of(scheme), costs)
    return price_list(inventory, library.technology)


def clock_table(
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    overrides: Sequence[str] = (),
    costs: Costs | None = None,
) -> pd.DataFrame:
    """The highest clock of every part of a machine at its node and supply, the slowest first: that is the
    machine's. Raises AccelsimError, also for a supply outside the delay law's range."""
    machine = machine_of(arch, overrides)
    inventory, library = inventory_of(machine, scheme_of(scheme), costs)
    library.check_delay_law()
    return frequencies(machine, inventory)


def accelergy_tables(
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    overrides: Sequence[str] = (),
    costs: Costs | None = None,
) -> dict[str, str]:
    """The same as Accelergy's tables: the text of ERT.yaml and ART.yaml. Raises AccelsimError."""
    machine = machine_of(arch, overrides)
    inventory, _ = inventory_of(machine, scheme_of(scheme), costs)
    return tables_of(accelergy_entries(inventory, machine.name), machine.clock_ghz)


def characterise_costs(
    liberty: Sequence[str | Path],
    node_nm: float,
    out: str | Path,
    *,
    pattern: str | None = None,
    jobs: int = 1,
    recipe: str | Path | None = None,
    progress: Progress | None = None,
) -> Characterised:
    """Make the datapath cost table anew from Liberty files, in a folder that `costs` arguments take.

    pattern: a regular expression for the names of blocks, which leaves the table incomplete; jobs: blocks at
    a time; recipe: a shipped recipe or a file. Raises AccelsimError on bad input and when the cost laws do
    not fit the new table.
    """
    from accelsim.characterise import characterise

    done = characterise(liberty, node_nm, out, pattern=pattern, jobs=jobs, recipe=recipe, progress=progress)
    if done.complete:
        try:
            CostLibrary(Technology(), done.out)
        except AccelsimError as error:
            raise AccelsimError(f"costs {done.out}: written, but cannot be used: {error}") from None
    return done


def explain_mapping(
    trace: str | Path | Workload,
    layer: str,
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    overrides: Sequence[str] = (),
    options: QuantizeOptions | None = None,
    costs: Costs | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """(candidates of one layer, best first; what bounds it): what the mapper chose, and from what.

    Cycles are the mapper's model of the layer, its first weights fetched ahead as far as the layers before it
    allow; energy is of what depends on the mapping. Raises AccelsimError on bad input.
    """
    import pandas as pd

    expect(layer, str, "layer", "a layer's name")
    request = request_of(trace, arch, scheme, overrides, options, costs, gated_fraction=0.0)
    request.workload.layer(layer)
    request = sized(replace(request, gated_fraction=None))
    residency, choice = choose_mapping(request, layer)
    rows = [
        {
            "cycles": own.estimate.cycles,
            "of_bound": choice.bound.cycles / own.estimate.cycles,
            "energy_pj": own.energy_pj,
            "dram_read_bits": own.estimate.counts[actions.DRAM_READ_BIT],
            "noc_bit_hops": own.estimate.counts[actions.NOC_BIT_HOP],
            **asdict(own.mapping),
        }
        for own in choice.ranked
    ]
    facts: dict[str, Any] = {
        "objective": request.arch.mapping.objective,
        "bound_cycles": choice.bound.cycles,
        "bound_by": choice.bound.by,
        "bounds": choice.bound.parts,
        "weights_from": residency.weights,
        "input_from": residency.input,
        "output_to": "dram" if residency.output_to_dram else "gb",
        "candidates": choice.considered,
        "run on the model": choice.tried,
    }
    return pd.DataFrame(rows), facts


def emit_rtl(
    out: str | Path,
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    trace: str | Path | Workload = "digits",
    layer: str | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Write one PE as SystemVerilog into folder `out`, with a testbench of a tile of the trace's layer.

    layer: a layer's name, or None for the first. Raises AccelsimError on bad input.
    """
    from accelsim.rtl.emit import check_lanes, emit

    opened, wanted = workload_of(trace), scheme_of(scheme)
    machine = sized_machine(opened, arch, wanted, overrides)
    check_lanes(machine, wanted)
    name = opened.layers[0].name if layer is None else layer
    words = opened.quantized_layer(name, wanted, machine.vector_size)
    return emit(machine, wanted, words, out)


def synthesise_rtl(
    out: str | Path,
    arch: str | Path | Arch = "magnet16",
    scheme: str | Scheme = "4/4/4/4",
    *,
    trace: str | Path | Workload = "digits",
    overrides: Sequence[str] = (),
    liberty: str | Path | None = None,
    costs: Costs | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Synthesise what `emit_rtl` wrote with Yosys: cells by module, and modelled beside synthesised area.

    trace: as for `emit_rtl`. Raises AccelsimError when Yosys is absent or fails.
    """
    from accelsim.rtl.emit import check_lanes
    from accelsim.rtl.synth import compare_area, synth, synth_frame

    wanted = scheme_of(scheme)
    machine = sized_machine(trace, arch, wanted, overrides)
    check_lanes(machine, wanted)
    rows = synth(out, liberty)
    library = library_of(machine, costs)
    return synth_frame(rows), compare_area(rows, machine, wanted, library)
