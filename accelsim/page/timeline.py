"""timeline.json as a picture of bounded size: how busy everything is in each of some hundred equal spans.

Nothing is sampled: every span has the exact share of its cycles that an activity takes.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections import defaultdict
from typing import Any

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.page.blocks import Chart
from accelsim.page.tables import Files, short

_MOST_BYTES = 4 << 30
_MOST_LINE = 1 << 16
_MOST_TRACKS = 20_000
_MOST_CELLS = 24_000  # of PEs and spans
_MOST_SPANS, _LEAST_SPANS = 400, 24
_LARGEST = 1e18  # cycle
_LAYERS, _DRAM, _BANKS, _FIRST_PE = "layers", "DRAM", "global buffer", "PE "
_STATES = ("compute", "output wait", "weight wait", "input wait", "drain", "idle")
_COMPUTE = "compute"


class _Slices:
    """Start and length in cycles of every slice of one kind."""

    def __init__(self) -> None:
        self.start, self.cycles = array("d"), array("d")

    @property
    def end(self) -> float:
        return float((np.array(self.start) + np.array(self.cycles)).max())

    def busy(self, edges: np.ndarray) -> np.ndarray:
        """float64[spans]: cycles that slices take of each span between edges, float64[spans + 1]."""
        start = np.sort(np.array(self.start))
        stop = np.sort(np.array(self.start) + np.array(self.cycles))
        return np.diff(_passed(start, edges) - _passed(stop, edges))


def _passed(times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Sum over times of max(0, edge - time). times: float64, sorted."""
    sums = np.concatenate([[0.0], np.cumsum(times)])
    before = np.searchsorted(times, edges)
    return before * edges - sums[before]


def timeline_chart(files: Files, pes: int) -> Chart:
    """Raises AccelsimError for a file that `accelsim run --timeline` has not written."""
    slices, layers = _read(files)
    numbers = {name: name.removeprefix(_FIRST_PE) for name, kind in slices if kind in _STATES}
    found = sorted(
        (name for name, number in numbers.items() if number.isdecimal() and len(number) < 6), key=_number_of
    )
    end = max((own.end for own in slices.values()), default=0.0)
    if not layers or not found or len(found) > pes or not end:
        raise AccelsimError(
            f"report {files.folder / 'timeline.json'}: {len(layers):,} layers and {len(found):,} PEs, "
            f"expected layers, and 1 to {pes:,} PEs that do something"
        )
    spans = max(_LEAST_SPANS, min(_MOST_SPANS, _MOST_CELLS // len(found), math.ceil(end)))
    edges, width = np.linspace(0.0, end, spans + 1), end / spans
    shares = {key: own.busy(edges) / width for key, own in slices.items()}
    nothing = np.zeros(spans)
    heat = [_percent(shares.get((name, _COMPUTE), nothing)) for name in found]
    states = {
        state: sum((shares.get((name, state), nothing) for name in found), nothing) / len(found)
        for state in _STATES
    }
    lines = {f"DRAM {kind}": _percent(own) for (name, kind), own in shares.items() if name == _DRAM}
    banks = [own for (name, _), own in shares.items() if name == _BANKS]
    if banks:
        lines[f"global buffer, mean of {len(banks)} banks in use"] = _percent(np.mean(banks, axis=0))
    about = (
        f"timeline.json, {end:,.0f} cycles in {spans} spans of {width:,.4g} cycles: none is a sample, each "
        "has the exact share of its cycles. From the top: layers; DRAM and banks of the global buffer; what "
        "the PEs do, in the mean (compute with its bubbles); the share that each PE computes. "
        "Every transfer is in the file itself, which opens in Perfetto."
    )
    data: dict[str, Any] = {
        "cycles": short(end),
        "spans": spans,
        "layers": [[name, short(start), short(start + cycles)] for name, start, cycles in layers],
        "lines": lines,
        "states": {state: _percent(busy) for state, busy in states.items() if busy.any()},
        "pes": found,
        "heat": heat,
    }
    return Chart("timeline", "Timeline", about, data)


def _number_of(name: str) -> int:
    return int(name.removeprefix(_FIRST_PE))


def _percent(shares: np.ndarray) -> list[int]:
    return [round(value) for value in 100 * np.clip(shares, 0.0, 1.0)]


def _read(files: Files) -> tuple[dict[tuple[str, str], _Slices], list[tuple[str, float, float]]]:
    """Slices by (process, kind), and the layers: name, start, cycles. The file has one event a line."""
    path = files.folder / "timeline.json"
    processes: dict[int, str] = {}
    threads: dict[int, str] = {}
    slices: dict[tuple[str, str], _Slices] = defaultdict(_Slices)
    layers: list[tuple[str, float, float]] = []
    digest, line_number = hashlib.sha256(), 0
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"larger than {_MOST_BYTES >> 30} GB")
        with path.open("rb") as file:
            while line := file.readline(_MOST_LINE):
                digest.update(line)
                line_number += 1
                if not line.startswith(b'{"ph"'):
                    continue
                event = json.loads(line.rstrip(b",\n"))
                process, thread = event["pid"], event["tid"]
                if event["ph"] == "M":
                    if event["name"] == "process_name":
                        processes[process] = str(event["args"]["name"])
                    elif event["name"] == "thread_name":
                        threads[thread] = str(event["args"]["name"])
                    continue
                start, cycles = float(event["ts"]), float(event["dur"])
                if not (0 <= start <= _LARGEST and 0 <= cycles <= _LARGEST):
                    raise ValueError("a time out of range")
                where = processes[process]
                if where == _LAYERS and threads[thread] == "layer":
                    layers.append((str(event["name"]), start, cycles))
                if where.startswith(_FIRST_PE):
                    kind = str(event["name"]) if threads[thread] == "stalls" else threads[thread]
                else:
                    kind = threads[thread]
                own = slices[where, kind]
                if len(slices) > _MOST_TRACKS or len(layers) > _MOST_TRACKS:
                    raise ValueError("too many tracks or layers")
                own.start.append(start)
                own.cycles.append(cycles)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}"
        raise AccelsimError(f"report {path}: line {line_number}: no event of a run ({reason})") from None
    files.hashes["timeline.json"] = digest.hexdigest()
    return slices, layers
