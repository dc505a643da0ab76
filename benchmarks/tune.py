"""The tuner against random search, on a space that is swept whole: hypervolume against the true front.

python benchmarks/tune.py                  sweeps the space (kept in results/tune), then 10 seeds of each
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import accelsim
from accelsim.cli.progress import sweep_progress
from accelsim.sweep import Space, Store, sweep
from accelsim.sweep.front import front, hypervolume
from accelsim.sweep.identity import resolve
from accelsim.sweep.space import Point
from accelsim.sweep.store import Known
from accelsim.sweep.tuner import Tune, search, tune_of, violations

SCHEMES = ["3/3/4/4", "4/4/4/4", "4/4/4/6", "4/8/6/10", "6/6/-/-", "8/8/-/-"]
OBJECTIVES = {"energy_system_pj": "min", "area_array_um2": "min", "latency_ms": "min"}


def space() -> Space:
    """2,160 points of the digits, with the SQNR that each scheme has on magnet16 in place of an accuracy."""
    measured = {own: {"sqnr (dB)": accelsim.run("digits", scheme=own).summary["sqnr_db"]} for own in SCHEMES}
    return Space.of(
        {
            "networks": ["digits"],
            "schemes": SCHEMES,
            "set": {
                "pes": [4, 8, 16],
                "input_buffer_words": [256, 1024],
                "pe_port_bits": [64, 128, 256],
                "voltage_v": [0.6, 0.7, 0.8, 0.9, 1.0],
                "clock_ghz": [0.5, 0.75, 1.0, 1.25],
            },
            "accuracy": {"digits": measured},
            "tune": {
                "objectives": OBJECTIVES,
                "constraints": {"sqnr (dB)": {"min": 22.0}, "area_array_um2": {"max": 1.6e6}},
            },
        }
    )


class Covered:
    """How much of the true front's hypervolume points have: of logarithms, down from the worst that feasible
    points have."""

    def __init__(self, own: Space, known: dict[Point, Known]) -> None:
        self.wanted, self.space, self.known = tune_of(own), own, known
        self.reference = self._values(list(known)).max(axis=0) + 1e-6
        self.whole = hypervolume(self._values(list(known)), self.reference)
        self.best = int(front(self._values(list(known))).sum())

    def share(self, points: Sequence[Point]) -> float:
        return hypervolume(self._values(points), self.reference) / self.whole

    def _values(self, points: Sequence[Point]) -> np.ndarray:
        rows = []
        for point in points:
            if (figures := self.known[point].figures) is not None:
                figures = {**figures, **self.space.accuracy_of(point)}
                if max(violations(self.wanted, figures).values()) <= 0:
                    rows.append([figures[name] for name in self.wanted.objectives])
        return np.log(np.array(rows or np.empty((0, len(OBJECTIVES)))))


def tuned(own: Space, wanted: Tune, known: dict[Point, Known], trials: int, seed: int) -> list[Point]:
    def evaluate(points: Sequence[Point]) -> list[Known]:
        return [known[point] for point in points]

    return [point for point, _ in search(own, wanted, "sqlite://", "benchmark", evaluate, trials, seed)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, nargs="*", default=[50, 100])
    given = parser.parse_args()
    own = space()
    with Store(Path("results/tune")) as store:
        with sweep_progress() as progress:
            sweep(own, store, progress=progress)
        points = list(own.points())
        found = store.known(one.key for one in resolve(points))
        known = {point: found[one.key] for point, one in zip(points, resolve(points), strict=True)}
    covered = Covered(own, known)
    print(f"{own.size:,} points, {covered.best} on the true front")
    for trials in given.trials:
        shares: dict[str, list[float]] = {"tuner": [], "random": []}
        for seed in range(given.seeds):
            shares["tuner"].append(covered.share(tuned(own, tune_of(own), known, trials, seed)))
            shares["random"].append(covered.share(random.Random(seed).sample(points, trials)))
        wins = sum(a > b for a, b in zip(*shares.values(), strict=True))
        said = ", ".join(
            f"{name} {statistics.mean(own):.4f} ({min(own):.4f} to {max(own):.4f})"
            for name, own in shares.items()
        )
        print(f"{trials} points: hypervolume of the true one: {said}; {wins} of {given.seeds} seeds better")


if __name__ == "__main__":
    main()
