"""docs/extending.md: every diff on the page is applied to a copy of the checkout, and run as the page says.

A diff on the page has no line numbers: what is not added must stand in the file once, as it is. Each errand
is applied alone and taken back, so that one copy with its compiled kernels serves all of them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/extending.md").read_text("utf-8")
COPIED = ("accelsim", "kernels", "docs", "tests", "pyproject.toml")

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


# --- the page -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hunk:
    """One place of a file: lines as they stand there, and as they shall be."""

    path: str
    lines: tuple[str, ...]  # with their marks

    def text(self, marks: str) -> str:
        return "".join(line[1:] + "\n" for line in self.lines if line[0] in marks)

    def count(self, mark: str) -> int:
        return sum(line[0] == mark for line in self.lines)


def hunks_of(diff: str) -> list[Hunk]:
    """Files begin with `--- path`, further places in one with `@@`."""
    found = []
    for file in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        path, _, rest = file.partition("\n")
        for place in re.split(r"^@@\n", rest, flags=re.MULTILINE):
            lines = tuple(line or " " for line in place.splitlines())
            assert all(line[0] in " +-" for line in lines) and any(line[0] != " " for line in lines), place
            found.append(Hunk(path, lines))
    return found


@dataclass(frozen=True)
class Errand:
    title: str
    hunks: tuple[Hunk, ...]
    code: str  # all python blocks
    command: str
    output: str

    def touched(self, inside: bool) -> tuple[int, int, int]:
        """(files, lines added, lines removed) of the package, or of docs and tests."""
        own = [hunk for hunk in self.hunks if hunk.path.startswith("accelsim/") == inside]
        return (
            len({hunk.path for hunk in own}),
            sum(hunk.count("+") for hunk in own),
            sum(hunk.count("-") for hunk in own),
        )


def errands() -> dict[str, Errand]:
    found = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        blocks: dict[str, list[str]] = {}
        for kind, body in _BLOCK.findall(text):
            blocks.setdefault(kind, []).append(body)
        assert set(blocks) <= {"diff", "python", "console", "text"}, title
        hunks = tuple(hunk for diff in blocks["diff"] for hunk in hunks_of(diff))
        code, command, output = ("".join(blocks.get(kind, [])) for kind in ("python", "console", "text"))
        found[title] = Errand(title, hunks, code, command, output)
    return found


ERRANDS = errands()


def test_the_table_counts_the_lines() -> None:
    rows = [
        f"| [{title[0].lower()}{title[1:]}](#{title.lower().replace(' ', '-')}) | "
        + " | ".join(f"{files} | {added}, {removed}" for files, added, removed in counts)
        + " |"
        for title, own in ERRANDS.items()
        for counts in [(own.touched(inside=True), own.touched(inside=False))]
    ]
    table = [line for line in PAGE.splitlines() if line.startswith("| [")]
    assert table == rows


# --- a checkout to change -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkout:
    root: Path

    def run(self, *arguments: str, cwd: Path) -> str:
        """What a Python process prints in which the packages are those of the checkout."""
        paths = [self.root, self.root / "kernels", self.root / "tests"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment,
            timeout=600,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def changed(self, hunks: tuple[Hunk, ...]) -> Iterator[None]:
        """The checkout with these places changed; afterwards as it was, with the times of its files."""
        before: dict[Path, tuple[bytes, os.stat_result]] = {}
        try:
            for hunk in hunks:
                path = self.root / hunk.path
                before.setdefault(path, (path.read_bytes(), path.stat()))
                apply(hunk, path)
            yield
        finally:
            for path, (content, stat) in before.items():
                path.write_bytes(content)
                os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def apply(hunk: Hunk, path: Path) -> None:
    text, old = path.read_text("utf-8"), hunk.text(" -")
    places = [match.start() for match in re.finditer(f"(?m)^(?={re.escape(old)})", text)]
    assert len(places) == 1, f"{hunk.path}: {len(places)} times in the file, expected once\n{old}"
    path.write_text(text[: places[0]] + hunk.text(" +") + text[places[0] + len(old) :], "utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    root = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            # With what Numba has compiled, which it knows by the times of the files; but without what another
            # process is about to rename.
            half_written = shutil.ignore_patterns("*.tmp.*", "*.pyc.*")
            shutil.copytree(source, root / name, ignore=half_written)
        else:
            shutil.copy2(source, root / name)
    (root / "traces").symlink_to(ROOT / "traces")
    return Checkout(root)


def test_a_diff_that_does_not_fit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one\ntwo\ntwo\n")
    for text in (" three\n+four\n", " two\n+four\n", "-wo\n"):
        (hunk,) = hunks_of(f"--- file\n{text}")
        with pytest.raises(AssertionError, match="expected once"):
            apply(hunk, path)
    (hunk,) = hunks_of("--- file\n one\n-two\n+three\n")
    apply(hunk, path)
    assert path.read_text() == "one\nthree\ntwo\n"


# --- the errands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", ERRANDS)
def test_the_errand(title: str, checkout: Checkout, tmp_path: Path) -> None:
    """Its code prints what the page says."""
    errand = ERRANDS[title]
    with checkout.changed(errand.hunks):
        if errand.command:
            prompt, program, *arguments = shlex.split(errand.command)
            assert (prompt, program) == ("$", "accelsim")
            printed = checkout.run("-m", "accelsim", *arguments, cwd=tmp_path)
        else:
            where = f"import accelsim; assert accelsim.__file__.startswith({str(checkout.root)!r})\n"
            printed = checkout.run("-c", where + errand.code, cwd=tmp_path)
    lines = "\n".join(line.rstrip() for line in printed.splitlines())
    assert lines.strip("\n") + "\n" == errand.output


# What other tests hold against the tables: (errand, arguments for pytest).
HELD = {
    "A dataflow": ["tests/test_dataflows.py"],
    # Of the tests of layers only those of the new row.
    "A number format": [
        "tests/test_formats.py",
        "tests/test_blocks.py",
        "-k",
        "test_formats or nvint4 or store or new_row",
    ],
    "A component with its price": ["tests/test_actions.py", "-k", "docs or module or prices or spells"],
    "A command": ["tests/test_cli.py", "-k", "help"],
    "Elementwise work on a new unit": ["tests/test_actions.py", "-k", "docs or module or prices or spells"],
}


@pytest.mark.parametrize("title", HELD)
def test_what_other_tests_hold_against_it(title: str, checkout: Checkout) -> None:
    with checkout.changed(ERRANDS[title].hunks):
        printed = checkout.run(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", *HELD[title], cwd=checkout.root
        )
    assert " passed" in printed


BOTH_MODELS = """
from cycle_model import run
from hand_machine import hand_arch, hand_layer
from machines import simulate
from accelsim.mapping.plan import LayerMapping

# Halves of the accumulation buffer are smaller than a d-tile, which is then no matter to the collector.
arch = hand_arch(
    dataflows=(FLOW,), weight_collector_depth=3, accumulate_latency=4, accumulation_buffer_words=2
)
layer = hand_layer(6, 20, 7)  # five vectors: chunks of four, passes of three
mapping = LayerMapping(1, 1, "KP", 3, 0, 4, dataflow=FLOW)
(own,), (stepped,) = simulate(arch, [layer], [mapping]), run(arch, [layer], [mapping])
assert own.cycles == stepped.cycles and (own.stall_cycles == stepped.stall_cycles).all()
assert (own.psums == stepped.psums).all()
assert {name: count for name, count in own.counts.items() if count} == dict(stepped.counts)
assert stepped.counts[COUNTED] and stepped.stall_cycles[:, 1].sum()
print("agreed")
"""


@pytest.mark.parametrize(
    ("title", "dataflow", "counted"),
    [
        ("A dataflow", "os-los", "weight_collector.read"),
        ("A component with its price", "os-lws", "out_parity.op"),
    ],
)
def test_both_models_of_time_agree(
    title: str, dataflow: str, counted: str, checkout: Checkout, tmp_path: Path
) -> None:
    given = f"FLOW, COUNTED = {dataflow!r}, {counted!r}\n"
    with checkout.changed(ERRANDS[title].hunks):
        assert checkout.run("-c", given + BOTH_MODELS, cwd=tmp_path) == "agreed\n"


NEW_UNIT = """
import numpy as np
import accelsim
from accelsim import FloatLayer, Geometry, Graph, Layer, LayerStep, Node
from accelsim.api import explain_mapping

shape, machine = (1, 64, 1, 64), ["row_unit_elements_per_cycle=16"]
weight, rows = np.ones((64, 64, 1, 1), np.float32), np.ones(shape, np.float32)
scores = FloatLayer(Layer("scores", "linear", Geometry(*shape, K=64)), weight, rows)

def cycles(before, after, op="softmax"):
    steps = (LayerStep("scores", ("norm" if before else "x",)), Node("end", op, ("scores",), shape, after))
    if before:
        steps = (Node("norm", "layer_norm", ("x",), shape, before), *steps)
    graph = Graph((("x", shape),), steps, ("end",))
    accelsim.write_trace("scores.safetensors", "scores", [scores], {}, graph=graph)
    layers = accelsim.run("scores.safetensors", overrides=machine, gated_fraction=0.0).layers
    ranked, _ = explain_mapping("scores.safetensors", "scores", overrides=machine)
    return np.array([layers["cycles"][0], layers["bound_cycles"][0], ranked["cycles"][0]])

longer = 64 * 64 // 16 - 64 * 64 // 64
own = cycles(None, "row_unit")
assert (own - cycles(None, "global_pe") == longer).all() and own[0] == own[2], own
later = cycles("row_unit", "row_unit") - cycles("global_pe", "row_unit")
assert 0 < later[0] <= longer and not later[1:].any(), later
try:
    cycles(None, "row_unit", "gelu")
except accelsim.AccelsimError as error:
    print(error)
"""


def test_the_models_follow_the_new_unit(checkout: Checkout, tmp_path: Path) -> None:
    """Event model, bound and mapper's model take its rate; the mapper's is exact for a layer by itself."""
    with checkout.changed(ERRANDS["Elementwise work on a new unit"].hunks):
        said = checkout.run("-c", NEW_UNIT, cwd=tmp_path)
    assert said == "graph: node end is gelu, expected softmax or layer_norm or rms_norm\n"


NEW_UNIT_TWICE = """
from cycle_model import run
from hand_machine import ONE_TILE, hand_arch, hand_layer
from machines import simulate
from accelsim.workload.graph import Graph, LayerStep, Node

arch, shape = hand_arch(row_unit_elements_per_cycle=3), (4, 4, 1, 1)
layer = hand_layer(4, 8, 4)
for first, last in (("row_unit", "row_unit"), ("row_unit", "global_pe"), ("global_pe", "row_unit")):
    steps = (
        Node("norm", "layer_norm", ("x",), (4, 8, 1, 1), first),
        LayerStep("hand", ("norm",)),
        Node("softmax", "softmax", ("hand",), shape, last),
        Node("gelu", "gelu", ("softmax",), shape),
    )
    graph = Graph((("x", (4, 8, 1, 1)),), steps, ("gelu",))
    (own,), (stepped,) = simulate(arch, [layer], [ONE_TILE], graph), run(arch, [layer], [ONE_TILE], graph)
    assert own.cycles == stepped.cycles and (own.stall_cycles == stepped.stall_cycles).all()
    assert {name: count for name, count in own.counts.items() if count} == dict(stepped.counts)
    print(stepped.cycles, stepped.counts["row_unit.element"])
"""


def test_both_models_of_time_agree_on_the_new_unit(checkout: Checkout, tmp_path: Path) -> None:
    """Beside the global PE: of 32 elements before the layer and 16 after it, 3 a cycle instead of 4."""
    with checkout.changed(ERRANDS["Elementwise work on a new unit"].hunks):
        said = checkout.run("-c", NEW_UNIT_TWICE, cwd=tmp_path)
    counted = [tuple(map(int, line.split())) for line in said.splitlines()]
    assert [elements for _, elements in counted] == [48, 32, 16]
    assert counted[0][0] - counted[1][0] == 6 - 4  # of the softmax, which follows the layer
