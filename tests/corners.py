"""What random runs are counted by: the corners that the two models must have been compared in."""

from __future__ import annotations

from collections import Counter

from cycle_model.machine import Machine
from cycle_model.program import LayerProgram
from cycle_model.sizes import outputs_of, region_bits
from cycle_model.steps import FOR_NODES, ROW_WORK


def see_machine(seen: Counter[str], machine: Machine) -> None:
    arch = machine.arch
    seen[f"{len(machine.layers)} layers"] += 1
    seen["fifo of one d-tile"] += arch.out_fifo_words == arch.accumulation_collector_depth
    seen["V > L"] += arch.vector_size > arch.lanes
    seen["V < L"] += arch.vector_size < arch.lanes
    seen["D = 1"] += arch.accumulation_collector_depth == 1
    seen[f"accumulate latency {arch.accumulate_latency}"] += 1
    seen[f"dot product in {arch.dot_stages} stages, scaling in {arch.scale_stages}"] += 1


def see_layer(seen: Counter[str], machine: Machine, program: LayerProgram) -> None:
    layer, mapping, place = program.layer, program.mapping, program.placement
    seen["groups"] += layer.geometry.groups > 1
    seen["packed_im2col"] += layer.spec.packed_im2col
    rows = {work.op in ROW_WORK for work in program.work}
    seen["streaming and row work"] += len(rows) == 2
    seen[f"order {mapping.order}"] += 1
    chunked = mapping.units_per_tile == 0 and mapping.chunk_vectors < layer.spec.G
    seen["chunked"] += chunked and not mapping.chunk_inputs
    seen["chunked with inputs"] += chunked and mapping.chunk_inputs
    seen["packed_im2col, chunked with inputs"] += (
        chunked and mapping.chunk_inputs and layer.spec.packed_im2col
    )
    seen["several units a tile"] += mapping.units_per_tile > 1
    ahead = ""
    if place.weights == "streamed":
        assert program.weight_prefetch_depth is not None
        ahead = (
            ", 3 or more ahead"
            if program.weight_prefetch_depth > 2
            else f", {program.weight_prefetch_depth} ahead"
        )
    seen[f"weights {place.weights}{ahead}"] += 1
    seen[f"{machine.arch.output_staging_tiles} staging tiles"] += place.staged
    after = "goes to DRAM" if place.written else "stays"
    seen[f"input {place.input}, output {after}"] += 1
    seen["a tensor between layers in DRAM"] += program.index > 0 and place.input != "gb"
    seen["weights of a later layer from DRAM"] += program.index > 0 and place.weights != "gb"
    for operand, streams in program.streams.items():
        fetches = [fetch for stream in streams.values() for fetch in stream]
        seen[f"{operand} multicast"] += any(len(fetch.positions) > 1 for fetch in fetches)
        if operand == "weight" and place.weights != "gb":
            longest, limit = max(map(len, streams.values())), program.weight_prefetch_depth
            seen[f"weights {place.weights}{ahead}, a stream of more"] += limit is None or longest > limit
        tiles = {fetch.tile.key for fetch in fetches}
        seen[f"{operand} sent again"] += len(fetches) > len(tiles)
        if operand == "input":
            seen["input tile without words"] += any(fetch.tile.bits == 0 for fetch in fetches)
    blocks = [b for own in machine.program.blocks for b in own if b.layer == program.index]
    seen["staged"] += any(block.psum_tile.staged_away for block in blocks)
    seen["staged, partial unit"] += len({block.psum_tile.gathers for block in blocks}) > 2
    seen["PE without work"] += 0 in program.leaving.values()


def see_features(seen: Counter[str], machine: Machine, program: LayerProgram) -> None:
    """The corners of chains, dataflows and bank groups."""
    arch, layer, mapping = machine.arch, program.layer, program.mapping
    dataflow, parts = mapping.dataflow, mapping.c_split
    own = [[b for b in blocks if b.layer == program.index] for blocks in machine.program.blocks]
    blocks = [block for mine in own for block in mine]
    tiles = {block.psum_tile for block in blocks}
    chunks = max(block.context[-1] for block in blocks) + 1
    staged = any(tile.staged_away for tile in tiles)
    pieces = max(len(tile.pieces) for tile in tiles)
    seen[dataflow] += 1
    seen[f"{dataflow}, chunked"] += chunks > 1
    seen[f"{dataflow}, staged"] += staged
    seen[f"{dataflow}, multicast of weights"] += any(
        len(fetch.positions) > 1 for fetches in program.streams["weight"].values() for fetch in fetches
    )
    if program.index:
        before = machine.layers[program.index - 1].mapping
        seen["dataflow changes"] += before.dataflow != dataflow
        seen["chain after none"] += parts > 1 == before.c_split
        seen["none after chain"] += before.c_split > 1 == parts
    if program.placement.weights == "gb":
        largest = max(block.weight_tile.bits for block in blocks)
        seen["weights gb, a tile beyond the weight region"] += largest > region_bits(arch)[0]
    seen["bank groups given"] += arch.gb_weight_banks is not None
    seen["weight region given"] += arch.gb_weight_kb is not None
    if dataflow in ("os", "ws-los"):
        seen[f"{dataflow}, local latency {arch.local_accumulate_latency}"] += 1
        short = {len(block.psum_tile.pixels) * arch.local_accumulate_latency for block in blocks}
        seen[f"{dataflow}, pads after a pass"] += min(short) < arch.accumulate_latency
        seen[f"{dataflow}, a last chunk is shorter"] += len({len(block.vectors) for block in blocks}) > 1
    if dataflow in ("ws-los", "ws"):
        depth, half = arch.accumulation_collector_depth, arch.accumulation_buffer_words // 2
        seen[f"{dataflow}, several pieces"] += pieces > 1
        seen[f"{dataflow}, a last piece is shorter"] += any(
            len(tile.pieces[-1].pixels) < len(tile.pieces[0].pixels) for tile in tiles
        )
        seen[f"{dataflow}, half buffer below D"] += half < depth
    if dataflow == "ws-los":
        seen["several passes"] += any(len(block.vectors) > arch.weight_collector_depth for block in blocks)
        seen["last pass shorter"] += any(
            len(block.vectors) > arch.weight_collector_depth
            and len(block.vectors) % arch.weight_collector_depth > 0
            for block in blocks
        )
    if parts > 1:
        sizes = {len({g for block in mine for g in block.vectors}) for mine in own if mine}
        seen[f"{dataflow}, chain"] += 1
        seen["chain of 2"] += parts == 2
        seen["chain of 3 or more"] += parts >= 3
        seen["parts of unequal length"] += len(sizes) > 1
        seen["chain, chunked"] += chunks > 1
        seen["chain, chunked with inputs"] += chunks > 1 and mapping.chunk_inputs
        seen["chain, a PE lacks the last chunk"] += len({mine[-1].context[-1] for mine in own if mine}) > 1
        seen["chain, staged"] += staged
        seen["chain, several pieces"] += pieces > 1
        seen["chain, groups"] += layer.geometry.groups > 1
        seen["chain, packed_im2col"] += layer.spec.packed_im2col
        seen["chains beside each other"] += mapping.pixel_split > 1
        seen["chains of several units"] += mapping.k_split > 1
        seen["chain, output stays"] += not program.placement.written
        seen["chain, order PK"] += mapping.order == "PK"
        ports = "" if arch.psum_port_bits is None else " of its own"
        width = arch.psum_port_bits or arch.pe_port_bits
        entry_bits = [len(tile.channels) * arch.accumulator_width(layer.scheme) for tile in tiles]
        seen[f"psum entry of several rounds of a port{ports}"] += any(bits > width for bits in entry_bits)
        seen[f"several psum entries in a cycle{ports}"] += any(2 * bits <= width for bits in entry_bits)


def see_graph(seen: Counter[str], machine: Machine) -> None:
    """The corners of graphs: residents, what nodes read and write, steps without a layer, the host."""
    placed = machine.program.placed
    steps, tensors = placed.steps, placed.tensors
    seen[f"{min(len(placed.prologue), 3)} steps without a layer"] += 1
    for step in placed.prologue:
        seen["a step without a layer writes"] += bool(step.written)
        seen[f"a step without a layer reads {min(len(step.reads), 2)} tensors"] += 1
    for name in tensors:
        by_host = tensors[name].made_in is None and tensors[name].there_after >= 0
        seen["made on the host and read by a step"] += by_host and bool(tensors[name].readers)
    for i, step in enumerate(steps):
        before = placed.residents[i - 1] if i else frozenset()
        after = placed.residents[i]
        later = {name for name, tensor in tensors.items() if any(reader > i for reader in tensor.readers)}
        where = "a layer" if step.layer is not None else "a step without a layer"
        seen[f"{where} reads a resident operand"] += bool(before & set(step.operands))
        seen[f"{where}: a bystander is resident"] += any(not step.reads(name) for name in before & after)
        seen[f"{where}: what it read stays"] += any(step.reads(name) for name in before & after)
        seen[f"{where}: what it read goes before its last reader"] += bool((before - after) & later)
        seen[f"{where} makes what is resident"] += bool(after & set(step.makes))
        seen[f"{where} makes what nobody reads again"] += not later & set(step.makes)
        if step.layer is None:
            continue
        layer, place = machine.layers[step.layer].layer, machine.layers[step.layer].placement
        spilled, written = [m.name for m in place.spilled], [m.name for m in place.written]
        stays = "stays" if step.input in after else "goes"
        if step.input in later:
            seen[f"{place.input} input that a later step reads {stays}"] += 1
        if place.input == "streamed":
            seen["streamed beside residents"] += place.kept > 0
            seen["streamed with nothing beside it"] += place.kept == 0
        seen["a written tensor is resident"] += bool(after & set(written))
        seen["a resident tensor is not written"] += bool(after & set(step.makes) - set(written))
        seen[f"{min(len(spilled), 2)} spilled operands"] += 1
        seen[f"{min(len(written), 2)} written tensors" + " beside spilled operands" * bool(spilled)] += 1
        seen["its input is a spilled operand too"] += step.input in spilled
        seen["its input is a resident operand too"] += step.input in before & set(step.operands)
        seen["a written node is smaller"] += any(
            tensors[name].stored < tensors[step.makes[0]].stored for name in written if name != step.makes[0]
        )
        seen["a written node is larger"] += any(
            tensors[name].stored > tensors[step.makes[0]].stored for name in written if name != step.makes[0]
        )
        seen["the layer's own output is not written, a node's is"] += bool(
            written and step.makes[0] not in written
        )
        run = machine.runs[step.layer]
        tiles = [first for own in run.program.first_outputs.values() for first in own]
        cuts = [*tiles[1:], outputs_of(layer)]
        for names, what in ((place.spilled, "spilled"), (place.written, "written")):
            seen[f"a {what} share of no bits"] += any(
                run.share(moved.stored, first, end - first) == 0
                for moved in names
                for first, end in zip(tiles, cuts, strict=True)
            )
        seen["nodes without a host's rows"] += len(step.work) > 1 and not run.rows
        seen["rows and a spilled operand"] += bool(run.rows and spilled)
        if spilled:
            mapping = run.program.mapping
            seen[f"spilled operands, {machine.arch.output_staging_tiles} staging tiles"] += 1
            seen["spilled operands, chain"] += mapping.c_split > 1
            seen["spilled operands, PEs"] += mapping.k_split * mapping.pixel_split > 1
            own = (b for blocks in machine.program.blocks for b in blocks if b.layer == step.layer)
            seen["spilled operands, staged"] += any(block.psum_tile.staged_away for block in own)
        if step.weight is not None:
            made = "made by a step" if tensors[step.weight].made_in is not None else "from outside"
            seen[f"weights {place.weights}" + (f", {made}" if place.weights != "gb" else "")] += 1
            seen["weights and input are one tensor"] += step.weight == step.input
            seen["weights gb at the first layer"] += place.weights == "gb" and step.layer == 0


def see_residuals(seen: Counter[str], machine: Machine) -> None:
    """The corners of a format for residuals: who writes it, beside which other, and where its copies are."""
    placed = machine.program.placed
    for program in machine.layers:
        scales, layer, place = (
            [out.scale.bits > 0 for out in program.formats],
            program.layer,
            program.placement,
        )
        own = (layer.output.operand.bits, layer.output.operand.scale.bits)
        first = (program.formats[0].bits, program.formats[0].scale.bits)
        kind = "two formats" if len(scales) == 2 else "one format" if first == own else "residuals' format"
        seen[f"a PPU writes {kind}"] += 1
        seen[f"{kind}: output tiles with a chain before them"] += program.mapping.c_split > 1
        seen[f"{kind}: in groups"] += layer.geometry.groups > 1
        blocks = [b for blocks in machine.program.blocks for b in blocks if b.layer == program.index]
        seen[f"{kind}: staged"] += any(block.psum_tile.staged_away for block in blocks)
        seen["two formats, one of them with scales"] += len(set(scales)) == 2
        for names, what in ((place.spilled, "spilled"), (place.written, "written")):
            seen[f"a copy for nodes is {what}"] += any(moved.name.endswith(FOR_NODES) for moved in names)
        written = {moved.name for moved in place.written}
        seen["both copies are written"] += any(name + FOR_NODES in written for name in written)
        work = [len(own.written_bits) for own in program.work]
        seen["a node writes two formats"] += 2 in work
    for step in placed.prologue:
        seen["a step without a layer writes two copies"] += len(step.written) == 2
    for before in placed.residents:
        copies = [name for name in before if name + FOR_NODES in placed.tensors]
        seen["both copies are resident"] += any(name + FOR_NODES in before for name in copies)
        seen["a copy for layers is resident alone"] += any(name + FOR_NODES not in before for name in copies)
