"""Parts of a machine that are drawn together, and the look that each has in every figure."""

from __future__ import annotations

from accelsim.report.plots import style
from accelsim.report.plots.style import Look

# Group -> (look, its components), from the lanes outwards; neighbours differ in colour.
GROUPS: dict[str, tuple[Look, tuple[str, ...]]] = {
    "dot product": (Look(style.BLUE), ("dot_product", "weight_decode", "input_decode")),
    "scale path": (
        Look(style.ORANGE),
        ("scale_product", "scale_multiply", "scale_zero_detect", "scale_sum", "align", "layer_register"),
    ),
    "accumulators": (Look(style.GREEN), ("accumulator", "block_sum", "local_accumulator", "psum_adder")),
    "registers, wires of the lanes": (
        Look(style.YELLOW),
        (
            "weight_zero_detect",
            "input_zero_detect",
            "weight_register",
            "input_register",
            "operand_register",
            "operand_wires",
            "pipeline_register",
            "block_sum_register",
        ),
    ),
    "collectors": (
        Look(style.SKY, "////"),
        ("accumulation_collector", "weight_collector", "accumulation_buffer"),
    ),
    "weight buffer": (Look(style.VERMILION), ("weight_buffer",)),
    "input buffer": (Look(style.PURPLE), ("input_buffer",)),
    "PPU": (
        Look(style.GREY),
        (
            "ppu",
            "ppu_block_quantize",
            "ppu_block_scale",
            "ppu_constants",
            "ppu_hold",
            "ppu_register",
            "ppu_select",
            "ppu_staging",
            "ppu_staging_max",
            "ppu_vector_register",
            "ppu_vector_scale",
        ),
    ),
    "control, out FIFO": (Look(style.BLACK), ("control", "out_fifo")),
    "clock trees": (
        Look(style.YELLOW, "xxxx"),
        ("datapath_clock_tree", "pe_clock_tree", "array_clock_tree"),
    ),
    "crossbar": (Look(style.SKY), ("noc",)),
    "global buffer": (Look(style.GREEN, "////"), ("global_buffer",)),
    "global PE": (Look(style.ORANGE, "xxxx"), ("global_pe",)),
    "DRAM": (Look(style.LIGHT), ("dram",)),
}
_GROUP_OF = {component: group for group, (_, own) in GROUPS.items() for component in own}

SCOPES: dict[str, tuple[Look, str]] = {
    "datapath": (Look(style.BLUE), "datapath"),
    "pe": (Look(style.ORANGE, "////"), "rest of the PE"),
    "array": (Look(style.GREEN), "rest of the array"),
    "system": (Look(style.LIGHT), "DRAM"),
}
EVIDENCE: dict[str, Look] = {
    "synthesis": Look(style.BLUE),
    "cacti": Look(style.SKY, "////"),
    "primary": Look(style.GREEN),
    "secondary": Look(style.YELLOW),
    "derived": Look(style.PURPLE),
    "assumption": Look(style.VERMILION, "xxxx"),
    "own": Look(style.GREY),
}


def group_of(component: str) -> str:
    """The group's name; a component of none is a group of its own."""
    return _GROUP_OF.get(component, component.replace("_", " "))
