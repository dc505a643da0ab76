"""Writes a PE for one machine and scheme, with a self-checking testbench fed from a layer (docs/rtl.md)."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import get_args

from accelsim.arguments import path_of
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import E2M1
from accelsim.formats.scheme import Scheme
from accelsim.machine import timing
from accelsim.machine.arch import Arch, Gating
from accelsim.mapping.residency import decide_residency
from accelsim.mapping.search.mapper import Mapper
from accelsim.rtl.pe_run import cut_program, run_pe
from accelsim.rtl.vectors import RECORDS, Vectors, make_vectors
from accelsim.system.whole import whole_folder, writing
from accelsim.workload.layer import OutputFormat, QuantizedLayer

TOP, TESTBENCH = "pe_top", "tb_pe_top"
SYNTHESISED = ("synth.ys", "synth_stat.txt", "synth.v")
# Options of Verilator with which all lanes are one piece of code (docs/rtl.md).
LANES_FILE = "lanes.vlt"
VERILATOR = ("-O3", "-fno-localize", "-Wno-fatal", "-Wno-WIDTH", "--top-module", TESTBENCH, LANES_FILE)
_MADE_IN_IT = ("Makefile", LANES_FILE, "obj_dir", f"{TESTBENCH}.vvp", *SYNTHESISED)
_KINDS = {"e8m0": 1, "e4m3": 2}
_SIGNIFICANDS = {"e8m0": 0, "e4m3": 8}
_SIGNS = {"unsigned": 0, "signed": 1, "both": 2}


def emit(
    arch: Arch,
    scheme: Scheme,
    layer: QuantizedLayer | None,
    out: str | Path,
    *,
    pe: int = 0,
    max_steps: int = 2000,
) -> Path:
    """Write the PE into folder `out`; with a layer also a testbench and the vectors of a tile.

    Returns `out`. The tile is the start of what PE `pe` does in the layer's default mapping: whole output
    tiles, up to `max_steps` steps but at least one. Raises AccelsimError where the machine cannot run it.
    """
    out = path_of(out, "rtl")
    check_target(out)
    if layer is None:
        with writing("rtl", out), whole_folder(out) as folder:
            write_modules(arch, scheme, None, folder)
        return out
    # Everything that can be refused comes before the first file.
    parameters(arch, scheme, layer.output)
    # What the RTL can run; its PPU writes one format, the one that the layer was quantized for.
    machine = arch.model_copy(update={"psum_chain": False, "dataflows": ("os-lws",), "residual": None})
    residency, mapper = decide_residency(machine, [layer.spec])[0], Mapper(machine)
    whole = mapper.program(mapper.choose(layer.spec, residency), layer.spec, residency)
    if pe >= len(whole.pes):
        raise AccelsimError(f"pe is {pe}, expected below pes = {arch.pes}")
    vectors = make_vectors(arch, run_pe(arch, whole, cut_program(whole.pes[pe], max_steps)), layer)
    with writing("rtl", out), whole_folder(out) as folder:
        write_modules(arch, scheme, layer.output, folder)
        write_testbench(arch, scheme, layer.output, [vectors], folder)
        vectors.write(folder / "vectors")
        (folder / "Makefile").write_text(_MAKEFILE)
        check_target(out)  # others may have written meanwhile
    return out


def check_lanes(arch: Arch, scheme: Scheme) -> None:
    """Refuse a scheme that the machine cannot execute, or no RTL can. Raises AccelsimError."""
    arch.check_scheme(scheme)
    if not scheme.is_aligned:
        return
    kinds = scheme.weight.scale.kind, scheme.activation.scale.kind
    element = scheme.activation.element
    if kinds[0] != kinds[1] or element.unsigned or (kinds[1] == "e4m3" and element is not E2M1):
        raise AccelsimError(
            f"arch {arch.name}, scheme {scheme}: the RTL of block formats has e8m0 scales on both sides and "
            "activations without an unsigned twin, or e4m3 scales and e2m1 activations"
        )


def check_target(out: Path) -> None:
    """Refuse what cannot become the folder of a PE, or holds anything that is not of one."""
    if not out.exists():
        return
    if not out.is_dir():
        raise AccelsimError(f"rtl {out}: is a file, expected a new folder or an earlier PE")
    known = {*modules(), f"{TOP}.sv", f"{TESTBENCH}.sv", "vectors", *_MADE_IN_IT}
    others = sorted({path.name for path in out.iterdir()} - known)
    if others:
        raise AccelsimError(
            f"rtl {out}: holds other files ({others[0][:40]}), expected a new folder or an earlier PE"
        )


def check_one_scheme(arch: Arch) -> None:
    """Raises AccelsimError for a machine of modes."""
    if arch.modes:
        raise AccelsimError(
            f"arch {arch.name}: RTL is of a machine made for one scheme, not of {len(arch.modes)} modes, "
            "expected --set modes=[]"
        )


def parameters(arch: Arch, scheme: Scheme, output: OutputFormat | None = None) -> dict[str, int]:
    """Parameters of the module `pe`; without an output format the PPU writes the scheme's activations."""
    check_one_scheme(arch)
    check_lanes(arch, scheme)
    written = (output.operand if output else scheme.activation).in_blocks(arch.vector_size)
    block = scheme.block or arch.vector_size
    return {
        "VECTOR_SIZE": arch.vector_size,
        "BLOCKS": max(1, arch.vector_size // block),
        "LANES": arch.lanes,
        "DEPTH": arch.accumulation_collector_depth,
        "WEIGHT_HALF_WORDS": arch.weight_buffer_words // 2,
        "INPUT_HALF_WORDS": arch.input_buffer_words // 2,
        "FIFO_WORDS": arch.out_fifo_words,
        "WEIGHT_BITS": scheme.weight.bits,
        "WEIGHT_EXPONENT_BITS": scheme.weight.element.exponent_bits,
        "ACTIVATION_BITS": scheme.activation.bits,
        "ACTIVATION_EXPONENT_BITS": scheme.activation.element.exponent_bits,
        # Elements of block formats have no unsigned twin.
        "ACTIVATION_SIGN": _SIGNS["signed" if scheme.is_aligned else arch.activation_sign],
        "WEIGHT_SCALE_BITS": scheme.weight.scale.bits,
        "ACTIVATION_SCALE_BITS": scheme.activation.scale.bits,
        "SCALE_KIND": _KINDS.get(scheme.weight.scale.kind, 0),
        # Of block formats that of the significands' product.
        "SCALE_BITS": scheme.scale_bits if scheme.is_integer else _SIGNIFICANDS[scheme.weight.scale.kind],
        "PRODUCT_SHIFT": arch.product_shift,
        "ACCUMULATOR_BITS": arch.accumulator_width(scheme),
        # `error` stops the simulation; the hardware saturates and raises the same flag.
        "SATURATE": int(arch.overflow != "wrap"),
        "ALIGN_NEAREST": int(arch.alignment_rounding == "nearest"),
        "ACCUMULATE_LATENCY": arch.accumulate_latency,
        "GATING": get_args(Gating).index(arch.gating(scheme)),
        "DOT_STAGES": arch.dot_stages,
        "SCALE_STAGES": arch.scale_stages,
        "OUT_BITS": written.bits,
        "OUT_EXPONENT_BITS": written.element.exponent_bits,
        "OUT_SCALE_BITS": written.scale.bits,
        "OUT_KIND": _KINDS.get(written.scale.kind, 0),
        "OUT_BLOCK": written.block or arch.vector_size,
        "SCALES_UP": int(arch.scale_rounding == "up"),
        "PPU_LANES": arch.ppu_width,
        "PPU_FINE": int(arch.ppu_stages == "fine"),
        "PPU_LATENCY": timing.ppu_stages(arch, written.scale.bits),
    }


def modules() -> dict[str, str]:
    """File name -> text of every module of the PE."""
    files = resources.files("accelsim.rtl").iterdir()
    texts = {file.name: file.read_text("utf-8") for file in files if file.name.endswith(".sv")}
    return {name: texts[name] for name in sorted(texts) if not name.startswith("tb_")}


def write_modules(arch: Arch, scheme: Scheme, output: OutputFormat | None, out: Path) -> None:
    """The modules of the PE and pe_top.sv, the same PE with the configuration's numbers."""
    values = parameters(arch, scheme, output)
    out.mkdir(parents=True, exist_ok=True)
    texts = modules()
    for name, text in texts.items():
        (out / name).write_text(text)
    (out / f"{TOP}.sv").write_text(_top(texts["pe.sv"], values, f"{arch.name}, scheme {scheme}"))


def write_testbench(
    arch: Arch, scheme: Scheme, output: OutputFormat, vectors: list[Vectors], out: Path
) -> None:
    """tb_pe_top.sv, large enough for any of `vectors`, and lanes.vlt."""
    template = (resources.files("accelsim.rtl") / "tb_pe.sv").read_text("utf-8")
    sizes = [max(v.counts[i] for v in vectors) for i in range(len(RECORDS))]
    lines = [
        f"  localparam int {name} = {value};" for name, value in parameters(arch, scheme, output).items()
    ]
    derived = re.search(r"// derived\n(.*?)\n\) \(", modules()["pe.sv"], re.DOTALL)
    assert derived is not None
    lines += [re.sub(r"parameter", "localparam", line).rstrip(",") + ";" for line in derived[1].split("\n")]
    lines += [
        f"  localparam int MAX_{name.upper()} = {max(1, size)};"
        for name, size in zip(RECORDS, sizes, strict=True)
    ]
    reads = []
    for index, name in enumerate(RECORDS):
        reads.append(f'    $sformat(file, "%0s/{name}.hex", folder);')
        reads.append(f"    if (counts[{index}] > 0) $readmemh(file, {name}, 0, counts[{index}] - 1);")
    text = template.replace("//PARAMETERS//", "\n".join(lines)).replace("//READS//", "\n".join(reads))
    (out / f"{TESTBENCH}.sv").write_text(text)
    (out / LANES_FILE).write_text(_one_lane(modules()["vector_mac.sv"]))


def _one_lane(text: str) -> str:
    """What has Verilator keep a lane as one module, with ports of its own."""
    # As wires of the PE, which ports become where nothing forbids it, they are others in each lane, and so is
    # all code that reads them. A clock of its own would be one more event.
    ports = [name for name in _ports(text[: text.index(");\n") + 3]) if name != "clk"]
    lines = ["`verilator_config", "// The lanes are compiled once. Written by accelsim."]
    lines += ['no_inline -module "vector_mac"']
    lines += [f'public_flat_rd -module "vector_mac" -var "{name}"' for name in ports]
    return "\n".join(lines) + "\n"


def _ports(header: str) -> list[str]:
    """Names of a module's ports, one a line."""
    return re.findall(r"^ +(?:input|output) +logic[^/\n]*?(\w+),? *(?://.*)?$", header, re.MULTILINE)


def _top(pe: str, values: dict[str, int], what: str) -> str:
    header = pe[pe.index("module pe #(") : pe.index(");\n") + 3]
    header = header.replace("module pe #(", f"module {TOP} #(")
    for name, value in values.items():
        shown = (
            f"1'b{value}" if name in ("SATURATE", "ALIGN_NEAREST", "SCALES_UP", "PPU_FINE") else str(value)
        )
        header, found = re.subn(rf"(parameter \w+ {name} = )[^,\n]*,", rf"\g<1>{shown},", header)
        assert found == 1, name
    names = re.findall(r"parameter \w+ (\w+) =", header[: header.index("// derived")])
    ports = _ports(header)
    given = ",\n".join(f"      .{name}({name})" for name in names)
    wired = ",\n".join(f"      .{name}({name})" for name in ports)
    return (
        f"`timescale 1ns / 1ps\n// {TOP}: the PE of {what}. Written by accelsim.\n{header}"
        f"  pe #(\n{given}\n  ) pe (\n{wired}\n  );\nendmodule\n"
    )


_MAKEFILE = f"""# make: simulate the tile in vectors/ with Verilator; make icarus: with Icarus Verilog
verilator:
\tverilator --binary {" ".join(VERILATOR)} -Mdir obj_dir -o {TESTBENCH} *.sv
\tobj_dir/{TESTBENCH} +vectors=vectors

icarus:
\tiverilog -g2012 -s {TESTBENCH} -o {TESTBENCH}.vvp *.sv
\tvvp {TESTBENCH}.vvp +vectors=vectors

lint:
\tverilator --lint-only -Wall --top-module {TOP} $(filter-out {TESTBENCH}.sv,$(wildcard *.sv))
"""
