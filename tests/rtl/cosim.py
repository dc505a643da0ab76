"""Co-simulation of the PE: Verilator against the plain kernels and the event model's PE.

As a script, prints the table of docs/rtl.md: python tests/rtl/cosim.py [FIRST LAST]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.rtl.emit import TESTBENCH, VERILATOR, write_modules, write_testbench
from accelsim.rtl.vectors import Vectors, make_vectors
from accelsim.workload.layer import OutputFormat
from rtl.block_tiles import random_block_layer
from rtl.tiles import random_layer, random_run, trace_layers


@dataclass(frozen=True)
class Configuration:
    """A machine and a scheme; `accumulator` None means auto, `latency` is the PPU's in its scale kind."""

    scheme: str
    v: int
    lanes: int
    depth: int
    overflow: str = "saturate"
    accumulator: int | None = None
    accumulate_latency: int = 2
    product_shift: int = 0
    sign: str = "both"
    latency: int | None = None
    scale_rounding: str = "up"
    alignment_rounding: str = "nearest"
    gating: str = "none"
    fifo: int | None = None  # None: the least that holds two drains
    ppu_lanes: int | None = None
    ppu_stages: str = "coarse"
    stages: tuple[int, int] = (1, 1)  # of the dot product and of the scaling

    @property
    def arch(self) -> Arch:
        scheme = Scheme.parse(self.scheme)
        groups = max(1, (scheme.block or self.v) // self.lanes) if scheme.activation.scale.bits else 1
        natural = {"coarse": (4, 8), "fine": (6, 15)}[self.ppu_stages]
        latency = self.latency or natural[bool(scheme.activation.scale.bits)]
        changes = {
            "vector_size": self.v,
            "lanes": self.lanes,
            "pes": 64,
            "accumulation_collector_depth": self.depth,
            "overflow": self.overflow,
            "accumulator_bits": self.accumulator or "auto",
            "accumulate_latency": self.accumulate_latency,
            "gate_on_scale_product": self.gating,
            "dot_stages": self.stages[0],
            "scale_stages": self.stages[1],
            "product_shift": self.product_shift,
            "activation_sign": self.sign,
            "scale_rounding": self.scale_rounding,
            "alignment_rounding": self.alignment_rounding,
            "ppu_stages": self.ppu_stages,
            "out_fifo_words": self.fifo or 2 * self.depth * groups,
            "weight_buffer_words": 256,
            "input_buffer_words": 512,
            "global_buffer_kb": 1 << 16,
        }
        overrides = [f"{name}={value}" for name, value in changes.items()]
        overrides += [f"ppu_lanes={self.ppu_lanes or self.lanes}"]
        overrides += [f"ppu_latency_cycles.{kind}={latency}" for kind in ("static", "per_vector")]
        return load_arch("magnet16", overrides)

    def __str__(self) -> str:
        parts = [f"{self.scheme} V{self.v} L{self.lanes} D{self.depth} {self.overflow}"]
        arch = self.arch
        parts.append(f"acc{arch.accumulator_width(Scheme.parse(self.scheme))} al{self.accumulate_latency}")
        if self.stages != (1, 1):
            parts.append(f"stages{self.stages[0]}+{self.stages[1]}")
        if self.product_shift:
            parts.append(f"p{self.product_shift}")
        if self.sign != "both":
            parts.append(self.sign)
        if self.scale_rounding != "up":
            parts.append(f"scales-{self.scale_rounding}")
        if self.alignment_rounding != "nearest":
            parts.append(f"aligns-{self.alignment_rounding}")
        if self.gating != "none":
            parts.append(f"gates-{self.gating}")
        latency = arch.ppu_latency_cycles
        parts.append(f"ppu{latency.static}")
        if self.ppu_stages != "coarse":
            parts.append(self.ppu_stages)
        if self.ppu_lanes:
            parts.append(f"ppu_lanes{self.ppu_lanes}")
        return " ".join(parts)


# Every pair of V, L, D and overflow, every scheme with both overflows; the rest of each row is spread.
CONFIGURATIONS = (
    Configuration("8/8/-/-", 16, 16, 16, "saturate"),
    Configuration("8/8/-/-", 64, 1, 2, "wrap", 22, 1),
    Configuration("6/6/-/-", 8, 4, 1, "saturate", 14, 3, sign="signed", latency=2),
    Configuration("6/6/-/-", 32, 16, 2, "wrap", sign="unsigned", latency=7),
    Configuration("4/4/-/-", 64, 4, 1, "saturate", 12, 4, latency=1),
    Configuration("4/4/-/-", 8, 16, 2, "wrap", 11, 3),
    Configuration("4/4/4/4", 16, 16, 16, "saturate", 24),
    Configuration("4/4/4/4", 64, 4, 2, "wrap", 16, 4, product_shift=2, latency=12, scale_rounding="nearest"),
    Configuration("4/4/4/4:sp4", 32, 1, 1, "saturate", 14, 1, latency=3),
    Configuration("4/4/4/4:sp4", 16, 4, 16, "wrap", scale_rounding="nearest", fifo=64),
    Configuration(
        "4/8/6/10", 16, 16, 2, "saturate", 24, product_shift=4, latency=5, scale_rounding="nearest"
    ),
    Configuration("4/8/6/10", 8, 1, 16, "wrap", 3 * 9, 3, latency=1),
    Configuration("4/8/-/10", 32, 4, 1, "wrap", 22, 2, sign="unsigned"),
    Configuration("4/8/-/10", 64, 16, 16, "saturate", scale_rounding="nearest"),
    Configuration("3/3/4/4", 8, 16, 1, "saturate", 13, 1, latency=6, scale_rounding="nearest"),
    Configuration("3/3/4/4", 32, 16, 16, "wrap", 15, 2, sign="signed", fifo=33),
    Configuration("8/8/-/-", 16, 1, 1, "saturate", 18, 2, fifo=1),
    Configuration("4/4/4/4:sp4", 16, 16, 16, "saturate", 14, gating="multiply"),
    Configuration("4/4/4/4:sp4", 16, 16, 16, "wrap", 13, gating="dot"),
    # A PPU narrower than the lanes: static, V = L, V > L (staged), V < L, V below the PPU's width.
    Configuration("8/8/-/-", 16, 16, 2, "wrap", ppu_lanes=4, ppu_stages="fine"),
    Configuration("4/4/4/4", 16, 16, 16, "saturate", ppu_lanes=4, ppu_stages="fine"),
    Configuration("4/8/6/10", 64, 16, 2, "wrap", 24, latency=12, ppu_lanes=2, ppu_stages="fine"),
    Configuration("3/3/4/4", 8, 16, 2, "saturate", latency=5, ppu_lanes=1),
    Configuration("4/8/-/10", 8, 32, 2, "saturate", 24, ppu_lanes=16),
    Configuration("8/8/-/-", 16, 16, 16, "saturate", stages=(2, 1)),
    Configuration("4/4/4/4", 16, 16, 4, "saturate", stages=(2, 2)),
    Configuration("4/8/6/10", 8, 4, 2, "wrap", 27, 4, stages=(3, 3), sign="signed"),
    Configuration("3/3/4/4:sp4", 32, 4, 1, "saturate", 13, 1, stages=(4, 2), sign="unsigned"),
    Configuration("6/6/-/-", 64, 16, 2, "wrap", stages=(4, 1)),
    Configuration("4/8/-/10", 4, 4, 3, "saturate", 22, 3, stages=(4, 3)),
    Configuration("4/4/4/4:sp4", 16, 16, 4, "saturate", 14, gating="multiply", stages=(3, 2)),
    Configuration("4/4/4/4:sp4", 8, 4, 2, "wrap", 13, gating="dot", stages=(2, 3)),
    # Blocks of several words, of one, and several in a word.
    Configuration("4/4/8/8@32", 16, 16, 16, "saturate", ppu_lanes=4, ppu_stages="fine", stages=(3, 3)),
    Configuration("4/4/8/8@32", 32, 16, 4, "saturate", 24, ppu_lanes=8),
    Configuration("4/4/4/6@16", 32, 16, 4, "wrap", 18, 3, product_shift=2, stages=(2, 2)),
    Configuration("4/8/6/10@8", 32, 4, 2, "saturate", 24, gating="multiply"),
    Configuration("4/4/4/6@8", 64, 4, 2, "saturate", 20, 3, product_shift=3, stages=(2, 2)),
    Configuration("8/8/4/4@4", 16, 4, 4, "wrap", 22, gating="multiply", stages=(3, 2)),
    Configuration("4/4/4/4@4:sp3", 8, 4, 4, "saturate", 16, gating="multiply", stages=(2, 1)),
    Configuration("4/4/4/4@4:sp3", 12, 4, 2, "saturate", 15, gating="dot", stages=(2, 2)),
    Configuration("4/8/-/6@4", 12, 4, 2, "saturate", 18, gating="dot", ppu_lanes=4),
    # Block formats: V below, at and above the block, both roundings, widths and stages, staged outputs.
    Configuration("mxfp4", 16, 16, 16, "saturate", ppu_lanes=4, ppu_stages="fine", stages=(3, 3)),
    Configuration("mxfp4", 32, 4, 2, "saturate", 14, 3, alignment_rounding="floor", stages=(1, 2)),
    Configuration("mxint8", 16, 16, 4, "saturate", ppu_lanes=4, ppu_stages="fine", stages=(3, 3)),
    Configuration("mxint8", 8, 32, 2, "saturate", 48, 4, alignment_rounding="floor", latency=3, ppu_lanes=16),
    Configuration("mxint8", 64, 8, 2, "saturate", 18, 1, latency=11),
    Configuration("nvfp4", 16, 16, 16, "saturate", ppu_lanes=4, ppu_stages="fine", stages=(3, 3)),
    Configuration("nvfp4", 32, 16, 2, "saturate", 16, ppu_lanes=2, stages=(2, 2)),
    Configuration("nvfp4", 64, 8, 2, "saturate", 20, stages=(2, 3)),
    Configuration("nvfp4", 8, 4, 3, "saturate", 40, 3, alignment_rounding="floor", latency=6, stages=(1, 1)),
    Configuration(
        "nvfp4", 16, 32, 2, "saturate", 20, alignment_rounding="floor", ppu_lanes=16, stages=(4, 3)
    ),
    # As magnet16.
    Configuration("8/8/-/-", 16, 16, 16, "saturate", ppu_lanes=4, ppu_stages="fine", stages=(3, 3)),
    Configuration("4/4/4/4", 16, 16, 16, "saturate", ppu_lanes=4, ppu_stages="fine", stages=(3, 3)),
    Configuration("4/8/6/10", 16, 16, 16, "saturate", ppu_lanes=4, ppu_stages="fine", stages=(3, 3)),
)


@dataclass
class Result:
    configuration: str
    tiles: int = 0
    psums: int = 0
    codes: int = 0
    overflows: int = 0
    cycles: int = 0
    mismatches: int = 0
    said: str = ""

    HEADER = ("configuration", "tiles", "psums", "codes", "overflows", "cycles", "mismatches")

    def row(self) -> list[str]:
        numbers = (self.tiles, self.psums, self.codes, self.overflows, self.cycles, self.mismatches)
        return [self.configuration, *(str(number) for number in numbers)]


def missing_tool() -> str | None:
    """Why Verilator cannot be used here, or None."""
    for tool in ("verilator", "make", "g++"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return None


def cosimulate(
    configuration: Configuration, *, tiles: int, max_steps: int, seed: int = 0, small: bool = False
) -> Result:
    """Simulate `tiles` tiles, trace layers first, then random, on one compiled PE."""
    with tempfile.TemporaryDirectory() as temporary:
        return _cosimulate(configuration, tiles, max_steps, seed, small, Path(temporary))


def _cosimulate(
    configuration: Configuration, tiles: int, max_steps: int, seed: int, small: bool, folder: Path
) -> Result:
    arch, scheme = configuration.arch, Scheme.parse(configuration.scheme)
    rng = np.random.default_rng(seed)
    layers = list(trace_layers(arch, scheme, small=small))
    make = random_block_layer if scheme.is_aligned else random_layer
    layers += [make(rng, arch, scheme) for _ in range(max(0, tiles - len(layers)))]
    vectors = [make_vectors(arch, random_run(rng, arch, layer, max_steps), layer) for layer in layers]
    program = build(arch, scheme, layers[0].output, vectors, folder)
    result = Result(str(configuration))
    for number, (layer, tile) in enumerate(zip(layers, vectors, strict=True)):
        where = folder / f"tile{number}"
        tile.write(where)
        said = subprocess.run(
            [program, f"+vectors={where}"], capture_output=True, text=True, check=True, timeout=600
        ).stdout
        words = said[said.index("psums ") :].split()
        result.tiles += 1
        result.psums += int(words[1])
        result.codes += int(words[3])
        result.overflows += int(words[5])
        result.cycles += int(words[7])
        wrong = sum(int(word) for word in words[9:14]) + (words[14] != "PASS")
        # A tile that ends early would compare less than it should.
        wrong += int(words[1]) != tile.psums
        result.mismatches += wrong
        if wrong:
            result.said += f"tile {number}, {layer.name}, {layer.geometry}:\n{said}\n"
        shutil.rmtree(where)
    return result


def build(arch: Arch, scheme: Scheme, output: OutputFormat, vectors: list[Vectors], folder: Path) -> Path:
    """Compile the PE and its testbench with Verilator; the run-time library is compiled once a process."""
    code = verilate(arch, scheme, output, vectors, folder)
    # A PE runs for seconds and compiles for longer: nothing is optimised, and all is compiled in one piece.
    flags = ["OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1", "VM_PARALLEL_BUILDS=0"]
    for kept in _runtime.glob("verilated*.o"):
        # As new: make compiles again what is older than the makefile just written.
        shutil.copy(kept, code)
    _call(["make", "-s", "-f", f"V{TESTBENCH}.mk", *flags], code)
    for compiled in code.glob("verilated*.o"):
        if not (_runtime / compiled.name).exists():
            shutil.copy(compiled, _runtime)
    return code / TESTBENCH


def verilate(arch: Arch, scheme: Scheme, output: OutputFormat, vectors: list[Vectors], folder: Path) -> Path:
    """The folder of the C++ that Verilator makes of the PE and its testbench."""
    write_modules(arch, scheme, output, folder)
    write_testbench(arch, scheme, output, vectors, folder)
    sources = sorted(file.name for file in folder.glob("*.sv"))
    run = ["verilator", "--cc", "--exe", "--main", "--timing", *VERILATOR]
    _call([*run, "-Mdir", "obj_dir", "-o", TESTBENCH, *sources], folder)
    return folder / "obj_dir"


_runtime_folder = tempfile.TemporaryDirectory()
_runtime = Path(_runtime_folder.name)


def _call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def main(arguments: list[str]) -> None:
    chosen = (
        CONFIGURATIONS[slice(*(int(argument) for argument in arguments))] if arguments else CONFIGURATIONS
    )
    print("| " + " | ".join(Result.HEADER) + " |")
    print("|" + "---|" * len(Result.HEADER))
    for configuration in chosen:
        result = cosimulate(configuration, tiles=48, max_steps=2000)
        print("| " + " | ".join(result.row()) + " |", flush=True)
        if result.said:
            print(result.said[:4000])


if __name__ == "__main__":
    main(sys.argv[1:])
