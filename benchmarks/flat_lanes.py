"""Whole lanes, synthesised flat, against the sum of their parts in the cost tables: area and energy.

    python benchmarks/flat_lanes.py --liberty AO.lib.gz --liberty OA.lib.gz ... [--scheme 4/4/4/4 ...]

A lane is accelsim/rtl/vector_mac.sv with clock-gated registers: weight register, dot product, scale product
and multiply, accumulator, the registers between them, and one for the psum. With `--operands dnn` weights
and activations are those that the tables' dot products are characterised with, scales and psums the measured
ones; with `traces` all are steps of the bundled traces at the scheme itself (benchmarks/measure_steps.py).
Parts are priced at the tables' node and supply, and with `--activity data` by the bits that change in these
very steps. Area in um2, energy in fJ a step. Needs Yosys.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from measure_steps import TRACES, Steps, blocks_of

from accelsim.characterise import arithmetic, fast, stimuli
from accelsim.characterise.arithmetic import (
    accumulator,
    block_sum,
    dot_product,
    scale_multiply,
    scale_product,
)
from accelsim.characterise.block import Block, Port, clocked, elements, output, port, saturated, signed
from accelsim.characterise.circuit import circuit_of
from accelsim.characterise.library import read_library
from accelsim.characterise.recipe import load_recipe
from accelsim.characterise.roles import Roles, find_roles
from accelsim.characterise.run import edges_of, mismatches
from accelsim.characterise.simulator import simulate
from accelsim.characterise.steps import STEPS
from accelsim.characterise.storage import clock_gate
from accelsim.characterise.synthesis import Synthesiser
from accelsim.characterise.timing import static_timing
from accelsim.compute.computed import StepToggles
from accelsim.costs import CostLibrary, Technology
from accelsim.costs.block_sums import ADDED_AT_ONCE
from accelsim.costs.netlists import FAST
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.open import open_workload
from accelsim.report.inventory import Part, build_inventory, dot_bits
from accelsim.report.part import dot_codes

SCHEMES = (
    "8/8/-/-",
    "4/4/-/-",
    "4/4/4/-",
    "4/4/4/4",
    "4/4/4/4:sp4",
    "4/4/4/6",
    "6/8/-/10",
    "6/6/4/4",
    "4/8/6/10",
)
# Of magnet16: a lane of one stage each, whose netlists for area are fast enough; and its own stages at a
# clock that chooses the netlists that 1 GHz does at magnet16's node.
SLOW = ("dot_stages=1", "scale_stages=1", "clock_ghz=0.5")
AT_THE_CLOCK = ("clock_ghz=2.08",)
# Flip-flops behind one clock gate.
GATED_BITS = 32
WARM_UP = 32
# How often weights and activations are drawn for every measured scale and psum.
DRAWS = 10
PER_STEP = {
    "dot_product": ("op",), "scale_product": ("op",), "scale_multiply": ("op",), "accumulator": ("add",),
    "pipeline_register": ("write", "idle"), "weight_register": ("idle",),
    "block_sum": ("op",), "block_sum_register": ("write", "idle"),
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Widths of a lane, of each of its blocks: vector_size codes; no scales: 0."""

    vector_size: int
    weight: int
    operand: int
    weight_scale: int
    activation_scale: int
    scale: int
    dot: int
    accumulator: int
    blocks: int = 1

    @property
    def product(self) -> int:
        return self.dot + self.scale

    @property
    def codes(self) -> int:
        return self.vector_size * self.weight

    @property
    def word(self) -> int:
        return self.blocks * (self.codes + self.weight_scale)


def shape_of(arch: Arch, scheme: Scheme) -> Shape:
    return Shape(
        dot_codes(arch, scheme),
        scheme.weight.bits,
        arch.activation_operand_bits(scheme),
        scheme.weight.scale.bits,
        scheme.activation.scale.bits,
        scheme.scale_bits,
        dot_bits(arch, scheme),
        arch.accumulator_width(scheme),
        arch.blocks_per_word(scheme),
    )


@dataclass(frozen=True)
class Made:
    """The netlist of a part: what it is mapped for, the stages it is cut into, and those it has; registers
    pass its result on in the others."""

    mapped_for: str
    cut: int
    stages: int

    @property
    def fast(self) -> bool:
        return self.mapped_for == FAST


def lane(roles: Roles, shape: Shape, made: Mapping[str, Made], name: str) -> Block:
    """One lane as one clocked block: a step's word comes a cycle before its activations, and its psum in the
    last of the stages between. made: part -> its netlist. Where one is mapped for delay, all of it is."""
    s = shape
    dot = dot_product(roles, s.vector_size, s.weight, s.operand)
    add = accumulator(s.product, s.accumulator)
    operand = s.vector_size * s.operand
    ports = [port("word", s.word, ""), port("load", 1, ""), port("a", s.blocks * operand, "")]
    modules, lines = [], []

    def register(target: str, bits: int, source: str, enable: str) -> None:
        lines.append(f"reg [{bits - 1}:0] {target};")
        for low in range(0, bits, GATED_BITS):
            part, gated = f"[{min(bits, low + GATED_BITS) - 1}:{low}]", f"g_{target}_{low}"
            gate = clock_gate(roles, f"icg_{target}_{low}", enable, gated)
            lines.append(f"wire {gated}; {gate}")
            lines.append(f"always @(posedge {gated}) {target}{part} <= {source}{part};")

    def multiplied(part: str, result: str, bits: int, w: str, a: str, whole: Block, staged: Block) -> str:
        """The register that holds result = w * a in the part's last stage."""
        own = made[part]
        block = staged if own.fast else whole
        if block.verilog not in modules:
            modules.append(block.verilog)
        pins = ".clk(clk), .en(run), " if block.clocked else ""
        lines.append(
            f"wire [{bits - 1}:0] {result}; {block.name} u_{result}({pins}.w({w}), .a({a}), .y({result}));"
        )
        for stage in range(own.cut, own.stages + 1):
            register(f"{result}{stage}", bits, result if stage == own.cut else f"{result}{stage - 1}", "run")
        return f"{result}{own.stages}"

    register("wr", s.word, "word", "load")
    if s.activation_scale:
        ports.append(port("as", s.blocks * s.activation_scale, ""))
    multiply = scale_multiply(roles, s.dot, s.scale) if s.scale else None
    both = bool(s.weight_scale and s.activation_scale)
    rounded = 0 if s.scale == s.weight_scale + s.activation_scale else s.scale
    factor_bits = s.weight_scale, s.activation_scale, rounded
    factor = scale_product(roles, *factor_bits) if both else None
    products = []
    for b in range(s.blocks):
        bits, tag = (s.vector_size, s.weight, s.operand), f"_{b}_"
        product = multiplied(
            "dot_product", f"d{tag}", s.dot, f"wr[{(b + 1) * s.codes - 1}:{b * s.codes}]",
            f"a[{(b + 1) * operand - 1}:{b * operand}]",
            dot, fast.dot_product(roles, *bits, made["dot_product"].cut),
        )  # fmt: skip
        if multiply is not None:
            low = s.blocks * s.codes + b * s.weight_scale
            code = f"wr[{low + s.weight_scale - 1}:{low}]"
            scale_code = f"as[{(b + 1) * s.activation_scale - 1}:{b * s.activation_scale}]"
            own, f = made["scale_product"], f"f{tag}"
            if factor is not None:
                scale = multiplied(
                    "scale_product", f, s.scale, code, scale_code,
                    factor, fast.scale_product(roles, *factor_bits, own.cut),
                )  # fmt: skip
            else:
                lines.append(f"wire [{s.scale - 1}:0] {f} = {code if s.weight_scale else scale_code};")
                for stage in range(1, own.stages + 1):
                    register(f"{f}{stage}", s.scale, f"{f}{stage - 1}" if stage > 1 else f, "run")
                scale = f"{f}{own.stages}"
            product = multiplied(
                "scale_multiply", f"m{tag}", s.product, product, scale,
                multiply, fast.scale_multiply(roles, s.dot, s.scale, made["scale_multiply"].cut),
            )  # fmt: skip
        products.append(product)
    stages = sum(made[part].stages for part in ("dot_product", "scale_multiply") if part in made)
    ports += [port("run", 1, ""), port("psum", s.accumulator, ""), output(s.accumulator)]
    register("pr", s.accumulator, "psum", "run")
    added, sizes = "{" + ", ".join(reversed(products)) + "}", (s.product, s.accumulator)
    kind = fast if made["accumulator"].fast else arithmetic
    if s.blocks == 1:
        summed = fast.accumulator(*sizes) if kind is fast else add
    elif s.blocks == ADDED_AT_ONCE:
        summed = kind.block_accumulator(roles, *sizes)
    else:
        summed = kind.pair_accumulator(roles, s.product, s.blocks, s.accumulator)
        tree = block_sum(roles, s.blocks, *sizes)
        modules.append(tree.verilog)
        width = tree.outputs[0].bits
        lines.append(f"wire [{width - 1}:0] bs; {tree.name} u_sum(.a({added}), .y(bs));")
        register("bs1", width, "bs", "run")
        added, stages = "bs1", stages + 1
    modules.append(summed.verilog)
    lines.append(f"{summed.name} u_add(.w(pr), .a({added}), .y(y));")
    assert dot.reference is not None

    def sequences(words: Mapping[str, Sequence[int]]) -> list[list[int | None]]:
        held, weights = [], 0
        for word, load in zip(words["word"], words["load"], strict=True):
            weights = word if load else weights
            held.append(weights)
        shown: list[int | None] = []
        for i in range(len(held)):
            step = i - 1 - stages
            if step < 2:
                shown.append(None)
                continue
            codes = elements(held[step], s.codes, s.blocks)
            own_scales = held[step] >> (s.blocks * s.codes)
            total = signed(words["psum"][i - 1], s.accumulator)
            for b in range(s.blocks):
                inputs = elements(words["a"][step + 1], operand, s.blocks)
                value = dot.reference({"w": codes[b], "a": inputs[b]})
                scale, own_scale = 1, elements(own_scales, s.weight_scale or 1, s.blocks)[b]
                if s.activation_scale:
                    scale = elements(words["as"][step + 1], s.activation_scale, s.blocks)[b]
                if factor is not None:
                    scale = factor.reference({"w": own_scale, "a": scale})
                elif s.weight_scale:
                    scale = own_scale
                if multiply is not None:
                    value = multiply.reference({"w": value, "a": scale})
                total += signed(value, s.product)
            shown.append(saturated(total, s.accumulator))
        return [shown]

    block = clocked(name, "lane", {}, ports, lines, sequences)
    quick = any(own.fast for own in made.values())
    return replace(
        block, source="\n".join([*modules, block.verilog]), mapped_for="delay" if quick else "area",
        between_registers=True,
    )  # fmt: skip


def words_of(shape: Shape, blocks: Sequence[Steps], stages: int) -> dict[str, list[int]]:
    """Words of all steps of the blocks, each input when a lane of so many stages takes it. Where a word has
    several blocks of its own, so many of `blocks` that follow each other make its steps, with the psums of
    the first."""
    s = shape
    word, load, a, scale, psum = [], [], [], [], []

    def packed(codes: np.ndarray, bits: int) -> int:
        return sum((int(code) & ((1 << bits) - 1)) << (i * bits) for i, code in enumerate(codes))

    for first in range(0, len(blocks) - s.blocks + 1, s.blocks):
        together = blocks[first : first + s.blocks]
        own = packed(np.concatenate([steps.weights for steps in together]), s.weight)
        if s.weight_scale:
            scales = np.array([steps.weight_scale for steps in together])
            own |= packed(scales, s.weight_scale) << (s.blocks * s.codes)
        for i in range(min(len(steps.dots) for steps in together)):
            word.append(own)
            load.append(int(i == 0))
            a.append(packed(np.concatenate([steps.activations[i] for steps in together]), s.operand))
            scale.append(
                packed(np.array([steps.activation_scales[i] for steps in together]), s.activation_scale or 1)
            )
            psum.append(int(together[0].psums[i]) & ((1 << s.accumulator) - 1))

    def late(values: list[int], cycles: int) -> list[int]:
        return [values[0]] * cycles + values[: len(values) - cycles]

    driven = {"word": word, "load": load, "a": late(a, 1), "as": late(scale, 1)}
    if not s.activation_scale:
        del driven["as"]
    return {**driven, "run": [1] * len(word), "psum": late(psum, stages)}


def drawn_steps(shape: Shape, count: int, seed: int) -> list[Steps]:
    """Blocks of steps: weights and activations as in stimulus dnn_ws16, scales and psums as measured."""
    s, random = shape, np.random.default_rng(seed)
    w, a = (
        port("w", s.vector_size * s.weight, "", s.weight),
        port("a", s.vector_size * s.operand, "", s.operand),
    )
    weights = _codes(stimuli.weights(random, w, count, "dnn_ws16"), w)
    activations = _codes(stimuli.activations(random, a, count, "dnn_ws16"), a)
    ones = np.ones(STEPS.count, np.int64)
    weight_scales = STEPS.weight_scales(s.weight_scale, held=True) if s.weight_scale else ones
    scales = STEPS.activation_scales(s.activation_scale) if s.activation_scale else ones
    dropped = s.weight_scale + s.activation_scale - s.scale
    psums = STEPS.psums(s.product)
    blocks = []
    for first in range(0, count - stimuli.HOLD, stimuli.HOLD):
        at, scale = slice(first, first + stimuli.HOLD), int(weight_scales[first])
        factors = (scale * scales[at] + ((1 << dropped) >> 1)) >> dropped
        if dropped:
            factors = np.minimum(factors, (1 << s.scale) - 1)
        live = np.ones(stimuli.HOLD, bool)
        own = weights[first], activations[at], scale, scales[at], factors
        blocks.append(Steps(*own, activations[at] @ weights[first], psums[at], live))
    return blocks


def _codes(words: Sequence[int], port: Port) -> np.ndarray:
    """int64[word, element] of packed signed elements."""
    bits, count = port.element_bits, port.bits // port.element_bits
    return np.array([[signed(code, bits) for code in elements(word, bits, count)] for word in words])


def toggles_of(shape: Shape, blocks: Sequence[Steps]) -> StepToggles:
    """What changes in a lane at these steps, one block after another."""
    s = shape

    def bits(values: np.ndarray, width: int) -> np.ndarray:
        return (values[..., None] >> np.arange(width)) & 1

    def changed(*columns: tuple[np.ndarray, int]) -> float:
        return sum(float(np.abs(np.diff(bits(v, w), axis=0)).sum()) / (len(v) - 1) for v, w in columns)

    def products(x: np.ndarray, x_bits: int, y: np.ndarray, y_bits: int) -> float:
        both = bits(x, x_bits)[..., :, None] & bits(y, y_bits)[..., None, :]
        return float(np.abs(np.diff(both, axis=0)).sum()) / (len(x) - 1)

    def steps(column: Callable[[Steps], np.ndarray]) -> np.ndarray:
        return np.concatenate([column(own) for own in blocks])

    weights = steps(lambda own: np.repeat(own.weights[None], len(own.dots), axis=0))
    weight_scales = steps(lambda own: np.full(len(own.dots), own.weight_scale))
    activations, scales = steps(lambda own: own.activations), steps(lambda own: own.activation_scales)
    factors, dots = steps(lambda own: own.scale_products), steps(lambda own: own.dots)
    multiplied, psums = steps(lambda own: own.products), steps(lambda own: own.psums)
    registers = [(dots, s.dot), (psums, s.accumulator)]
    if s.scale:
        registers += [(factors, s.scale), (multiplied, s.product)]
    word = [(weights[:, i], s.weight) for i in range(s.vector_size)] + [(weight_scales, s.weight_scale)]
    loads = len(blocks) / len(dots)
    return StepToggles(
        {
            "dot_product": products(weights, s.weight, activations, s.operand),
            "scale_product": products(weight_scales, s.weight_scale, scales, s.activation_scale),
            "scale_multiply": products(dots, s.dot, factors, s.scale),
            "accumulator": changed((multiplied if s.scale else dots, s.product), (psums, s.accumulator)),
            "pipeline_register": changed(*registers),
            "weight_register": changed(*word) / loads,
        },
        loads,
        len(dots),
    )


def parts_of(
    inventory: Sequence[Part], loads_a_step: float, toggles: StepToggles | None
) -> dict[str, tuple[float, float]]:
    """(area um2, energy fJ a step) of each part of a lane; by what changes in it where that is given."""
    found = {}
    for part in inventory:
        if part.name in PER_STEP:
            prices = dict(part.cost.energy_pj)
            for action, law in part.cost.activity.items():
                if toggles is not None:
                    prices[action] *= law(toggles.by_part[part.name], toggles.weight_changes)
            energy_pj = sum(prices[action] for action in PER_STEP[part.name])
            if part.cycle_action and part.cycle_action not in PER_STEP[part.name]:
                energy_pj += prices[part.cycle_action]
            if part.name == "weight_register":
                energy_pj += loads_a_step * prices["write"]
            found[part.name] = (part.cost.area_um2, energy_pj * 1e3)
    return found


def made_of(arch: Arch, inventory: Sequence[Part]) -> dict[str, Made]:
    """Part -> the netlist its price is of."""
    stages = {"scale_multiply": arch.scale_stages, "accumulator": 1, "block_sum": 1}
    return {
        part.name: Made(*part.cost.netlist, stages.get(part.name, arch.dot_stages))
        for part in inventory
        if part.name in PER_STEP and part.cost.netlist is not None
    }


@dataclass(frozen=True)
class Compared:
    """A flat lane and its parts; parts: name -> (area um2, energy fJ a step). delay_ps: of its slowest stage,
    with the registers around it; parts_delay_ps: of the slowest part's."""

    scheme: Scheme
    area_um2: float
    energy_fj: float
    delay_ps: float
    parts_delay_ps: float
    parts: Mapping[str, tuple[float, float]]

    @property
    def parts_area_um2(self) -> float:
        return sum(area for area, _ in self.parts.values())

    @property
    def parts_energy_fj(self) -> float:
        return sum(energy for _, energy in self.parts.values())


def compare(
    files: Sequence[str | Path],
    schemes: Sequence[str],
    *,
    operands: str = "dnn",
    blocks: int = 14,
    seed: int = 2,
    costs: Path | None = None,
    activity: str = "tables",
    settings: Sequence[str] = SLOW,
) -> Iterator[Compared]:
    """One flat lane a scheme, with the cells of ASAP7's Liberty files. settings: of magnet16 at 7 nm."""
    recipe = load_recipe("asap7")
    cells = read_library(files, recipe.avoid)
    library = CostLibrary(Technology(node_nm=7, voltage_v=0.7), costs)
    arch = load_arch("magnet16", ["node_nm=7", "voltage_v=0.7", *settings])
    with tempfile.TemporaryDirectory() as folder:
        synthesise = Synthesiser(cells, find_roles(cells, recipe), recipe, Path(folder))
        synthesise.prepare()
        for text in schemes:
            scheme = Scheme.parse(text)
            shape = shape_of(arch, scheme)
            if operands == "dnn":
                drawn = (drawn_steps(shape, STEPS.count, seed + i) for i in range(DRAWS))
                steps = [block for blocks_drawn in drawn for block in blocks_drawn]
            else:
                steps = trace_steps(arch, scheme, blocks, seed)
            inventory = build_inventory(arch, scheme, library)
            made = made_of(arch, inventory)
            area, energy, delay, loads = measure(synthesise, shape, made, steps)
            toggles = toggles_of(shape, steps) if activity == "data" else None
            slowest = max(part.cost.delay_ps or 0.0 for part in inventory if part.name in made)
            parts = parts_of(inventory, loads, toggles)
            yield Compared(scheme, area, energy, delay, slowest, parts)


def trace_steps(arch: Arch, scheme: Scheme, blocks: int, seed: int) -> list[Steps]:
    """Blocks of steps of the bundled traces at a scheme, in random order."""
    found = [
        own
        for trace in TRACES
        for (own,) in blocks_of(arch, open_workload(trace), (scheme,), 40 * blocks, blocks, seed)
    ]
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))]


def measure(
    synthesise: Synthesiser, shape: Shape, made: Mapping[str, Made], steps: Sequence[Steps]
) -> tuple[float, float, float, float]:
    """(area um2, energy fJ a step, delay ps, loads of the weight register a step) of a flat lane."""
    library, recipe = synthesise.library, synthesise.recipe
    assert recipe.output_load_ff is not None and recipe.input_slew_ps is not None
    block = lane(synthesise.roles, shape, made, "lane")
    stages = sum(made[part].stages for part in ("dot_product", "scale_multiply") if part in made)
    stages += shape.blocks > ADDED_AT_ONCE
    words = words_of(shape, steps, stages)
    netlist = synthesise(block)
    circuit = circuit_of(netlist, library, recipe.output_load_ff, recipe.input_slew_ps)
    edges = edges_of(synthesise)
    timing = static_timing(circuit, edges.launch_ps)
    found = simulate(circuit, timing, stimuli.bits(block, words), WARM_UP, recipe.hold_ps)
    wrong = mismatches(block, words, found.outputs)
    if wrong:
        raise AccelsimError(f"flat lane: {wrong} outputs differ from the integer model, expected none")
    loads = words["load"][WARM_UP:]
    delay_ps = timing.critical_ps + edges.setup_ps
    return netlist.area_um2, found.total_fj, delay_ps, sum(loads) / len(loads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--liberty", action="append", required=True)
    parser.add_argument("--scheme", action="append")
    parser.add_argument("--costs", type=Path)
    parser.add_argument("--vector-size", type=int, default=16)
    parser.add_argument("--fast", action="store_true", help="lanes in stages, at magnet16's clock")
    parser.add_argument("--operands", choices=("dnn", "traces"), default="dnn")
    parser.add_argument("--activity", choices=("data", "tables"), default="tables")
    parser.add_argument("--blocks", type=int, default=14, help="blocks of steps from each trace")
    parser.add_argument("--seed", type=int, default=2)
    own = parser.parse_args()
    first: Compared | None = None
    print(
        "scheme,flat_area_um2,area_ratio,flat_energy_fj,energy_ratio,flat_to_first,parts_to_first,flat_delay_ps,delay_ratio,parts"
    )
    for found in compare(
        own.liberty,
        own.scheme or SCHEMES,
        operands=own.operands,
        blocks=own.blocks,
        seed=own.seed,
        costs=own.costs,
        activity=own.activity,
        settings=(*(AT_THE_CLOCK if own.fast else SLOW), f"vector_size={own.vector_size}"),
    ):
        first = first or found
        parts = " ".join(f"{name}={area:.1f}/{energy:.1f}" for name, (area, energy) in found.parts.items())
        figures = (
            f"{found.area_um2:.1f}",
            f"{found.parts_area_um2 / found.area_um2:.3f}",
            f"{found.energy_fj:.1f}",
            f"{found.parts_energy_fj / found.energy_fj:.3f}",
            f"{found.energy_fj / first.energy_fj:.3f}",
            f"{found.parts_energy_fj / first.parts_energy_fj:.3f}",
            f"{found.delay_ps:.0f}",
            f"{found.parts_delay_ps / found.delay_ps:.3f}",
        )
        print(f"{found.scheme},{','.join(figures)},{parts}", flush=True)


if __name__ == "__main__":
    main()
