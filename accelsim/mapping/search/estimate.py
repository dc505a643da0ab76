"""What a mapping would do on a layer: cycles and counts by the mapper's steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.machine import timing
from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import DATAFLOWS, DataflowName
from accelsim.mapping.global_pe import global_pe_load
from accelsim.mapping.layout.shape import shape_of, taps_of, tiling_of
from accelsim.mapping.layout.shorten import Kept, Short, shorten
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency
from accelsim.mapping.search import parameters
from accelsim.workload.layer import LayerSpec

if TYPE_CHECKING:
    from accelsim.mapping.search.model import Outcome

# Room for events of the model at once; doubled where it does not do.
_EVENTS = 4096
# What is kept of a layer of more blocks than these, of the two short ones that the model is run on: so little
# that takes no time, so much that a first transient is behind. Layers whose outputs a node takes as they come
# are run whole for longer: in a Llama block a straight line said 18 % too little of some of their mappings.
_LONG, _LONG_STREAMING = 30_000, 1_000_000
_KEPT = (
    Kept(_LONG, 12, 12, 16_000, fewest=4, crowded=50_000, whole_periods=False),
    Kept(_LONG, 6, 6, 8_000, fewest=2, crowded=25_000, whole_periods=False),
)


@dataclass(frozen=True)
class Lead:
    """How many cycles before a layer's start the layer before leaves it what its weights need.

    ask: DRAM may be asked for them; first_half, second_half: the halves of the PEs' weight buffers that the
    first and the second tile take are free.
    """

    ask: int = 0
    first_half: int = 0
    second_half: int = 0


NO_LEAD = Lead()


@dataclass(frozen=True)
class Estimate:
    """cycles: from the layer's start to its end; issue_cycles: to the end of its last block; counts: those
    that depend on the mapping; lead: what is left to the next layer."""

    cycles: int
    issue_cycles: int
    counts: Counter[str]
    lead: Lead


class NoEstimate(Enum):
    """Why there is none: a tile does not fit its buffer, or limit_cycles do not do."""

    DOES_NOT_FIT = "does not fit"
    TAKES_LONGER = "takes longer"


def estimate(
    arch: Arch,
    layer: LayerSpec,
    mapping: LayerMapping,
    residency: Residency,
    *,
    lead: Lead = NO_LEAD,
    limit_cycles: float = 1 << 40,
) -> Estimate | NoEstimate:
    """Of one mapping of a layer; `Estimator` of several."""
    return Estimator(arch, layer, residency, lead).of(mapping, limit_cycles)


class Estimator:
    """Runs the model on mappings of one layer.

    lead: of the layer before. Of a long layer the model is run on short ones, from which cycles and counts
    are drawn out in a straight line.
    """

    def __init__(self, arch: Arch, layer: LayerSpec, residency: Residency, lead: Lead = NO_LEAD) -> None:
        self._arch, self._layer, self._residency, self._lead = arch, layer, residency, lead
        streams = any(not work.needs_rows for work in layer.global_pe)
        most = _LONG_STREAMING if streams else _LONG
        self._kept = [replace(own, most_blocks=most) for own in _KEPT]
        self._spilled = np.array(residency.spilled_bits, np.int64)
        self._written = np.array(residency.written_bits, np.int64)
        self._machines: dict[DataflowName, parameters.Machine] = {}

    def of(self, mapping: LayerMapping, limit_cycles: float = 1 << 40) -> Estimate | NoEstimate:
        short, shorter = (shorten(self._arch, self._layer, mapping, own) for own in self._kept)
        if short is not None and shorter is not None and short.leaves_out:
            return self._drawn_out(mapping, short, shorter)
        return _estimate(mapping, self._run(self._layer, mapping, int(limit_cycles)))

    def _drawn_out(self, mapping: LayerMapping, short: Short, shorter: Short) -> Estimate | NoEstimate:
        """In each loop over tiles linear in the iterations, and so bilinear in both."""

        def run(pixels: Short, units: Short) -> Estimate | NoEstimate:
            return _estimate(mapping, self._run(pixels.with_units_of(units), mapping, 1 << 40))

        def share(left_out: float, more: float) -> float:
            """Weight of the difference to the shorter one."""
            return left_out / (more - left_out) if more > left_out else 0.0

        # Iterations, of which a tile may be left out in part.
        pixels = self._layer.geometry.pixels
        tile = min(mapping.tile_pixels, pixels)
        fewer = [
            (pixels - own.layer.geometry.pixels) / (mapping.pixel_split * tile) for own in (short, shorter)
        ]
        p = share(*fewer)
        u = share(short.units.left_out, shorter.units.left_out)
        weights = {(0, 0): (1 + p) * (1 + u), (1, 0): -p * (1 + u), (0, 1): -(1 + p) * u, (1, 1): p * u}
        cycles, issued, counts = 0.0, 0.0, dict[str, float]()
        found = None
        for (fewer_pixels, fewer_units), weight in weights.items():
            if not weight:
                continue
            own = run(shorter if fewer_pixels else short, shorter if fewer_units else short)
            if isinstance(own, NoEstimate):
                return own
            found = found or own
            cycles += weight * own.cycles
            issued += weight * own.issue_cycles
            for name, count in own.counts.items():
                counts[name] = counts.get(name, 0.0) + weight * count
        assert found is not None
        drawn = Counter({name: round(count) for name, count in counts.items()})
        return Estimate(round(cycles), round(issued), drawn, found.lead)

    def _run(
        self, laid_out: LayerSpec, mapping: LayerMapping, limit_cycles: int
    ) -> tuple[Outcome, NDArray[np.int64]] | None:
        """What the model says, and its counts in the places of `parameters.count_names`."""
        # Compiled: a search that is kept needs none of it.
        from accelsim.mapping.layout.build import Refused, lay_out
        from accelsim.mapping.search.model import TOO_MANY_EVENTS, run_layer

        shape = shape_of(self._arch, laid_out, mapping, self._residency, self._layer)
        tiling = tiling_of(laid_out, mapping)
        layout = lay_out(shape, tiling, taps_of(laid_out.geometry), self._residency.beside_bits)
        if isinstance(layout, Refused):
            return None
        machine = self._machine(mapping.dataflow)._replace(limit=self._lead.ask + limit_cycles)
        events = _EVENTS
        while True:
            outcome, counts = run_layer(shape, tiling, machine, layout, self._spilled, self._written, events)
            if outcome.end != TOO_MANY_EVENTS:
                return outcome, counts
            events *= 2

    def _machine(self, dataflow: DataflowName) -> parameters.Machine:
        """Without a limit."""
        if dataflow not in self._machines:
            self._machines[dataflow] = _machine(self._arch, self._layer, dataflow, self._lead)
        return self._machines[dataflow]


def _estimate(mapping: LayerMapping, ran: tuple[Outcome, NDArray[np.int64]] | None) -> Estimate | NoEstimate:
    if ran is None:
        return NoEstimate.DOES_NOT_FIT
    if ran[0].end < 0:
        return NoEstimate.TAKES_LONGER
    outcome, counts = ran
    names = parameters.count_names(DATAFLOWS[mapping.dataflow])
    named = {name: int(n) for name, n in zip(names, counts, strict=True) if n}
    cycles, issued, *left = (int(cycle) for cycle in outcome)
    ask, *halves = (max(0, cycles - cycle) for cycle in left)
    # Weights of the next layer may be asked for before this one begins, but not sent.
    lead = Lead(ask, *(min(half, cycles) for half in halves))
    return Estimate(cycles, issued, Counter(named), lead)


def _machine(arch: Arch, layer: LayerSpec, dataflow: DataflowName, lead: Lead) -> parameters.Machine:
    """Without a limit."""
    load = global_pe_load(arch, layer)
    return parameters.Machine(
        passes=timing.passes(arch, dataflow),
        write_latency=timing.write_latency(arch, layer.scheme),
        ppu_latency=timing.ppu_latency(arch, layer.written_block),
        fifo=arch.out_fifo_words,
        crossbar_bits=arch.crossbar_bits,
        psum_bits=arch.psum_bits,
        psum_ports=int(arch.psum_port_bits is not None),
        bank_bits=arch.gb_bank_bits,
        output_banks=arch.bank_groups[2],
        noc_latency=arch.noc_latency_cycles,
        dram_bits=arch.dram_bits,
        dram_latency=arch.dram_latency_cycles,
        accumulator_bits=arch.accumulator_width(layer.scheme),
        global_pe_rate=arch.global_pe_elements_per_cycle,
        global_pe_reads=load.words_read,
        global_pe_writes=load.words_written,
        streaming_elements=load.streaming_elements,
        row_cycles=load.row_cycles,
        weights_wait=int(layer.weight_is_activation),
        start=lead.ask,
        first_half=max(0, lead.ask - lead.first_half),
        second_half=max(0, lead.ask - lead.second_half),
        limit=1 << 40,
    )
