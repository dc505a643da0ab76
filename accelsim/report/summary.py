"""summary.json: a run in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelsim.compute.activity import LayerActivity
from accelsim.report.inventory import SCOPES
from accelsim.report.price import Report

SCHEMA = 2


def _sum(values: Sequence[int | None]) -> int | None:
    """None where any is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _pe_cycle_shares(report: Report) -> dict[str, float]:
    """Of all cycles of all PEs the share of each stall reason."""
    by_reason = report.stalls.groupby("stall_reason", sort=False)["cycles"].sum()
    return {str(name): float(share) for name, share in (by_reason / by_reason.sum()).items()}


def summary_of(
    report: Report, activities: Sequence[LayerActivity], about: Mapping[str, Any], wall_s: float = 0.0
) -> dict[str, Any]:
    """The fields of summary.json, in their documented order (docs/results.md).

    about: what was run: trace, model, synthetic, assumed_gated_fraction, layers_computed, activity,
    trace_sha256, accelsim_version, and accumulator, an AccumulatorWidth.
    """
    arch, computed = report.arch, [activity.computed for activity in activities]
    macs = sum(activity.layer.geometry.macs for activity in activities)
    cycles = sum(activity.cycles for activity in activities)
    peak_macs = arch.pes * arch.lanes * arch.vector_size
    energy = area = None
    if report.priced:
        energy = {scope: report.energy_pj(scope) for scope in SCOPES}
        area = {scope: report.area_um2(scope) for scope in SCOPES[:-1]}

    def per_mm2(macs_per_cycle: float) -> float | None:
        if area is None:
            return None
        return 2 * macs_per_cycle * arch.clock_ghz * 1e9 / 1e12 / (area["array"] / 1e6)

    return {
        "schema": SCHEMA,
        "trace": about["trace"],
        "arch": arch.name,
        "scheme": str(report.scheme),
        "macs": macs,
        "cycles": cycles,
        "utilization": macs / (cycles * peak_macs),
        "bound_utilization": macs / (int(report.layers["bound_cycles"].sum()) * peak_macs),
        "pe_cycle_shares": _pe_cycle_shares(report),
        "energy_pj": energy,
        "area_um2": area,
        "fj_per_op": None
        if energy is None
        else {scope: pj / (2 * macs) * 1e3 for scope, pj in energy.items()},
        "tops_per_mm2": per_mm2(macs / cycles),
        "peak_tops_per_mm2": per_mm2(peak_macs),
        "sqnr_db": _mean_by_macs(activities, [own.sqnr_db for own in computed]),
        "overflows": _sum([own.overflows for own in computed]),
        "zero_product_fraction": _zero_product_fraction(activities),
        "ppu_sqnr_db": _mean_by_macs(activities, [own.ppu_sqnr_db for own in computed]),
        "model": about["model"],
        "synthetic": about["synthetic"],
        "assumed_gated_fraction": about["assumed_gated_fraction"],
        "layers_computed": about["layers_computed"],
        "activity": about["activity"],
        "trace_sha256": about["trace_sha256"],
        "accelsim_version": about["accelsim_version"],
        "accumulator_bits": about["accumulator"].bits,
        "accumulator_policy": about["accumulator"].policy,
        "overflows_one_bit_less": about["accumulator"].overflows_one_bit_less,
        "arch_parameters": arch.model_dump(),
        "energy_evidence": report.evidence_share() if report.priced else None,
        "wall_s": wall_s,
    }


def _zero_product_fraction(activities: Sequence[LayerActivity]) -> float | None:
    """Of all lane steps, as LayerActivity has it of a layer's."""
    shares = [own.zero_product_fraction for own in activities]
    steps = [own.lane_steps for own in activities]
    known = [share * count for share, count in zip(shares, steps, strict=True) if share is not None]
    return sum(known) / sum(steps) if len(known) == len(shares) else None


def at_published_width(activities: Sequence[LayerActivity]) -> tuple[int, float | None]:
    """(overflows, mean SQNR) where psums have as many bits as published per-vector PEs give them."""
    computed = [activity.computed for activity in activities]
    overflows = sum(own.narrow_overflows for own in computed)
    return overflows, _mean_by_macs(activities, [own.narrow_sqnr_db for own in computed])


def _mean_by_macs(activities: Sequence[LayerActivity], values: Sequence[float | None]) -> float | None:
    """MAC-weighted mean over the layers that have a value."""
    weights = [activity.layer.geometry.macs for activity in activities]
    known = [(macs, value) for macs, value in zip(weights, values, strict=True) if value is not None]
    return sum(m * v for m, v in known) / sum(m for m, _ in known) if known else None
