# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""The mapper's model: one layer on the array, from its first request to its last write, in compiled code.

It follows the rules of docs/machine.md section 5 as the event model does, but for one layer by itself, walks
arrays instead of objects, and counts only what depends on the mapping. tests/test_mapper.py holds the two
against each other; results come from the event model.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
from numba import njit

from accelsim.mapping.layout.arrays import (
    CHANNELS,
    FETCHED,
    FIRST,
    FLAGS,
    LANE_GROUPS,
    LANES,
    LAST,
    LAST_OF_UNIT,
    PIXELS,
    POSITION_LAST,
    VECTORS,
)
from accelsim.mapping.layout.fetch_table import UNFIT_REGION, halves_free, input_sharing, operands
from accelsim.mapping.search.psum_table import global_pe_done, output_pixel_bits, psum_tiles, slots_to_issue
from accelsim.mapping.search.steps import (
    COUNT_DRAM_READ,
    COUNT_DRAM_WRITE,
    COUNT_GB_READ,
    COUNT_GB_WRITE,
    COUNT_HOPS,
    COUNT_INPUT_FILL,
    COUNT_PSUM_ADD,
    COUNT_PSUM_READ,
    COUNT_PSUM_WRITE,
    COUNT_WEIGHT_FILL,
    block_slots,
    count_block,
)

UNFIT_STAGING, TOO_SLOW = -4, -5
_NEVER = np.int64(1) << 60
_NO_FETCH = np.int64(1) << 40

# Phases of a cycle, and what happens in them.
_VISIBLE, _ACT, _GRANT, _LAST = 0, 1, 2, 3
(
    _ASK, _SEND, _ISSUE, _DRAIN, _OUTPUT, _SENT, _SPACE, _SPACE_WANTED, _DRAM, _CROSS, _LEAVE, _WRITE, _PASS,
) = range(13)  # fmt: skip


@njit(cache=True, nogil=True)
def run_layer(s, c, m, taps, counts, tail):
    """(end of the layer, its last issue slot over all PEs); end < 0 where a tile does not fit.

    counts: int64[COUNTS], added to; tail: int64[3], set to the cycles from which the next layer may ask for
    weights and fill the halves that its first and its second weight tile take.
    """
    refused, offset, table, weights, inputs, facts, bounds, staged_inputs = operands(s, c, m, taps)
    if refused:
        return refused, 0
    w_start, w_pos, w_of, w_stream, w_fetch, w_dest, w_owner = weights
    i_start, i_pos, i_of, _, i_fetch, i_dest, i_owner = inputs
    pes, pp_count = s.pes, c.pixel_split
    weight_streams, streams = len(w_stream) - 1, bounds.shape[1]
    weight_fetches, fetches = len(w_fetch) - 1, facts.shape[1]
    bits, dram, space, bank, rank, hops = facts[0], facts[1], facts[2], facts[3], facts[4], facts[5]
    next_ask, stop_fetch = bounds[0], bounds[1]
    first_fetch, next_send = next_ask.copy(), next_ask.copy()
    ready_at, left_at = np.full(fetches, _NEVER), np.full(fetches, _NEVER)
    stream_of_fetch = np.zeros(fetches, np.int64)
    one_each = 0
    for stream in range(streams):
        own = slice(next_ask[stream], stop_fetch[stream])
        stream_of_fetch[own] = stream
        if stream < weight_streams and next_ask[stream] < stop_fetch[stream]:
            one_each += bits[own].max()
    ahead = m.weight_region // one_each
    if s.weight_mode == 1:
        ahead = fetches
    asked_at = np.full(streams, -1)  # cycle of the latest read
    side = 1
    while side * side < pes:
        side += 1

    w_release, i_release = np.full(w_pos.shape[1], _NEVER), np.full(i_pos.shape[1], _NEVER)
    w_resident, i_resident = np.full(w_pos.shape[1], _NEVER), np.full(i_pos.shape[1], _NEVER)
    tile_first, piece_first, tile_block, tile_piece, outputs, largest_output = psum_tiles(
        s, c, m, offset, table
    )
    staging = m.kept_bits + (staged_inputs if s.input_mode == 2 else 0)
    if m.output_to_dram:
        staging += m.staging_tiles * pes * largest_output
    if staging > m.activation_region:
        return UNFIT_STAGING, 0
    tile_written = np.full(tile_first[pes], _NEVER)
    tile_start, tile_read = np.full(tile_first[pes], _NEVER), np.zeros(tile_first[pes], np.int64)
    summed = np.full(piece_first[pes], _NEVER)
    slots_left = slots_to_issue(m, offset, table)
    at_block, at_tile = offset[:pes].copy(), tile_first[:pes].copy()
    issue_end = np.full(pes, m.lead)
    drain_tile, drain_piece, drain_end = tile_first[:pes].copy(), np.zeros(pes, np.int64), np.full(pes, -1)
    at_piece = piece_first[:pes].copy()
    made = np.zeros(pes, np.int64)
    free_entries = np.full(pes, m.fifo)
    slots_free = np.full(pes, m.staging_tiles)
    # Output tiles in the order they are drained: entries, bits, values; a queue for each PE.
    queue_entries = np.zeros(piece_first[pes], np.int64)
    queue_bits, queue_values = queue_entries.copy(), queue_entries.copy()
    queue_head, queue_tail = piece_first[:pes].copy(), piece_first[:pes].copy()
    queue_sent, done_at = piece_first[:pes].copy(), piece_first[:pes].copy()
    bank_free = np.zeros(m.weight_banks + m.input_banks + m.output_banks, np.int64)
    in_free, out_free = np.zeros(pes, np.int64), np.zeros(pes, np.int64)
    psum_in_free, psum_out_free = in_free, out_free
    if m.psum_ports:
        psum_in_free, psum_out_free = np.zeros(pes, np.int64), np.zeros(pes, np.int64)
    dram_used, dram_space = 0, m.weight_region  # bits of the port's time; bits left
    waiting = np.zeros(weight_fetches + 1, np.int64)  # weights for space in their region
    waiting_head, waiting_tail = 0, 0
    out_pe, out_slot = np.zeros(outputs + 1, np.int64), np.zeros(outputs + 1, np.int64)
    out_count, written = 0, 0
    arrivals, arrived = np.zeros((outputs, 2), np.int64), 0
    last_write = 0
    # What is on the heap already: the same again would only be looked at twice.
    issue_at, drain_at = np.full(pes, -1), np.full(pes, -1)

    poked_for = np.int64(-1)
    half_free = (max(0, m.lead - m.lead_first), max(0, m.lead - m.lead_second))
    no_wait = (0, 0)
    heap = [(np.int64(0), np.int64(0), np.int64(0))]
    heap.pop()
    for stream in range(streams):
        waits = stream >= weight_streams or m.weights_wait
        heappush(heap, ((m.lead if waits else 0) * 4 + _ACT, np.int64(stream), np.int64(_ASK)))
        if not waits:
            for free in (*half_free, m.lead):
                heappush(heap, (free * 4 + _ACT, np.int64(stream), np.int64(_SEND if ahead else _ASK)))
    heappush(heap, (m.lead * 4 + _GRANT, _NEVER, np.int64(_SPACE_WANTED) + (_NO_FETCH << 8)))
    while heap:
        when, key, kind = heappop(heap)
        now = when >> 2
        if now > m.limit:
            return TOO_SLOW, 0
        if kind == _ASK:
            stream = key
            while next_ask[stream] < stop_fetch[stream]:
                f = next_ask[stream]
                weight = f < weight_fetches
                if dram[f] >= 0:
                    depth = ahead if weight else 2
                    free_at = np.int64(0)
                    if depth == 0:
                        free_at = halves_free(f, w_fetch, w_dest, w_owner, w_start, w_release, half_free)
                    elif f - first_fetch[stream] >= depth:
                        free_at = left_at[f - depth]
                    if free_at > now:
                        break  # whoever knows of it comes back
                    if asked_at[stream] == now:
                        heappush(heap, ((now + 1) * 4 + _ACT, stream, np.int64(_ASK)))
                        break
                    asked_at[stream] = now
                    counts[COUNT_DRAM_READ] += dram[f]
                    counts[COUNT_GB_WRITE] += -(-dram[f] // m.bank_bits)
                    kind_of = _SPACE_WANTED if weight else _DRAM
                    heappush(heap, (now * 4 + _GRANT, rank[f], np.int64(kind_of) + (f << 8)))
                else:
                    ready_at[f] = now
                next_ask[stream] += 1
                if weight:
                    tail[0] = now + 1
            heappush(heap, (now * 4 + _ACT, stream, np.int64(_SEND)))
        elif kind == _SEND:
            stream = key
            while next_send[stream] < stop_fetch[stream]:
                f = next_send[stream]
                if f < weight_fetches:
                    free_at = halves_free(f, w_fetch, w_dest, w_owner, w_start, w_release, half_free)
                else:
                    local = f - weight_fetches
                    free_at = halves_free(local, i_fetch, i_dest, i_owner, i_start, i_release, no_wait)
                if f < weight_fetches and f > first_fetch[stream]:
                    free_at = max(free_at, m.lead)
                if max(free_at, ready_at[f]) > now:
                    break  # whoever knows of it comes back
                next_send[stream] += 1
                heappush(heap, (now * 4 + _GRANT, rank[f], np.int64(_CROSS) + (f << 8)))
        elif kind & 255 == _SPACE_WANTED:
            if kind >> 8 != _NO_FETCH:
                waiting[waiting_tail] = kind >> 8
                waiting_tail += 1
            while waiting_head < waiting_tail and dram[waiting[waiting_head]] <= dram_space:
                f = waiting[waiting_head]
                if now < m.lead and not m.weights_wait:
                    # Ahead of the layer's start, and nothing else uses the port.
                    idle_at = max(now, -(-dram_used // m.dram_bits) - 1)
                    if idle_at > now:
                        if poked_for != idle_at:
                            poked_for = idle_at
                            heappush(
                                heap,
                                (idle_at * 4 + _GRANT, _NEVER, np.int64(_SPACE_WANTED) + (_NO_FETCH << 8)),
                            )
                        break
                    dram_used = (now + 1) * m.dram_bits
                    dram_used += dram[f]
                    ready_at[f] = max(now + 2, -(-dram_used // m.dram_bits)) + m.dram_latency
                    heappush(heap, (ready_at[f] * 4 + _ACT, stream_of_fetch[f], np.int64(_SEND)))
                else:
                    heappush(heap, (now * 4 + _LAST, rank[f], np.int64(_DRAM) + (f << 8)))
                waiting_head += 1
                dram_space -= dram[f]
        elif kind & 255 == _WRITE:
            o = kind >> 8
            begin = max((now + 1) * m.dram_bits, dram_used)
            dram_used = begin + queue_bits[out_slot[o]]
            end = max(begin // m.dram_bits + 1, -(-dram_used // m.dram_bits))
            written += 1
            last_write = max(last_write, end)
            heappush(heap, (end * 4 + _VISIBLE, out_pe[o], np.int64(_OUTPUT) + (1 << 8)))
        elif kind & 255 == _DRAM:
            f = kind >> 8
            begin = max((now + 1) * m.dram_bits, dram_used)
            dram_used = begin + dram[f]
            ready_at[f] = max(begin // m.dram_bits + 1, -(-dram_used // m.dram_bits)) + m.dram_latency
            heappush(heap, (ready_at[f] * 4 + _ACT, stream_of_fetch[f], np.int64(_SEND)))
        elif kind & 255 == _CROSS:
            f = kind >> 8
            weight = f < weight_fetches
            first_of, dest, owner = (w_fetch, w_dest, w_owner) if weight else (i_fetch, i_dest, i_owner)
            resident = w_resident if weight else i_resident
            local = f if weight else f - weight_fetches
            begin = max(now + 1, bank_free[bank[f]])
            for n in range(first_of[local], first_of[local + 1]):
                begin = max(begin, in_free[owner[dest[n]]])
            end = begin + max(1, -(-bits[f] // m.crossbar_bits))
            bank_free[bank[f]] = end
            arrival = end + m.noc_latency
            for n in range(first_of[local], first_of[local + 1]):
                at = dest[n]
                in_free[owner[at]] = end
                resident[at] = arrival
                heappush(heap, (arrival * 4 + _ACT, owner[at], np.int64(_ISSUE)))
                # A tile that is kept stays resident through the later positions.
                pos, last = (w_pos, w_start[owner[at] + 1]) if weight else (i_pos, i_start[owner[at] + 1])
                after = at + 2
                while after < last and not pos[FETCHED, after]:
                    resident[after] = arrival
                    after += 2
                if weight:
                    counts[COUNT_WEIGHT_FILL] += bits[f] // s.weight_bits
                else:
                    counts[COUNT_INPUT_FILL] += bits[f] // s.input_bits
            counts[COUNT_GB_READ] += -(-bits[f] // m.bank_bits)
            counts[COUNT_HOPS] += bits[f] * hops[f]
            if space[f]:
                heappush(heap, (end * 4 + _VISIBLE, space[f], np.int64(_SPACE)))
            left_at[f] = end
            stream = stream_of_fetch[f]
            after = f + (ahead if weight else 2)
            if after < stop_fetch[stream] and dram[after] >= 0:
                heappush(heap, (end * 4 + _ACT, stream, np.int64(_ASK)))
        elif kind == _SPACE:
            dram_space += key
            if waiting_head < waiting_tail:
                heappush(heap, (now * 4 + _GRANT, np.int64(-1), np.int64(_SPACE_WANTED) + (_NO_FETCH << 8)))
        elif kind == _ISSUE:
            pe = key
            b = at_block[pe]
            if b == offset[pe + 1] or issue_end[pe] > now:
                continue
            flags, pixels, vectors = table[FLAGS, b], table[PIXELS, b], table[VECTORS, b]
            j = at_tile[pe]
            ready = max(w_resident[w_of[b]], i_resident[i_of[b]])
            if flags & FIRST and j - tile_first[pe] >= 2:
                ready = max(ready, tile_start[j - 2], tile_read[j - 2] - m.write_latency + 1)
            if ready > now:
                if ready < _NEVER and issue_at[pe] != ready:
                    issue_at[pe] = ready
                    heappush(heap, (ready * 4 + _ACT, pe, np.int64(_ISSUE)))
                continue
            slots, last_step, weights_read = block_slots(m.passes, pixels, vectors)
            slots_left[pe] -= slots
            if now + slots + slots_left[pe] + m.row_cycles > m.limit:
                return TOO_SLOW, 0
            count_block(m, counts, pixels, vectors, table[LANES, b], flags & FIRST != 0)
            issue_end[pe] = now + slots
            at_block[pe] += 1
            heappush(heap, ((now + slots) * 4 + _ACT, pe, np.int64(_ISSUE)))
            if w_pos[POSITION_LAST, w_of[b]] == b:
                w_release[w_of[b]] = now + weights_read + 1
                kind_of = _SEND if ahead else _ASK
                heappush(heap, (w_release[w_of[b]] * 4 + _ACT, pe // pp_count, np.int64(kind_of)))
            if i_pos[POSITION_LAST, i_of[b]] == b:
                i_release[i_of[b]] = now + last_step + 1
                key = weight_streams + pe % input_sharing(s, c)
                heappush(heap, (i_release[i_of[b]] * 4 + _ACT, key, np.int64(_SEND)))
            if flags & LAST:
                tile_written[j] = now + last_step + m.write_latency
                at_tile[pe] += 1
                heappush(heap, ((tile_written[j] + 1) * 4 + _ACT, pe, np.int64(_DRAIN)))
                if pe // pp_count % c.c_split > 0:
                    heappush(heap, ((tile_written[j] + 1) * 4 + _ACT, pe - pp_count, np.int64(_DRAIN)))
        elif kind == _DRAIN:
            pe = key
            part = pe // pp_count % c.c_split
            while drain_tile[pe] < at_tile[pe]:
                j = drain_tile[pe]
                b = tile_block[j]
                all_pixels = table[PIXELS, b]
                pixels = min(m.piece, all_pixels - drain_piece[pe] * m.piece)
                last_piece = (drain_piece[pe] + 1) * m.piece >= all_pixels
                ready = tile_written[j] if part == 0 else summed[at_piece[pe]]
                if part < c.c_split - 1:
                    theirs = tile_written[tile_first[pe + pp_count] + j - tile_first[pe]]
                    ready = max(ready, theirs) + 1
                    if ready > now:
                        if ready < _NEVER and drain_at[pe] != ready:
                            drain_at[pe] = ready
                            heappush(heap, (ready * 4 + _ACT, pe, np.int64(_DRAIN)))
                        break
                    order = (np.int64(pe) << 32) + made[pe]
                    made[pe] += 1
                    code = ((j << 20) + (at_piece[pe] - piece_first[pe])) << 8
                    heappush(heap, (now * 4 + _GRANT, order, np.int64(_PASS) + code))
                else:
                    makes = table[FLAGS, b] & LAST_OF_UNIT != 0 or not m.staged
                    spacing = table[LANE_GROUPS, b] if m.staged and makes else 1
                    entries = pixels * spacing if makes else 0
                    ready = max(ready, drain_end[pe]) + 1
                    if ready > now:
                        if ready < _NEVER and drain_at[pe] != ready:
                            drain_at[pe] = ready
                            heappush(heap, (ready * 4 + _ACT, pe, np.int64(_DRAIN)))
                        break
                    if free_entries[pe] < entries:
                        break  # whoever frees entries comes back
                    free_entries[pe] -= entries
                    drain_end[pe] = now + pixels * spacing - 1
                    counts[COUNT_PSUM_READ] += pixels
                    if last_piece:
                        tile_start[j], tile_read[j] = now, now + (pixels - 1) * spacing
                        heappush(heap, (now * 4 + _ACT, pe, np.int64(_ISSUE)))
                    if makes:
                        q = queue_tail[pe]
                        queue_tail[pe] += 1
                        queue_entries[q] = entries
                        queue_bits[q] = pixels * output_pixel_bits(s, m, table, b)
                        queue_values[q] = pixels * (table[CHANNELS, b] if m.staged else table[LANES, b])
                        complete = drain_end[pe] + m.ppu_latency
                        heappush(heap, (complete * 4 + _VISIBLE, np.int64(pe), np.int64(_OUTPUT)))
                at_piece[pe] += 1
                drain_piece[pe] += 1
                if last_piece:
                    drain_tile[pe] += 1
                    drain_piece[pe] = 0
        elif kind & 255 == _PASS:
            code = kind >> 8
            j, piece = code >> 20, code & ((1 << 20) - 1)
            b = tile_block[j]
            pe = key >> 32
            target = pe + pp_count
            number = piece - tile_piece[j]
            pixels = min(m.piece, table[PIXELS, b] - number * m.piece)
            values = pixels * table[LANES, b]
            size = values * m.accumulator_bits
            begin = max(now + 1, psum_out_free[pe], psum_in_free[target])
            end = begin + max(pixels, -(-size // m.psum_bits))
            psum_out_free[pe] = psum_in_free[target] = end
            counts[COUNT_HOPS] += size * (abs(pe % side - target % side) + abs(pe // side - target // side))
            counts[COUNT_PSUM_READ] += 2 * pixels
            counts[COUNT_PSUM_WRITE] += pixels
            counts[COUNT_PSUM_ADD] += values
            if (number + 1) * m.piece >= table[PIXELS, b]:
                tile_start[j], tile_read[j] = begin, end - 1
                heappush(heap, (begin * 4 + _ACT, pe, np.int64(_ISSUE)))
            arrival = end + m.noc_latency
            summed[piece_first[target] + piece] = arrival
            heappush(heap, ((arrival + 1) * 4 + _ACT, target, np.int64(_DRAIN)))
        elif kind & 255 == _OUTPUT:
            pe = key
            if kind >> 8:
                slots_free[pe] += 1
            else:
                done_at[pe] += 1
            while queue_head[pe] < done_at[pe]:
                if m.output_to_dram:
                    if slots_free[pe] == 0:
                        break
                    slots_free[pe] -= 1
                q = queue_head[pe]
                queue_head[pe] += 1
                out_pe[out_count], out_slot[out_count] = pe, q
                order = ((4096 + np.int64(pe)) << 32) + q - piece_first[pe]
                heappush(heap, (now * 4 + _GRANT, order, np.int64(_LEAVE) + (out_count << 8)))
                out_count += 1
        elif kind & 255 == _LEAVE:
            o = kind >> 8
            pe, q = out_pe[o], out_slot[o]
            at = m.weight_banks + m.input_banks + pe % m.output_banks
            begin = max(now + 1, bank_free[at], out_free[pe])
            end = begin + max(1, -(-queue_bits[q] // m.crossbar_bits))
            bank_free[at] = out_free[pe] = end
            counts[COUNT_GB_WRITE] += -(-queue_bits[q] // m.bank_bits)
            counts[COUNT_HOPS] += queue_bits[q] * (1 + pe % side + pe // side)
            heappush(heap, (end * 4 + _VISIBLE, pe, np.int64(_SENT)))
            arrival = end + m.noc_latency
            arrivals[arrived, 0], arrivals[arrived, 1] = arrival, queue_values[q]
            arrived += 1
            if m.output_to_dram:
                counts[COUNT_DRAM_WRITE] += queue_bits[q]
                counts[COUNT_GB_READ] += -(-queue_bits[q] // m.bank_bits)
                order = ((4096 + np.int64(pe)) << 32) + q - piece_first[pe]
                heappush(heap, (arrival * 4 + _GRANT, order, np.int64(_WRITE) + (o << 8)))
            else:
                written += 1
                last_write = max(last_write, arrival)
        elif kind == _SENT:
            pe = key
            free_entries[pe] += queue_entries[queue_sent[pe]]
            queue_sent[pe] += 1
            heappush(heap, (now * 4 + _ACT, pe, np.int64(_DRAIN)))
    counts[COUNT_GB_READ] += m.global_pe_words
    counts[COUNT_GB_WRITE] += m.global_pe_words
    if written < outputs:
        return UNFIT_REGION, 0
    end = global_pe_done(s, m, arrivals[:arrived], last_write)
    for pe in range(pes):
        last = w_start[pe + 1] - 1
        if last >= w_start[pe]:
            tail[2] = max(tail[2], w_release[last])
        if last > w_start[pe]:
            tail[1] = max(tail[1], w_release[last - 1])
    tail -= m.lead
    if end > m.limit:
        return TOO_SLOW, 0
    return end - m.lead, issue_end.max() - m.lead
