"""docs/residency.md: where tensors live. All placements that the page allows are tried, the best is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from accelsim.formats.operand import Operand
from accelsim.machine.arch import Arch
from accelsim.workload.graph import Graph
from accelsim.workload.layer import QuantizedLayer
from cycle_model.sizes import (
    block_written,
    ceil_div,
    channels_of_a_unit,
    every_position_is_read,
    layer_bits,
    outputs_of,
    region_bits,
    weights_are_heavy,
)
from cycle_model.steps import Step, Tensor, Work, walk

MOST_RESIDENT = 8
Residents = frozenset[str]
Misses = set[tuple[int, str]]  # a step and a tensor that it reads and that is not resident before it


@dataclass(frozen=True)
class Moved:
    """A tensor that a step reads from DRAM for its nodes, or writes there; its bits."""

    name: str
    stored: int


@dataclass(frozen=True)
class Placement:
    """Where the data of one layer live, and the bits that the layer keeps in the activation region."""

    weights: str
    input: str
    spilled: tuple[Moved, ...]
    written: tuple[Moved, ...]
    kept: int
    formats: tuple[Operand, ...] = field(default=(), compare=False)  # that the PPU writes

    @property
    def staged(self) -> bool:
        """Output tiles are staged: something goes to DRAM or comes from there with them."""
        return bool(self.spilled or self.written)

    @property
    def beside_output(self) -> list[int]:
        """Stored bits of the tensors whose shares take room beside an output tile's own."""
        return [moved.stored for moved in (*self.spilled, *self.written[1:])]


@dataclass(frozen=True)
class PrologueStep:
    """A step without a layer: what it reads from DRAM, whole, and what it writes there."""

    work: Work
    reads: tuple[Moved, ...]
    written: tuple[Moved, ...]


@dataclass(frozen=True)
class RunPlacement:
    steps: list[Step]
    tensors: dict[str, Tensor]
    residents: list[Residents]  # after each step
    prologue: list[PrologueStep]
    layers: list[Placement]
    work: list[tuple[Work, ...]]  # of each layer


def share(stored: int, outputs: int, of: int) -> int:
    """Of a tensor, what goes at most with so many of a layer's outputs."""
    return ceil_div(stored * outputs, of)


def output_room(
    arch: Arch,
    layer: QuantizedLayer,
    formats: tuple[Operand, ...],
    spilled: list[Tensor],
    written: list[Tensor],
) -> int:
    """R: room for output tiles on their way, and for what goes and comes with them."""
    if not spilled and not written:
        return 0
    channels = channels_of_a_unit(arch, formats)
    depth = arch.accumulation_collector_depth
    blocks = ceil_div(channels, block_written(arch, formats) or channels)
    tile = depth * sum(channels * out.bits + blocks * out.scale.bits for out in formats)
    of = outputs_of(layer)
    outputs = min(of, depth * channels)
    tile += sum(share(tensor.stored, outputs, of) for tensor in [*spilled, *written[1:]])
    return arch.output_staging_tiles * arch.pes * tile


class Placing:
    """The placements of one run. A placement is a list: the residents after each step."""

    def __init__(self, arch: Arch, layers: list[QuantizedLayer], graph: Graph | None) -> None:
        self.arch, self.layers = arch, layers
        self.region = region_bits(arch)[1]
        run = walk(arch, layers, graph)
        self.steps, self.tensors, self.formats = run.steps, run.tensors, run.formats
        self.heavy = [weights_are_heavy(arch, layer) for layer in layers]
        self.comes_whole = [every_position_is_read(layer) for layer in layers]
        self.windows = [self._window(i) for i in range(len(self.steps))]

    # ---------------------------------------------------------------------------------- what rules 1 to 6 say

    def _read_after(self, name: str, i: int) -> bool:
        return any(reader > i for reader in self.tensors[name].readers)

    def _window(self, i: int) -> Residents:
        """Rule 6. ASSUMPTION: what the host makes is among them as soon as it is in DRAM."""
        found = [
            (min(reader for reader in tensor.readers if reader > i), order, name)
            for order, (name, tensor) in enumerate(self.tensors.items())
            if tensor.there_after <= i and self._read_after(name, i)
        ]
        return frozenset(name for _, _, name in sorted(found)[:MOST_RESIDENT])

    def choices(self, i: int, before: Residents) -> Iterator[Residents]:
        """What may be resident after step i; those that come first have the first tensor resident."""
        step = self.steps[i]
        stay, may = set(), []
        for name, tensor in self.tensors.items():
            if not self._read_after(name, i):
                continue
            if name in before and not step.reads(name):
                stay.add(name)
            elif name in before or tensor.made_in == i or (name == step.input and self._may_be_kept(step)):
                may.append(name)
        if not stay <= self.windows[i]:
            return
        may = [name for name in may if name in self.windows[i]]
        for chosen in product((True, False), repeat=len(may)):
            yield frozenset(stay | {name for name, yes in zip(may, chosen, strict=True) if yes})

    def _may_be_kept(self, step: Step) -> bool:
        return step.layer is not None and self.comes_whole[step.layer]

    def all(self) -> Iterator[list[Residents]]:
        """Every placement that obeys the rules, whether there is room or not, in the order of preference."""

        def extend(after: list[Residents]) -> Iterator[list[Residents]]:
            i = len(after)
            if i == len(self.steps):
                yield list(after)
                return
            for chosen in self.choices(i, after[-1] if after else frozenset()):
                yield from extend([*after, chosen])

        yield from extend([])

    # ----------------------------------------------------------------------- what follows from a placement

    def misses(self, after: list[Residents]) -> Misses:
        """Of a placement of the first steps: what is certain to be read from DRAM, whatever comes next."""
        decided = len(after)
        found: Misses = set()
        for name, tensor in self.tensors.items():
            for reader in tensor.readers:
                if reader < decided:
                    resident = reader > 0 and name in after[reader - 1]
                elif tensor.there_after < decided:
                    # Nobody reads it before: it is resident then if it is now. What it is after that reader,
                    # who may keep it, is open.
                    resident = decided > 0 and name in after[-1]
                else:
                    break
                if not resident:
                    found.add((reader, name))
                if reader >= decided:
                    break
        return found

    def written(self, misses: Misses) -> Residents:
        missed = {name for _, name in misses}
        return frozenset(
            name
            for name, tensor in self.tensors.items()
            if tensor.made_in is not None and (tensor.goes_to_dram or name in missed)
        )

    def least_bits(self, misses: Misses) -> int:
        """DRAM bits, but for inputs that count twice."""
        bits = sum(self.tensors[name].stored for name in self.written(misses))
        for i, name in misses:
            step = self.steps[i]
            if step.layer is not None:
                in_bits, _, w_bits = layer_bits(self.layers[step.layer])
                bits += (in_bits if name == step.input else 0) + (w_bits if name == step.weight else 0)
            bits += self.tensors[name].stored if name in step.operands else 0
        return bits

    def spilled(self, i: int, after: list[Residents]) -> list[Tensor]:
        """O"""
        before = after[i - 1] if i else frozenset()
        return [self.tensors[name] for name in self.steps[i].operands if name not in before]

    def writes(self, i: int, written: Residents) -> list[Tensor]:
        """U"""
        return [self.tensors[name] for name in self.steps[i].makes if name in written]

    def kept_beside_input(self, i: int, before: Residents, after: Residents) -> int:
        """Q"""
        source = self.steps[i].input
        return sum(
            self.tensors[name].size
            for name in before | after
            if not (name == source and name in after and name not in before)
        )

    def cached_input(self, i: int, after: list[Residents]) -> int:
        """e"""
        step = self.steps[i]
        assert step.layer is not None and step.input is not None
        if step.input in after[i]:
            return self.tensors[step.input].size
        return layer_bits(self.layers[step.layer])[0]

    def residency(self, i: int, after: list[Residents], written: Residents) -> str | None:
        """Of the input of step i, "" of a step without a layer. None: the step is not allowed."""
        step, before = self.steps[i], after[i - 1] if i else frozenset()
        kept = self.kept_beside_input(i, before, after[i])
        if step.layer is None:
            return "" if kept <= self.region else None
        layer = self.layers[step.layer]
        formats = self.formats[step.layer]
        kept += output_room(self.arch, layer, formats, self.spilled(i, after), self.writes(i, written))
        if step.input in before:
            return "gb" if kept <= self.region else None
        if self.cached_input(i, after) + kept <= self.region:
            return "cached"
        if step.input in after[i]:
            return None
        # The room for output tiles does not matter where nothing is kept beside them.
        nothing = self.kept_beside_input(i, before, after[i]) == 0
        return "streamed" if nothing or 2 * kept <= self.region else None

    def dram_bits(self, after: list[Residents]) -> int | None:
        """What the placement costs; None where a step does not allow it."""
        misses = self.misses(after)
        written = self.written(misses)
        bits = self.least_bits(misses)
        for i, step in enumerate(self.steps):
            where = self.residency(i, after, written)
            if where is None:
                return None
            if step.layer is not None and where == "streamed" and self.heavy[step.layer]:
                bits += layer_bits(self.layers[step.layer])[0]
        return bits

    def best(self) -> list[Residents]:
        """The first of those with the fewest bits.

        Left out are only placements that no step allows (Q alone exceeds the region) or that cannot have
        fewer bits than one found before them.
        """
        fewest: int | None = None
        best: list[Residents] = []

        def extend(after: list[Residents]) -> None:
            nonlocal fewest, best
            if fewest is not None and self.least_bits(self.misses(after)) >= fewest:
                return
            i = len(after)
            if i == len(self.steps):
                bits = self.dram_bits(after)
                if bits is not None and (fewest is None or bits < fewest):
                    fewest, best = bits, after
                return
            before = after[-1] if after else frozenset()
            for chosen in self.choices(i, before):
                if self.kept_beside_input(i, before, chosen) <= self.region:
                    extend([*after, chosen])

        extend([])
        assert fewest is not None
        return best

    # ---------------------------------------------------------------------------------------- for the steps

    def place(self, after: list[Residents]) -> RunPlacement:
        written = self.written(self.misses(after))
        prologue, layers = [], []
        for i, step in enumerate(self.steps):
            spilled = tuple(Moved(t.name, t.stored) for t in self.spilled(i, after))
            writes = tuple(Moved(t.name, t.stored) for t in self.writes(i, written))
            if step.layer is None:
                prologue.append(PrologueStep(step.work[0], spilled, writes))
                continue
            where = self.residency(i, after, written)
            assert where is not None
            before = after[i - 1] if i else frozenset()
            kept = self.kept_beside_input(i, before, after[i])
            kept += self.cached_input(i, after) if where == "cached" else 0
            fit = layer_bits(self.layers[step.layer])[2] <= region_bits(self.arch)[0]
            weights = "gb" if step.weight in before else "cached" if fit else "streamed"
            formats = self.formats[step.layer]
            layers.append(Placement(weights, where, spilled, writes, kept, formats))
        work = [step.work for step in self.steps if step.layer is not None]
        return RunPlacement(self.steps, self.tensors, after, prologue, layers, work)


def place_run(arch: Arch, layers: list[QuantizedLayer], graph: Graph | None = None) -> RunPlacement:
    placing = Placing(arch, layers, graph)
    return placing.place(placing.best())


def placements_of(arch: Arch, layers: list[QuantizedLayer], graph: Graph | None = None) -> list[Placement]:
    return place_run(arch, layers, graph).layers
