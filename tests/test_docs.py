"""The pages of docs/ say what is so: the tutorial's numbers, pictures, names of files and links."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import doc_pictures
import pytest
from cycle_model import run as run_cycle_model
from cycle_model.machine import Machine

import accelsim
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.plan import LayerMapping
from accelsim.open import open_workload

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    *DOCS,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "DEVIATIONS.md")),
    ROOT / "accelsim/costs/tables/README.md",
]
TUTORIAL = (ROOT / "docs/tutorial.md").read_text("utf-8")

_FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?")


# --- the tutorial -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tutorial's run: its folder, what its blocks printed, and the slices of its timeline."""
    folder, script = tmp_path_factory.mktemp("tutorial"), doc_pictures.tutorial_script()
    printed = script.run_page(folder)
    found = script.slices(folder / "out/timeline.json")
    return {"folder": folder, "script": script, "printed": printed, "found": found}


def test_the_tutorials_code_prints_what_the_page_says(tutorial: dict[str, Any]) -> None:
    with_output = [(got, said) for got, said in tutorial["printed"] if said]
    assert len(with_output) >= 7
    for got, said in with_output:
        assert got == said
    assert not any(got for got, said in tutorial["printed"] if not said)


def test_the_tutorials_sums_are_right() -> None:
    checked = sum(check_line(line) for line in hand_lines())
    assert checked >= 45


@pytest.mark.parametrize(
    "line", ["psum = 93 * 225 = 20926", "y = 23265 / 15 / 15 = 103.5", "read = 6 tiles * ceil(160 / 32) = 24"]
)
def test_a_wrong_sum_is_found(line: str) -> None:
    with pytest.raises(AssertionError):
        check_line(line)


def hand_lines() -> Iterator[str]:
    for kind, text in _FENCE.findall(TUTORIAL):
        if not kind:
            yield from filter(None, text.splitlines())


def check_line(line: str) -> int:
    """Evaluate `label = expression = ... = number`, several of them where commas or `and` part them.

    Words between numbers (`4 pixels * 2 vectors`) say what they count; what follows # is a remark. Returns
    how many values were compared.
    """
    compared = 0
    for piece in re.split(r",(?![^()]*\))|\band\b", line.partition("#")[0]):
        label, *values = [part.strip() for part in piece.split(" = ")]
        if not label[0].isalpha():  # no label: `2.8 / 0.4 = 7`
            values.insert(0, label)
        if len(values) < 2:
            continue
        said = values[-1]
        for text in values[:-1]:
            assert agrees(evaluate(text), said), f"{line}: {text} is {evaluate(text)}, not {said}"
            compared += 1
    return compared


def evaluate(text: str) -> float:
    text = re.sub(r"\b(?!ceil|max|min)[A-Za-z]\w*", "", text).replace("^", "**")
    return _value(ast.parse(text.strip(), mode="eval").body)


_OPERATORS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
    ast.RShift: operator.rshift,
}
_FUNCTIONS: dict[str, Any] = {"ceil": math.ceil, "max": max, "min": min}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return _FUNCTIONS[node.func.id](*map(_value, node.args))


def agrees(value: float, said: str) -> bool:
    """Exactly where it is a whole number, else to the digits that are given."""
    match = _NUMBER.search(said)
    assert match is not None
    number = match.group()
    if isinstance(value, int):
        return value == float(number)
    digits = len(number.partition(".")[2])
    return abs(value - float(number)) <= 0.5000001 * 10**-digits


def test_the_tutorials_tables_are_the_run(tutorial: dict[str, Any]) -> None:
    found = tutorial["found"]
    assert dram_rows(found) == table("| DRAM read |")
    assert crossbar_rows(found) == table("| transfer | requested |")
    assert issue_rows(found) == table("| PE | block 0 from |")
    assert drain_rows(found) == table("| PE, tile |")


def table(header: str) -> list[list[str]]:
    """Cells of the tutorial's table with this header, below it."""
    lines = TUTORIAL.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith(header)) + 2
    rows = []
    while at < len(lines) and lines[at].startswith("|"):
        rows.append([cell.strip() for cell in lines[at].strip("|").split("|")])
        at += 1
    return rows


_TO = {("input", 0): "PEs 0 and 2", ("input", 1): "PEs 1 and 3"}
_TO |= {("weight", 0): "PEs 0 and 1", ("weight", 2): "PEs 2 and 3"}


def name_of(own: dict[str, Any]) -> str:
    what = "weights" if own["operand"] == "weight" else f"input {own['index']}"
    return f"{what}, {_TO[own['operand'], own['leader']]}"


def dram_rows(found: dict) -> list[list[str]]:
    rows = []
    for own in found["DRAM", "reads"]:
        first, last = round(own["begin"] * 64), round(own["end"] * 64)
        ends = math.ceil(last / 64)
        requested = own["index"]  # a stream asks for one tile a cycle
        rows.append([name_of(own), *map(str, (requested, first, last, first // 64, ends, ends + 10))])
    return rows


def crossbar_rows(found: dict) -> list[list[str]]:
    ready = {row[0]: row[-1] for row in dram_rows(found)}
    fetches = [own for bank in range(3) for own in found["global buffer", bank_name(bank)]]
    fetches.sort(key=lambda own: int(ready[name_of(own)]))
    waited = [
        "",
        "",
        "the in-port of PE 1",
        "the one weight bank",
        "the in-port of PE 2",
        "the in-port of PE 3",
    ]
    for own, reason in zip(fetches, waited, strict=True):
        assert (own["begin"] == int(ready[name_of(own)]) + 1) == (not reason)
    return [
        [name_of(own), ready[name_of(own)], str(own["begin"]), str(own["end"]), str(own["end"] + 2), reason]
        for own, reason in zip(fetches, waited, strict=True)
    ]


def bank_name(bank: int) -> str:
    return f"bank {bank} ({('weights', 'inputs', 'inputs', 'outputs')[bank]})"


def issue_rows(found: dict) -> list[list[str]]:
    return [
        [str(pe), *(str(own[side]) for own in found[f"PE {pe}", "compute"] for side in ("begin", "end"))]
        for pe in range(4)
    ]


def drain_rows(found: dict) -> list[list[str]]:
    writes = {(own["leader"], own["index"]): own for own in found["DRAM", "writes"]}
    rows = []
    for tile in range(2):
        for pe in range(4):
            block, drain = found[f"PE {pe}", "compute"][tile], found[f"PE {pe}", "PPU drain"][tile]
            out, write = found["NoC ports", f"PE {pe} out"][tile], writes[pe, tile]
            cycles = [block["end"] - 1 + 4, drain["begin"], drain["end"], drain["end"] - 1 + 8]
            cycles += [out["begin"], out["end"], out["end"] + 2, int(write["begin"]), math.ceil(write["end"])]
            rows.append([f"{pe}, {tile}", *map(str, cycles)])
    return rows


def test_the_tutorials_prose_states_only_numbers_that_are_checked() -> None:
    """Numbers above 16 and all with decimals are in a checked table or block, or in a sum that is right."""
    known = {number for _, text in _FENCE.findall(TUTORIAL) for number in _NUMBER.findall(text)}
    lines = _FENCE.sub("", TUTORIAL).splitlines()
    known |= {number for line in lines if line.startswith("|") for number in _NUMBER.findall(line)}
    prose = " ".join(line for line in lines if not line.startswith(("|", "#")))
    for left, right in re.findall(r"((?:[\d.]+ [*/+] )+[\d.]+|ceil\([^)]*\)) = (\d[\d.]*\d|\d)", prose):
        assert agrees(evaluate(left), right), f"{left} = {right}"
        known |= {*_NUMBER.findall(left), right}
    unchecked = {
        number
        for number in _NUMBER.findall(re.sub(r"`[^`]*`", "", prose))
        if ("." in number or float(number.replace(",", "")) > 16) and number not in known
    }
    assert not unchecked


def test_the_tutorials_picture_is_drawn_from_its_run(tutorial: dict[str, Any]) -> None:
    drawn, kept = tutorial["folder"] / "tutorial.svg", ROOT / "docs/pictures/tutorial.svg"
    tutorial["script"].draw(tutorial["folder"] / "out/timeline.json", drawn)
    assert kept.read_text("utf-8").count("8 steps") == 4 * 2  # two blocks on each PE
    doc_pictures.check_picture(drawn)


@pytest.mark.slow
def test_the_picture_of_stalls_is_drawn_from_runs(tmp_path: Path) -> None:
    script = doc_pictures.picture_script("stalls")
    comparison = accelsim.compare("resnet50", schemes=script.SCHEMES, gated_fraction=0.0)
    for result in comparison.runs:
        for own in script.shares(result).values():
            assert sum(own.values()) == pytest.approx(1)
        assert 0 < script.dram_share(result) < 1
    script.draw(comparison, tmp_path / "stalls.svg")
    doc_pictures.check_picture(tmp_path / "stalls.svg")


def test_the_cycle_stepped_model_agrees_with_the_tutorial(tutorial: dict[str, Any]) -> None:
    folder = tutorial["folder"]
    layer = open_workload(folder / "fc.safetensors").quantized_layer("fc", Scheme.parse("4/4/4/4"), 4)
    arch = load_arch(folder / "four.yaml")
    mapping = LayerMapping(
        k_split=2, pixel_split=2, order="KP", tile_pixels=4, units_per_tile=1, chunk_vectors=2
    )
    (result,) = run_cycle_model(arch, [layer], [mapping])
    assert result.cycles == 85
    machine = Machine(arch, [layer], [mapping])
    for _ in range(3):
        machine.cycle()
    asked = {
        (stream.operand, stream.number): [fetch.asked for fetch in stream.fetches]
        for stream in machine.fetching.streams
    }
    assert asked == {
        ("weight", 0): [0],
        ("weight", 1): [0],
        ("input", 0): [0, 1],
        ("input", 1): [0, 1],
    }


def test_the_pictures_of_time_are_those_of_the_models(tutorial: dict[str, Any]) -> None:
    page = (ROOT / "docs/timing.md").read_text("utf-8")
    for name, text in doc_pictures.pictures(tutorial["found"]).items():
        assert f"```\n{text}\n```" in page, f"picture {name} is now\n{text}"


# --- names and links ----------------------------------------------------------------------------------------


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = _FENCE.sub("", page.read_text("utf-8"))
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_pages_that_code_cites_exist() -> None:
    files = [
        path
        for folder in ("accelsim", "kernels", "tests", "benchmarks", "traces")
        for path in (ROOT / folder).rglob("*")
    ]
    cited: dict[str, str] = {}
    for path in [*files, *PAGES]:
        if path.suffix in (".py", ".sv", ".md", ".yaml", ".csv"):
            text = path.read_text("utf-8")
            for name in re.findall(r"\bdocs/[\w/]+\.(?:md|py|svg)", text):
                cited[name] = path.name
            assert not re.search(r"machine\.md\)?\s+sections? \d", text), f"{path.name}: which page is that?"
    assert len(cited) > 8
    assert not {name: where for name, where in cited.items() if not (ROOT / name).is_file()}


def test_the_page_of_the_mapper_lists_its_files() -> None:
    text = (ROOT / "docs/mapping.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text.partition("## ")[0], re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)}
    room = ROOT / "accelsim/mapping"
    there = {path.relative_to(room).as_posix() for path in room.rglob("*.py") if path.name != "__init__.py"}
    assert listed == there


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "README.md").read_text("utf-8") + (ROOT / "docs/machine.md").read_text("utf-8")
    assert not {page.name for page in DOCS if page.name not in index}
