"""The price list: one `ComponentCost` per component of the machine at a technology."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from accelsim.costs import tables
from accelsim.costs.activity import ActivityLaws
from accelsim.costs.clock import ClockCells, ClockWire
from accelsim.costs.component import BlockCost, Branch, ClockSinks, ComponentCost, require_count
from accelsim.costs.dot import CHANGING, HELD, DotProducts
from accelsim.costs.fast import DOT_STAGES, PRODUCT_STAGES, SCALE_STAGES, FastLane
from accelsim.costs.listing import list_constants
from accelsim.costs.logic import ARRAY_DEPTHS, REGISTER_BITS, REGISTER_DATA, LogicBlocks
from accelsim.costs.netlists import AREA, FAST, Netlist, choose
from accelsim.costs.own import OwnPrice, OwnPrices
from accelsim.costs.ppu import Clock, PpuStages
from accelsim.costs.scaling import LogicScaling, SramScaling
from accelsim.costs.sram import FITTED_KIB, FITTED_WIDTH_BITS, SramMacros
from accelsim.costs.tables import Datapath, Row, read_table, sources
from accelsim.costs.technology import Technology
from accelsim.errors import AccelsimError

REQUANT_BITS = 16
UM_PER_MM = 1e3
SYSTEM_KEYS = (
    "dram_lpddr4",
    "wire_capacitance",
    "wire_activity",
    "clock_wire_capacitance",
    "cacti_cell_area",
    "sram_energy_node_exponent",
    "sram_leakage_node_exponent",
    "sram_finfet_leakage",
    "area_exponent_below_7nm",
    "energy_exponent_below_7nm",
)


class CostLibrary:
    """Prices at one technology, from the tables in `tables_dir` (default: those of the package).

    own: of parts of a machine, in place of the tables'; `build_inventory` (report/inventory.py) takes them.
    """

    def __init__(
        self, technology: Technology, tables_dir: Path | None = None, own: Iterable[OwnPrice] = ()
    ) -> None:
        directory = tables.TABLES_DIR if tables_dir is None else Path(tables_dir)
        self.technology = technology
        self.own = OwnPrices(own, technology)
        self._tables: dict[str, list[Row]] = {
            "datapath": read_table(tables.DATAPATH, directory),
            "activity": read_table(tables.ACTIVITY, directory),
            "clock_cells": read_table(tables.CLOCK_CELLS, directory),
            "sram": read_table(tables.SRAM, directory),
            "sram_area": read_table(tables.SRAM_AREA, directory),
            "bitcell": read_table(tables.BITCELL, directory),
            "logic_scaling": read_table(tables.LOGIC_SCALING, directory),
            "system": read_table(tables.SYSTEM, directory),
        }
        self._system = {row.text["key"]: row for row in self._tables["system"]}
        missing = [key for key in SYSTEM_KEYS if key not in self._system]
        if missing:
            raise AccelsimError(f"cost table {directory / tables.SYSTEM.file}: row '{missing[0]}' is missing")
        self._datapath = Datapath(self._tables["datapath"])
        self._dots = DotProducts(self._datapath)
        self._activity = ActivityLaws(self._tables["activity"])
        self._logic = LogicBlocks(self._datapath)
        self._clock_cells = ClockCells(self._tables["clock_cells"])
        self._ppu_stages = PpuStages(self._datapath)
        self._fast = FastLane(self._datapath)
        self._macros = SramMacros(self._tables["sram"], technology.sram_device)
        self._logic_scaling = LogicScaling(self._tables["logic_scaling"], self._system)
        self._sram_scaling = SramScaling(self._tables["bitcell"], self._system, self._logic_scaling)

    # -- lanes ---------------------------------------------------------------------------------------------
    # `period_ps`: the clock period at the technology. The netlist mapped for area is priced where it meets it
    # or there is none, else the smallest that does, or the fastest where none does. Delays are those of the
    # slowest stage, with the registers around it.
    def dot_product(
        self,
        vector_size: int,
        weight_bits: int,
        activation_operand_bits: int,
        *,
        held_operand: bool,
        stages: int = 1,
        period_ps: float | None = None,
    ) -> ComponentCost:
        """Signed vector_size x weight_bits x activation_operand_bits in `stages` cycles. `held_operand`:
        weights stay for 16 operations. Actions op and gated (operands do not change, nothing switches);
        with registers between stages also idle, in every cycle."""
        require_count("dot_product", "vector_size", vector_size, 1, 128)
        require_count("dot_product", "weight_bits", weight_bits, 2, 8)
        require_count("dot_product", "activation_operand_bits", activation_operand_bits, 2, 9)
        require_count("dot_product", "stages", stages, 1, max(DOT_STAGES))
        sizes = vector_size, weight_bits, activation_operand_bits
        bits = weight_bits + activation_operand_bits + (vector_size - 1).bit_length()
        netlists = [
            Netlist(
                AREA, 1, self._dots.cost(*sizes, held_operand=held_operand), self._dots.rows(held_operand)
            )
        ]
        for count in range(1, stages + 1):
            dots = self._fast.dots[count]
            fast = dots.cost(*sizes, held_operand=held_operand)
            netlists.append(Netlist(FAST, count, fast, dots.rows(_stimulus(held_operand))))
        notes = ["widths not synthesized: by the partial-product law through the neighbouring rows"]
        if min(weight_bits, activation_operand_bits) == 2:
            notes.append("2-bit operands are mostly zero under this stimulus: energy close to nothing")
        cost = self._in_stages(
            "dot_product", netlists, bits, stages, period_ps, notes, _stimulus(held_operand)
        )
        over = _changing_over_held(lambda held: self._dots.cost(*sizes, held_operand=held))
        law = self._activity.dot_product(*sizes, held=held_operand, changing_over_held=over)
        return replace(cost, activity={"op": law})

    def zero_detect(self, bits: int) -> ComponentCost:
        """All-zero detect of `bits` bits (an OR tree). Action op."""
        require_count("zero_detect", "bits", bits, 1, 4096)
        return self._logic_cost("zero_detect", self._logic.zero_detect(bits), self._logic.rows("zero_detect"))

    def scale_product(
        self,
        weight_scale_bits: int,
        activation_scale_bits: int,
        scale_product_bits: int,
        *,
        held: bool,
        stages: int = 1,
        period_ps: float | None = None,
    ) -> ComponentCost:
        """Product of the two scales, rounded to `scale_product_bits` (0 = full width). 0 bits = absent side;
        with one side alone only rounding costs anything (priced as an adder). In `stages` cycles, as the dot
        product beside it. held: weight scales stay for 16 operations. Action op; with registers also idle."""
        require_count("scale_product", "weight_scale_bits", weight_scale_bits, 0, 10)
        require_count("scale_product", "activation_scale_bits", activation_scale_bits, 0, 10)
        full = weight_scale_bits + activation_scale_bits
        require_count("scale_product", "scale_product_bits", scale_product_bits, 0, full)
        require_count("scale_product", "stages", stages, 1, max(DOT_STAGES))
        bits = weight_scale_bits, activation_scale_bits, scale_product_bits or full
        block = self._logic.scale_product(*bits, held=held)
        netlists = [Netlist(AREA, 1, block, self._logic.rows("scale_product"))]
        if weight_scale_bits and activation_scale_bits:
            for count in PRODUCT_STAGES[:stages]:
                fast = self._fast.scale_product(*bits, stages=count, held=held)
                netlists.append(Netlist(FAST, count, fast, self._fast.rows("scale_product", count)))
        # A weight's scale alone stays as long as it.
        data = "held" if held and not activation_scale_bits else "random"
        cost = self._in_stages(
            "scale_product", netlists, bits[2], stages, period_ps, (), _stimulus(held), data
        )
        if not weight_scale_bits or not activation_scale_bits:
            return cost
        over = _changing_over_held(lambda held: self._logic.scale_product(*bits, held=held))
        law = self._activity.held_or_changing("scale_product", *bits[:2], held=held, changing_over_held=over)
        return replace(cost, activity={"op": law})

    def scale_multiply(
        self,
        dot_bits: int,
        scale_bits: int,
        *,
        held: bool,
        stages: int = 1,
        period_ps: float | None = None,
    ) -> ComponentCost:
        """Signed dot product times unsigned scale, full product, in `stages` cycles. held: the scale stays
        for 16 operations, as that of weights alone does. Action op; with stage registers also idle."""
        require_count("scale_multiply", "dot_bits", dot_bits, 2, 32)
        require_count("scale_multiply", "scale_bits", scale_bits, 1, 20)
        require_count("scale_multiply", "stages", stages, 1, max(SCALE_STAGES))
        block = self._logic.scale_multiply(dot_bits, scale_bits, held=held)
        netlists = [Netlist(AREA, 1, block, self._logic.rows("scaling_mul"))]
        for count in range(1, stages + 1):
            fast = self._fast.scale_multiply(dot_bits, scale_bits, stages=count, held=held)
            netlists.append(Netlist(FAST, count, fast, self._fast.rows("scaling_mul", count)))
        cost = self._in_stages(
            "scale_multiply", netlists, dot_bits + scale_bits, stages, period_ps, (), _stimulus(held)
        )
        bits = dot_bits, scale_bits
        over = _changing_over_held(lambda held: self._logic.scale_multiply(*bits, held=held))
        law = self._activity.held_or_changing("scale_multiply", *bits, held=held, changing_over_held=over)
        return replace(cost, activity={"op": law})

    def accumulator(self, bits: int, product_bits: int, *, period_ps: float | None = None) -> ComponentCost:
        """One partial sum plus a product of `product_bits`, saturated. Action add."""
        require_count("accumulator", "bits", bits, 2, 128)
        require_count("accumulator", "product_bits", product_bits, 2, 128)
        netlists = [
            Netlist(AREA, 1, self._logic.accumulator(bits, product_bits), self._logic.rows("accumulator")),
            Netlist(FAST, 1, self._fast.accumulator(bits, product_bits), self._fast.rows("accumulator")),
        ]
        cost = self._in_stages("accumulator", netlists, bits, 1, period_ps, (), CHANGING)
        wider, narrower = max(bits, product_bits), min(bits, product_bits)
        return replace(cost, activity={"add": self._activity.accumulator(wider, narrower)})

    def _in_stages(
        self,
        component: str,
        netlists: Sequence[Netlist],
        result_bits: int,
        stages: int,
        period_ps: float | None,
        notes: Sequence[str],
        stimulus: str,
        data: str = "random",
    ) -> ComponentCost:
        """The chosen one of `netlists` as a component of `stages` cycles."""
        if period_ps is not None:
            _require_positive(component, "period_ps", period_ps, math.inf)
        delay = self._logic_scaling.factors(self.technology, self._datapath.node_nm, self._datapath.vdd_v)[3]
        whole = [
            own.in_stages(stages, self._logic.register(result_bits, data), self._fast.registers_ps)
            for own in netlists
        ]
        chosen = choose(whole, None if period_ps is None else period_ps / delay)
        said = (
            *notes,
            chosen.said(stages),
            f"registers around a stage: {self._fast.registers_ps * delay:.0f} ps",
        )
        cost = self._logic_cost(component, chosen.block, chosen.rows, notes=said, stimulus=stimulus)
        idle_fj = chosen.block.energy_fj.get("idle", 0.0)
        if not idle_fj:
            return cost
        # As many gates as idle like those of a register, each taken for full.
        one = self._logic.register(REGISTER_BITS)
        gates = idle_fj / one.energy_fj["idle"]
        area = one.area_um2 * cost.area_um2 / chosen.block.area_um2
        branch = Branch(gates * REGISTER_BITS, area / REGISTER_BITS)
        return replace(cost, clock=ClockSinks(gates=gates, branch=branch, action="op"))

    # -- storage of flip-flops and latches ------------------------------------------------------------------
    def register(self, bits: int, *, held_bits: int = 0, data: str = "random") -> ComponentCost:
        """Clock-gated flip-flops. data: what is stored, random or half zero; held_bits of them are stored
        again unchanged. Actions idle (every clock), write (on top of idle), read (free)."""
        require_count("register", "bits", bits, 1, 1 << 20)
        require_count("register", "held_bits", held_bits, 0, bits)
        if data not in REGISTER_DATA:
            raise AccelsimError(f"cost of register: data is '{data}', expected {' or '.join(REGISTER_DATA)}")
        block = self._logic.register(bits - held_bits, data).then(
            self._logic.register(held_bits, "held"), pipelined=True
        )
        cost = self._logic_cost("register", block, self._logic.rows("register"), stimulus=f"{data} data")
        held, random = (self._logic.register(1, own).energy_fj["write"] for own in ("held", "random"))
        law = self._activity.register(bits, block.energy_fj["write"], held, random)
        clock = ClockSinks(gates=bits / REGISTER_BITS, branch=Branch(bits, cost.area_um2 / bits))
        return replace(cost, activity={"write": law}, clock=clock)

    def array(self, width_bits: int, depth: int, kind: str = "latch") -> ComponentCost:
        """Array of latches ("latch") or flip-flops ("ff"), one write and one read port. Actions idle (every
        clock), read and write (on top of idle)."""
        require_count("array", "width_bits", width_bits, 1, 1 << 16)
        require_count("array", "depth", depth, 1, 1024)
        if kind not in ARRAY_DEPTHS:
            raise AccelsimError(f"cost of array: kind is '{kind}', expected latch or ff")
        notes = []
        if depth not in ARRAY_DEPTHS[kind]:
            said = ", ".join(str(known) for known in ARRAY_DEPTHS[kind])
            notes = [
                f"depth: from arrays of {said} words, by power laws between them; beyond them area, idle and "
                "write data lines ~ depth, read ~ log2(depth)"
            ]
        block = self._logic.array(width_bits, depth, kind)
        rows = self._logic.rows("array")
        cost = self._logic_cost("array", block, rows, notes=notes, stimulus="random data")
        # A clock gate a word; a write clocks one word.
        branch = Branch(width_bits, cost.area_um2 / (width_bits * depth))
        return replace(cost, clock=ClockSinks(gates=depth, branch=branch))

    def sram(self, words: int, width_bits: int) -> ComponentCost:
        """Single-port macro, or banks of macros with a wire to the bank accessed where it is larger than the
        law's. Actions read and write, one word each; `delay_ps` is the cycle time of a macro."""
        require_count("sram", "words", words, 1, 1 << 20)
        require_count("sram", "width_bits", width_bits, 1, 1 << 14)
        banks, macro = self._macros.cost(words, width_bits)
        area, energy, leakage, cycle, log = self._sram_scaling.factors(
            self.technology, self._macros.node_nm, self._macros.vdd_v
        )
        area_um2, wire_pj = banks * macro.area_um2 * area, 0.0
        if banks > 1:
            # From one bank's edge to the far side of them all.
            wire_mm = math.sqrt(area_um2) * (1 - math.sqrt(1 / banks)) / UM_PER_MM
            wire_pj = width_bits * wire_mm * self._wire_pj_per_mm()
            log += (
                f"banks: {banks:.4g} of {FITTED_KIB} KiB, the largest of the law; an access contains "
                f"{wire_pj:.4g} pJ for {wire_mm:.4g} mm of wires to its bank (assumption)",
            )
        return ComponentCost(
            "sram",
            area_um2,
            banks * macro.leakage_nw * leakage / 1e3,
            {action: fj * energy / 1e3 + wire_pj for action, fj in macro.energy_fj.items()},
            macro.delay_ps * cycle,
            sources(self._macros.rows),
            "cacti",
            log,
            f"CACTI, device {self.technology.sram_device}",
            clock=ClockSinks(macros=math.ceil(banks) * math.ceil(width_bits / FITTED_WIDTH_BITS)),
        )

    # -- post-processing ------------------------------------------------------------------------------------
    def ppu(
        self,
        lanes: int,
        accumulator_bits: int,
        output_bits: int,
        *,
        stages: str = "coarse",
        period_ps: float | None = None,
    ) -> ComponentCost:
        """`lanes` post-processing lanes: requantizing multiply, variable shift, bias add, relu, rounding add
        and clip. Action op = one output value. Stages are pipelined: `delay_ps` is the slowest. `fine`
        ones have registers inside the multiply, and are mapped for a period: their delays have the registers'
        times in them."""
        require_count("ppu", "lanes", lanes, 1, 1024)
        require_count("ppu", "accumulator_bits", accumulator_bits, 2, 128)
        require_count("ppu", "output_bits", output_bits, 2, 16)
        value_bits = int(self._logic.single("ppu_relu")["width_bits"])
        if _is_fine("ppu", stages):
            lane = self._ppu_stages.lane(accumulator_bits, output_bits, self._clock(period_ps))
            rows = self._ppu_stages.rows("ppu_partial", "ppu_sum", "ppu_scaled", "ppu_bias", "ppu_round")
            notes = (f"{lanes} lanes; each stage mapped for area, or for delay where the period wants it",)
            return self._logic_cost("ppu", _per_action(lane, lanes), rows, notes=notes)
        lane = self._logic.requantizer(accumulator_bits, value_bits)
        for stage in (
            self._logic.shifter(accumulator_bits + REQUANT_BITS, value_bits),
            self._logic.fixed("ppu_bias_add"),
            self._logic.fixed("ppu_relu"),
            self._logic.adder(value_bits),
            self._logic.clip(value_bits, output_bits),
        ):
            lane = lane.then(stage, pipelined=True)
        rows = self._logic.rows("ppu_requant", "ppu_shift", "ppu_bias_add", "ppu_relu", "ppu_clip", "acc_add")
        notes = (f"{lanes} lanes; widths by the multiplier and shifter laws from the 24-bit rows",)
        return self._logic_cost("ppu", _per_action(lane, lanes), rows, notes=notes)

    def _clock(self, period_ps: float | None) -> Clock:
        """The period at the table's node, and what registers take of it."""
        if period_ps is None:
            return Clock(None, self._fast.registers_ps)
        _require_positive("ppu", "period_ps", period_ps, math.inf)
        delay = self._logic_scaling.factors(
            self.technology, self._datapath.node_nm, self._datapath.vdd_v
        )[3]  # fmt: skip
        return Clock(period_ps / delay, self._fast.registers_ps)

    def ppu_vector_scale(
        self,
        vector_size: int,
        lanes: int,
        output_bits: int,
        scale_bits: int,
        *,
        stages: str = "coarse",
        period_ps: float | None = None,
    ) -> ComponentCost:
        """What per-vector outputs add to the PPU, for vectors of vector_size / lanes slices: their largest
        magnitude, the vector's scale and its reciprocal (a table in logic), and in each of `lanes` lanes a
        multiply by it, shift, rounding and clip. Action op = one vector, whose values all pass the lanes,
        however many lanes there are. Stages are pipelined: `delay_ps` is the slowest; `fine` as in `ppu`."""
        require_count("ppu_vector_scale", "vector_size", vector_size, 1, 128)
        require_count("ppu_vector_scale", "lanes", lanes, 1, vector_size)
        require_count("ppu_vector_scale", "output_bits", output_bits, 2, 16)
        require_count("ppu_vector_scale", "scale_bits", scale_bits, 1, 10)
        logic, value_bits = self._logic, int(self._logic.single("ppu_relu")["width_bits"])
        if _is_fine("ppu_vector_scale", stages):
            clock, fine = self._clock(period_ps), self._ppu_stages
            rescale, largest = fine.rescale(output_bits, clock), fine.maximum(lanes, clock)
            of_vector = fine.vector_scale(output_bits, scale_bits, clock)
            names = ("ppu_magnitude", "ppu_running_max", "ppu_scale_add", "ppu_quotient", "ppu_reciprocal")
            rows = fine.rows("ppu_partial", "ppu_sum", "ppu_scaled", "ppu_code", *names)
        else:
            code_bits = min(output_bits, logic.widest_output_bits())
            rescale = logic.requantizer(value_bits, code_bits).then(
                logic.shifter(value_bits + REQUANT_BITS, code_bits), pipelined=True
            )
            largest = logic.running_maximum(lanes)
            of_vector = logic.vector_scale(output_bits, scale_bits).then(
                logic.reciprocal(scale_bits), pipelined=True
            )
            rows = logic.rows(
                "ppu_requant", "ppu_shift", "ppu_magnitude", "ppu_running_max", "ppu_scale", "ppu_reciprocal"
            )  # fmt: skip
        of_slice = largest.then(rescale.times(lanes), pipelined=True)
        slices = vector_size / lanes
        block = of_slice.then(of_vector, pipelined=True)
        op_fj = slices * of_slice.energy_fj["op"] + of_vector.energy_fj["op"]
        notes = (f"{lanes} lanes; a vector takes them {slices:g} times",)
        return self._logic_cost(
            "ppu_vector_scale", replace(block, energy_fj={"op": op_fj}), rows, notes=notes
        )

    def ppu_select(self, ways: int, bits: int) -> ComponentCost:
        """Multiplexer that takes one of `ways` slices of `bits` from an entry of psums. Action op."""
        require_count("ppu_select", "ways", ways, 1, 256)
        require_count("ppu_select", "bits", bits, 1, 1 << 14)
        return self._logic_cost("ppu_select", self._logic.select(ways, bits), self._logic.rows("ppu_select"))

    # -- system ---------------------------------------------------------------------------------------------
    def noc(
        self, pes: int, port_bits: int, pe_area_um2: float, placement_utilization: float
    ) -> ComponentCost:
        """Crossbar between `pes` elements: a wire as long as one placed PE and one pipeline register per hop.
        Action bit_hop. Area: an in- and an out-port register per PE; arbiters, multiplexers and buffers are
        not priced (no source)."""
        require_count("noc", "pes", pes, 1, 4096)
        require_count("noc", "port_bits", port_bits, 1, 1 << 14)
        _require_positive("noc", "pe_area_um2", pe_area_um2, math.inf)
        _require_positive("noc", "placement_utilization", placement_utilization, 1.0)
        hop_mm = math.sqrt(pe_area_um2 / placement_utilization) / UM_PER_MM
        capacitance, activity = self._system["wire_capacitance"], self._system["wire_activity"]
        wire_pj_per_mm = self._wire_pj_per_mm()
        bit = self.register(1)
        port = self.register(port_bits)
        return ComponentCost(
            "noc",
            2 * pes * port.area_um2,
            2 * pes * port.leakage_uw,
            {"bit_hop": wire_pj_per_mm * hop_mm + bit.energy_pj["write"]},
            None,
            f"{sources((capacitance, activity))}; {port.source}",
            "assumption",
            (
                f"hop {hop_mm:.4g} mm = sqrt({pe_area_um2:.5g} um2 / {placement_utilization:g})",
                f"wire {wire_pj_per_mm:.4g} pJ/bit/mm = 0.5 * {activity['value']:g} * "
                f"{capacitance['value']:g} pF/mm * ({self.technology.voltage_v:g} V)^2, same at every node",
                f"register {bit.energy_pj['write']:.4g} pJ/bit",
                "routers beyond port registers: not priced",
            ),
            "random data",
            clock=ClockSinks(
                2 * pes * port_bits / REGISTER_BITS, branch=Branch(1, bit.area_um2), action="bit_hop"
            ),
        )

    def _wire_pj_per_mm(self) -> float:
        """Of one transferred bit."""
        capacitance, activity = self._system["wire_capacitance"], self._system["wire_activity"]
        return 0.5 * activity["value"] * capacitance["value"] * self.technology.voltage_v**2

    def dram(self, kind: str = "lpddr4") -> ComponentCost:
        """Energy per transferred bit, off chip: no area, no scaling with the node. Action bit. `kind` names
        a dram row of system.csv without its prefix."""
        row = self._system.get(f"dram_{kind}")
        if row is None:
            kinds = [key.removeprefix("dram_") for key in self._system if key.startswith("dram_")]
            raise AccelsimError(f"cost of dram: kind '{kind}' is unknown, expected one of {', '.join(kinds)}")
        return ComponentCost(
            "dram", 0.0, 0.0, {"bit": row["value"]}, None, row.text["source"], row.text["status"],
            (f"{row['value']:g} {row.text['unit']}, as published, not scaled",), "as published",
        )  # fmt: skip

    def control(self, address_bits: Sequence[int]) -> ComponentCost:
        """Address generators: one counter (adder and register) per entry of `address_bits`, all stepping.
        Action cycle. The clock tree is separate: `clock_tree`."""
        counters = BlockCost(0.0, 0.0, {"cycle": 0.0})
        for bits in address_bits:
            require_count("control", "address_bits", bits, 1, 64)
            register = self._logic.register(bits)
            adder = self._logic.adder(bits, "cycle")
            clocked = register.energy_fj["idle"] + register.energy_fj["write"]
            counter = BlockCost(register.area_um2, register.leakage_nw, {"cycle": clocked}, register.delay_ps)
            counters = counters.then(counter.then(adder), pipelined=True)
        rows = self._logic.rows("register", "acc_add")
        cost = self._logic_cost("control", counters, rows, notes=("counters that all step every cycle",))
        bits = sum(address_bits)
        branch = Branch(bits, self.register(bits).area_um2 / bits) if bits else None
        return replace(cost, clock=ClockSinks(bits / REGISTER_BITS, branch=branch, action="cycle"))

    def clock_tree(
        self, sinks: ClockSinks, branches: Mapping[str, Branch], area_um2: float, utilization: float
    ) -> ComponentCost:
        """Buffered H-tree to `sinks` over cells and macros of `area_um2`, with the wires behind clock gates.
        Actions cycle, and one a branch by its name: one that its gates open for. Pins of clock gates and of
        what is behind them are in the prices of registers and arrays (costs/clock.py)."""
        _require_positive("clock_tree", "area_um2", area_um2, math.inf)
        _require_positive("clock_tree", "placement_utilization", utilization, 1.0)
        at_table = self._datapath.node_nm, self._datapath.vdd_v
        _, node, *_ = self._logic_scaling.factors(self.technology, *at_table)

        def priced(block: BlockCost) -> ComponentCost:
            stimulus = "an edge up and one down a cycle"
            return self._logic_cost("clock_tree", block, self._clock_cells.rows, stimulus=stimulus)

        wire = ClockWire(self._system["clock_wire_capacitance"], self.technology.voltage_v, utilization)
        return self._clock_cells.tree(sinks, branches, area_um2, wire, node, priced)

    def check_delay_law(self) -> None:
        """Raise AccelsimError where the delay law does not hold at this node and supply."""
        self._logic_scaling.check_delay_range(self.technology.node_nm, self.technology.voltage_v)

    # -- provenance -----------------------------------------------------------------------------------------
    def rows(self, component: str | None = None) -> list[dict]:
        """Every constant with unit, node, source and status, or those of one component."""
        return list_constants(self._tables, component)

    def laws(self) -> list[dict[str, object]]:
        """Every law between rows with its formula, row count and relative residuals."""
        parts = (self._dots, self._fast, self._logic, self._ppu_stages)
        return [
            *(law for part in parts for law in part.laws()),
            *self._activity.describe(),
            *self._macros.laws(),
        ]

    def _logic_cost(
        self,
        component: str,
        block: BlockCost,
        rows: Sequence[Row],
        *,
        notes: Sequence[str] = (),
        stimulus: str = "dnn",
    ) -> ComponentCost:
        return self._logic_scaling.price(
            component, block, self.technology, self._datapath.node_nm, self._datapath.vdd_v,
            source=sources(rows), evidence="synthesis", stimulus=stimulus, notes=notes,
        )  # fmt: skip


def _changing_over_held(block: Callable[[bool], BlockCost]) -> float:
    """Energy where the weight operand changes at every operation over that where it is held."""
    return block(False).energy_fj["op"] / block(True).energy_fj["op"]


def _is_fine(component: str, stages: str) -> bool:
    if stages not in ("coarse", "fine"):
        raise AccelsimError(f"cost of {component}: stages is '{stages}', expected coarse or fine")
    return stages == "fine"


def _stimulus(held: bool) -> str:
    return HELD if held else CHANGING


def _per_action(lane: BlockCost, lanes: int) -> BlockCost:
    """`lanes` lanes whose actions are counted one lane at a time."""
    whole = lane.times(lanes)
    return BlockCost(whole.area_um2, whole.leakage_nw, lane.energy_fj, lane.delay_ps)


def _require_positive(component: str, name: str, value: float, high: float) -> None:
    if not math.isfinite(value) or not 0 < value <= high:
        limit = f" and at most {high:g}" if math.isfinite(high) else ""
        raise AccelsimError(f"cost of {component}: {name} is {value}, expected a number above 0{limit}")
