"""Whole networks: time, memory and rate of `accelsim run`, how they grow, and SCALE-Sim beside them.

    python benchmarks/networks.py [NETWORK ...] [--scalesim-python PYTHON --scalesim-topology CSV]

Every run is a process of its own, after one that fills the caches of compiled kernels. SCALE-Sim 3 needs
older NumPy and pandas than this package's, hence an interpreter of its own (`pip install scalesim "numpy<2.3"
"pandas<3"`); its traces are turned off as its own option fails to do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCHEMES = ("8/8/-/-", "4/4/4/4")
_SCALESIM = """
import sys
from scalesim.scale_sim import scalesim
run = scalesim(save_disk_space=True, verbose=False, config=sys.argv[1], topology=sys.argv[2])
run.run_scale(top_path=sys.argv[3])
"""
_SCALESIM_CONFIG = """[general]
run_name = network
[architecture_presets]
ArrayHeight: 64
ArrayWidth: 64
IfmapSramSzkB: 512
FilterSramSzkB: 512
OfmapSramSzkB: 256
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: ws
Bandwidth: 50
[run_presets]
InterfaceBandwidth: CALC
"""


def measured(command: list[str]) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, peak RSS in GB) of a command that must succeed."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    if status:
        error = process.stderr.read().decode() if process.stderr else ""
        raise SystemExit(f"{' '.join(command)}: failed\n{error[-2000:]}")
    return wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6


def simulate(network: str, scheme: str, *more: str) -> dict[str, float]:
    """Figures of one `accelsim run`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "accelsim", "run", network, "--scheme", scheme, "--no-plots"]
        wall_s, cpu_s, rss_gb = measured([*command, "--out", str(out), *more])
        summary = json.loads((out / "summary.json").read_text())
    names = ("macs", "cycles", "utilization", "bound_utilization")
    return {"wall_s": wall_s, "cpu_s": cpu_s, "rss_gb": rss_gb, **{name: summary[name] for name in names}}


def show(network: str, what: str, own: dict[str, float]) -> None:
    print(
        f"{network:18s} {what:22s} {own['macs'] / 1e9:8.2f} {own['wall_s']:7.1f} {own['cpu_s']:7.1f} "
        f"{own['macs'] / own['wall_s'] / 1e9:7.2f} {own['rss_gb']:6.2f} {own['cycles']:12,} "
        f"{own['utilization']:6.3f} {own['bound_utilization']:6.3f}",
        flush=True,
    )


def scalesim(python: str, topology: Path) -> float:
    """CPU seconds of SCALE-Sim on a topology, 64x64 weight stationary."""
    with tempfile.TemporaryDirectory() as folder:
        config, cut = Path(folder) / "config.cfg", Path(folder) / "topology.csv"
        config.write_text(_SCALESIM_CONFIG)
        # It reads the first eight columns only, and stumbles over more.
        rows = [line.split(",")[:8] for line in topology.read_text().splitlines() if line.strip()]
        cut.write_text("".join(",".join(row) + ",\n" for row in rows))
        return measured([python, "-c", _SCALESIM, str(config), str(cut), folder])[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("networks", nargs="*", default=["resnet50", "bert-base"])
    parser.add_argument("--scalesim-python")
    parser.add_argument("--scalesim-topology", type=Path)
    arguments = parser.parse_args()
    for scheme in SCHEMES:  # fills the caches
        simulate("resnet18", scheme)
    print(f"{'network':18s} {'run':22s} {'GMAC':>8s} {'wall s':>7s} {'CPU s':>7s} {'GMAC/s':>7s} {'GB':>6s} "
          f"{'cycles':>12s} {'util.':>6s} {'bound':>6s}")  # fmt: skip
    for network in arguments.networks:
        for scheme in SCHEMES:
            show(network, scheme, simulate(network, scheme))
        show(network, f"{SCHEMES[-1]} --no-data", simulate(network, SCHEMES[-1], "--no-data"))
    base = simulate("resnet18", SCHEMES[-1], "--no-data")
    show("resnet18", "with MACs and layers", base)
    for pes in (4, 16, 64):
        own = simulate("resnet18", SCHEMES[-1], "--no-data", "--set", f"pes={pes}")
        show("resnet18", f"pes={pes}", own)
        print(f"{'':18s} wall time {own['wall_s'] / base['wall_s']:.2f} of that at 16 PEs")
    if not (arguments.scalesim_python and arguments.scalesim_topology):
        print("SCALE-Sim: not compared, no --scalesim-python and --scalesim-topology given")
        return
    theirs = scalesim(arguments.scalesim_python, arguments.scalesim_topology)
    ours = simulate(str(arguments.scalesim_topology), SCHEMES[-1])
    print(
        f"SCALE-Sim, 64x64 weight stationary, same layers: {theirs:.0f} CPU s; accelsim at {SCHEMES[-1]}, "
        f"every MAC executed: {ours['cpu_s']:.1f} CPU s; ratio {theirs / ours['cpu_s']:.1f}"
    )


if __name__ == "__main__":
    main()
