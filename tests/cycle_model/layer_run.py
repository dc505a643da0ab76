"""What is computed and counted for one layer (docs/numerics.md and docs/counts.md)."""

from __future__ import annotations

from collections import Counter

import numpy as np

from accelsim.machine.arch import Arch
from cycle_model.program import LayerProgram
from cycle_model.sizes import outputs_of
from cycle_model.steps import ROW_WORK

STALL_REASONS = ("compute", "bubble", "output_wait", "weight_wait", "input_wait", "drain", "idle")
COMPUTE, BUBBLE, OUTPUT_WAIT, WEIGHT_WAIT, INPUT_WAIT, DRAIN, IDLE = range(len(STALL_REASONS))


class LayerRun:
    def __init__(self, arch: Arch, program: LayerProgram) -> None:
        self.arch, self.program, self.layer = arch, program, program.layer
        geometry, scheme = self.layer.geometry, self.layer.scheme
        self.dataflow = program.mapping.dataflow
        self.has_local = self.dataflow in ("os", "ws-los")  # the steps of a psum follow each other
        in_collector = self.dataflow in ("os-lws", "os")
        self.psum_store = "accumulation_collector" if in_collector else "accumulation_buffer"
        # Operands, the dot product's stages, the scaling's, and the add.
        self.write_latency = 1 + arch.dot_stages + 1
        if scheme.has_scales:
            self.write_latency += arch.scale_stages
        if self.layer.spec.blocks_per_word > 2:
            self.write_latency += 1  # their products become two words
        self.psum_bits = arch.accumulator_width(scheme)
        self.end: int | None = None
        self.stall_cycles = [[0 for _ in STALL_REASONS] for _ in range(arch.pes)]
        self.counts: Counter[str] = Counter()
        self.psums = np.zeros((geometry.pixels, geometry.K), np.int64)
        self.psum_done = np.zeros((geometry.pixels, geometry.K), bool)
        self.overflows = 0
        self.outputs_to_come = sum(program.outputs.values())  # tiles that are not done
        self.outputs = outputs_of(self.layer)
        self.rows = [work.elements for work in program.work if work.op in ROW_WORK]
        self.streaming = sum(work.elements for work in program.work if work.op not in ROW_WORK)
        # Elements in the global buffer that wait for the global PE, times pixels * K to be whole numbers.
        self.streaming_backlog = 0
        pixels = np.arange(geometry.pixels)
        self.gathered = [self.layer.spec.gather(group, pixels).tolist() for group in range(geometry.groups)]

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] += amount

    def share(self, stored: int, first: int, values: int) -> int:
        """Of a tensor, the bits that go with `values` of the layer's outputs from number `first` on."""
        return stored * (first + values) // self.outputs - stored * first // self.outputs

    def accumulate(self, a: int, b: int) -> int:
        """acc(a + b)"""
        low, high = -(1 << (self.psum_bits - 1)), (1 << (self.psum_bits - 1)) - 1
        exact = a + b
        if low <= exact <= high:
            return exact
        self.overflows += 1
        if self.arch.overflow == "error":
            raise OverflowError(f"layer {self.program.index}: {exact} does not fit {self.psum_bits} bits")
        if self.arch.overflow == "wrap":
            return (exact - low) % (1 << self.psum_bits) + low
        return high if exact > high else low

    def multiply(
        self, weights: list[int], w_scales: list[int], codes: list[int], a_scales: list[int]
    ) -> int | None:
        """The product of one lane, and its counts; None: nothing is added, where the machine gates that.

        A word has one scale, or one for each of its blocks, whose products are added.
        """
        scheme, size = self.layer.scheme, len(weights) // len(w_scales)
        blocks = [slice(b * size, (b + 1) * size) for b in range(len(w_scales))]
        gated = any(
            not any(any(word[b]) and scale for b, scale in zip(blocks, scales, strict=True))
            for word, scales in ((weights, w_scales), (codes, a_scales))
        )
        scales = [w * a for w, a in zip(w_scales, a_scales, strict=True)]
        if scheme.scale_product_bits:
            shift = scheme.weight.scale.bits + scheme.activation.scale.bits - scheme.scale_product_bits
            largest = (1 << scheme.scale_product_bits) - 1
            scales = [min((scale + (1 << (shift - 1))) >> shift, largest) for scale in scales]
        gates = self.arch.gate_on_scale_product
        nothing = None if gates != "none" else 0
        rounds = scheme.scale_product_bits > 0
        early = gates == "dot" and rounds  # the scale product comes before the dot product
        if early:
            self.count("scale_product.op")
        if gated or (early and not any(scales)):
            self.count("dot_product.gated")
            return nothing
        if early:
            self.count("operand_register.write")
        self.count("dot_product.op_changing" if self.has_local else "dot_product.op")
        if scheme.weight.scale.bits and scheme.activation.scale.bits and not early:
            self.count("scale_product.op")
        if gates != "none" and rounds and not any(scales):
            return nothing
        self.count("pipeline_register.write")
        if scheme.weight.scale.bits or scheme.activation.scale.bits:
            self.count("scale_multiply.op")
        shift = self.arch.product_shift
        total = 0
        for b, scale in zip(blocks, scales, strict=True):
            product = sum(w * a for w, a in zip(weights[b], codes[b], strict=True)) * scale
            total += (product + (1 << (shift - 1))) >> shift if shift else product
        return total
