"""The pictures of time in docs/timing.md, drawn from runs: `python tests/doc_pictures.py` prints them.

They show the run of docs/tutorial.md, one layer on four PEs, taken from its timeline, and the slots of a
block, taken from the cycle-stepped model.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import matplotlib
from cycle_model.slots import slots_of

ROOT = Path(__file__).resolve().parents[1]
DRAM_BITS = 64  # a cycle, on the tutorial's machine
_BITS_A_CHARACTER = 16
_LETTERS = "ABCDEF"


def tutorial_script() -> ModuleType:
    return picture_script("tutorial")


def picture_script(name: str) -> ModuleType:
    """The script of that name in docs/pictures, which is no module of a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/pictures/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_picture(drawn: Path) -> None:
    """The one of the same name in docs/pictures is it, byte for byte."""
    kept = ROOT / "docs/pictures" / drawn.name
    if f"Matplotlib v{matplotlib.__version__}," in kept.read_text("utf-8"):  # others place labels elsewhere
        again = f"python docs/pictures/{drawn.stem}.py"
        assert drawn.read_bytes() == kept.read_bytes(), f"{drawn.name} is another now: {again}"


def slots() -> str:
    """Blocks of few pixels, in which bubbles are needed."""
    rows = []
    for dataflow, pixels, vectors, al, collected in (("os-lws", 2, 3, 3, 0), ("ws-los", 2, 3, 3, 2)):
        arch: Any = SimpleNamespace(
            accumulate_latency=al, local_accumulate_latency=1, weight_collector_depth=collected
        )
        order = slots_of(arch, dataflow, pixels, vectors)
        depth = f", D_w = {collected}, lal = 1" if dataflow == "ws-los" else ""
        cells = [("", "") if step is None else (f"g{step.vector}", f"p{step.pixel}") for step in order]
        rows += [
            f"{dataflow}, d = {pixels} pixels, n_g = {vectors} vectors, al = {al}{depth}: {len(order)} slots",
            "slot    " + "".join(f"{slot:<4}" for slot in range(len(order))).rstrip(),
            "vector  " + "".join(f"{vector or '.':<4}" for vector, _ in cells).rstrip(),
            "pixel   " + "".join(f"{pixel or '.':<4}" for _, pixel in cells).rstrip(),
            "",
        ]
    return "\n".join(rows[:-1])


def dram(found: dict) -> str:
    """Reads of the tutorial's run: which bits of which cycle each has."""
    reads = found["DRAM", "reads"]
    bits = [(round(own["begin"] * DRAM_BITS), round(own["end"] * DRAM_BITS)) for own in reads]
    last = max(end for _, end in bits)
    line = [" "] * (last // _BITS_A_CHARACTER)
    for letter, (begin, end) in zip(_LETTERS, bits, strict=True):
        for place in range(begin // _BITS_A_CHARACTER, end // _BITS_A_CHARACTER):
            line[place] = letter
    width = DRAM_BITS // _BITS_A_CHARACTER
    cycles = range(1, last // DRAM_BITS)
    rows = [
        "cycle  " + "".join(f"|{cycle:<{width}}" for cycle in cycles) + "|",
        "bits   " + "".join("|" + "".join(line[c * width : (c + 1) * width]) for c in cycles) + "|",
    ]
    for letter, own, (begin, end) in zip(_LETTERS, reads, bits, strict=True):
        name = f"{letter}  {own['operand']} {own['index']} of leader {own['leader']}"
        ends = -(-end // DRAM_BITS)
        rows.append(
            f"{name:<24} bits {begin:>3} to {end:>4}   s = {begin // DRAM_BITS:>2}, e = {ends:>2}, "
            f"in the global buffer at {ends + 10}"
        )
    return "\n".join(rows)


def fetch(found: dict) -> str:
    """The first weight fetch, from asked to resident; a character is a cycle."""
    read = next(own for own in found["DRAM", "reads"] if own["operand"] == "weight")
    cross = found["global buffer", "bank 0 (weights)"][0]
    start, ends = int(read["begin"]), -(-int(read["end"] * DRAM_BITS) // DRAM_BITS)
    arrived = ends + 10
    resident = cross["end"] + 2
    assert resident == found["PE 0", "compute"][0]["begin"]
    blocking = next(own for own in found["NoC ports", "PE 1 in"] if own["operand"] == "input")
    rows = [
        "cycle      " + "".join(f"{cycle:<10}" for cycle in (0, 10, 20, 30)).rstrip(),
        _bar("asked", [(0, 1, "a")], "in cycle 0; there is space: requested of DRAM in 0"),
        _bar(
            "DRAM",
            [(1, start, "."), (start, ends, "=")],
            f"waits for reads before it; s = {start}, e = {ends}",
        ),
        _bar("latency", [(ends, arrived, "=")], f"in the global buffer at {arrived}: sent in {arrived}"),
        _bar(
            "crossbar",
            [(arrived + 1, cross["begin"], "."), (cross["begin"], cross["end"], "=")],
            f"waits for the in-port of PE 1, busy to {blocking['end']}; "
            f"s = {cross['begin']}, s + n = {cross['end']}",
        ),
        _bar(
            "NoC",
            [(cross["end"], resident, "=")],
            f"resident at {resident}: the block issues, t0 = {resident}",
        ),
    ]
    return "\n".join(rows)


def drain(found: dict) -> str:
    """Both psum tiles of PE 0, of which the second waits for room in the FIFO; a character is a cycle."""
    blocks = found["PE 0", "compute"]
    drains = found["PE 0", "PPU drain"]
    out = found["NoC ports", "PE 0 out"]
    first, origin = int(blocks[0]["begin"]), 20
    assert first > origin

    def bar(label: str, own: list[tuple[float, float, str]], note: str) -> str:
        shifted = [(begin - origin, end - origin, mark) for begin, end, mark in own]
        return _bar(label, shifted, note, 54)

    def both(parts: list, marks: str = "12") -> list[tuple[float, float, str]]:
        return [(own["begin"], own["end"], mark) for own, mark in zip(parts, marks, strict=True)]

    complete = [own["end"] - 1 + 8 for own in drains]
    in_ppu = [(own["end"], ready, mark) for own, ready, mark in zip(drains, complete, "12", strict=True)]
    held = [(own["begin"], left["end"], mark) for own, left, mark in zip(drains, out, "12", strict=True)]
    written = [own["end"] - 1 + 4 for own in blocks]
    rows = [
        "cycle      " + "".join(f"{cycle:<10}" for cycle in range(origin, 80, 10)).rstrip(),
        bar("issue", both(blocks), "8 slots a block, last step in the last"),
        bar(
            "last write",
            [(own, own + 1, mark) for own, mark in zip(written, "12", strict=True)],
            f"wl = 4 after the last step: {written[0]} and {written[1]}",
        ),
        bar(
            "drain",
            both(drains),
            f"1: from {written[0]} + 1; 2: not before all 4 entries are free, {out[0]['end']}",
        ),
        bar("PPU", in_ppu, f"ppu_latency 8: complete in the FIFO at {complete[0]} and {complete[1]}"),
        bar("out-port", both(out), "3 cycles from complete + 1"),
        bar("FIFO held", held, "all 4 entries, from ds to s + n of the transfer"),
    ]
    return "\n".join(rows)


def _bar(label: str, parts: list[tuple[float, float, str]], note: str, width: int = 33) -> str:
    line = [" "] * width
    for begin, end, mark in parts:
        for place in range(int(begin), int(end)):
            line[place] = mark
    return f"{label:<11}{''.join(line)} {note}".rstrip()


def pictures(found: dict) -> dict[str, str]:
    """Name -> text; found: the slices of the tutorial's timeline."""
    return {"dram": dram(found), "fetch": fetch(found), "slots": slots(), "drain": drain(found)}


def main() -> None:
    script = tutorial_script()
    with tempfile.TemporaryDirectory() as folder:
        script.run_page(Path(folder))
        for name, text in pictures(script.slices(Path(folder) / "out/timeline.json")).items():
            print(f"--- {name}\n{text}", file=sys.stdout)


if __name__ == "__main__":
    main()
