"""One PE at work, without a network: its area and energy at every number format and vector size.

The activity is stated, and is the same at every point: a product of matrices (synthetic/matmul.py) in os-lws,
a step in every cycle, each weight held for as many steps as the collector is deep, each word of the input
fetched once for 64 output channels and each of the weights once, no operand zero, and the operands that the
cost tables were characterised with (docs/sweep.md, One PE).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.arguments import check_progress, list_of, shown
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine import actions
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import changed, load_arch
from accelsim.network import Progress, RunRequest, run_network
from accelsim.report.figures import figures
from accelsim.report.inventory import build_inventory, check_priced
from accelsim.report.library import Libraries
from accelsim.report.plots.pareto import SweepPlots
from accelsim.sweep.front import front
from accelsim.synthetic.matmul import matmul

if TYPE_CHECKING:
    import pandas as pd

VECTOR_SIZES = (8, 16, 32, 64)
_CHANNELS = 64  # of outputs for which a word of the input is fetched once
# Nothing waits, and all operands of a tile fit: only how often things happen is taken from there.
_NEVER_WAITS = {
    "pe_port_bits": 4096,
    "gb_bank_bits": 4096,
    "dram_bits_per_cycle": 1 << 16,
    "weight_buffer_words": 4096,
    "input_buffer_words": 8192,
}
_PINS = {"dataflow": "os-lws", "order": "KP", "chunk_inputs": False}


@dataclass(frozen=True, repr=False)
class PePoints:
    """frame: one row a (scheme, vector size); energies of a MAC, areas of a PE, of which `macs_per_cycle`."""

    frame: pd.DataFrame

    def __repr__(self) -> str:
        return f"<{len(self.frame):,} points of one PE, {int((self.frame['error'] == '').sum()):,} priced>"

    def to_frame(self) -> pd.DataFrame:
        """One row a point, in the order of vector sizes and schemes; error: "" or why it has no price."""
        return self.frame

    def where(self, condition: str) -> PePoints:
        """Points of which a condition on columns holds, as pandas' `query` reads it."""
        return PePoints(self.frame.query(condition))

    @property
    def plot(self) -> SweepPlots:
        """Figures: pareto (docs/plots.md)."""
        return SweepPlots(self.frame, (), front)


def grid(
    bits: Sequence[int] = (3, 4, 6, 8),
    scales: Sequence[int | None] = (None, 4, 6, 8, 10),
    products: Sequence[int | None] = (None, 8, 6, 4),
    blocks: Sequence[int] = VECTOR_SIZES,
) -> list[Scheme]:
    """Every VS-Quant scheme of these widths for both sides, each once. scales: None for none; products: what
    products of two scales are rounded to, None for their full width; blocks: of schemes with a scale."""
    found: dict[Scheme, None] = {}
    for weight, activation, ws, own in product(bits, bits, scales, scales):
        for rounded, block in product(products if ws and own else (None,), blocks if ws or own else (None,)):
            scheme = Scheme.integer(weight, activation, ws or 0, own or 0, rounded or 0, block)
            found[scheme] = None
    return list(found)


def pe_points(
    schemes: Iterable[str | Scheme],
    vector_sizes: Sequence[int] = VECTOR_SIZES,
    arch: str | Path | Arch = "magnet16",
    *,
    progress: Progress | None = None,
) -> PePoints:
    """Area and energy of one PE of a machine at every scheme and vector size, with the stated activity.

    The machine's out FIFO is made as deep as blocks of a point need. A point that the machine cannot execute
    or whose parts have no price has its reason in `error`. Raises AccelsimError for texts that are no scheme
    and for sizes that are no whole numbers from 1 on.
    """
    import pandas as pd

    check_progress(progress)
    given = list_of(schemes, "schemes", "schemes such as ['8/8/-/-', '4/4/4/4']")
    sizes = list_of(vector_sizes, "vector_sizes", "whole numbers such as [16, 32]")
    for size in sizes:
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise AccelsimError(f"vector_sizes holds {shown(size)}, expected whole numbers from 1 on")
    machine = changed(arch, {"pes": 1}) if isinstance(arch, Arch) else load_arch(arch, ["pes=1"])
    wanted = [own if isinstance(own, Scheme) else Scheme.parse(own) for own in given]
    points, rows = list(product(sizes, wanted)), []
    work = _Work(machine)
    for index, (size, scheme) in enumerate(points):
        rows.append(work.row(size, scheme))
        if progress is not None:
            progress("points of a PE", index + 1, len(points))
    return PePoints(pd.DataFrame(rows))


@dataclass
class _Work:
    """Counts by what they depend on: vector, block, and which operands have scales."""

    machine: Arch
    _libraries: Libraries = field(default_factory=Libraries)
    _counts: dict[tuple[object, ...], Mapping[str, int]] = field(default_factory=dict)

    def row(self, size: int, scheme: Scheme) -> dict[str, Any]:
        weight, activation = scheme.weight, scheme.activation
        words = (own.in_blocks(scheme.block or size) for own in (weight, activation))
        weight_bits, activation_bits = (own.word_bits / (scheme.block or size) for own in words)
        where = {
            "scheme": str(scheme),
            "operands": f"{weight.bits}/{activation.bits}" if scheme.is_integer else str(scheme),
            "vector_size": size,
            "block": scheme.block or (size if scheme.has_scales else 0),
            "weight_bits": weight.bits,
            "activation_bits": activation.bits,
            "weight_scale_bits": weight.scale.bits,
            "activation_scale_bits": activation.scale.bits,
            "scale_product_bits": scheme.scale_bits if scheme.is_integer else 0,
            "rounded": bool(scheme.scale_product_shift),
            "bits_per_weight": weight_bits,
            "bits_per_activation": activation_bits,
            "macs_per_cycle": size * self.machine.lanes,
        }
        try:
            return {**where, **self._figures(size, scheme), "error": ""}
        except AccelsimError as error:
            return {**where, "error": str(error)}

    def _figures(self, size: int, scheme: Scheme) -> dict[str, float]:
        arch = _fitted(self.machine, size, scheme)
        arch.check_scheme(scheme)
        check_priced(arch, scheme)
        counts = self._counts_of(arch, scheme)
        steps = counts[actions.CONTROL_CYCLE]
        macs = steps * arch.lanes * size
        inventory = build_inventory(arch, scheme, self._libraries.of(arch))
        found = figures(arch, inventory, macs=macs, cycles=steps, counts=counts)
        scopes = ("datapath", "pe")
        return {
            **{f"area_{scope}_um2": found[f"area_{scope}_um2"] for scope in scopes},
            **{
                f"area_{scope}_um2_per_mac": found[f"area_{scope}_um2"] / (arch.lanes * size)
                for scope in scopes
            },
            **{f"energy_{scope}_fj_per_mac": found[f"energy_{scope}_pj"] / macs * 1e3 for scope in scopes},
            "highest_clock_ghz": found["highest_clock_ghz"],
            "clock_margin": found["clock_margin"],
        }

    def _counts_of(self, arch: Arch, scheme: Scheme) -> Mapping[str, int]:
        """Of the stated activity, with as many cycles as steps."""
        scaled = bool(scheme.weight.scale.bits), bool(scheme.activation.scale.bits)
        key = arch.vector_size, scheme.block or arch.vector_size, scaled, scheme.is_aligned
        if key not in self._counts:
            request = RunRequest(matmul(), _never_waiting(arch, scheme), (scheme,), None, gated_fraction=0.0)
            (activity,) = run_network(request).activities
            steps = activity.lane_steps // arch.lanes
            self._counts[key] = {**activity.counts, actions.CONTROL_CYCLE: steps}
        return self._counts[key]


def _fitted(machine: Arch, size: int, scheme: Scheme) -> Arch:
    """With vectors of that size, and an out FIFO that takes the tile of a block of the scheme."""
    block = (scheme.block or size) if scheme.activation.scale.bits else 0
    words = machine.accumulation_collector_depth * block // machine.lanes
    return changed(machine, {"vector_size": size, "out_fifo_words": max(machine.out_fifo_words, words)})


def _never_waiting(arch: Arch, scheme: Scheme) -> Arch:
    block = (scheme.block or arch.vector_size) if scheme.activation.scale.bits else 0
    units = max(1, _CHANNELS // arch.unit_channels(block))
    pins = {**_PINS, "tile_pixels": arch.accumulation_collector_depth, "units_per_tile": units}
    return changed(arch, {**_NEVER_WAITS, **{f"mapping.{name}": value for name, value in pins.items()}})
