"""The PE in SystemVerilog against the kernels and the event model; tests that need a tool skip without it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rtl.block_tiles import random_block_layer
from rtl.cosim import CONFIGURATIONS, Configuration, cosimulate, missing_tool, verilate
from rtl.tiles import random_layer, random_program, random_run, trace_layers

from accelsim.compute.lanes import accumulate_layer, lane_spec
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import E2M3, E3M2, OCP_INT8
from accelsim.formats.operand import Operand
from accelsim.formats.scale import E4M3, Scale
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.layout.rows import Block
from accelsim.quantize.blocks import block_scales
from accelsim.quantize.reference import PPU_LIMIT
from accelsim.rtl.emit import (
    TESTBENCH,
    TOP,
    emit,
    modules,
    parameters,
    write_modules,
    write_testbench,
)
from accelsim.rtl.pe_run import cut_program, run_pe
from accelsim.rtl.synth import MODELLED, compare_area, synth, synth_frame
from accelsim.rtl.vectors import hex_lines, make_vectors

needs_verilator = pytest.mark.skipif(missing_tool() is not None, reason=str(missing_tool()))
needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
needs_yosys = pytest.mark.skipif(shutil.which("yosys") is None, reason="yosys is not installed")

# Of each real size. The rarest of rules that were broken, a limit of the PPU that is wrong by one, is seen in
# one tile of eight, and every module is in many configurations.
TILES = int(os.environ.get("COSIM_TILES", "24"))

# Small machines that compile in seconds: each scale kind, staged outputs, all latencies, both limits.
QUICK = (
    Configuration("4/4/4/4:sp4", 8, 2, 3, "saturate", 13, 2, fifo=12),
    Configuration("4/4/4/4:sp3", 8, 4, 2, "saturate", 12, gating="multiply"),
    Configuration("4/4/4/4:sp3", 4, 2, 2, "saturate", 12, gating="multiply", stages=(3, 2)),
    Configuration("4/4/4/4:sp3", 4, 2, 2, "saturate", 12, gating="dot", stages=(2, 3)),
    Configuration("4/4/4/4:sp3", 8, 2, 3, "wrap", 10, gating="dot", fifo=24),
    Configuration("4/4/-/-", 8, 8, 2, "saturate", 10, gating="multiply", fifo=4),
    Configuration("4/8/-/10", 8, 4, 2, "saturate", 16, gating="dot", fifo=8),
    Configuration("4/8/-/10", 8, 8, 1, "saturate", 16, 1, latency=2, fifo=1, ppu_lanes=2),
    Configuration("4/4/4/4", 8, 4, 2, "saturate", 13, ppu_lanes=2, ppu_stages="fine"),
    Configuration(
        "6/6/5/4:sp2",
        8,
        4,
        2,
        "wrap",
        15,
        4,
        product_shift=1,
        scale_rounding="nearest",
        fifo=4,
        stages=(3, 2),
    ),
    Configuration("4/8/-/10", 8, 8, 1, "saturate", 16, 1, latency=2, fifo=1, stages=(2, 3)),
)
SMALL = Configuration("4/4/4/4", 4, 2, 3, "saturate", 14)
TINY = Configuration("2/2/2/-", 2, 2, 2, "saturate", 8)


@needs_verilator
@pytest.mark.parametrize("configuration", QUICK, ids=str)
def test_cosimulation(configuration: Configuration) -> None:
    result = cosimulate(configuration, tiles=24, max_steps=400, seed=1, small=True)
    assert result.mismatches == 0, result.said
    assert result.tiles == 24 and result.psums > 2000 and result.overflows > 0


@needs_verilator
@pytest.mark.slow
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_cosimulation_of_real_sizes(configuration: Configuration) -> None:
    result = cosimulate(configuration, tiles=TILES, max_steps=2000)
    assert result.mismatches == 0, result.said
    assert result.tiles == TILES


REAL = [pytest.param(own, marks=pytest.mark.slow) for own in CONFIGURATIONS]


@needs_verilator
@pytest.mark.parametrize("configuration", [*QUICK, *REAL], ids=str)
def test_lint(configuration: Configuration, tmp_path: Path) -> None:
    emit(configuration.arch, Scheme.parse(configuration.scheme), None, tmp_path)
    sources = sorted(path.name for path in tmp_path.glob("*.sv"))
    command = ["verilator", "--lint-only", "-Wall", "--top-module", TOP, *sources]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_verilator
def test_lanes_are_one_piece_of_code(tmp_path: Path) -> None:
    """What g++ gets of a lane is as long whatever the number of lanes (lanes.vlt)."""
    sizes = []
    for lanes in (2, 8):
        configuration = Configuration("4/4/4/4:sp4", 8, lanes, 2, gating="multiply", stages=(3, 2))
        arch, scheme = configuration.arch, Scheme.parse(configuration.scheme)
        rng = np.random.default_rng(1)
        layer = random_layer(rng, arch, scheme)
        vectors = make_vectors(arch, random_run(rng, arch, layer, 50), layer)
        code = verilate(arch, scheme, layer.output, [vectors], tmp_path / str(lanes))
        sizes.append(sum(file.stat().st_size for file in code.glob("*vector_mac*.cpp")))
    assert 0 < sizes[1] < 1.1 * sizes[0]


@needs_icarus
def test_emitted_testbench_passes_and_fails(tmp_path: Path) -> None:
    """What `emit` writes runs as it is; it says FAIL when a psum, a cycle or a code is not as expected."""
    arch, scheme = SMALL.arch, Scheme.parse(SMALL.scheme)
    layer = next(iter(trace_layers(arch, scheme)))
    out = emit(arch, scheme, layer, tmp_path / "out", max_steps=300)
    sources = sorted(path.name for path in out.glob("*.sv"))
    subprocess.run(["iverilog", "-g2012", "-s", TESTBENCH, "-o", "tb", *sources], cwd=out, check=True)

    def said() -> str:
        return subprocess.run(["vvp", "tb"], cwd=out, capture_output=True, text=True, check=True).stdout

    assert "PASS" in said()
    for stem, line, column in (
        ("writes", 3, 0),
        ("drains", 1, -1),
        ("entries", 2, 0),
        ("input_fetches", 0, 7),
    ):
        path = out / "vectors" / f"{stem}.hex"
        text = path.read_text()
        lines = text.splitlines()
        digits = list(lines[line])
        digits[column] = f"{int(digits[column], 16) ^ 1:x}"
        lines[line] = "".join(digits)
        path.write_text("\n".join(lines) + "\n")
        assert "FAIL" in said(), stem
        path.write_text(text)
    assert "PASS" in said()


MX = Scale("e8m0", 8, "none")
SMALL_BLOCKS = (
    Scheme.parse("nvfp4"),
    Scheme(Operand(E3M2, MX, 16), Operand(E2M3, MX, 16)),
    Scheme(Operand(OCP_INT8, MX, 4), Operand(E4M3, MX, 4)),
)


@needs_icarus
@pytest.mark.parametrize("own", SMALL_BLOCKS, ids=str)
def test_block_formats_pass_in_a_small_pe(own: Scheme, tmp_path: Path) -> None:
    """Quick, of other elements too, and for the other simulator; real sizes are in cosim.py."""
    arch = Configuration("nvfp4", 8, 4, 2, "saturate", 14, ppu_lanes=2, stages=(1, 2)).arch
    rng = np.random.default_rng(7)
    vectors = []
    for number in range(6):
        layer = random_block_layer(rng, arch, own)
        vectors.append(make_vectors(arch, random_run(rng, arch, layer, 60), layer))
        vectors[-1].write(tmp_path / f"tile{number}")
    write_modules(arch, own, layer.output, tmp_path)
    write_testbench(arch, own, layer.output, vectors, tmp_path)
    sources = sorted(path.name for path in tmp_path.glob("*.sv"))
    subprocess.run(["iverilog", "-g2012", "-s", TESTBENCH, "-o", "tb", *sources], cwd=tmp_path, check=True)
    for number in range(len(vectors)):
        run = ["vvp", "tb", f"+vectors=tile{number}"]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "PASS" in done.stdout, done.stdout


def test_pe_alone_follows_the_closed_form() -> None:
    """Operands at once and no stalls: issue slots, last write, drain and PPU latency add up."""
    arch, scheme = SMALL.arch, Scheme.parse("4/4/-/-")
    rng = np.random.default_rng(3)
    layer = random_layer(rng, arch, scheme)
    whole = random_program(rng, arch, layer)
    program = cut_program(whole.pes[0], 1)
    run = run_pe(arch, whole, program)
    blocks = run.program.blocks
    if all(block.first and block.last for block in blocks) and len(blocks) == 1:
        block: Block = blocks[0]
        slots = max(block.pixels, arch.accumulate_latency)
        last_write = (block.g1 - block.g0 - 1) * slots + block.pixels - 1 + 3
        latency = arch.ppu_latency_cycles.static
        assert run.cycles == last_write + 1 + block.pixels - 1 + latency
    assert run.issues[0] == max(run.weight_fetches[0].done, run.input_fetches[0].done)


def test_expected_psums_end_as_the_event_model_has_them() -> None:
    """The step-by-step expectation and the kernels of the simulator agree on every finished psum."""
    rng = np.random.default_rng(5)
    for configuration in QUICK:
        arch, scheme = configuration.arch, Scheme.parse(configuration.scheme)
        for _ in range(5):
            layer = random_layer(rng, arch, scheme)
            run = random_run(rng, arch, layer, 300)
            lines = make_vectors(arch, run, layer).files["writes"]
            psums, _ = accumulate_layer(arch, layer)
            bits, at = lane_spec(arch, scheme).accumulator_bits, 0
            for block in run.program.blocks:
                at += block.pixels * (block.g1 - block.g0)
                if not block.last:
                    continue
                for i in range(block.pixels):
                    record = int(lines[at - block.pixels + i], 16) >> (32 + arch.lanes)
                    for lane in range(block.lanes):
                        value = record >> (lane * bits) & ((1 << bits) - 1)
                        value -= (value >> (bits - 1)) << bits
                        assert value == psums[block.p0 + i, block.k0 + lane]


def test_hex_lines() -> None:
    lines = hex_lines((np.array([[1, -1], [2, 0]]), 4), (np.array([[1], [0]]), 1))
    assert lines == ["1f1", "002"]
    assert hex_lines((np.zeros((0, 3), np.int64), 5)) == []


def test_emit_without_a_layer_writes_only_the_pe(tmp_path: Path) -> None:
    arch = load_arch("magnet16")
    emit(arch, Scheme.parse("4/8/6/10:sp8"), None, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*modules(), f"{TOP}.sv"}
    top = (tmp_path / f"{TOP}.sv").read_text()
    assert "parameter int SCALE_BITS = 8," in top and "parameter bit SATURATE = 1'b1," in top
    assert "parameter bit SCALES_UP = 1'b1," in top
    # One line a port, all of them connected.
    assert len(re.findall(r"^  *(?:input|output)", top, re.MULTILINE)) == top.split(") pe (")[1].count("(")


def test_parameters_refuse_what_the_machine_refuses() -> None:
    arch = load_arch("magnet16", ["lanes=4", "out_fifo_words=16"])
    with pytest.raises(AccelsimError, match="out_fifo_words is 16, expected at least 64"):
        parameters(arch, Scheme.parse("4/4/4/4"))


@needs_icarus
def test_block_scales_at_every_threshold(tmp_path: Path) -> None:
    """Largest values on and beside each tie of e4m3, exponents on and beside both ends of e8m0."""
    e4m3 = SMALL_BLOCKS[0].activation
    middles = E4M3.steps[1][:126]
    ties = (24 * middles)[:, None] + np.arange(-2, 3)
    largest = np.unique(np.clip(np.concatenate([ties.ravel(), [0, 1, PPU_LIMIT]]), 0, PPU_LIMIT))
    expected = block_scales(np.ldexp(largest, -11), e4m3, 1.0)
    own = [(2, int(z), 0, int(code)) for z, code in zip(largest, expected, strict=True)]
    e8m0 = Scheme.parse("mxfp4").activation
    for leading in range(23):
        for code in (-300, -1, 0, 1, 127, 253, 254, 255, 300):
            constant = code - leading
            exponent = constant + e8m0.element.largest_exponent - 127
            for z in (1 << leading, (2 << leading) - 1):
                scale = block_scales(np.array([np.ldexp(float(z), exponent)]), e8m0, 1.0)
                own.append((1, z, constant & 0xFFF, int(scale[0])))
    own.append((1, 0, 5, 0))
    lines = hex_lines(*((np.array(own)[:, [i]], bits) for i, bits in enumerate((2, 23, 12, 8))))
    (tmp_path / "cases.hex").write_text("\n".join(lines) + "\n")
    for name in ("ppu_block_scale.sv", "stage.sv"):
        (tmp_path / name).write_text(modules()[name])
    (tmp_path / "tb.sv").write_text(_SCALE_BENCH.replace("COUNT", str(len(own))))
    command = ["iverilog", "-g2012", "-s", "tb", "-o", "tb", "tb.sv", "ppu_block_scale.sv", "stage.sv"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(["vvp", "tb"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"wrong 0 of {len(own)}" in done.stdout, done.stdout


_SCALE_BENCH = """`timescale 1ns / 1ps
module tb;
  logic [44:0] cases[0:COUNT-1];
  logic [44:0] own;
  logic [7:0] power, floating, scale;
  ppu_block_scale #(.SCALE_KIND(1)) powers (
      .clk(1'b0), .enable(1'b1), .largest(own[24:2]), .out_exponent(own[36:25]), .scale(power));
  ppu_block_scale #(.SCALE_KIND(2)) floats (
      .clk(1'b0), .enable(1'b1), .largest(own[24:2]), .out_exponent(own[36:25]), .scale(floating));
  assign scale = own[1] ? floating : power;
  integer wrong = 0;
  initial begin
    $readmemh("cases.hex", cases);
    for (int i = 0; i < COUNT; i++) begin
      own = cases[i];
      #1;
      if (scale !== own[44:37]) begin
        wrong = wrong + 1;
        $display("largest %0d, constant %0d: %0d, not %0d", own[24:2], own[36:25], scale, own[44:37]);
      end
    end
    $display("wrong %0d of %0d", wrong, COUNT);
  end
endmodule
"""


def test_block_formats_without_rtl_are_refused() -> None:
    arch = load_arch("magnet16")
    four = Scheme.integer(4, 4, block=16)
    for scale in (Scale("e4m3", 8, "tensor"), MX):
        scheme = Scheme(replace(four.weight, scale=scale), replace(four.activation, scale=scale))
        with pytest.raises(AccelsimError, match="the RTL of block formats has e8m0 scales on both sides"):
            parameters(arch, scheme)


def test_modules_mention_the_page_they_implement() -> None:
    for name, text in modules().items():
        if name not in ("delay.sv", "stage.sv", "single_port_memory.sv"):
            assert re.search(r"docs/\w+\.md", text), name
        assert text.startswith("`timescale"), name


@needs_yosys
def test_synthesis_counts_cells(tmp_path: Path) -> None:
    arch, scheme = TINY.arch, Scheme.parse(TINY.scheme)
    emit(arch, scheme, None, tmp_path)
    rows = synth(tmp_path)
    by_name = {row.module: row for row in rows}
    assert by_name["pe"].cells > by_name["vector_mac"].cells * arch.lanes > 0
    assert by_name["vector_mac"].instances == arch.lanes
    # Weight register, dot, scale product, product: what the cost inventory calls a lane's registers.
    dot_bits = 2 + 3 + 1
    assert by_name["vector_mac"].flip_flops == (2 * 2 + 2) + dot_bits + 2 + (dot_bits + 2)
    frame = synth_frame(rows)
    assert "area" not in frame and frame["cells"].max() == by_name["pe_top"].cells
    from accelsim.costs import CostLibrary
    from accelsim.report.inventory import technology_of

    table = compare_area(rows, arch, scheme, CostLibrary(technology_of(arch)))
    assert {"dot_product", "vector_mac", "ppu", "sequencers"} <= set(table["module"])


@pytest.mark.parametrize("text", ["8/8/-/-", "4/4/4/4", "4/4/4/4:sp4", "mxint8", "mxfp4", "nvfp4"])
def test_every_part_with_a_module_is_compared_with_it(text: str) -> None:
    """What a PE has outside the RTL, or in no module of its own, is the rest."""
    from accelsim.costs import CostLibrary
    from accelsim.report.inventory import CLOCK_TREES, build_inventory, technology_of

    arch = load_arch("magnet16", ["gate_on_scale_product=multiply"] if ":sp" in text else [])
    inventory = build_inventory(arch, Scheme.parse(text), CostLibrary(technology_of(arch)))
    named = {name for parts in MODELLED.values() for name in parts}
    rest = {part.name for part in inventory if part.scope in ("datapath", "pe")} - named
    outside = {"weight_buffer", "input_buffer", "ppu_constants", "psum_adder", "layer_register"}
    assert rest <= outside | set(CLOCK_TREES.values())


def test_synthesis_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AccelsimError, match="yosys is not installed"):
        synth(tmp_path)
