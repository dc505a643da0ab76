"""How close the mapper comes to the best of all mappings, and what a better machine costs it.

    python benchmarks/mapper.py [--cases 2000] [--most-mappings 15000] [--seeds 1962 ...] [--named] [--sweep]
                                [--csv FILE]

Draws small layers and machines by seed (tests/all_mappings.py), runs the mapper's model on every mapping that
the plan format has of each, without the mapper's own candidates, times the best one and the chosen one with
the event model too, and prints the distribution of chosen / best. Draws with more than --most-mappings are
left out; --seeds takes these draws alone. --named takes layers of odd shapes on magnet16 instead, with some
100,000 mappings each whose d-tiles are as long as psums have room for: minutes.
--sweep makes one parameter of magnet16 after another larger, over a few layers, and prints where cycles rise.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import all_mappings
import machines
from all_mappings import Case, draw, every_mapping, fastest

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.layout.program import build_program
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import decide_residency
from accelsim.mapping.search.mapper import Mapper
from accelsim.sim.run import TimeRequest, time_layers

SCHEMES = ("4/4/4/4", "8/8/-/-")
_FAR = 1.15  # of the best: such cases are printed


def timed_cycles(case: Case, mapping: LayerMapping) -> int:
    """By the event model."""
    program = build_program(case.arch, case.layer, mapping, case.residency)
    return int(time_layers(TimeRequest(case.arch, [program]))[0].cycles)


def named_cases() -> Iterator[tuple[str, Case]]:
    arch = load_arch("magnet16")
    for name, geometry in all_mappings.NAMED.items():
        for scheme in SCHEMES:
            layer = all_mappings.layer_of(geometry, Scheme.parse(scheme), arch)
            yield f"{name} {scheme}", Case("named", arch, layer, decide_residency(arch, [layer])[0])


def drawn_cases(seeds: Iterable[int], most_mappings: int) -> Iterator[tuple[str, Case]]:
    machines.MOST_STEPS, machines.MOST_BITS = all_mappings.MOST_STEPS, all_mappings.MOST_BITS
    for seed in seeds:
        case = draw(seed)
        size = sum(1 for _ in islice(every_mapping(case.arch, case.layer), most_mappings + 1))
        if size <= most_mappings:
            yield f"seed {seed}", case


def compare(cases: Iterator[tuple[str, Case]], csv_file: str | None, *, d_tiles: bool = True) -> None:
    rows, start, search_s = [], time.perf_counter(), 0.0
    refused = 0
    for name, case in cases:
        began = time.perf_counter()
        try:
            choice = Mapper(case.arch).choose(case.layer, case.residency)
        except AccelsimError as error:
            if (fits := fastest(case.arch, case.layer, case.residency, d_tiles=d_tiles)) is not None:
                print(f"{name}: refused though {fits[1]} fits: {error}")
            refused += 1
            continue
        search_s += time.perf_counter() - began
        cycles, mapping = choice.best.estimate.cycles, choice.best.mapping
        # Without d-tiles of all lengths the chosen one need not be one of them.
        known = (cycles, mapping) if d_tiles else None
        best = fastest(case.arch, case.layer, case.residency, d_tiles=d_tiles, known=known)
        assert best is not None
        for by_model, own in (best, (cycles, mapping)):
            if timed_cycles(case, own) != by_model:
                print(
                    f"{name}: the event model says {timed_cycles(case, own)} of {own}, the model {by_model}"
                )
        rows.append((name, case.kind, choice.tried, choice.bound.cycles, best[0], cycles, cycles / best[0]))
        if cycles > _FAR * best[0]:
            print(f"{name}: {cycles:,} cycles by {mapping}, {best[0]:,} by {best[1]}", flush=True)
        if len(rows) % 100 == 0 or case.kind == "named":
            took = time.perf_counter() - start
            print(
                f"{name}: {len(rows)} layers, {took:.0f} s, chosen {cycles:,}, best {best[0]:,}", flush=True
            )
    if csv_file:
        with open(csv_file, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("case", "kind", "tried", "bound_cycles", "best_cycles", "cycles", "ratio"))
            writer.writerows(rows)
    for kind in [None, *sorted({row[1] for row in rows})]:
        ratios = [row[-1] for row in rows if kind in (None, row[1])]
        shares = "  ".join(f"{q} % {np.percentile(ratios, q):.3f}" for q in (50, 75, 90, 95, 99))
        over = sum(ratio > _FAR for ratio in ratios)
        worst = f"worst {max(ratios):.3f}, {over} over {_FAR}"
        print(f"{kind or 'together':<9}{len(ratios):>5} layers  {shares}  {worst}")
    print(f"nothing fits {refused}; {np.mean([row[2] for row in rows]):.0f} mappings tried and "
          f"{1e3 * search_s / len(rows):.0f} ms a layer")  # fmt: skip


def sweep() -> None:
    """Each layer by itself; prints where the larger machine is slower by more than 1 %."""
    for scheme in SCHEMES:
        steps = list(all_mappings.sweep(scheme))
        for step in sorted(steps, key=lambda step: -step.rise):
            if step.rise > 0.01:
                print(f"{scheme} {step.layer:<12}{step.parameter} {step.before} -> {step.after}: "
                      f"{step.least_cycles:,} -> {step.cycles:,} cycles, {step.rise:+.1%}")  # fmt: skip
        print(f"{scheme}: {len(steps)} steps, worst {max(step.rise for step in steps):+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--most-mappings", type=int, default=15_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[])
    parser.add_argument("--named", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--csv")
    own = parser.parse_args()
    if own.sweep:
        sweep()
    elif own.named:
        compare(named_cases(), own.csv, d_tiles=False)
    else:
        drawn = drawn_cases(own.seeds or count(), own.most_mappings)
        compare(islice(drawn, own.cases), own.csv)


if __name__ == "__main__":
    main()
