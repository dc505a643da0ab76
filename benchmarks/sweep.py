"""Times a sweep of 1,000 points of ResNet-50: 20 schemes x 10 machines x 5 prices, without values.

python benchmarks/sweep.py                 1,000 points on all cores, then what a million would take
python benchmarks/sweep.py --scaling       80 of them with 1 worker and with 2
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

from accelsim.cli.progress import duration, sweep_progress
from accelsim.sweep import Space, Store, sweep
from accelsim.sweep.run import Swept
from accelsim.system.kept import ENVIRONMENT

SCHEMES = [
    f"{weight}/{activation}/{scales}"
    for weight, activation in ((4, 4), (4, 8), (8, 8), (6, 6), (6, 8))
    for scales in ("-/-", "4/4", "4/6", "6/8")
]
MACHINES = [{"pes": pes, "global_buffer_kb": kb} for pes in (4, 8, 16, 24, 32) for kb in (512, 1024)]
PRICES = [
    {},
    {"voltage_v": 0.7},
    {"node_nm": 7.0},
    {"node_nm": 7.0, "voltage_v": 0.65},
    {"sram_energy_factor": 0.5},
]


def space(schemes: Sequence[str] = SCHEMES, machines: Sequence[dict] = MACHINES) -> Space:
    return Space.of(
        {
            "networks": ["resnet50"],
            "schemes": list(schemes),
            "machines": list(machines),
            "prices": PRICES,
        }
    )


def timed(own: Space, workers: int | None) -> tuple[Swept, float, float]:
    """In a new store, with no mappings or timings kept from before: what was done, and mean seconds of a run
    and of a point.

    CPU seconds are those of the workers and their start: divided by them they are what a machine with nothing
    else to do takes.
    """
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store") as store:
        os.environ[ENVIRONMENT] = str(Path(folder) / "kept")
        before_s = cpu_s()
        with sweep_progress() as progress:
            done = sweep(own, store, workers=workers, progress=progress)
        used_s = cpu_s() - before_s
        again = sweep(own, store, workers=workers)
        assert again.counts.computed == 0, again.counts
        pace = store.pace("resnet50")
        size = sum(path.stat().st_size for path in (Path(folder) / "store").glob("store.sqlite*"))
    counts, run_s, point_s = done.counts, pace.run_s or 0.0, pace.point_s or 0.0
    print(f"{counts.computed:,} points ({counts.failed} failed) from {counts.simulated:,} runs", end=" ")
    print(
        f"in {done.seconds:.1f} s, {used_s:.1f} s of CPU; a run {run_s:.2f} s, a point {1e3 * point_s:.0f} ms"
    )
    print(
        f"{size / counts.computed:,.0f} bytes a point in the store; again, all known: {again.seconds:.2f} s"
    )
    return done, run_s, point_s


def cpu_s() -> float:
    """Of this process and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scaling", action="store_true", help="1 worker against 2")
    parser.add_argument("--points", type=int, default=1000, help="only about so many of them")
    parser.add_argument("--workers", type=int, help="processes [default: one a core]")
    given = parser.parse_args()
    if given.scaling:
        few = space(SCHEMES[:4], MACHINES[:4])
        seconds = {workers: timed(few, workers)[0].seconds for workers in (1, 2)}
        print(
            f"1 worker {seconds[1]:.1f} s, 2 workers {seconds[2]:.1f} s: {seconds[1] / seconds[2]:.2f} times"
        )
        return
    done, run_s, point_s = timed(space(SCHEMES[: max(1, given.points // 50)]), given.workers)
    workers_s = done.counts.simulated * run_s + done.counts.computed * point_s
    beside = done.seconds / workers_s  # what workers wait for, and do beside
    for points_a_run in (5, 50):
        million = 1e6 * (run_s / points_a_run + point_s) * beside
        print(f"10^6 points, {points_a_run} a run: {duration(million)} (h:m:s) on as many workers")


if __name__ == "__main__":
    main()
