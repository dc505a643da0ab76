"""Pages of results in headless Chromium: nothing is asked for, nothing complains, tables and bars answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from test_page import HOSTILE, SWEEP

from accelsim.api import compare, run
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


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page(page: Path, tmp_path: Path, width: str) -> None:
    with Browser(tmp_path / "profile", *WIDTHS[width], phone=width == "phone") as tab:
        tab.open(page)
        tab.until(PAINT)
        assert tab.evaluate(PAINT) < 2000
        tab.evaluate("for (const own of document.querySelectorAll('details')) own.open = true")
        tab.evaluate(
            "(async () => { for (const own of document.querySelectorAll('.chart')) {"
            "own.scrollIntoView(); for (let n = 0; n < 300 && !own.querySelector('canvas'); n++)"
            "await new Promise(requestAnimationFrame); } })()"
        )
        assert tab.complaints == []
        assert tab.evaluate(
            "[...document.querySelectorAll('.chart')].every((own) => own.querySelector('canvas'))"
        )
        assert tab.evaluate("document.querySelectorAll('.chart').length") >= 20
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
