"""The price list: one `ComponentCost` per component of the machine at a technology."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from accelsim.costs.clock import ClockCells, ClockWire, h_tree_mm
from accelsim.costs.component import BlockCost, Branch, ClockSinks, ComponentCost, require_count
from accelsim.costs.curve import ActivityLaw, Curve
from accelsim.costs.format_prices import FormatPrices
from accelsim.costs.listing import list_constants
from accelsim.costs.logic import ARRAY_DEPTHS, REGISTER_BITS, REGISTER_DATA
from accelsim.costs.logic_prices import require_positive
from accelsim.costs.own import OwnPrice, OwnPrices
from accelsim.costs.scaling import SramScaling
from accelsim.costs.sram import FITTED_KIB, FITTED_WIDTH_BITS, SramMacros
from accelsim.costs.tables import TABLES_DIR, sources
from accelsim.costs.technology import Technology
from accelsim.errors import AccelsimError

UM_PER_MM = 1e3


class CostLibrary(FormatPrices):
    """Prices at one technology, from the tables in `tables_dir` (default: those of the package).

    own: of parts of a machine, in place of the tables'; `build_inventory` (report/inventory.py) takes them.
    """

    def __init__(
        self, technology: Technology, tables_dir: Path | None = None, own: Iterable[OwnPrice] = ()
    ) -> None:
        super().__init__(technology, TABLES_DIR if tables_dir is None else Path(tables_dir))
        self.own = OwnPrices(own, technology)
        self._clock_cells = ClockCells(self._tables["clock_cells"])
        self._macros = SramMacros(self._tables["sram"], technology.sram_device)
        self._sram_scaling = SramScaling(self._tables["bitcell"], self._system, self._logic_scaling)

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

    # -- system ---------------------------------------------------------------------------------------------
    def noc(
        self, pes: int, port_bits: int, pe_area_um2: float, placement_utilization: float
    ) -> ComponentCost:
        """Crossbar between `pes` elements: a wire as long as one placed PE and one pipeline register per hop.
        Action bit_hop. Area: an in- and an out-port register per PE; arbiters, multiplexers and buffers are
        not priced (no source)."""
        require_count("noc", "pes", pes, 1, 4096)
        require_count("noc", "port_bits", port_bits, 1, 1 << 14)
        require_positive("noc", "pe_area_um2", pe_area_um2, math.inf)
        require_positive("noc", "placement_utilization", placement_utilization, 1.0)
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

    def operand_wires(
        self, word_bits: int, lanes: int, area_um2: float, placement_utilization: float
    ) -> ComponentCost:
        """Wires from the input register to `lanes` lanes, a tree of equal path lengths as a clock's
        (costs/clock.py) over the placed area of all of them, `area_um2` of cells and macros. Action word."""
        require_count("operand_wires", "word_bits", word_bits, 1, 1 << 14)
        require_count("operand_wires", "lanes", lanes, 1, 256)
        require_positive("operand_wires", "area_um2", area_um2, math.inf)
        require_positive("operand_wires", "placement_utilization", placement_utilization, 1.0)
        capacitance, activity = self._system["wire_capacitance"], self._system["wire_activity"]
        length_mm, wire_pj_per_mm = h_tree_mm(lanes, area_um2 / placement_utilization), self._wire_pj_per_mm()
        # Half of the bits change in the price.
        changing = Curve(max(activity["value"], 1e-9) * word_bits, 1.0, 1.0)
        return ComponentCost(
            "operand_wires",
            0.0,
            0.0,
            {"word": word_bits * length_mm * wire_pj_per_mm},
            None,
            sources((capacitance, activity)),
            "assumption",
            (
                f"H-tree of {length_mm:.4g} mm a bit to {lanes} lanes over {area_um2:.5g} um2 / "
                f"{placement_utilization:g}",
                f"wire {wire_pj_per_mm:.4g} pJ/bit/mm, same at every node; repeaters: not priced",
            ),
            "random data",
            activity={"word": ActivityLaw(((0.0, 1.0, changing),))},
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
        require_positive("clock_tree", "area_um2", area_um2, math.inf)
        require_positive("clock_tree", "placement_utilization", utilization, 1.0)
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
            *self._formats.laws(),
            *self._block_sums.laws(),
            *self._activity.describe(),
            *self._macros.laws(),
        ]
