"""The examples of README, docs/trace_format.md and docs/workloads.md run, and say what is so."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from conftest import Said
from safetensors import safe_open

import accelsim
from accelsim.report.plots.of_comparison import ComparisonPlots
from accelsim.report.plots.of_run import RunPlots
from accelsim.report.plots.pareto import SweepPlots
from accelsim.synthetic.networks import NETWORKS
from accelsim.synthetic.recipe import Recipe
from accelsim.workload.wiring import wire

pytestmark = pytest.mark.kept

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(page: str, kind: str) -> list[str]:
    return [body for own, body in _BLOCK.findall(text_of(page)) if own == kind]


def run_blocks(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, only: str = "") -> dict[str, Any]:
    """Names that the page's python blocks leave, run one after the other in `folder`; those with `only`."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for code in blocks(page, "python"):
        if only in code:
            exec(compile(code, page, "exec"), names)
    return names


def test_the_residual_block_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_blocks("README.md", tmp_path, monkeypatch, only="write_trace")
    own = accelsim.open_workload(tmp_path / "block.safetensors")
    assert own.graph == names["graph"] and not own.graph.is_chain
    counts = accelsim.run(own, gated_fraction=0.0).to_frame().set_index(["component", "action"])["count"]
    assert counts["global_pe", "op"] == 16 * 8 * 8


def test_the_readme_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_blocks("README.md", tmp_path, monkeypatch, only="results/mine")
    assert len(names["comparison"].to_frame()) == 2 and (tmp_path / "results/mine/comparison.csv").is_file()


def test_the_readme_goes_from_a_module_to_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")
    (code,) = (body for body in blocks("README.md", "python") if "with_accuracy" in body)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    names = run_blocks("README.md", tmp_path, monkeypatch, only="with_accuracy")
    assert "agreement (%)" in capsys.readouterr().out
    found = [names["measured"][scheme]["agreement (%)"] for scheme in names["schemes"]]
    assert 60 < found[1] <= found[0] <= 100
    stored = accelsim.Trace.open(tmp_path / "net.safetensors")
    assert stored.variants == ("4/4/4/4@16", "8/8/-/-@16")


def test_modules_are_where_the_changelog_says() -> None:
    """What is left of the table's bar is gone, unless its name now stands for something else; what is right
    of it is there."""
    _, _, rest = text_of("CHANGELOG.md").partition(
        "| before (`accelsim.`) | now (`accelsim.`) |\n|---|---|\n"
    )
    rows = [line.strip("|").split("|") for line in rest.partition("\n\n")[0].splitlines()]
    before, now = (
        {name for row in rows for name in re.sub(r" \([^)]*\)", "", row[side]).strip().split(", ")}
        for side in (0, 1)
    )
    assert len(before) > 35 and len(now) > 35
    there = {name for name in before | now if importlib.util.find_spec(f"accelsim.{name}")}
    assert now <= there
    packages_now = {"workload", "quantize", "trace", "report", "cli", "mapping.search"}
    assert before & there - now == (packages_now - now) | {"sim.run", "network"}


# --- docs/trace_format.md -----------------------------------------------------------------------------------


def test_the_manifest_is_that_of_the_trace_the_page_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    run_blocks("docs/trace_format.md", tmp_path, monkeypatch)
    (command,) = (body for body in blocks("docs/trace_format.md", "") if body.startswith("accelsim trace"))
    said: Said = cli(*command.split()[1:])
    assert said.status == 0, said.err
    with safe_open(tmp_path / "block_4444.safetensors", framework="numpy") as file:
        stored = file.metadata()["accelsim"]
    shown = next(body for body in blocks("docs/trace_format.md", "json") if "accelsim-trace" in body)
    assert json.loads(re.sub(r"[0-9a-f]{64}", "<sha256>", stored)) == json.loads(shown)


def recipe_of_the_page() -> dict[str, Any]:
    (text,) = (body for body in blocks("docs/trace_format.md", "json") if "accelsim-recipe" in body)
    recipe: dict[str, Any] = json.loads(text)
    return recipe


def test_the_recipe_opens_and_runs(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(recipe_of_the_page()))
    own = accelsim.open_workload(path)
    assert [step.name for step in own.graph.steps] == ["conv1", "pool", "conv2"]
    assert len(accelsim.run(own).layers) == 2


def test_version_1_opens_as_the_chain_that_the_page_describes() -> None:
    raw = recipe_of_the_page()
    raw["version"] = 1
    del raw["graph"]
    raw["layers"][0]["global_pe"] = [{"op": "max_pool", "elements": 5}, {"op": "max_pool", "elements": 6}]
    raw["layers"][1] |= {"op": "matmul", "weight_is_activation": True, "geometry": {"C": 7, "K": 4}}
    graph = Recipe.from_json(json.dumps(raw)).graph
    assert graph.is_chain
    assert graph.inputs == (("input", (1, 3, 32, 32)), ("conv2.weight", (4, 7, 1, 1)))
    assert [(step.name, step.reads) for step in graph.steps] == [
        ("conv1", ("input",)),
        ("conv1.max_pool", ("conv1",)),
        ("conv1.max_pool_", ("conv1.max_pool",)),
        ("conv2", ("conv1.max_pool_", "conv2.weight")),
    ]
    assert [(node.shape, node.elements) for node in graph.nodes] == [
        ((1, 16, 32, 32), 5),
        ((1, 16, 32, 32), 6),
    ]
    assert graph.outputs == ("conv2",)


def test_every_key_of_the_manifest_and_the_graph_is_in_a_table() -> None:
    page = text_of("docs/trace_format.md")
    listed = {
        name.strip() for row in re.findall(r"^\| ([\w, ]+) \|", page, re.MULTILINE) for name in row.split(",")
    }
    layer = recipe_of_the_page()["layers"][0]
    assert {"version", "graph", "chain", "inputs", "outputs", "layer", "node"} <= listed
    assert {"op", "reads", "shape", "unit", "elements"} <= listed and set(layer) - {
        "weight",
        "input",
        "bias",
    } <= listed


# --- docs/plots.md ------------------------------------------------------------------------------------------


def test_the_figures_of_the_page_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plt.close("all")
    run_blocks("docs/plots.md", tmp_path, monkeypatch)
    assert (tmp_path / "two.svg").is_file()
    assert len(plt.get_fignums()) == 4
    plt.close("all")


def test_every_figure_is_in_the_table() -> None:
    own: set[str] = set()
    for kind in (RunPlots, ComparisonPlots, SweepPlots):
        own |= {name for name, member in vars(kind).items() if callable(member) and name[0] != "_"}
    own -= {"front"}
    assert own == set(re.findall(r"^\|[^|]*\| `(\w+)\(", text_of("docs/plots.md"), re.MULTILINE))


# --- docs/workloads.md --------------------------------------------------------------------------------------


def test_the_graph_of_the_page_is_hosted_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_blocks("docs/workloads.md", tmp_path, monkeypatch)
    wiring = wire(names["graph"], names["layers"])
    assert [work.op for work in wiring.prologue] == ["rms_norm"]
    hosted = {layer: [work.op for work in work] for layer, work in wiring.work.items()}
    row = next(line for line in text_of("docs/workloads.md").splitlines() if "**who hosts a node**" in line)
    said = {layer: [node] for layer, node in re.findall(r"`(\w+)` hosts `(\w+)`", row)}
    assert hosted == said
    assert wiring.work["down"][0].elements == 32 * 64
    tensors = {own.name: own for own in wiring.tensors}
    assert tensors["norm"].readers == (1, 2) and tensors["x"].operand_of == (0, 3)


def test_the_table_of_networks() -> None:
    rows = [
        line for line in text_of("docs/workloads.md").splitlines() if re.match(r"\| `[a-z]+[\w-]*\d?`", line)
    ]
    listed: dict[str, tuple[str, str]] = {}
    for row in rows:
        name, _, sizes, inputs, _ = (cell.strip() for cell in row.strip("|").split("|"))
        for one, size in zip(re.findall(r"`([\w-]+)`", name), sizes.split("; "), strict=True):
            listed[one] = (size, inputs)
    assert set(listed) == set(NETWORKS)
    for name, (size, inputs) in listed.items():
        own = accelsim.open_workload(name)
        assert size == f"{len(own.layers)}, {len(own.graph.nodes)}", name
        names = dict.fromkeys(re.sub(r"layer\d+", "layerN", tensor) for tensor, _ in own.graph.inputs)
        assert inputs == ", ".join(names), name


def test_few_tensors_of_the_networks_wait_at_once() -> None:
    """docs/decisions.md, search for the residency: it leaves none of them out."""
    most = 0
    for name in NETWORKS:
        own = accelsim.open_workload(name)
        wiring = wire(own.graph, own.layers)
        for step in range(len(wiring.prologue) + len(own.layers)):
            waiting = [t for t in wiring.tensors if t.made_in <= step and any(r > step for r in t.readers)]
            waiting.sort(key=lambda tensor: next(r for r in tensor.readers if r > step))
            # What is read from DRAM as weights alone, as a cache of keys, never stays.
            places = [i for i, t in enumerate(waiting) if not t.in_dram or t.input_of]
            most = max(most, len(places))
            assert not places or max(places) < 8, name
    said = re.search(r"the built-in networks have at most (\d+) waiting", text_of("docs/decisions.md"))
    assert said is not None and most == int(said.group(1))
