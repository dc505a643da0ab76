"""Pages of results in headless Chromium: nothing is asked for, nothing complains, tables and bars answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from test_page import HOSTILE, SWEEP, TORNADO, VALIDATION

from accelsim.api import bits, compare, run
from accelsim.page import write_report
from accelsim.sweep.front import front

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resnet50") / "run"
    run("resnet50", gated_fraction=0.0, timeline=True).write(folder, plots=False)
    return write_report([folder])


@pytest.fixture(scope="module")
def page(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with hostile names, a comparison and a sweep's table."""
    folder = tmp_path_factory.mktemp("browser")
    run(trace, timeline=True).write(folder / "run", plots=False)
    compare(trace, schemes=["8/8/-/-", "4/4/4/4"], gated_fraction=0.0).write(folder / "both", plots=False)
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    for name in ("layers.csv", "components.csv"):
        path = folder / "run" / name
        path.write_text(path.read_text().replace("\nfirst,", f"\n{quoted},"))
    timeline = folder / "run/timeline.json"
    timeline.write_text(timeline.read_text().replace('"first"', json.dumps(HOSTILE)))
    (folder / "space.csv").write_text(SWEEP)
    return write_report([folder / "run", folder / "both", folder / "space.csv"], folder / "page.html")


@pytest.fixture(scope="module")
def charts(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bits of a trace with a hostile name, a comparison with its sensitivity, published figures, a sweep."""
    folder = tmp_path_factory.mktemp("charts")
    bits(trace).write(folder / "bits")
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    for path in (folder / "bits").glob("*.csv"):
        path.write_text(path.read_text().replace("\nfirst,", f"\n{quoted},"))
    comparison = compare(trace, schemes=["8/8/-/-", "4/4/4/4", "4/8/6/10"], gated_fraction=0.0)
    comparison.write(folder / "both", plots=False)
    comparison.sensitivity().to_csv(folder / "both/sensitivity.csv", index=False)
    (folder / "validate").mkdir()
    (folder / "validate/validate.csv").write_text(VALIDATION)
    (folder / "validate/tornado.csv").write_text(TORNADO)
    other = SWEEP.splitlines()[1].replace("digits", "minilm")
    (folder / "space.csv").write_text(f"{SWEEP}{other}\n")
    sources = [folder / name for name in ("bits", "both", "validate", "space.csv")]
    return write_report(sources, folder / "page.html")


DRAWN = (
    "(async () => { for (const own of document.querySelectorAll('.chart')) {"
    "own.scrollIntoView(); for (let n = 0; n < 300 && !own.querySelector('canvas'); n++)"
    "await new Promise(requestAnimationFrame); } })()"
)
# Level texts of charts of which two touch, or that leave their chart; slanted ones are of one axis.
OVERLAPS = """
[...document.querySelectorAll('.chart')].flatMap((place) => {
  const chart = echarts.getInstanceByDom(place), boxes = [], found = [];
  for (const own of chart.getZr().storage.getDisplayList(true)) {
    const [xx, xy, , yy, x, y] = own.transform || [1, 0, 0, 1, 0, 0];
    if (own.type !== 'tspan' || own.ignore || own.invisible || !own.style.text.trim()) continue;
    if (Math.abs(xy) > 1e-6) continue;
    const box = own.getBoundingRect();
    boxes.push([own.style.text, x + box.x * xx, y + box.y * yy, box.width, box.height]);
  }
  if (!boxes.length) found.push([place.getAttribute('aria-label'), 'no text']);
  boxes.forEach(([text, x, y, w, h], n) => {
    const inside = x > -1 && y > -1 && x + w < chart.getWidth() + 1 && y + h < chart.getHeight() + 1;
    if (!inside) found.push([text, 'outside']);
    for (const [other, x2, y2, w2, h2] of boxes.slice(n + 1))
      if (x < x2 + w2 - 1 && x2 < x + w - 1 && y < y2 + h2 - 2 && y2 < y + h - 2) found.push([text, other]);
  });
  return found;
})
"""


@pytest.mark.parametrize("width", WIDTHS)
def test_charts_of_which_one_chooses_rows(charts: Path, tmp_path: Path, width: str) -> None:
    with Browser(tmp_path / "profile", *WIDTHS[width], phone=width == "phone") as tab:
        tab.open(charts)
        tab.evaluate("for (const own of document.querySelectorAll('details.run')) own.open = true")
        tab.evaluate(DRAWN)
        assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
        assert tab.evaluate(OVERLAPS) == []
        assert tab.requests == [charts.resolve().as_uri()]

        # Bits: a row a layer under the sum of all, cells as in the table; other quantities; the filter.
        tab.evaluate(_chart("Bits of values"))
        table = _rows(tab, "histograms")
        own = [row for row in table if row[1] == "output_bits"]
        layers = list(dict.fromkeys(row[0] for row in own))
        cells = tab.evaluate("option().series[0].data.map((own) => own.said)")
        assert len(layers) > 1 and HOSTILE in layers
        assert [[o["name"], o["width"], o["count"]] for o in cells if o["name"] in layers] == [
            [row[0], row[2], row[3]] for row in own if row[3]
        ]
        for cell in cells:
            of = [row for row in own if cell["name"] in (row[0], f"all {len(layers)} layers")]
            assert cell["total"] == sum(row[3] for row in of)
            assert cell["wider"] == sum(row[3] for row in of if row[2] > cell["width"])
            assert cell["share"] == pytest.approx(cell["count"] / cell["total"])
        line = tab.evaluate("option().series[0].markLine")
        names = tab.evaluate("option().xAxis[0].data")
        assert names[line["data"][0]["xAxis"]] in line["label"]["formatter"]
        tab.evaluate("pick('quantity', 'dot_product')")
        shown = tab.evaluate("option().series[0].data.map((own) => own.said)")
        assert {o["count"] for o in shown if o["name"] in layers} == {
            row[3] for row in table if row[1] == "dot_product" and row[3]
        }
        assert tab.evaluate("option().series[0].markLine.data") == []
        tab.evaluate("filter('histograms', 'layer:middle')")
        assert set(tab.evaluate("option().series[0].data.map((own) => own.said.name)")) == {"middle"}
        tab.evaluate("filter('histograms', 'layer:none')")
        assert tab.evaluate("option().series[0].data") == []
        tab.evaluate("filter('histograms', '')")
        point = tab.evaluate("option().series[0].data.filter((own) => own.said.name === 'middle')[0]")
        said = _press(tab, f"chart().convertToPixel({{ seriesIndex: 0 }}, {point['value'][:2]})")
        width_bits, count = point["said"]["width"], point["said"]["count"]
        assert f"middle: {width_bits} bits" in said and f"{count:,} of " in said
        assert _shown_rows(tab, "histograms") == [["middle", "dot_product", str(width_bits), f"{count:,}"]]

        # A tornado: bars from end to end about the saving, the longest on top.
        tab.evaluate(_chart("Sensitivity to prices"))
        table = _rows(tab, "sensitivity")
        heads = tab.evaluate("tableOf(chart().getDom(), 'sensitivity')[0].columns.map((own) => own.name)")
        of = [dict(zip(heads, row, strict=True)) for row in table]

        def bars(scheme: str, scope: str) -> list[list[float]]:
            found = [row for row in of if (row["scheme"], row["scope"]) == (scheme, scope)]
            found.sort(key=lambda row: -row["moves"])
            return [[row[f"saved_percent_{end}"] for end in ("as_priced", "low", "high")] for row in found]

        drawn = "option().series[0].data.map((own, n) => [own[1], own[2], option().series[1].data[n][2]])"
        assert tab.evaluate(drawn) == bars("4/4/4/4", "system") != bars("4/8/6/10", "pe")
        for (name, value), expected in {
            ("scheme", "4/8/6/10"): bars("4/8/6/10", "system"),
            ("scope", "pe"): bars("4/8/6/10", "pe"),
        }.items():
            tab.evaluate(f"pick('{name}', '{value}')")
            assert tab.evaluate(drawn) == expected
        assert tab.evaluate(OVERLAPS) == []
        tab.evaluate("filter('sensitivity', 'knob:wires')")
        assert tab.evaluate("option().series[0].data.length") == 1
        tab.evaluate("filter('sensitivity', '')")
        set_to, low, high = bars("4/8/6/10", "pe")[0]
        furthest = max(low, high, key=lambda end: abs(end - set_to))
        said = _press(tab, f"chart().convertToPixel('grid', [{(set_to + furthest) / 2}, 0])")
        assert f"{abs(high - low):.4g} points" in said and "% saved" in said
        (row,) = _shown_rows(tab, "sensitivity")
        assert row[4:6] == ["4/8/6/10", "pe"]
        assert len(tab.evaluate(drawn)) > 1  # the press is for the table alone

        # The other tornado, of published figures; a front of each network.
        tab.evaluate(_chart("What free parameters move"))
        assert tab.evaluate(drawn) == [[8, 10, 9], [8, 8, 7.5]]
        tab.evaluate(_chart("Pareto front"))
        points = "option().series.slice(1).reduce((sum, own) => sum + own.data.length, 0)"
        assert tab.evaluate(points) == 2
        tab.evaluate("pick('network', 'minilm')")
        assert tab.evaluate(points) == 1
        tab.evaluate("pick('network', '')")
        assert tab.evaluate(points) == 3

        # A link to a folded part opens it; a chart is laid out anew when the screen is turned.
        tab.evaluate(
            "[...document.querySelectorAll('.contents a')]"
            ".find((own) => own.textContent === 'Files read').click()"
        )
        assert tab.evaluate("[...document.querySelectorAll('details.block')].some((own) => own.open)")
        tab.evaluate(_chart("Sensitivity to prices"))
        end = tab.evaluate("option().xAxis[0].max")  # as far as texts at the ends of bars, which have pixels
        tab.call(
            "Emulation.setDeviceMetricsOverride", width=700, height=400, deviceScaleFactor=1, mobile=False
        )
        tab.until("chart().getWidth() < 700 && chart().getWidth() > 600")
        tab.until(f"option().xAxis[0].max !== {end}")
        assert tab.evaluate(OVERLAPS) == []
        assert tab.complaints == []


def _chart(title: str) -> str:
    """Of the first chart with this title: chart, option, pick (a choice above it), filter (of its table)."""
    return (
        "{ const place = [...document.querySelectorAll('.block')].find((own) => "
        f"own.querySelector('.chart') && own.firstChild.textContent === {json.dumps(title)})"
        ".querySelector('.chart');"
        "globalThis.chart = () => echarts.getInstanceByDom(place);"
        "globalThis.option = () => chart().getOption();"
        "globalThis.pick = (name, value) => {"
        "const own = [...place.parentElement.querySelectorAll('.controls label')]"
        ".find((label) => label.textContent.startsWith(name + ':')).querySelector('select');"
        "own.value = value; own.dispatchEvent(new Event('change')); };"
        "globalThis.filter = (role, text) => tableOf(place, role)[0].filter(text);"
        "place.scrollIntoView({ block: 'center' }); }"
    )


def _rows(tab: Browser, role: str) -> list[list[object]]:
    return tab.evaluate(
        f"(() => {{ const {{ columns, rows }} = tableOf(chart().getDom(), '{role}')[0].whole;"
        "return [...Array(rows).keys()].map((n) => columns.map((own) => own.values[n])); })()"
    )


def _shown_rows(tab: Browser, role: str) -> list[list[str]]:
    tab.until(f"tableOf(chart().getDom(), '{role}')[0].search.value !== ''")
    return tab.evaluate(
        f"[...tableOf(chart().getDom(), '{role}')[0].body.rows]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )


def _press(tab: Browser, pixel: str) -> str:
    """At a place of the chart that was chosen last; what is said there before."""
    tab.evaluate(
        "(async () => { chart().getDom().scrollIntoView({ block: 'center' });"
        "for (let n = 0; n < 3; n++) await new Promise(requestAnimationFrame); })()"
    )
    x, y = tab.evaluate(
        f"(() => {{ const [x, y] = {pixel}, at = chart().getDom().getBoundingClientRect();"
        "return [at.x + x, at.y + y]; })()"
    )
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        if kind == "mouseMoved":
            tab.until("document.querySelector('.tip') !== null")
            said = tab.evaluate("[...document.querySelectorAll('.tip')].map((own) => own.textContent).join()")
    return said


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page(page: Path, tmp_path: Path, width: str) -> None:
    with Browser(tmp_path / "profile", *WIDTHS[width], phone=width == "phone") as tab:
        tab.open(page)
        tab.until(PAINT)
        assert tab.evaluate(PAINT) < 2000
        tab.evaluate("for (const own of document.querySelectorAll('details')) own.open = true")
        tab.evaluate(DRAWN)
        assert tab.complaints == []
        assert tab.evaluate(
            "[...document.querySelectorAll('.chart')].every((own) => own.querySelector('canvas'))"
        )
        assert tab.evaluate("document.querySelectorAll('.chart').length") >= 20
        assert tab.evaluate(OVERLAPS) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
        assert tab.evaluate("document.querySelectorAll('img').length") == 0
        assert tab.requests == [page.resolve().as_uri()]

        # A press on a head sorts, a second one the other way; so does the keyboard.
        grid = "document.querySelector('.grid[data-role=layers]')"
        head = f"{grid}.querySelector('th button[data-column=cycles]')"
        cells = (
            f"[...{grid}.querySelectorAll('tbody tr')].map((row) => "
            "Number(row.children[3].textContent.replaceAll(',', '')))"
        )
        assert tab.evaluate(f"{grid}.querySelectorAll('th')[3].textContent") == "cycles"
        own = tab.evaluate(cells)
        tab.evaluate(f"{head}.click()")
        assert tab.evaluate(cells) == sorted(own, reverse=True) != own
        tab.evaluate(f"{head}.focus()")
        for kind in ("keyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r")
        assert tab.evaluate(cells) == sorted(own)
        assert tab.evaluate(f"{head}.parentElement.ariaSort") == "ascending"
        assert tab.evaluate(f"document.activeElement === {head}")

        # A filter leaves the rows that it says.
        tab.evaluate(f"{grid}.querySelector('input').value = 'op:conv cycles>{min(own)}'")
        tab.evaluate(f"{grid}.querySelector('input').dispatchEvent(new Event('input'))")
        assert all(cycles > min(own) for cycles in tab.evaluate(cells))
        assert tab.evaluate(f"{grid}.querySelectorAll('tbody tr').length") < len(own)

        # A bar shows the rows that it rests on, and says what it is.
        place = _middle_of_bar(tab)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            x, y = place
            tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        prices = "document.querySelector('.grid[data-role=prices]')"
        tab.until(f"{prices}.querySelector('input').value.startsWith('component:')")
        name = tab.evaluate(f"{prices}.querySelector('input').value").removeprefix("component:").strip('"')
        shown = tab.evaluate(
            f"[...{prices}.querySelectorAll('tbody tr')].map((row) => row.children[1].textContent)"
        )
        assert shown and set(shown) == {name}
        assert tab.evaluate("document.querySelector('.tip').textContent").startswith(name)

        # The script's front is that of sweeps.
        points = np.random.default_rng(5).integers(0, 12, (60, 2))
        found = tab.evaluate(f"frontOf({points.tolist()})")
        assert sorted(found) == np.flatnonzero(front(points)).tolist()

        # A layer's name shows its prices, whatever the name.
        tab.evaluate(f"{grid}.querySelector('input').value = ''")
        tab.evaluate(f"{grid}.querySelector('input').dispatchEvent(new Event('input'))")
        buttons = f"[...{grid}.querySelectorAll('td button')]"
        chosen = f"{buttons}.find((own) => own.textContent === {json.dumps(HOSTILE)})"
        tab.evaluate(f"{chosen}.click()")
        assert tab.evaluate(f"{prices}.querySelector('select').selectedOptions[0].textContent") == HOSTILE
        assert tab.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_network_of_54_layers(resnet50: Path, tmp_path: Path, width: str) -> None:
    assert resnet50.stat().st_size < 3e6
    with Browser(tmp_path / "profile", *WIDTHS[width], phone=width == "phone") as tab:
        tab.open(resnet50)
        tab.until(PAINT)
        assert tab.evaluate(PAINT) < 2000
        assert tab.evaluate("document.querySelectorAll('.grid[data-role=layers] tbody tr').length") == 54
        tab.evaluate(DRAWN)
        assert tab.evaluate(OVERLAPS) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
        assert tab.complaints == []


def _middle_of_bar(tab: Browser) -> tuple[float, float]:
    """Where the largest bar of the energy of the first run stands on the screen."""
    found = tab.evaluate(
        "(async () => { const place = document.querySelectorAll('.chart')[0];"
        "place.scrollIntoView(); await new Promise((done) => setTimeout(done, 200));"
        "const chart = echarts.getInstanceByDom(place), name = chart.getOption().yAxis[0].data[0];"
        "const [x, y] = chart.convertToPixel('grid', [0, name]), at = place.getBoundingClientRect();"
        "return [at.x + x + 5, at.y + y]; })()"
    )
    return found[0], found[1]


def test_a_browser_is_told_apart_from_none(tmp_path: Path) -> None:
    """What the test above relies on: errors and requests of a page are seen."""
    (tmp_path / "bad.html").write_text(
        '<script src="none.js"></script><script>console.error(1); f()</script>'
    )
    with Browser(tmp_path / "profile", 800, 600) as tab:
        tab.open(tmp_path / "bad.html")
        assert len(tab.complaints) >= 2
        assert [Path(url).name for url in tab.requests] == ["bad.html", "none.js"]
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)
