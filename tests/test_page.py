"""Pages of results: what stands in them, that names are inert in them, and what they are not made of."""

from __future__ import annotations

import base64
import csv
import fnmatch
import hashlib
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Said, refused

from accelsim.api import bits, compare, run
from accelsim.errors import AccelsimError
from accelsim.page import write_report
from accelsim.page.timeline import _Slices

pytestmark = pytest.mark.kept

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "accelsim/page/static"
ECHARTS_SHA256 = "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"  # dist of npm's 6.1.0
HOSTILE = "</script ><img src=x onerror=alert(1)>'\"&<!--"


@dataclass
class Parsed(HTMLParser):
    """Tags with their attributes, texts outside of scripts, scripts, and the data of charts and tables."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        (self.scripts if self.tags and self.tags[-1][0] == "script" else self.texts).append(data)

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", {}))

    @property
    def blocks(self) -> list[dict[str, Any]]:
        return json.loads(self.scripts[0])

    def block(self, title: str) -> Any:
        return next(own for own in self.blocks if own["title"] == title)["data"]


def parsed(path: Path) -> Parsed:
    found = Parsed()
    found.feed(path.read_text("utf-8"))
    return found


def column(table: dict[str, Any], name: str) -> list[Any]:
    own = next(own for own in table["columns"] if own["name"] == name)
    return [own["texts"][code] for code in own["values"]] if "texts" in own else own["values"]


@pytest.fixture(scope="module")
def results(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "run"
    return run(trace, timeline=True).write(folder, plots=False)


@pytest.fixture(scope="module")
def comparison(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "comparison"
    return compare(trace, schemes=["8/8/-/-", "4/4/4/4"], gated_fraction=0.0).write(folder, plots=False)


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(results, tmp_path / "copy"))


# --- what stands in a page ----------------------------------------------------------------------------------


def test_a_run(results: Path, tmp_path: Path) -> None:
    found = parsed(write_report([results], tmp_path / "a.html"))
    again = write_report([results], tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == again.read_bytes()
    summary = json.loads((results / "summary.json").read_text())
    for said in (
        f"{summary['cycles']:,}",
        summary["trace_sha256"],
        summary["scheme"],
        "summary.json: cycles",
    ):
        assert said in found.texts or f"{said} " in found.texts, said
    energy = summary["energy_pj"]["system"]
    for title in ("Energy by component", "Energy by layer"):
        series = found.block(title)["series"]
        assert sum(sum(own["values"]) for own in series) == pytest.approx(energy / 1e6)
    placed = sum(sum(own["values"]) for own in found.block("Area by component")["series"])
    assert placed == pytest.approx(summary["area_um2"]["array"] / 1e6)
    layers = found.block("Layers")
    assert sum(column(layers, "cycles")) == sum(
        map(sum, zip(*_series(found, "Stalls by layer"), strict=True))
    )
    hashes = dict(zip(*(column(found.block("Files read"), key) for key in ("file", "sha256")), strict=True))
    assert set(hashes) == {"summary.json", "layers.csv", "components.csv", "area.csv", "timeline.json"}
    for name, said in hashes.items():
        assert hashlib.sha256((results / name).read_bytes()).hexdigest() == said


def _series(found: Parsed, title: str) -> list[list[float]]:
    return [own["values"] for own in found.block(title)["series"]]


def test_every_energy_has_the_row_that_it_rests_on(results: Path, tmp_path: Path) -> None:
    result = parsed(write_report([results], tmp_path / "a.html"))
    block = next(own for own in result.blocks if own["title"] == "Prices")
    rows, layers = block["data"], block["layers"]
    energy = dict.fromkeys(layers["names"], 0.0)
    each, scope = column(rows, "energy_per_action_pj"), column(rows, "scope")
    for layer, row, count, price, pj in zip(
        *(layers[key] for key in ("layer", "row", "count", "energy_per_action_pj", "energy_pj")), strict=True
    ):
        energy[layers["names"][layer]] += pj
        assert pj == pytest.approx(count * price, rel=1e-8, abs=1e-6) and scope[row]
    with (results / "layers.csv").open() as file:
        for own in csv.DictReader(file):
            assert energy[own["layer"]] == pytest.approx(float(own["energy_system_pj"]), rel=1e-6)
    for count, price, pj in zip(column(rows, "count"), each, column(rows, "energy_pj"), strict=True):
        assert pj == pytest.approx(count * (price or 0.0), rel=1e-8, abs=1e-6)
    for name in ("evidence", "source"):
        assert all(column(rows, name)), name
    assert sum(column(rows, "share_percent")) == pytest.approx(100)


def test_the_roof_is_the_machines(results: Path, tmp_path: Path) -> None:
    roofline = parsed(write_report([results], tmp_path / "a.html")).block("Roofline")
    assert roofline["peak"] == 2 * 16 * 16 * 16 and roofline["bytes_per_cycle"] == 51.125  # magnet16
    with (results / "layers.csv").open() as file:
        for own, (name, _, intensity, achieved) in zip(csv.DictReader(file), roofline["points"], strict=True):
            moved = (float(own["dram_read_bits"]) + float(own["dram_write_bits"])) / 8
            assert name == own["layer"] and achieved == pytest.approx(
                2 * int(own["macs"]) / int(own["cycles"])
            )
            assert (
                intensity is None if not moved else intensity == pytest.approx(2 * int(own["macs"]) / moved)
            )


def test_spans_of_a_timeline_are_exact(results: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    slices = _Slices()
    slices.start.extend(rng.integers(0, 90, 40).astype(float))
    slices.cycles.extend(rng.integers(0, 30, 40) / 4)
    edges = np.linspace(0, 120, 38)
    by_hand = [
        sum(
            max(0.0, min(stop, s + n) - max(start, s))
            for s, n in zip(slices.start, slices.cycles, strict=True)
        )
        for start, stop in pairwise(edges)
    ]
    np.testing.assert_allclose(slices.busy(edges), by_hand, atol=1e-9)
    found = parsed(write_report([results], tmp_path / "a.html")).block("Timeline")
    summary = json.loads((results / "summary.json").read_text())
    assert found["cycles"] == summary["cycles"] == found["layers"][-1][2]
    shares = {name: sum(values) / 100 / found["spans"] for name, values in found["states"].items()}
    told = summary["pe_cycle_shares"]
    assert shares["compute"] == pytest.approx(told["compute"] + told["bubble"], abs=0.005)
    assert shares["idle"] == pytest.approx(told["idle"], abs=0.005)
    assert len(found["heat"]) == len(found["pes"]) == 16


def test_a_run_without_prices_and_timeline(trace: Path, tmp_path: Path) -> None:
    run(trace, gated_fraction=0.0, prices=False).write(tmp_path / "run", plots=False)
    found = parsed(write_report([tmp_path / "run"]))
    titles = {own["title"] for own in found.blocks}
    assert {"Layers", "Roofline"} <= titles and not {"Prices", "Energy by layer", "Timeline"} & titles
    assert any("--timeline" in text for text in found.texts)


@pytest.mark.parametrize(
    ("schemes", "settings", "said"),
    [
        (["8/8/-/-", "mxfp4"], {"gated_fraction": 0.0}, True),
        (["nvfp4", "mxfp4"], {"gated_fraction": 0.0}, False),
        (["8/8/-/-", "mxfp4"], {}, False),
        (["8/8/-/-", "mxfp4"], {"gated_fraction": 0.0, "prices": False}, False),
    ],
)
def test_formats_beside_integers_without_values(
    trace: Path, tmp_path: Path, schemes: list[str], settings: dict[str, Any], said: bool
) -> None:
    compare(trace, schemes=schemes, **settings).write(tmp_path / "both", plots=False)
    found = parsed(write_report([tmp_path / "both"]))
    assert any("integers on the tables' operands" in text for text in found.texts) == said


def test_a_comparison(comparison: Path, tmp_path: Path) -> None:
    found = parsed(write_report([comparison], tmp_path / "a.html"))
    with (comparison / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    savings = found.block("Savings")
    assert [own["name"] for own in savings["series"]] == ["4/4/4/4"]
    saved = dict(zip(savings["names"], savings["series"][0]["values"], strict=True))
    assert saved["energy, PE"] == pytest.approx(float(rows[1]["energy_pe_saved_percent"]))
    energies = np.sum([own["values"] for own in found.block("Energy by component")["series"]], axis=0)
    np.testing.assert_allclose(energies, [float(row["energy_system_pj"]) / 1e6 for row in rows])
    # Areas of this machine were published, energies of this workload were not.
    assert not [point for point in savings["published"] if point[0].startswith("energy")]
    assert [own["title"] for own in found.blocks].count("Prices") == 2


def test_published_figures_stand_beside_a_network_they_are_of(comparison: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(comparison, tmp_path / "copy"))
    path = folder / "8_8_-_-/summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trace": "resnet50"}))
    points = parsed(write_report([folder])).block("Savings")["published"]
    assert ["energy, PE", "4/4/4/4", 35.9] in [point[:3] for point in points]
    assert all("VS-Quant" in point[4] for point in points)


@pytest.mark.parametrize("scheme", ["..", "", "../run", "x" * 300])
def test_schemes_are_folders_of_their_own(comparison: Path, tmp_path: Path, scheme: str) -> None:
    folder = Path(shutil.copytree(comparison, tmp_path / "copy"))
    shutil.copy(folder / "4_4_4_4/summary.json", tmp_path)
    table = (folder / "comparison.csv").read_text()
    (folder / "comparison.csv").write_text(table.replace("\n4/4/4/4,", f"\n{scheme},"))
    with pytest.raises(AccelsimError, match="expected a run of each scheme"):
        write_report([folder])


SWEEP = """\
network,scheme,arch,pes,macs,cycles,energy_system_pj,area_array_um2,utilization,t (%),accuracy_from,error,b
digits,4/4/4/4,magnet16,4,10,100,5.5,7,0.5,96,a.csv line 2,,
digits,8/8/-/-,magnet16,4,10,90,6.5,8,0.6,98,a.csv line 3,,0.5
digits,8/8/-/-,magnet16,16,,,,,,98,a.csv line 3,"no such, machine",0.5
"""


def test_a_sweeps_table(tmp_path: Path) -> None:
    (tmp_path / "space.csv").write_text(SWEEP)
    page = write_report([tmp_path / "space.csv"])
    assert page == tmp_path / "space.html"
    front = parsed(page).block("Pareto front")
    assert (front["x"], front["y"]) == ("energy_system_pj", "area_array_um2")
    assert {"utilization", "t (%)", "b"} <= set(front["more"]) and "cycles" not in front["more"]
    assert not {"error", "accuracy_from"} & set(front["figures"])
    points = parsed(page).block("Points")
    assert column(points, "cycles") == [100, 90, None]
    assert [own["name"] for own in points["columns"]][:4] == ["network", "scheme", "arch", "pes"]


def test_units_and_what_the_roof_is_are_said(results: Path, tmp_path: Path) -> None:
    found = parsed(write_report([results], tmp_path / "a.html"))
    (said,) = (text for text in found.texts if "a point a layer" in text)
    assert "peak of 8,192 operations a cycle" in said and "51.125 bytes a cycle" in said
    for title, unit in (
        ("Energy by component", "µJ"),
        ("Area by component", "mm²"),
        ("Stalls by layer", "cycles"),
    ):
        assert found.block(title)["unit"] == unit
    assert found.block("Stalls by layer")["states"] is True


VALIDATION = """id,family,claim,unit,published,modelled,ratio,scope,status,reason,source,workload,scheme
a,one,energy,pJ,2.0,2.2,1.1,pe,predicted,,"a paper, 2020",resnet50,4/4/4/4
b,one,area,um2,5,,,,not modelled,not stated,another,,
"""


def test_published_figures(tmp_path: Path) -> None:
    (tmp_path / "validate.csv").write_text(VALIDATION)
    (tmp_path / "errors.csv").write_text("family,median_error_percent\none,10\n")
    found = parsed(write_report([tmp_path]))
    (point,) = found.block("Modelled over published")["points"]
    assert point[:3] == ["one", "a", 1.1] and "a paper, 2020" in point
    assert column(found.block("Figures"), "source") == ["a paper, 2020", "another"]
    assert column(found.block("Errors by family"), "median_error_percent") == [10]
    assert "What free parameters move" not in {own["title"] for own in found.blocks}
    (tmp_path / "tornado.csv").write_text(TORNADO)
    found = parsed(write_report([tmp_path]))
    chart, table = found.block("What free parameters move"), found.block("Figures at the ends of parameters")
    assert chart["by"] == ["figure"] and column(table, chart["high"]) == [9, 7.5, 0.75]
    (tmp_path / "tornado.csv").write_text(TORNADO.replace("1.5", ""))
    with pytest.raises(AccelsimError, match="column at_low: expected a number in every row"):
        write_report([tmp_path])


def test_bits_and_several_folders(trace: Path, results: Path, tmp_path: Path) -> None:
    measured = bits(trace)
    measured.write(tmp_path / "bits")
    found = parsed(write_report([tmp_path / "bits", results], tmp_path / "both.html"))
    titles = [own["title"] for own in found.blocks]
    assert {"Widths", "Histograms", "Roofline"} <= set(titles)
    # The chart draws the table's rows, and says of every quantity what it is, and along which axis.
    chart = found.block("Bits of values")
    assert chart["accumulator_bits"] == measured.summary["accumulator_bits"]
    assert set(column(found.block("Histograms"), "quantity")) == set(chart["said"])
    assert column(found.block("Histograms"), "count") == list(measured.histograms["count"])
    assert {"histograms", "layers"} <= {own.get("data-role") for _, own in found.tags}
    sections = [own for tag, own in found.tags if tag == "section" and own.get("class") == "results"]
    links = {own["href"] for tag, own in found.tags if tag == "a"}
    assert {f"#{own['id']}" for own in sections} <= links and len(sections) == 2


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("bits.json", '"accumulator_bits"', '"other"', r"accumulator_bits is None, expected 1 to 128"),
        ("histograms.csv", "bits", "other", r"column bits is missing"),
        (
            "histograms.csv",
            ",dot_product,0,",
            ",dot_product,0.5,",
            r"column bits: expected whole numbers of 0",
        ),
        (
            "histograms.csv",
            ",dot_product,0,",
            ",dot_product,999,",
            r"column bits: expected whole numbers of 0",
        ),
        (
            "histograms.csv",
            ",dot_product,0,",
            ",dot_product,0,-",
            r"column count: expected numbers of at lea",
        ),
    ],
)
def test_damaged_bits(trace: Path, tmp_path: Path, name: str, old: str, new: str, said: str) -> None:
    bits(trace).write(tmp_path / "bits")
    path = tmp_path / "bits" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(AccelsimError, match=said):
        write_report([tmp_path / "bits"])


def test_sensitivity_to_prices(comparison: Path, trace: Path, tmp_path: Path) -> None:
    assert "Sensitivity to prices" not in {own["title"] for own in parsed(write_report([comparison])).blocks}
    folder = Path(shutil.copytree(comparison, tmp_path / "copy"))
    frame = compare(trace, schemes=["8/8/-/-", "4/4/4/4"], gated_fraction=0.0).sensitivity()
    frame.to_csv(folder / "sensitivity.csv", index=False)
    found = parsed(write_report([folder]))
    chart, table = found.block("Sensitivity to prices"), found.block("Savings at the ends of prices")
    assert chart["unit"] == "energy saved against 8/8/-/-, %"
    for key in ("as_set", "low", "high"):
        assert column(table, chart[key]) == pytest.approx(list(frame[chart[key]]))
    names = {own["name"] for own in table["columns"]}
    assert {chart[key] for key in ("name", "of", "low_is", "high_is", "why")} | set(chart["by"]) <= names
    assert "sensitivity" in {own.get("data-role") for _, own in found.tags}
    frame.drop(columns="saved_percent_low").to_csv(folder / "sensitivity.csv", index=False)
    with pytest.raises(AccelsimError, match="column saved_percent_low is missing"):
        write_report([folder])


TORNADO = """figure,parameter,low,high,as_set,at_low,at_high,moves
"median error, percent",scope,scope=datapath,scope=array,8,10,9,2
"median error, percent",lanes,,lanes=32,8,8,7.5,0.5
area,lanes,lanes=8,lanes=32,1,1.5,0.75,0.75
"""


# --- what a page is not made of -----------------------------------------------------------------------------


def test_names_are_inert(copy: Path, tmp_path: Path) -> None:
    summary = json.loads((copy / "summary.json").read_text())
    plain = parsed(write_report([copy], tmp_path / "plain.html"))
    (copy / "summary.json").write_text(json.dumps(summary | {"trace": HOSTILE}))
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    for name in ("layers.csv", "components.csv", "area.csv"):
        path = copy / name
        own = path.read_text().replace("\nfirst,", f"\n{quoted},").replace(",dot_product,", f",{quoted},")
        path.write_text(own)
    (copy / "timeline.json").unlink()
    page = write_report([copy], tmp_path / "hostile.html")
    found = parsed(page)
    assert HOSTILE in column(found.block("Layers"), "layer")
    assert HOSTILE in column(found.block("Prices"), "component")
    assert "img" not in {tag for tag, _ in found.tags}
    assert (
        [tag for tag, _ in found.tags].count("script") == [tag for tag, _ in plain.tags].count("script") == 6
    )
    assert page.read_text().count("</script") == 6


def test_a_page_asks_for_nothing(results: Path, tmp_path: Path) -> None:
    found = parsed(write_report([results], tmp_path / "a.html"))
    for tag, attributes in found.tags:
        assert "src" not in attributes and tag not in ("link", "iframe", "object", "img"), tag
        assert attributes.get("href", "#").startswith("#")
    (policy,) = (own["content"] for tag, own in found.tags if own.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    for script in found.scripts[1:]:
        if script.strip():
            assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert (tmp_path / "a.html").stat().st_size < 1.4e6


def test_what_is_bundled() -> None:
    library = (STATIC / "echarts/echarts.min.js").read_bytes()
    assert hashlib.sha256(library).hexdigest() == ECHARTS_SHA256
    assert b"Apache License" in (STATIC / "echarts/LICENSE").read_bytes()
    for script in STATIC.rglob("*.js"):  # what would end a script, or begin a comment in it
        text = script.read_text("utf-8").lower()
        assert "</script" not in text and "<!--" not in text and "\r" not in text, script
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for path in filter(Path.is_file, STATIC.rglob("*")):
        name = str(path.relative_to(STATIC.parent))
        assert any(fnmatch.fnmatch(name, pattern) for pattern in package["accelsim.page"]), name


# --- where it is written, and what is refused ---------------------------------------------------------------


def test_a_page_does_not_keep_a_folder_from_being_replaced(copy: Path, trace: Path) -> None:
    assert write_report([copy]) == copy / "report.html"
    run(trace, gated_fraction=0.0).write(copy, plots=False)
    assert not (copy / "report.html").exists()


def test_the_command(copy: Path, tmp_path: Path, cli: Callable[..., Said]) -> None:
    said = cli("report", copy, "--out", tmp_path / "new/page.html")
    assert said.status == 0 and said.out == f"wrote {tmp_path}/new/page.html\n"
    assert "expected .html" in refused(cli("report", copy, "--out", tmp_path / "page.pdf"))
    assert "is a folder" in refused(cli("report", copy, "--out", _made(tmp_path / "page.html")))
    assert "expected a result folder" in refused(cli("report", _made(tmp_path / "empty")))
    (tmp_path / "store").mkdir()
    (tmp_path / "store/store.sqlite").touch()
    assert "expected a sweep's table" in refused(cli("report", tmp_path / "store"))
    assert "no such folder, expected a" in refused(cli("report", tmp_path / "nothing"))
    (tmp_path / "notes.txt").touch()
    assert "expected a result folder" in refused(cli("report", tmp_path / "notes.txt"))


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def _without(text: str, name: str) -> str:
    head, *rows = text.splitlines()
    return "\n".join([head.replace(name, "other"), *rows]) + "\n"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("summary.json", lambda text: text[:40], r"summary\.json: is not valid JSON"),
        ("summary.json", lambda text: "[1]", r"summary\.json: expected an object"),
        ("summary.json", lambda text: text.replace('"cycles"', '"other"'), r"summary\.json: cycles is None"),
        ("summary.json", lambda text: text.replace('"pes": 16', '"pes": -1'), r"arch_parameters are no arch"),
        ("layers.csv", lambda text: _without(text, "bound_cycles"), r"layers\.csv: column bound_cycles"),
        ("layers.csv", lambda text: text.splitlines()[0], r"layers\.csv: 0 rows"),
        ("layers.csv", lambda text: text + "one,cell\n", r"layers\.csv: row 5: expected \d+ cells"),
        (
            "layers.csv",
            lambda text: text.replace("first,conv,", "first,conv,x"),
            r"column macs: expected a num",
        ),
        (
            "layers.csv",
            lambda text: text.replace("first,conv,", "first,conv,-"),
            r"expected macs, cycles and",
        ),
        ("components.csv", lambda text: text.replace("\nfirst,", "\nx,"), r"layer 'x' is not in layers"),
        ("area.csv", lambda text: text.replace("\npe,", "\nroom,"), r"area\.csv: scope 'room', expected"),
        ("timeline.json", lambda text: text.replace('"dur": ', '"dur": -'), r"no event of a run \(ValueErr"),
        ("timeline.json", lambda text: text.replace('"pid": 5', '"pid": {}'), r"no event of a run \(TypeErr"),
        ("timeline.json", lambda text: text.replace('"dur": ', '"dur": 9' + 400 * "9"), r"no event of a run"),
        (
            "timeline.json",
            lambda text: re.sub(r'("ts"|"dur"): [\d.]+', r"\1: 0", text),
            r"PEs that do someth",
        ),
        ("layers.csv", lambda text: text.replace("first,conv,", "first,conv,1"), None),
        ("layers.csv", lambda text: text.replace("first,conv,", "first,conv,1e9"), r"column macs: expected"),
        ("timeline.json", lambda text: "", r"timeline\.json: 0 layers and 0 PEs"),
    ],
)
def test_damaged_folders(copy: Path, name: str, change: Callable[[str], str], said: str | None) -> None:
    path = copy / name
    path.write_text(change(path.read_text()))
    if said is None:  # odd, but a number
        write_report([copy])
        return
    with pytest.raises(AccelsimError, match=said):
        write_report([copy])
    assert not (copy / "report.html").exists()
