"""Whole lanes of block formats, synthesised flat, against the sum of their parts in the cost tables.

    python benchmarks/flat_format_lanes.py --liberty AO.lib.gz --liberty OA.lib.gz ... [--scheme mxfp4 ...]

A lane of V = 16: decoders of weights, weight register, dot product, sum of exponents, of NVFP4 the product of
significands and the multiply by it, aligner, accumulator, and the registers between them, one stage each (of
NVFP4 the multiply takes one of two), mapped for area. It is driven by the measured steps of the scheme
(accelsim/characterise/format_steps.csv), and its outputs are compared with the numerics. Area in um2, energy
in fJ a step, at the node and supply of the tables. Needs Yosys.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flat_lanes import GATED_BITS, PER_STEP, WARM_UP, parts_of

from accelsim.characterise import block_formats, format_steps, stimuli
from accelsim.characterise.arithmetic import dot_product, scale_multiply, scale_product
from accelsim.characterise.block import Block, clocked, output, port, signed
from accelsim.characterise.circuit import circuit_of
from accelsim.characterise.library import read_library
from accelsim.characterise.recipe import load_recipe
from accelsim.characterise.roles import Roles, find_roles
from accelsim.characterise.run import edges_of, mismatches
from accelsim.characterise.simulator import simulate
from accelsim.characterise.storage import clock_gate
from accelsim.characterise.synthesis import Synthesiser
from accelsim.characterise.timing import static_timing
from accelsim.costs import CostLibrary, Technology
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import SCHEMES
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.report.inventory import build_inventory

SIZE, BITS, AMOUNT_BITS = format_steps.VECTOR_SIZE, format_steps.ACCUMULATOR_BITS, 6
SETTINGS = ("node_nm=7", "voltage_v=0.7", "dot_stages=1", "clock_ghz=0.5")
FORMAT_PER_STEP = {"scale_sum": ("op",), "align": ("op",)}


def lane(roles: Roles, scheme: str) -> Block:
    """One lane as one clocked block; decoded activations come a cycle after their word."""
    code, operand = SCHEMES[scheme][0].bits, SCHEMES[scheme][0].decoded_bits
    scaled, floats = scheme in format_steps.E4M3_SCHEMES, code != operand
    dot_bits = 2 * operand + 4
    bits = format_steps.product_bits(scheme)
    decode = block_formats.element_decode()
    amount = block_formats.scale_sum("e4m3" if scaled else "e8m0", AMOUNT_BITS, 50)
    dot, align = dot_product(roles, SIZE, operand, operand), block_formats.align(bits, BITS)
    add = block_formats.accumulator(BITS)
    modules = [own.verilog for own in (amount, dot, align, add)] + [decode.verilog] * floats
    ports = [
        port("word", SIZE * code + 8, ""), port("load", 1, ""), port("a", SIZE * operand, ""),
        port("as", 8, ""), port("c", block_formats.CONSTANT_BITS, ""), port("run", 1, ""),
        port("psum", BITS, ""), output(BITS),
    ]  # fmt: skip
    lines = [f"wire [{SIZE * operand - 1}:0] dw;"]
    if floats:
        lines += [
            f"{decode.name} de{i}(.w(word[{code * i + code - 1}:{code * i}]), "
            f".y(dw[{operand * i + operand - 1}:{operand * i}]));"
            for i in range(SIZE)
        ]
    else:
        lines.append(f"assign dw = word[{SIZE * code - 1}:0];")

    def register(target: str, width: int, source: str, enable: str = "run") -> None:
        lines.append(f"reg [{width - 1}:0] {target};")
        for low in range(0, width, GATED_BITS):
            part, gated = f"[{min(width, low + GATED_BITS) - 1}:{low}]", f"g_{target}_{low}"
            lines.append(f"wire {gated}; {clock_gate(roles, f'icg_{target}_{low}', enable, gated)}")
            lines.append(f"always @(posedge {gated}) {target}{part} <= {source}{part};")

    lines.append(f"wire [{SIZE * operand + 7}:0] dword = {{word[{SIZE * code + 7}:{SIZE * code}], dw}};")
    register("wr", SIZE * operand + 8, "dword", "load")
    low = SIZE * operand
    lines.append(f"wire [{dot_bits - 1}:0] d; {dot.name} u_dot(.w(wr[{low - 1}:0]), .a(a), .y(d));")
    register("d1", dot_bits, "d")
    field = f"{low + 6}:{low + 3}" if scaled else f"{low + 7}:{low}"
    own = "as[6:3]" if scaled else "as"
    width = AMOUNT_BITS + 2 * scaled
    lines.append(f"wire [{width - 1}:0] s; {amount.name} u_sum(.w(wr[{field}]), .a({own}), .c(c), .y(s));")
    register("s1", AMOUNT_BITS, "s")
    product, shift = "d1", "s1"
    if scaled:
        factor, multiply = scale_product(roles, 4, 4, 0), scale_multiply(roles, dot_bits, 8)
        modules += [factor.verilog, multiply.verilog]
        lines += [
            f"wire [7:0] f; {factor.name} u_f(.w({{s[{AMOUNT_BITS}], wr[{low + 2}:{low}]}}), "
            f".a({{s[{AMOUNT_BITS + 1}], as[2:0]}}), .y(f));"
        ]
        register("f1", 8, "f")
        lines.append(f"wire [{bits - 1}:0] m; {multiply.name} u_m(.w(d1), .a(f1), .y(m));")
        register("m2", bits, "m")
        register("s2", AMOUNT_BITS, "s1")
        product, shift = "m2", "s2"
    lines.append(f"wire [{BITS + 1}:0] t; {align.name} u_align(.w({product}), .a({shift}), .y(t));")
    register("t1", BITS + 2, "t")
    register("pr", BITS, "psum")
    lines.append(f"{add.name} u_add(.w(pr), .a(t1), .y(y));")
    stages = 2 + scaled

    def sequences(words: Mapping[str, Sequence[int]]) -> list[list[int | None]]:
        # The reference is of steps: words hold what each cycle takes of them.
        steps = _driven(scheme)
        shown: list[int | None] = []
        for i in range(len(words["word"])):
            step = i - 1 - stages
            if step < 2:
                shown.append(None)
                continue
            one = steps[step]
            twice = format_steps.product(one, scheme) << (BITS + 1) >> one.shift
            term = max(-(1 << BITS), min(1 << BITS, (twice + 1) >> 1))
            psum = signed(words["psum"][i - 1], BITS)
            top = 1 << (BITS - 1)
            shown.append(max(-top, min(top - 1, psum + term)) % (1 << BITS))
        return [shown]

    block = clocked("lane", "lane", {}, ports, lines, sequences)
    return replace(block, source="\n".join([*modules, block.verilog]), between_registers=True)


def _driven(scheme: str) -> tuple[format_steps.Step, ...]:
    return format_steps.steps(scheme)


def words_of(scheme: str) -> tuple[dict[str, list[int]], float]:
    """Words of all steps, each input when the lane takes it, and loads of the weight register a step."""
    steps, operand = _driven(scheme), SCHEMES[scheme][0]
    bits, stages = operand.decoded_bits, 2 + (scheme in format_steps.E4M3_SCHEMES)
    codes = {value: code for code, value in reversed(list(enumerate(operand.element.values)))}

    def packed(values: Sequence[int], width: int) -> int:
        return sum((value & ((1 << width) - 1)) << (i * width) for i, value in enumerate(values))

    words = [
        packed([codes[w] for w in step.weights], operand.bits) | step.weight_scale << (SIZE * operand.bits)
        for step in steps
    ]
    load = [int(not i or words[i] != words[i - 1]) for i in range(len(words))]
    summed = format_steps.words(
        block_formats.scale_sum("e4m3" if stages == 3 else "e8m0", AMOUNT_BITS, 50), scheme, len(steps)
    )

    def late(values: list[int], cycles: int) -> list[int]:
        return [values[0]] * cycles + values[: len(values) - cycles]

    top = 1 << BITS
    return {
        "word": words,
        "load": load,
        "a": late([packed(step.activations, bits) for step in steps], 1),
        "as": late([step.activation_scale for step in steps], 1),
        "c": late(summed["c"], 1),
        "run": [1] * len(steps),
        "psum": late([step.psum % top for step in steps], stages),
    }, sum(load[WARM_UP:]) / len(load[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--liberty", action="append", required=True)
    parser.add_argument("--scheme", action="append")
    own = parser.parse_args()
    recipe = load_recipe("asap7")
    cells = read_library(own.liberty, recipe.avoid)
    library = CostLibrary(Technology(node_nm=7, voltage_v=0.7))
    assert recipe.output_load_ff is not None and recipe.input_slew_ps is not None
    PER_STEP.update(FORMAT_PER_STEP)
    print(
        "scheme,flat_area_um2,parts_over_flat_area,flat_energy_fj,parts_over_flat_energy,flat_delay_ps,parts"
    )
    with tempfile.TemporaryDirectory() as folder:
        synthesise = Synthesiser(cells, find_roles(cells, recipe), recipe, Path(folder))
        synthesise.prepare()
        edges = edges_of(synthesise)
        for scheme in own.scheme or SCHEMES:
            scale_stages = 2 if scheme in format_steps.E4M3_SCHEMES else 1
            arch = load_arch("magnet16", [*SETTINGS, f"scale_stages={scale_stages}"])
            block, (words, loads) = lane(synthesise.roles, scheme), words_of(scheme)
            netlist = synthesise(block)
            circuit = circuit_of(netlist, cells, recipe.output_load_ff, recipe.input_slew_ps)
            timing = static_timing(circuit, edges.launch_ps)
            found = simulate(circuit, timing, stimuli.bits(block, words), WARM_UP, recipe.hold_ps)
            if wrong := mismatches(block, words, found.outputs):
                raise AccelsimError(f"flat lane {scheme}: {wrong} outputs differ from the numerics")
            inventory = build_inventory(arch, Scheme.parse(scheme), library)
            parts = parts_of(inventory, loads, None)
            for part in inventory:
                if part.name == "weight_decode":
                    parts[part.name] = (part.cost.area_um2, loads * part.cost.energy_pj["op"] * 1e3)
            area, energy = (sum(own[i] for own in parts.values()) for i in (0, 1))
            shown = " ".join(f"{name}={a:.1f}/{e:.1f}" for name, (a, e) in parts.items())
            print(
                f"{scheme},{netlist.area_um2:.1f},{area / netlist.area_um2:.3f},{found.total_fj:.1f},"
                f"{energy / found.total_fj:.3f},{timing.critical_ps + edges.setup_ps:.0f},{shown}",
                flush=True,
            )


if __name__ == "__main__":
    main()
