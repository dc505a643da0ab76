"""What is counted, one row an action: its unit, which part of the model counts it, and what prices it.

docs/counts.md says when each is counted. Counts are kept by name, "component.action"; the
constants below are those names, and nobody else spells them. A new action is a row here, its count where the
row says, and the price of a part in report/inventory.py where the row names a new one.
"""

from __future__ import annotations

from dataclasses import dataclass

# Part of the model -> its module. The mapper's model also counts what depends on the mapping.
COUNTED_BY = {
    "block": "machine/dataflows.py",  # closed form of every block that is issued
    "issue": "sim/pe.py",
    "fetch": "sim/fetch.py",
    "drain": "sim/drain.py",
    "output": "sim/transfers.py",
    "chain": "sim/transfers.py",
    "layer": "sim/layer_run.py",  # at its end
    "values": "compute/activity.py",  # knows the operands
}


@dataclass(frozen=True)
class Action:
    """One row. counted_by: keys of COUNTED_BY.

    priced_by: parts of the inventory, each with the action of its cost that one count is charged as.
    """

    name: str
    unit: str
    counted_by: tuple[str, ...]
    priced_by: tuple[tuple[str, str], ...]


ACTIONS: dict[str, Action] = {}


def _row(name: str, unit: str, counted_by: str, *priced_by: str) -> str:
    """counted_by: separated by blanks; priced_by: "part.cost_action", where not given the action itself."""
    prices = [price.partition(".") for price in priced_by or (name,)]
    ACTIONS[name] = Action(
        name, unit, tuple(counted_by.split()), tuple((part, action) for part, _, action in prices)
    )
    return name


# Datapath.
DOT_PRODUCT_OP = _row("dot_product.op", "steps of a lane", "values")
DOT_PRODUCT_GATED = _row("dot_product.gated", "steps of a lane", "values")
DOT_PRODUCT_OP_CHANGING = _row("dot_product.op_changing", "steps of a lane", "values")
SCALE_PRODUCT_OP = _row(
    "scale_product.op", "steps of a lane", "values",
    "scale_product.op", "scale_zero_detect.op", "scale_sum.op",
)  # fmt: skip
SCALE_MULTIPLY_OP = _row("scale_multiply.op", "steps of a lane", "values", "scale_multiply.op", "align.op")
PIPELINE_REGISTER_WRITE = _row(
    "pipeline_register.write", "steps of a lane", "values",
    "pipeline_register.write", "block_sum.op", "block_sum_register.write",
)  # fmt: skip
ACCUMULATOR_ADD = _row("accumulator.add", "steps of a lane", "block")
WEIGHT_REGISTER_WRITE = _row(
    "weight_register.write", "words", "block",
    "weight_register.write", "weight_zero_detect.op", "weight_decode.op",
)  # fmt: skip
INPUT_REGISTER_WRITE = _row(
    "input_register.write", "words", "issue",
    "input_register.write", "input_zero_detect.op", "input_decode.op", "operand_wires.word",
)  # fmt: skip
OPERAND_REGISTER_WRITE = _row("operand_register.write", "steps of a lane", "values")
WEIGHT_COLLECTOR_READ = _row("weight_collector.read", "words", "block")
WEIGHT_COLLECTOR_WRITE = _row("weight_collector.write", "words", "block")
LOCAL_ACCUMULATOR_WRITE = _row("local_accumulator.write", "entries of L psums", "block")

# PE.
ACCUMULATION_COLLECTOR_READ = _row("accumulation_collector.read", "entries of L psums", "block drain chain")
ACCUMULATION_COLLECTOR_WRITE = _row("accumulation_collector.write", "entries of L psums", "block chain")
# In place of entries, on a machine that gates accumulations: each lane reads and writes its own.
ACCUMULATION_COLLECTOR_PSUM_READ = _row("accumulation_collector.psum_read", "psums", "values")
ACCUMULATION_COLLECTOR_PSUM_WRITE = _row("accumulation_collector.psum_write", "psums", "values")
ACCUMULATION_BUFFER_READ = _row("accumulation_buffer.read", "entries of L psums", "block drain chain")
ACCUMULATION_BUFFER_WRITE = _row("accumulation_buffer.write", "entries of L psums", "block chain")
PSUM_ADDER_ADD = _row("psum_adder.add", "psums", "chain")
WEIGHT_BUFFER_READ = _row("weight_buffer.read", "words", "block")
WEIGHT_BUFFER_WRITE = _row("weight_buffer.write", "words", "fetch")
INPUT_BUFFER_READ = _row("input_buffer.read", "words", "issue")
INPUT_BUFFER_WRITE = _row("input_buffer.write", "words", "fetch")
PPU_OP = _row("ppu.op", "outputs", "drain", "ppu.op", "ppu_register.write")
PPU_CONSTANTS_READ = _row(
    "ppu_constants.read", "slices of ppu_lanes psums", "drain", "ppu_constants.read", "ppu_select.op"
)
# What waits is read once, when it leaves.
PPU_HOLD_WRITE = _row(
    "ppu_hold.write", "slices of ppu_lanes values", "drain", "ppu_hold.write", "ppu_hold.read"
)
PPU_VECTOR_SCALE_OP = _row(
    "ppu_vector_scale.op", "output vectors", "drain",
    "ppu_vector_scale.op", "ppu_block_scale.op", "ppu_block_quantize.op", "ppu_vector_register.write",
)  # fmt: skip
PPU_STAGING_READ = _row("ppu_staging.read", "entries of L values", "drain")
# The largest magnitude of a vector so far is read and written with each of its lane groups.
PPU_STAGING_WRITE = _row(
    "ppu_staging.write", "entries of L values", "drain",
    "ppu_staging.write", "ppu_staging_max.read", "ppu_staging_max.write",
)  # fmt: skip
OUT_FIFO_READ = _row("out_fifo.read", "entries of L outputs", "drain")
OUT_FIFO_WRITE = _row("out_fifo.write", "entries of L outputs", "drain")
CONTROL_CYCLE = _row("control.cycle", "PE cycles", "layer")

# Array and system.
GLOBAL_BUFFER_READ = _row("global_buffer.read", "bank words", "fetch output layer")
GLOBAL_BUFFER_WRITE = _row("global_buffer.write", "bank words", "fetch output layer")
NOC_BIT_HOP = _row("noc.bit_hop", "bits x hops", "fetch output chain")
GLOBAL_PE_ELEMENT = _row("global_pe.element", "elements", "layer", "global_pe.op")
DRAM_READ_BIT = _row("dram.read_bit", "bits", "fetch", "dram.bit")
DRAM_WRITE_BIT = _row("dram.write_bit", "bits", "output", "dram.bit")


def named(component: str, action: str) -> str:
    """The action of a component. Raises KeyError where there is no such row."""
    return ACTIONS[f"{component}.{action}"].name


def charged_to(part: str, but: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Cost action -> counts a part of the inventory is charged for, in the table's order, none of `but`."""
    found: dict[str, tuple[str, ...]] = {}
    for row in ACTIONS.values():
        for own, cost_action in row.priced_by:
            if own == part and row.name not in but:
                found[cost_action] = (*found.get(cost_action, ()), row.name)
    return found
