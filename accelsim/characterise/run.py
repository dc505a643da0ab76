"""From Liberty files to a folder of cost tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accelsim.arguments import check_progress, expect, path_of
from accelsim.characterise import activity, stimuli
from accelsim.characterise.block import Block
from accelsim.characterise.campaign import all_blocks
from accelsim.characterise.circuit import Circuit, circuit_of
from accelsim.characterise.clock import clock_rows
from accelsim.characterise.fast import register_path
from accelsim.characterise.library import Library, read_library
from accelsim.characterise.netlist import Netlist
from accelsim.characterise.recipe import Recipe, load_recipe
from accelsim.characterise.roles import find_roles
from accelsim.characterise.simulator import simulate
from accelsim.characterise.synthesis import Synthesiser, find_yosys
from accelsim.characterise.table import (
    Process,
    activity_row,
    check_target,
    row,
    table_folder,
    write_tables,
)
from accelsim.characterise.timing import static_timing
from accelsim.costs.technology import MAX_NODE_NM, MIN_NODE_NM
from accelsim.errors import AccelsimError
from accelsim.system.tools import end_tools
from accelsim.version import __version__

Progress = Callable[[str, int, int], None]  # what, done, of
Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Characterised:
    """What was written: `complete` tells a folder of cost tables from a datapath table alone."""

    out: Path
    blocks: int
    rows: int
    complete: bool


def characterise(
    liberty: Sequence[str | Path],
    node_nm: float,
    out: str | Path,
    *,
    pattern: str | None = None,
    jobs: int = 1,
    recipe: str | Path | None = None,
    progress: Progress | None = None,
) -> Characterised:
    """Synthesise, simulate and tabulate every datapath block on the cells of these Liberty files.

    pattern: a regular expression that block names must contain; the folder then holds the datapath table
    alone. jobs: blocks at a time. recipe: a shipped recipe's name or a file. Equal input gives equal bytes.
    Raises AccelsimError on bad input; `out` is then as it was.
    """
    out = path_of(out, "characterise: out")
    expect(node_nm, (int, float), "characterise: node_nm", "a number")
    expect(pattern, (str, type(None)), "characterise: pattern", "a regular expression, or None")
    expect(jobs, int, "characterise: jobs", "a whole number")
    if not MIN_NODE_NM <= node_nm <= MAX_NODE_NM:
        raise AccelsimError(f"characterise: node_nm is {node_nm:g}, expected {MIN_NODE_NM} to {MAX_NODE_NM}")
    check_progress(progress)
    check_target(out)
    rules = load_recipe(recipe)
    yosys = find_yosys()
    library = read_library(liberty, rules.avoid)
    roles = find_roles(library, rules)
    everything = all_blocks(roles)
    blocks = _matching(everything, pattern)
    process = Process(node_nm, library.supply_v, _source(yosys, rules, library))
    with table_folder(out) as (tables, work):
        synthesise = Synthesiser(library, roles, rules, work)
        synthesise.prepare()
        edges = edges_of(synthesise) if any(block.between_registers for block in blocks) else None

        def one(block: Block) -> BlockRows:
            return characterise_block(block, synthesise, process, edges)

        made = _in_order(blocks, one, jobs, progress)
        rows = [row for own in made for row in own.rows]
        complete = len(blocks) == len(everything)
        activity = [row for own in made for row in own.activity]
        clock = clock_rows(roles, process, _named(rules, library))
        write_tables(tables, rows, activity, clock, complete=complete)
    return Characterised(out, len(blocks), len(rows), complete)


@dataclass(frozen=True)
class BlockRows:
    """Of one block: rows of the datapath table, and of the table of activities."""

    rows: Rows
    activity: Rows


@dataclass(frozen=True)
class Edges:
    """What registers before and after a block take of a clock period: clock-to-output and setup time."""

    launch_ps: float
    setup_ps: float


def edges_of(synthesise: Synthesiser) -> Edges:
    """Of the library's flip-flop, as the mapper takes it, at the loads and slews of all blocks."""
    netlist = synthesise(register_path(synthesise.roles))
    circuit = _circuit_of(netlist, synthesise)
    cells = [instance.cell for instance in netlist.instances if instance.cell.kind == "flip_flop"]
    return Edges(static_timing(circuit).critical_ps, cells[0].setup_ps(circuit.input_slew_ps))


def _circuit_of(netlist: Netlist, synthesise: Synthesiser) -> Circuit:
    library, recipe = synthesise.library, synthesise.recipe
    output_load_ff = recipe.output_load_ff
    if output_load_ff is None:
        output_load_ff = synthesise.roles.inverter.capacitances_ff[0]
    input_slew_ps = recipe.input_slew_ps or library.grid.slews_ps[library.grid.typical]
    return circuit_of(netlist, library, output_load_ff, input_slew_ps)


def characterise_block(
    block: Block, synthesise: Synthesiser, process: Process, edges: Edges | None = None
) -> BlockRows:
    """One row per stimulus; edges: for blocks between registers. Raises AccelsimError where the netlist
    computes anything but the reference."""
    recipe = synthesise.recipe
    netlist = synthesise(block)
    circuit = _circuit_of(netlist, synthesise)
    if block.between_registers:
        edges = edges or edges_of(synthesise)
        timing = static_timing(circuit, edges.launch_ps)
        delay_ps = timing.critical_ps + edges.setup_ps
    else:
        timing = static_timing(circuit)
        delay_ps = timing.critical_ps
    priced, following = stimuli.stimuli_of(block), activity.stimuli_of(block)
    found = BlockRows([], [])
    for stimulus in dict.fromkeys((*priced, *following)):
        words = stimuli.words(block, stimulus)
        _, warm_up = stimuli.vectors_of(block)
        switched = simulate(circuit, timing, stimuli.bits(block, words), warm_up, recipe.hold_ps)
        wrong = mismatches(block, words, switched.outputs)
        if wrong:
            raise AccelsimError(
                f"characterise: {block.name}, {stimulus}: {wrong} of {len(switched.outputs)} outputs of the "
                "netlist differ from the integer reference, expected none"
            )
        if stimulus in priced:
            found.rows.append(row(block, stimulus, netlist, delay_ps, switched, process))
        if stimulus in following:
            toggles = activity.toggles(block, words, warm_up)
            found.activity.append(activity_row(block, stimulus, toggles, switched.total_fj, process))
    return found


def mismatches(block: Block, words: dict[str, list[int]], outputs: np.ndarray) -> int:
    """Operations whose outputs (uint8[operation, bit]) differ from the reference, or from the nearest of the
    right sequences."""
    packed = np.packbits(outputs, axis=1, bitorder="little")
    got = [int.from_bytes(code.tobytes(), "little") for code in packed]
    if block.decode is not None:
        got = [block.decode(code) for code in got]
    if block.sequences is not None:
        return min(
            sum(right is not None and code != right for code, right in zip(got, sequence, strict=True))
            for sequence in block.sequences(words)
        )
    assert block.reference is not None
    names = list(words)
    operations = zip(*words.values(), strict=True)
    return sum(
        code != block.reference(dict(zip(names, operands, strict=True)))
        for code, operands in zip(got, operations, strict=True)
    )


def _matching(blocks: Sequence[Block], pattern: str | None) -> list[Block]:
    try:
        wanted = re.compile(pattern or "")
    except re.error as error:
        raise AccelsimError(f"--filter {pattern}: not a regular expression: {error}") from None
    found = [block for block in blocks if wanted.search(block.name)]
    if not found:
        raise AccelsimError(
            f"--filter {pattern}: no block's name matches, expected one such as {blocks[0].name}"
        )
    return found


def _in_order(
    blocks: Sequence[Block],
    one: Callable[[Block], BlockRows],
    jobs: int,
    progress: Progress | None,
) -> list[BlockRows]:
    """Rows of all blocks in table order, `jobs` blocks at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, block) for block in blocks]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                if progress is not None:
                    progress("blocks", done, len(blocks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_tools()
            raise
    return [future.result() for future in futures]


def _source(yosys: str, recipe: Recipe, library: Library) -> str:
    return (
        f"synthesis: {yosys} with abc, {_named(recipe, library)}; event-driven gate-level simulation with "
        f"Liberty delays, glitches included, no wires; accelsim {__version__}"
    )


def _named(recipe: Recipe, library: Library) -> str:
    files = ", ".join(library.files)
    return f"{recipe.library} ({files})" if recipe.library else files
