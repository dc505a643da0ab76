"""All of a layer while it runs that can still change what happens (docs/timing.md, Long layers)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from accelsim.mapping.layout.iterations import Iterations, Place, Places
from accelsim.sim.array import Array
from accelsim.sim.drain import Drain, PsumTile
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.transfers import OutputTransfer

_END = Iterations.end
Of = tuple[Places, Places]
"""All places that somebody comes to, and those of them at which they wait for something."""


def layer_state(
    array: Array, run: LayerRun, iterations: Iterations
) -> tuple[list[tuple[Of, Place]], object, int]:
    """Places in the program, all else that can still change what happens, in cycles from now, and for how
    many bits DRAM's port is busy."""
    now, index, fabric = array.clock.cycle, run.index, array.fabric
    places: list[tuple[Of, Place]] = []
    others: list[object] = []

    def place(of: Places, number: int, reads: Places | None = None) -> None:
        places.append(((of, of if reads is None else reads), of[number] if number < len(of) else _END))

    for pe in array.pes:
        drain, blocks = pe.drain, iterations.blocks[pe.index]
        if not len(blocks):
            continue
        number = pe.block if pe.layer == index else 0 if pe.layer < index else len(blocks)
        place(blocks, number)
        done = number >= len(blocks)
        floor = now if done else pe.issue_end
        tiles = iterations.tiles[pe.index]
        issued = pe.psum_tile if pe.layer == index else 0 if pe.layer < index else len(tiles)
        place(tiles, drain.next_tile(index))
        others.append(
            (
                0 if done else pe.issue_end - now,
                pe.weights.around(index, pe.weight_position, floor, now),
                pe.inputs.around(index, pe.input_position, floor, now),
                drain.state(run, issued, floor, now),
            )
        )
    streams = [*array.weight_streams[index], *array.input_streams[index]]
    own = {}
    for number, stream in enumerate(streams):
        fetches = iterations.fetches[number]
        own[stream.kind, stream.stream.leader] = stream, fetches
        # What is not read from DRAM is asked at once, to the last.
        place(fetches, stream.asked, iterations.reads[number])
        place(fetches, stream.sent)
        others.append(stream.under_way(now))
    busy, space, waiting = fabric.dram.state(now)
    requests = []
    for key, bits in waiting:
        kind, leader, layer, number = key
        if layer == index and (kind, leader) in own:
            stream, fetches = own[kind, leader]
            place(fetches, stream.number_of(key))
            number = 0
        requests.append((kind, leader, layer, number, bits))
    others += [fabric.crossbar.state(now), space, tuple(requests), fabric.dram.looks_in(now)]
    for later in array.weight_streams[index + 1 :]:
        others.append([stream.state(now) for stream in later])
        if not any(stream.asked for stream in later):
            break
    if index + 1 < len(array.runs):
        others.append([pe.weights.ahead(index + 1, now) for pe in array.pes])
    others += [max(0, run.last_write - now), run.weights_asked.triggered]
    due = [(cycles, priority, _what(action, now)) for cycles, priority, action in array.clock.pending()]
    others.append(sorted(due, key=repr))
    return places, repr(others), busy


def _what(action: Callable[[], None] | None, now: int) -> object:
    """What the clock is to do, by what it is done to."""
    if action is None:
        return None
    arguments: tuple[object, ...] = ()
    if isinstance(action, partial):
        arguments, action = action.args, action.func
    owner, name = getattr(action, "__self__", None), getattr(action, "__name__", "")
    if name == "send_psums":
        arguments = arguments[:-1]  # pieces of a PE go in order
    return name, *(_name(item, now) for item in (owner, *arguments))


def _name(item: object, now: int) -> object:
    if isinstance(item, Drain):
        return item.index
    if isinstance(item, OutputTransfer):
        return item.source.index, _size(item.tile), item.there - now, item.to_move
    if isinstance(item, PsumTile):
        return None  # the next that its PE sends
    if isinstance(item, int):
        return item
    return _size(item) if hasattr(item, "entries") else type(item).__name__


def _size(tile: Any) -> object:
    return tile.values, tile.bits, tile.entries, tile.spilled, tile.written
