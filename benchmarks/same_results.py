"""Do two checkouts give the same results? Runs both on this machine and compares the hash of every data file.

    python benchmarks/same_results.py OLD NEW            two checkouts, side by side
    python benchmarks/same_results.py OLD --save old.json    one, for later
    python benchmarks/same_results.py old.json NEW       with what was saved

A data file is everything that a run writes but for plots; `wall_s` and `accelsim_version` are left out, since
they say when and by what a result was made. Of a command that writes no file its output is hashed. The
interpreter that runs this script runs both checkouts, so it needs accelsim's dependencies.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

NOT_DATA = (".png", ".svg")
NOT_RESULTS = ("wall_s", "accelsim_version")
DATAFLOWS = "dataflows=[os-lws, os, ws-los, ws]"

Hashes = dict[str, dict[str, str]]  # run -> file -> SHA-256


def random_machine(seed: int) -> list[str]:
    """Overrides of magnet16 that make another machine; every choice is one that the bundled traces fit."""
    rng = random.Random(seed)
    lanes, vector = rng.choice([(4, 8), (8, 8), (8, 16), (16, 16), (16, 8), (4, 16)])
    banks = rng.choice([4, 8, 12])
    chosen = {
        "lanes": lanes,
        "vector_size": vector,
        "pes": rng.choice([1, 2, 3, 4, 6, 9]),
        "weight_buffer_words": rng.choice([64, 128, 512]),
        "input_buffer_words": rng.choice([256, 512, 2048]),
        "accumulation_collector_depth": rng.choice([4, 8, 16]),
        "accumulation_buffer_words": rng.choice([64, 128]),
        "out_fifo_words": 64,
        "accumulate_latency": rng.choice([1, 2, 4]),
        "local_accumulate_latency": rng.choice([1, 2]),
        "dot_stages": rng.choice([1, 2, 4]),
        "scale_stages": rng.choice([1, 3]),
        "gb_banks": banks,
        "gb_bank_bits": rng.choice([64, 128, 96]),
        "pe_port_bits": rng.choice([32, 64, 128]),
        "global_buffer_kb": rng.choice([64, 128, 256, 512]),
        "gb_weight_kb": rng.choice([16, 24, 32]),
        "dram_bits_per_cycle": rng.choice([64, 200, 512]),
        "noc_latency_cycles": rng.choice([0, 1, 5]),
        "psum_chain": rng.choice(["true", "false"]),
        "overflow": rng.choice(["saturate", "wrap"]),
        "product_shift": rng.choice([0, 0, 2]),
    }
    named = rng.sample(["os-lws", "os", "ws-los", "ws"], rng.choice([1, 2, 4]))
    sets = [f"{key}={value}" for key, value in chosen.items()]
    return [*sets, "psum_port_bits=" + rng.choice(["null", "64"]), f"dataflows=[{', '.join(named)}]"]


def sets(items: list[str]) -> list[str]:
    return [word for item in items for word in ("--set", item)]


def runs() -> dict[str, list[str]]:
    """Name -> arguments of accelsim; OUT stands for the file or folder that it writes, if any."""
    three = ["--scheme", "8/8/-/-", "--scheme", "4/4/4/4", "--scheme", "4/8/6/10"]
    found = {
        "digits compare, dump, timeline": [
            "compare",
            "digits",
            *three,
            "--dump",
            "--timeline",
            "--out",
            "OUT",
        ],
        "digits 4/4/4/4:sp4": ["run", "digits", "--scheme", "4/4/4/4:sp4", "--dump", "--out", "OUT"],
        "minilm compare": ["compare", "minilm_layer0", *three, "--out", "OUT"],
        "minilm 24-bit": [
            *("run", "minilm_layer0", "--scheme", "4/8/6/10", "--set", "accumulator_bits=24"),
            *("--dump", "--out", "OUT"),
        ],
        "minilm 6/8/4/10:sp6, timeline": [
            *("run", "minilm_layer0", "--scheme", "6/8/4/10:sp6", "--timeline", "--out", "OUT"),
        ],
        "digits, four dataflows": [
            *("run", "digits", "--set", DATAFLOWS, "--set", "mapping.objective=energy", "--out", "OUT"),
        ],
        "minilm ws-los": ["run", "minilm_layer0", "--set", "dataflows=[ws-los]", "--out", "OUT"],
        "resnet50 compare": ["compare", "resnet50", *three[:4], "--out", "OUT"],
        "resnet50 no data, timeline": ["run", "resnet50", "--no-data", "--timeline", "--out", "OUT"],
        "bert-base@seq=384 no data": ["compare", "bert-base@seq=384", *three, "--no-data", "--out", "OUT"],
        "bert-base": ["run", "bert-base", "--scheme", "8/8/-/-", "--out", "OUT"],
        "mobilenet_v2": ["run", "mobilenet_v2", "--out", "OUT"],
        "llama-block no data": [
            *("run", "llama-block@seq=64", "--no-data", "--gated-fraction", "0.1", "--out", "OUT"),
        ],
        "quantized trace": [
            *("trace", "quantize", "digits", "--scheme", "4/4/4/4", "--scheme", "8/8/-/-", "--out", "OUT"),
        ],
        "recipe of vit-b16": ["trace", "synth", "vit-b16", "--out", "OUT"],
        "trace info": ["trace", "info", "minilm_layer0"],
        "map": ["map", "resnet50", "layer3.1.conv2"],
        "costs": ["costs"],
    }
    for seed in range(4):
        trace = "digits" if seed % 2 else "minilm_layer0"
        found[f"random machine {seed}, {trace}"] = [
            *("run", trace, "--scheme", ("4/4/4/4", "8/8/-/-", "4/8/6/10", "6/6/4/-")[seed]),
            *sets(random_machine(seed)),
            *("--dump", "--out", "OUT"),
        ]
    return found


def hashes_of(checkout: Path, wanted: str, ignored: Sequence[str]) -> Hashes:
    """What the runs whose name holds `wanted` give in a checkout."""
    env = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'kernels'}", "COLUMNS": "240"}
    found: Hashes = {}
    for name, arguments in runs().items():
        if wanted not in name:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / ("out.safetensors" if "quantize" in arguments else "out")
            own = [str(out) if word == "OUT" else word for word in arguments]
            if arguments[0] in ("run", "compare"):
                own.append("--no-plots")
            command = [sys.executable, "-m", "accelsim", *own]
            done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)
            if done.returncode:
                found[name] = {"error": done.stderr.strip().splitlines()[-1]}
            elif "OUT" in arguments:
                found[name] = hash_files(out, ignored)
            else:
                found[name] = {"output": hashlib.sha256(done.stdout.encode()).hexdigest()}
        print(f"{checkout}: {name}: {len(found[name])} files", file=sys.stderr)
    return found


def hash_files(out: Path, ignored: Sequence[str]) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]
    found = {}
    for path in files:
        if path.suffix in NOT_DATA:
            continue
        data = path.read_bytes()
        if path.name == "summary.json":
            summary = {key: value for key, value in json.loads(data).items() if key not in ignored}
            data = json.dumps(summary).encode()
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                rows = [{key: row[key] for key in row if key not in ignored} for row in csv.DictReader(file)]
            data = json.dumps(rows).encode()
        found[str(path.relative_to(out.parent))] = hashlib.sha256(data).hexdigest()
    return found


def read(source: Path, wanted: str, ignored: Sequence[str]) -> Hashes:
    if source.is_file():
        saved: Hashes = json.loads(source.read_text())
        return {name: files for name, files in saved.items() if wanted in name}
    return hashes_of(source.resolve(), wanted, ignored)


def compare(old: Hashes, new: Hashes) -> int:
    """Print a line a run; returns how many differ."""
    differing = 0
    for name in dict.fromkeys((*old, *new)):
        a, b = old.get(name, {}), new.get(name, {})
        files = [file for file in dict.fromkeys((*a, *b)) if a.get(file) != b.get(file)]
        differing += bool(files)
        errors = [own["error"] for own in (a, b) if "error" in own]
        what = f"differ: {', '.join(files)}" if files else "the same"
        print(f"{name:36} {len(b):3} files  {what}" + "".join(f"\n    {error}" for error in errors))
    print(f"{len(old)} runs, {differing} differ")
    return differing


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="a checkout, or a file that --save wrote")
    parser.add_argument("new", type=Path, nargs="?", help="a checkout")
    parser.add_argument("--save", type=Path, help="write the hashes of OLD to this file")
    parser.add_argument("--only", default="", help="runs whose name holds this text")
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        help="a key of summary.json, or a column, that may differ; repeats",
    )
    args = parser.parse_args()
    ignored = (*NOT_RESULTS, *args.ignore)
    old = read(args.old, args.only, ignored)
    if args.save:
        args.save.write_text(json.dumps(old, indent=1) + "\n")
    if args.new is not None:
        sys.exit(1 if compare(old, read(args.new, args.only, ignored)) else 0)


if __name__ == "__main__":
    main()
