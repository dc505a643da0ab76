"""What simulating whole networks takes: time, memory, and how both grow.

    python benchmarks/networks.py [NETWORK ...] [--schemes 8/8/-/- 4/4/4/4] [--quick] [--no-data] [--warm]
                                  [--scalesim-python PYTHON] [--csv FILE]

Each row is `accelsim run NETWORK` in a fresh process, from its start to the written result folder without
plots, after a run that fills the compilers' caches. Mappings, timings and values are found anew; with
--warm they are those that the same run has kept before. `values`, `mapping` and `timing` are seconds within
that run; values (tensors drawn, quantized and computed) are made on a thread beside the other two, so the
three need not add up. Events are SimPy's. A block is what a PE issues without a break; those that the event
model fills in from repeats count as well. NETWORK:N is its first N layers. Then tables show growth with MACs,
layers and PEs.

With --scalesim-python, an interpreter that has SCALE-Sim (`pip install scalesim "numpy<2.3" "pandas<3"`; it
needs 8 GB and minutes), both simulate one and the same ResNet-50 topology, SCALE-Sim on 64 x 64 PEs, as many
multipliers as magnet16 has. SCALE-Sim computes no values and no energy.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelsim.open import open_workload
from accelsim.synthetic.workload import SyntheticWorkload, write_recipe

NETWORKS = ["resnet50", "bert-base"]
SCHEMES = ["8/8/-/-", "4/4/4/4"]
BY_SIZE = ["resnet18", "resnet50", "bert-base", "bert-base@seq=384"]
BY_LAYERS = ["bert-base:8", "bert-base:24", "bert-base:48", "bert-base"]  # 8 layers to an encoder layer
BY_PES = ["pes=4", "pes=16", "pes=64"]
# (column, format); a None value is a dash.
COLUMNS = [
    ("network", "<20"), ("scheme", "<9"), ("layers", ">7"), ("gmacs", ">8.2f"), ("wall_s", ">8.2f"),
    ("cpu_s", ">8.2f"), ("values_s", ">10.2f"), ("mapping_s", ">11.2f"), ("timing_s", ">10.2f"),
    ("mmacs_per_s", ">13.0f"), ("kevents_per_s", ">15.0f"), ("kblocks_per_s", ">15.0f"), ("rss_mb", ">8.0f"),
    ("cycles", ">12,"), ("utilization", ">13.3f"), ("bound_utilization", ">19.3f"),
]  # fmt: skip
Row = dict[str, Any]
WARM = False
"""Whether what runs keep is there when they are measured."""


def worker(request: Row) -> None:
    """One run in this process; prints one JSON line."""
    import accelsim.compute.values as values
    import accelsim.network as network
    import accelsim.sim.run as sim
    from accelsim.api import run
    from accelsim.mapping.search.mapper import Mapper
    from accelsim.sim.clock import Clock

    seconds = {"values_s": 0.0, "mapping_s": 0.0, "layout_s": 0.0, "timing_s": 0.0}
    programs, clocks = [], []

    class CountedClock(Clock):
        def __init__(self) -> None:
            super().__init__()
            clocks.append(self)

    def timed(key: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[key] += time.perf_counter() - start

        return call

    def keep(function: Callable) -> Callable:
        def call(*args, **kwargs):
            programs.append(program := function(*args, **kwargs))
            return program

        return call

    SyntheticWorkload.quantized_layer = timed("values_s", SyntheticWorkload.quantized_layer)  # type: ignore[method-assign]
    sim.Clock = CountedClock  # type: ignore[misc]
    values.compute = timed("values_s", values.compute)
    network.time_plan = timed("timing_s", network.time_plan)
    Mapper.choose = timed("mapping_s", Mapper.choose)  # type: ignore[method-assign]
    Mapper.program = keep(timed("layout_s", Mapper.program))  # type: ignore[method-assign]
    result = run(
        request["workload"],
        scheme=request["scheme"],
        overrides=request["overrides"],
        keep_tensors=False,
        gated_fraction=None if request["data"] else 0.0,
    )
    result.write(request["out"], plots=False)
    # A layer is laid out when it is timed; that is a part of its mapping here.
    seconds["timing_s"] -= seconds["layout_s"]
    seconds["mapping_s"] += seconds.pop("layout_s")
    summary = result.summary
    events = sum(clock.events() for clock in clocks)
    blocks = sum(len(pe.blocks) for program in programs for pe in program.pes)
    answer = {
        **seconds,
        "layers": len(result.activities),
        "gmacs": summary["macs"] / 1e9,
        "cycles": summary["cycles"],
        "utilization": summary["utilization"],
        "bound_utilization": summary["bound_utilization"],
        "kevents_per_s": events / seconds["timing_s"] / 1e3,
        "kblocks_per_s": blocks / seconds["timing_s"] / 1e3,
    }
    print(json.dumps(answer))


def measured(command: list[str], cwd: Path, kept: str = "") -> tuple[str, float, float, float]:
    """(standard output, wall seconds, CPU seconds, peak MB) of a command. Exits where it fails.

    kept: the folder of what runs keep, none for "".
    """
    out = cwd / "stdout"
    start = time.perf_counter()
    with out.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, cwd=cwd, env={**os.environ, "ACCELSIM_CACHE_DIR": kept}
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with status {process.returncode}")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of ru_maxrss
    return out.read_text(), wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


def workload(name: str, folder: Path) -> str:
    """What `run` takes for a name of ours: NETWORK:N becomes a recipe of its first N layers."""
    network, colon, count = name.partition(":")
    if not colon:
        return name
    trace = open_workload(network)
    assert isinstance(trace, SyntheticWorkload)
    path = write_recipe(trace, folder / f"{network}_{count}.json")
    recipe = json.loads(path.read_text())
    kept = [layer["name"] for layer in recipe["layers"][: int(count)]]
    steps = recipe["graph"]["steps"]
    others = [n for n, step in enumerate(steps) if "layer" in step and step["layer"] not in kept]
    steps = steps[: others[0]] if others else steps  # with the nodes that follow the last
    recipe["layers"] = recipe["layers"][: len(kept)]
    recipe["graph"].update(steps=steps, outputs=[steps[-1].get("layer") or steps[-1]["node"]])
    path.write_text(json.dumps(recipe))
    return str(path)


def measure(
    name: str, scheme: str, folder: Path, *, overrides: tuple[str, ...] = (), data: bool = True
) -> Row:
    request = {
        "workload": workload(name, folder),
        "scheme": scheme,
        "overrides": overrides,
        "data": data,
        "out": str(folder / "result"),
    }
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(request)]
    kept = str(folder / "kept") if WARM else ""
    if WARM:
        measured(command, folder, kept)
    text, wall_s, cpu_s, rss_mb = measured(command, folder, kept)
    row = {"network": name, "scheme": scheme, "wall_s": wall_s, "cpu_s": cpu_s, "rss_mb": rss_mb}
    row |= json.loads(text.splitlines()[-1])
    if not data:
        row["values_s"] = None
    row["mmacs_per_s"] = row["gmacs"] * 1e3 / wall_s
    return row


def show_header(first: str = "network") -> None:
    names = [(first if name == "network" else name, form) for name, form in COLUMNS]
    print("".join(f"{name:{form[0]}{form[1:].split('.')[0].rstrip(',')}}" for name, form in names))


def show(row: Row) -> None:
    cells = []
    for name, form in COLUMNS:
        width = form[1:].split(".")[0].rstrip(",")
        cells.append(f"{'-':>{width}}" if row[name] is None else f"{row[name]:{form}}")
    print("".join(cells), flush=True)


def table(title: str, names: list[str], scheme: str, known: list[Row], folder: Path, data: bool) -> list[Row]:
    """A table of growth; rows that were measured before are used again."""
    print(f"\n{title}, {scheme}")
    show_header()
    rows = []
    for name in names:
        found = [own for own in known if own["network"] == name and own["scheme"] == scheme]
        rows.append(found[0] if found else measure(name, scheme, folder, data=data))
        show(rows[-1])
    show_growth(rows, "gmacs")
    return rows


def show_growth(rows: list[Row], size: str) -> None:
    first, last = rows[0], rows[-1]
    times = last[size] / first[size]
    print(
        f"{times:.1f} times the {size}: {last['wall_s'] / first['wall_s']:.1f} times the wall time, "
        f"{last['cpu_s'] / first['cpu_s']:.1f} times the CPU time, "
        f"{last['rss_mb'] / first['rss_mb']:.1f} times the memory"
    )


def resnet50_topology(folder: Path) -> Path:
    """ResNet-50 as SCALE-Sim writes it: inputs cut to what the outputs need, the padding counted as input."""
    path = folder / "resnet50_topology.csv"
    lines = [
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"
    ]
    for info in open_workload("resnet50").layers:
        g = info.geometry
        height, width = ((out - 1) * g.stride[0] + taps for out, taps in ((g.P, g.R), (g.Q, g.S)))
        row = (info.name.replace(".", "_"), height, width, g.R, g.S, g.C, g.K, g.stride[0])
        lines.append(", ".join(map(str, row)) + ",")
    path.write_text("\n".join(lines) + "\n")
    return path


# 64 x 64 weight stationary with buffers as large as magnet16's, at 8 bits; run in SCALE-Sim's interpreter.
SCALESIM = """
import csv, glob, sys
from scalesim.scale_sim import scalesim
topology, layout, config, out = sys.argv[1:]
files = {"config": config, "topology": topology, "layout": layout}
scalesim(save_disk_space=True, verbose=False, **files).run_scale(top_path=out)
report, = glob.glob(out + "/*/COMPUTE_REPORT.csv")
rows = [{k.strip(): v for k, v in row.items() if k} for row in csv.DictReader(open(report))]
column = next(k for k in rows[0] if k.lower().startswith("total cycles"))
print("cycles", int(sum(float(row[column]) for row in rows)))
"""
SCALESIM_CONFIG = """[general]
run_name = resnet50
[architecture_presets]
ArrayHeight : 64
ArrayWidth : 64
IfmapSramSzkB : 256
FilterSramSzkB : 1024
OfmapSramSzkB : 256
IfmapOffset : 0
FilterOffset : 10000000
OfmapOffset : 20000000
Bandwidth : 10
Dataflow : ws
MemoryBanks : 1
ReadRequestBuffer : 32
WriteRequestBuffer : 32
[layout]
IfmapCustomLayout : False
IfmapSRAMBankBandwidth : 10
IfmapSRAMBankNum : 10
IfmapSRAMBankPort : 2
FilterCustomLayout : False
FilterSRAMBankBandwidth : 10
FilterSRAMBankNum : 10
FilterSRAMBankPort : 2
[sparsity]
SparsitySupport : false
SparseRep : ellpack_block
OptimizedMapping : false
BlockSize : 8
RandomNumberGeneratorSeed : 40
[run_presets]
InterfaceBandwidth : CALC
UseRamulatorTrace : False
"""


def against_scalesim(python: str | None, folder: Path, layers: int | None, data: bool) -> None:
    print("\nSCALE-Sim")
    if python is None and importlib.util.find_spec("scalesim"):
        python = sys.executable
    if python is None or subprocess.run([python, "-c", "import scalesim"], capture_output=True).returncode:
        print(f"not installed{'' if python is None else f' in {python}'}; see --scalesim-python")
        return
    topology, config, script = resnet50_topology(folder), folder / "scale.cfg", folder / "run_scalesim.py"
    if layers is not None:
        topology.write_text("\n".join(topology.read_text().splitlines()[: layers + 1]) + "\n")
    config.write_text(SCALESIM_CONFIG)
    script.write_text(SCALESIM)
    # A layout of the buffers is asked for, and not looked at.
    layout = folder / "layout.csv"
    names = [line.partition(",")[0] for line in topology.read_text().splitlines()[1:]]
    layout.write_text("\n".join(["Layer name,", *(f"{name},{'1,' * 20}" for name in names)]) + "\n")
    ours = measure(str(topology), SCHEMES[0], folder, data=data)
    command = [python, str(script), *map(str, (topology, layout, config, folder / "scalesim"))]
    text, wall_s, cpu_s, rss_mb = measured(command, folder)
    cycles = int(text.split()[-1])
    print(f"{ours['layers']} layers, {ours['gmacs']:.2f} GMACs, both with 4096 multipliers")
    print(f"{'':<12}{'wall_s':>9}{'cpu_s':>9}{'rss_mb':>9}{'cycles':>12}")
    print(
        f"{'accelsim':<12}{ours['wall_s']:9.1f}{ours['cpu_s']:9.1f}{ours['rss_mb']:9.0f}{ours['cycles']:12,}"
    )
    print(f"{'SCALE-Sim':<12}{wall_s:9.1f}{cpu_s:9.1f}{rss_mb:9.0f}{cycles:12,}")
    print(
        f"SCALE-Sim over accelsim: wall {wall_s / ours['wall_s']:.1f}, CPU {cpu_s / ours['cpu_s']:.1f}, "
        f"memory {rss_mb / ours['rss_mb']:.1f}"
    )


def report(args: argparse.Namespace, folder: Path) -> None:
    load = os.getloadavg()[0]
    networks = args.networks or (NETWORKS[:1] if args.quick else NETWORKS)
    for scheme in dict.fromkeys([*args.schemes, SCHEMES[0]]):  # fills the caches of compiled code
        measure("bert-base:16", scheme, folder, data=args.data)
        measure("resnet18", scheme, folder, data=args.data)
    print("magnet16, " + ("values, cycles and energy" if args.data else "cycles and energy without values"))
    print("mappings and timings " + ("kept by a run before" if args.warm else "found anew"))
    show_header()
    rows: list[Row] = []
    for name in networks:
        for scheme in args.schemes:
            rows.append(measure(name, scheme, folder, data=args.data))
            show(rows[-1])
    scheme = args.schemes[0]
    size, layers = (BY_SIZE[:2], BY_LAYERS[:2]) if args.quick else (BY_SIZE, BY_LAYERS)
    rows += table("Growth with MACs", size, scheme, rows, folder, args.data)
    rows += table("Growth with layers", layers, scheme, rows, folder, args.data)
    print(f"\nGrowth with PEs, resnet18, {scheme}")
    show_header("machine")
    machines = []
    for override in BY_PES:
        row = measure("resnet18", scheme, folder, overrides=(override,), data=args.data)
        machines.append({**row, "network": override, "pes": int(override.removeprefix("pes="))})
        show(machines[-1])
    show_growth(machines, "pes")
    if not args.quick:
        against_scalesim(args.scalesim_python, folder, args.scalesim_layers, args.data)
    if load > 0.5:
        print(f"\nwarning: load average was {load:.1f} at the start; wall times say less on busy cores")
    if args.csv:
        with open(args.csv, "w", newline="") as file:
            names = [name for name, _ in COLUMNS]
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows({tuple(row.items()): row for row in [*rows, *machines]}.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--schemes", nargs="+", default=SCHEMES)
    parser.add_argument("--quick", action="store_true", help="ResNet-50 and the small ends of the tables")
    parser.add_argument("--no-data", dest="data", action="store_false", help="cycles and energy only")
    parser.add_argument("--warm", action="store_true", help="with mappings and timings that are kept")
    parser.add_argument("--scalesim-python", help="an interpreter that has SCALE-Sim")
    parser.add_argument("--scalesim-layers", type=int, help="compare on so many layers of ResNet-50 only")
    parser.add_argument("--csv", help="also write one line per measurement")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    global WARM
    WARM = args.warm
    if args.worker:
        worker(json.loads(args.worker))
        return
    with tempfile.TemporaryDirectory() as folder:
        report(args, Path(folder))


if __name__ == "__main__":
    main()
