"""Mappings that differ from one in one choice: what the search goes on to from the best that it knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.search.candidates import Split, one_order
from accelsim.mapping.search.sizes import Sizes


def neighbours(sizes: Sizes, mapping: LayerMapping) -> list[LayerMapping]:
    """Each once, but for those that pins rule out; the other choices follow along where they have to."""
    return [own for own in admitted(sizes, _one_choice_away(sizes, mapping)) if own != mapping]


def wider(sizes: Sizes, mapping: LayerMapping) -> list[LayerMapping]:
    """With one part more or less in each of the three splits, also where the longest stays as long; with one
    pixel more or less in a d-tile; and all pixels, half and a third in tiles of d-tiles about as long."""
    split = mapping.k_split, mapping.c_split, mapping.pixel_split
    things = sizes.units, sizes.parts, sizes.pixels
    splits = [
        _changed(split, {i: n}) for i in range(3) for n in (split[i] - 1, split[i] + 1) if 0 < n <= things[i]
    ]
    found = [_with_split(sizes, mapping, own) for own in splits if prod(own) <= sizes.arch.pes]
    d_tile = mapping.dtile_pixels or _longest_d_tile(sizes, mapping)
    found += [replace(mapping, dtile_pixels=n) for n in (d_tile - 1, d_tile + 1) if n]
    own_pixels, step = -(-sizes.pixels // mapping.pixel_split), sizes.whole_step(mapping.dataflow)
    for n in (1, 2, 3):
        tile = -(-own_pixels // n)
        found.append(replace(mapping, tile_pixels=tile, dtile_pixels=-(-tile // -(-tile // step))))
    return [own for own in admitted(sizes, iter(found)) if own != mapping]


def in_chunks(sizes: Sizes, mapping: LayerMapping) -> list[LayerMapping]:
    """The same with weights in chunks of a quarter of a part's vectors, and of as few as can be: they come
    sooner than whole units. For every d-tile they come again: tiles of pixels are one, all about as long."""
    vectors, own_pixels = sizes.part_vectors(mapping.c_split), -(-sizes.pixels // mapping.pixel_split)
    d_tiles = -(-own_pixels // sizes.whole_step(mapping.dataflow, mapping.dtile_pixels))
    own = replace(mapping, tile_pixels=-(-own_pixels // d_tiles), units_per_tile=0, chunk_inputs=False)
    chunks = (sizes.whole_runs(-(-vectors // n)) for n in (4, vectors))
    return admitted(sizes, (replace(own, chunk_vectors=size) for size in chunks))


def admitted(sizes: Sizes, others: Iterator[LayerMapping]) -> list[LayerMapping]:
    """Each once, but for those that pins rule out."""
    pins = {
        name: value
        for name, value in sizes.arch.mapping.model_dump().items()
        if value is not None and name not in ("objective", "slack")
    }
    found: dict[LayerMapping, None] = {}
    for own in others:
        if "order" not in pins and own.order == "PK" and one_order(sizes, own):
            own = replace(own, order="KP")
        if own.dtile_pixels and "dtile_pixels" not in pins:
            is_longest = own.dtile_pixels >= _longest_d_tile(sizes, own)
            own = replace(own, dtile_pixels=0) if is_longest else own
        if all(getattr(own, name) == value for name, value in pins.items()):
            found[own] = None
    return list(found)


def _one_choice_away(sizes: Sizes, mapping: LayerMapping) -> Iterator[LayerMapping]:
    own_pixels = -(-sizes.pixels // mapping.pixel_split)
    vectors = sizes.part_vectors(mapping.c_split)
    yield replace(mapping, order="PK" if mapping.order == "KP" else "KP")
    for dataflow in sizes.arch.dataflows:
        yield replace(mapping, dataflow=dataflow)
    longest = _longest_d_tile(sizes, mapping)
    d_tile = mapping.dtile_pixels or longest
    for size in (-(-d_tile // 2), 2 * d_tile, longest):
        yield replace(mapping, dtile_pixels=size)
    step = sizes.whole_step(mapping.dataflow, mapping.dtile_pixels)
    for size in sorted({*_runs(own_pixels, mapping.tile_pixels, step), min(2, own_pixels)}):
        yield replace(mapping, tile_pixels=size)
    if mapping.units_per_tile:
        for size in _runs(sizes.most_units(mapping.k_split), mapping.units_per_tile):
            yield replace(mapping, units_per_tile=size)
        for size in sorted({sizes.whole_runs(-(-vectors // n)) for n in (1, 2, 4, vectors)}):
            for cut in (False, True):
                yield replace(mapping, units_per_tile=0, chunk_vectors=size, chunk_inputs=cut)
    else:
        yield replace(mapping, chunk_inputs=not mapping.chunk_inputs)
        for size in _runs(vectors // sizes.run, -(-mapping.chunk_vectors // sizes.run)):
            yield replace(mapping, chunk_vectors=size * sizes.run)
        yield replace(mapping, units_per_tile=1, chunk_vectors=sizes.vectors, chunk_inputs=False)
    split = mapping.k_split, mapping.c_split, mapping.pixel_split
    for other in _other_splits(sizes, split):
        yield _with_split(sizes, mapping, other)


def _longest_d_tile(sizes: Sizes, mapping: LayerMapping) -> int:
    """Pixels of the longest that the other choices leave."""
    own_pixels = -(-sizes.pixels // mapping.pixel_split)
    return min(sizes.whole_step(mapping.dataflow), mapping.tile_pixels, own_pixels)


def _runs(whole: int, size: int, step: int = 1) -> list[int]:
    """Lengths of runs of `whole` about as long as `size`: one or a step more and less, a run more and less,
    twice and half, all and one."""
    runs = -(-whole // size)
    found = {size - 1, size + 1, size - step, size + step, 2 * size, -(-size // 2), whole, 1}
    found |= {size // step * step, -(-size // step) * step}
    found |= {-(-whole // n) for n in (runs - 1, runs, runs + 1, 2 * runs) if n}
    return sorted({min(whole, own) for own in found if own > 0})


def _other_splits(sizes: Sizes, split: Split) -> Iterator[Split]:
    """One of the three cut more or less finely, alone or with another that gives or takes the PEs."""
    things, pes = (sizes.units, sizes.parts, sizes.pixels), sizes.arch.pes
    for i in range(3):
        others = split[(i + 1) % 3] * split[(i + 2) % 3]
        for n in _cuts(things[i], split[i]):
            if n * others <= pes:
                yield _changed(split, {i: n})
            for j in ((i + 1) % 3, (i + 2) % 3):
                room = pes // (n * split[3 - i - j])
                if room:
                    yield _changed(split, {i: n, j: _useful(things[j], min(things[j], room))})


def _changed(split: Split, to: dict[int, int]) -> Split:
    k, c, p = (to.get(i, n) for i, n in enumerate(split))
    return k, c, p


def _useful(things: int, parts: int) -> int:
    """The least number of parts whose longest is no longer than with `parts`."""
    return -(-things // -(-things // parts))


def _cuts(things: int, parts: int) -> list[int]:
    """Numbers of parts about as many as `parts`: the next that make a longest one longer or shorter, and
    twice and half as many."""
    longest = -(-things // parts)
    found = {1, -(-things // (longest + 1)), -(-parts // 2), min(things, 2 * parts), _useful(things, parts)}
    if longest > 1:
        found.add(-(-things // (longest - 1)))
    return sorted(found - {parts})


def _with_split(sizes: Sizes, mapping: LayerMapping, split: Split) -> LayerMapping:
    """Runs of pixels stay as long as they are, or whole, and chunks as many."""
    k, c, p = split
    was, now = -(-sizes.pixels // mapping.pixel_split), -(-sizes.pixels // p)
    chunk = mapping.chunk_vectors
    if not mapping.units_per_tile and c != mapping.c_split:
        chunks = -(-sizes.part_vectors(mapping.c_split) // chunk)
        chunk = sizes.whole_runs(-(-sizes.part_vectors(c) // chunks))
    return replace(
        mapping,
        k_split=k,
        c_split=c,
        pixel_split=p,
        tile_pixels=now if mapping.tile_pixels >= was else min(mapping.tile_pixels, now),
        units_per_tile=min(mapping.units_per_tile, sizes.most_units(k)),
        chunk_vectors=chunk,
    )
