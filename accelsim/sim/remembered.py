"""Timings that are kept on disk: a run that was timed once is not timed again.

A file holds the timings of all layers of one run. Its name is a digest of all that they depend on, in the
order of the layers, since each begins on what the one before leaves: the sources of the model, the machine
but for what only prices depend on, each layer but for its name, how it is mapped and where its operands live,
and what runs before the first. Values and prices have no part in it. What is kept is found without laying
anything out.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from itertools import accumulate

import numpy as np

from accelsim.machine.arch import PRICE_KEYS, Arch
from accelsim.mapping.planning import Plan
from accelsim.sim.layer_run import STALL_REASONS
from accelsim.sim.run import LayerTiming, OnShare, TimeRequest, time_layers
from accelsim.system.kept import Kept, sources_digest

KIND = "timings"
SOURCES = ("formats", "machine", "mapping", "sim", "workload")
_STALLS = "<i8"


def time_plan(
    arch: Arch,
    whole: Plan,
    on_layer: Callable[[int], None] | None = None,
    on_share: OnShare | None = None,
) -> list[LayerTiming]:
    """`time_layers` of a plan. Who wants to record when what happens has to call that."""
    kept = Kept(KIND)
    name = name_of(arch, whole)
    data = kept.read(name)
    timings = None if data is None else _from_bytes(data, arch, whole)
    if timings is None:
        programs = [own.program for own in whole.layers]
        timings = time_layers(TimeRequest(arch, programs, whole.prologue), on_layer, on_share=on_share)
        kept.write(name, _to_bytes(timings))
    elif on_layer is not None:
        for index in range(len(timings)):
            on_layer(index)
    return timings


def name_of(arch: Arch, whole: Plan) -> str:
    """Of the file that holds the timing of a plan."""
    machine = json.dumps(arch.model_dump(mode="json", exclude=set(PRICE_KEYS)), sort_keys=True)
    layers = [
        # How a layer is called decides nothing.
        (replace(own.layer, layer=replace(own.layer.layer, name="")), own.mapping, own.residency)
        for own in whole.layers
    ]
    # Events of one cycle come in SimPy's order.
    code = sources_digest(SOURCES), metadata.version("simpy")
    facts = repr((code, machine, layers, whole.prologue))
    return hashlib.sha256(facts.encode()).hexdigest()[:40]


def _to_bytes(timings: Sequence[LayerTiming]) -> bytes:
    """A line of cycles and counts, which stay in their order, then stall_cycles of all layers."""
    own = [(timing.cycles, {name: int(count) for name, count in timing.counts.items()}) for timing in timings]
    stalls = np.stack([timing.stall_cycles for timing in timings]).astype(_STALLS)
    return zlib.compress(json.dumps(own, separators=(",", ":")).encode() + b"\n" + stalls.tobytes(), 1)


def _from_bytes(data: bytes, arch: Arch, whole: Plan) -> list[LayerTiming] | None:
    """None for a file that is damaged, or that something else has written."""
    try:
        line, _, rest = zlib.decompress(data).partition(b"\n")
        own = [(cycles, Counter(dict(counts))) for cycles, counts in json.loads(line)]
        if not all(type(n) is int for cycles, counts in own for n in (cycles, *counts.values())):
            return None
        shape = len(own), arch.pes, len(STALL_REASONS)
        stalls = np.frombuffer(rest, _STALLS).reshape(shape).astype(np.int64)
        ends = accumulate(cycles for cycles, _ in own)
        return [
            LayerTiming(plan.layer, plan.mapping, plan.residency, cycles, end, stall_cycles, counts)
            for plan, (cycles, counts), end, stall_cycles in zip(whole.layers, own, ends, stalls, strict=True)
        ]
    except (zlib.error, ValueError, TypeError):
        return None
