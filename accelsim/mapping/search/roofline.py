"""How many cycles a mapping takes by its busiest resource: what the model is run on first."""

from __future__ import annotations

from accelsim.machine import timing
from accelsim.machine.dataflows import DATAFLOWS, DataflowName, block_slots
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency, output_bits
from accelsim.mapping.search.sizes import Sizes


class Roofline:
    """Of one layer, wherever its operands live. It knows no waiting but for DRAM's latency."""

    def __init__(self, sizes: Sizes, residency: Residency) -> None:
        arch, layer = sizes.arch, sizes.layer
        self._sizes, self.residency = sizes, residency
        self._passes = {name: timing.passes(arch, name) for name in DATAFLOWS}
        self._depth = {name: timing.psum_store_pixels(arch, name) for name in DATAFLOWS}
        self._slots: dict[tuple[DataflowName, int, int], int] = {}
        self._all_slots: dict[tuple[DataflowName, int, int, int, int, int], int] = {}
        self._weights_from_dram = residency.weights != "gb"
        self._input_from_dram = residency.input != "gb"
        self._weights_again = residency.weights == "streamed"
        self._input_again = residency.input == "streamed"
        self._beside_bits = sum(residency.written_bits) + sum(residency.spilled_bits)
        self._width, self._dram_bits = arch.crossbar_bits, arch.dram_bits
        self._banks, self._weight_region_bits = arch.bank_groups, arch.weight_region_bits
        self._dram_latency, self._psums_share = arch.dram_latency_cycles, arch.psum_port_bits is None
        self._output_cycles = output_bits(layer) / self._width / self._banks[2]
        self._psum_bits = arch.accumulator_width(layer.scheme) * arch.lanes / arch.psum_bits

    def _block_slots(self, dataflow: DataflowName, pixels: int, vectors: int) -> int:
        key = dataflow, pixels, vectors
        if key not in self._slots:
            self._slots[key] = block_slots(self._passes[dataflow], pixels, vectors).slots
        return self._slots[key]

    def _slots_of(
        self, dataflow: DataflowName, depth: int, pixels: int, tile_pixels: int, chunk: int, chunks: int
    ) -> int:
        """Of a lane group's blocks: most mappings share them with others."""
        key = dataflow, depth, pixels, tile_pixels, chunk, chunks
        if key not in self._all_slots:
            slots = 0
            tiles, rest = divmod(pixels, tile_pixels)
            for count, size in ((tiles, tile_pixels), (1, rest)):
                whole, part = divmod(size, depth)
                if whole:
                    slots += count * whole * chunks * self._block_slots(dataflow, depth, chunk)
                if part:
                    slots += count * chunks * self._block_slots(dataflow, part, chunk)
            self._all_slots[key] = slots
        return self._all_slots[key]

    def blocks(self, mapping: LayerMapping) -> int:
        """About how many there are for the model to run."""
        sizes = self._sizes
        pixels = -(-sizes.pixels // mapping.pixel_split)
        d_tiles = -(-pixels // min(mapping.d_tile_of(self._depth[mapping.dataflow]), mapping.tile_pixels))
        vectors = sizes.part_vectors(mapping.c_split)
        chunks = 1 if mapping.units_per_tile else -(-vectors // min(mapping.chunk_vectors, vectors))
        chains = mapping.pixel_split * mapping.c_split
        return sizes.units * sizes.lane_groups * d_tiles * chunks * chains

    def cycles(self, mapping: LayerMapping) -> float:
        sizes = self._sizes
        geometry = sizes.geometry
        depth, dataflow = mapping.d_tile_of(self._depth[mapping.dataflow]), mapping.dataflow
        pixels = -(-sizes.pixels // mapping.pixel_split)
        units = -(-sizes.units // mapping.k_split)
        lane_groups = sizes.lane_groups
        vectors, run = sizes.part_vectors(mapping.c_split), sizes.run
        chunk = min(mapping.chunk_vectors, vectors) if not mapping.units_per_tile else vectors
        chunks = -(-vectors // chunk)
        tiles, rest = divmod(pixels, mapping.tile_pixels)
        slots = self._slots_of(dataflow, depth, pixels, mapping.tile_pixels, chunk, chunks)
        compute = units * lane_groups * slots
        pixel_tiles = tiles + (rest > 0)
        d_tiles = -(-pixels // min(depth, mapping.tile_pixels))
        unit_tiles = -(-units // max(1, mapping.units_per_tile))
        weight_tiles = lane_groups * chunks if not mapping.units_per_tile else 1
        weights_sent = inputs_sent = 1
        if weight_tiles > 2:
            weights_sent = d_tiles
        elif mapping.order == "PK" and unit_tiles * weight_tiles > 2:
            weights_sent = pixel_tiles
        if mapping.chunk_inputs and chunks > 2:
            inputs_sent = units * lane_groups
        elif mapping.order == "KP" and pixel_tiles > 2:
            inputs_sent = unit_tiles
        weights = (
            min(units * sizes.unit_channels, geometry.K) * vectors * sizes.weight_bits / run * weights_sent
        )
        span = chunk if mapping.chunk_inputs else vectors
        tile_pixels = min(mapping.tile_pixels, pixels)
        tile = sizes.input_words(mapping.c_split, tile_pixels, span) * sizes.input_bits / run
        groups = 1 if sizes.groups == 1 else -(-sizes.groups // mapping.k_split)
        inputs = tile * pixel_tiles * (chunks if mapping.chunk_inputs else 1) * inputs_sent * groups
        width = self._width
        weight_banks, input_banks, _ = self._banks
        weight_streams = mapping.k_split * mapping.c_split
        input_streams = mapping.c_split * mapping.pixel_split * (1 if sizes.groups == 1 else mapping.k_split)
        per_weight_bank = -(-weight_streams // min(weight_banks, weight_streams))
        per_input_bank = -(-input_streams // min(input_banks, input_streams))
        dram = float(self._beside_bits)
        if self._weights_from_dram:
            dram += weights * weight_streams / (1 if self._weights_again else weights_sent)
        if self._input_from_dram:
            stored = inputs * sizes.stored_share(tile_pixels)
            dram += stored * input_streams / (1 if self._input_again else inputs_sent)
        psums = units * lane_groups * pixels * self._psum_bits if mapping.c_split > 1 else 0.0
        busiest = max(
            compute,
            (weights + inputs) / width + (psums if self._psums_share else 0.0),
            psums,
            weights * per_weight_bank / width,
            inputs * per_input_bank / width,
            self._output_cycles,
        )
        weight_tile = weights / (weights_sent * unit_tiles * weight_tiles)
        waited = 0.0
        if self._weights_again:
            fetches = unit_tiles * weight_tiles * weights_sent
            ahead = self._weight_region_bits // max(1, int(weight_tile * weight_streams))
            waited = fetches * self._dram_latency / max(1, ahead)
        if self._input_from_dram:
            fetches = pixel_tiles * (chunks if mapping.chunk_inputs else 1) * groups
            fetches *= inputs_sent if self._input_again else 1
            waited = max(waited, fetches * self._dram_latency / timing.INPUT_PREFETCH_DEPTH)
        # A first tile has to come before anything starts; what comes last from DRAM is worked on after it.
        first = (weight_tile * per_weight_bank + tile * per_input_bank) / width
        input_tiles = pixel_tiles * (chunks if mapping.chunk_inputs else 1)
        last = compute / max(unit_tiles * weight_tiles * weights_sent, input_tiles * inputs_sent)
        return max(busiest, waited, dram / self._dram_bits + last) + first
