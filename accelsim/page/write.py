"""The page itself: HTML with everything inside, that asks for nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from accelsim.arguments import list_of, path_of
from accelsim.errors import AccelsimError
from accelsim.page.blocks import Chart, Grid, Section, Tile
from accelsim.page.comparison import comparison_section
from accelsim.page.others import bits_section, sweep_section, validation_section
from accelsim.page.run import run_section
from accelsim.page.tables import inert
from accelsim.system.whole import whole_file, writing
from accelsim.version import __version__

_STATIC = Path(__file__).parent / "static"
_SCRIPTS = ("echarts/echarts.min.js", "timeline.js", "chosen.js", "charts.js", "page.js")
_KINDS = {
    "summary.json": run_section,
    "comparison.csv": comparison_section,
    "validate.csv": validation_section,
    "bits.json": bits_section,
}
_MOST_SECTIONS = 32


def write_report(sources: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write result folders and tables of sweeps as one page; the same results give the same bytes.

    out: a file .html, by default report.html in the first folder, or beside the first table under its name.
    Returns the file. Raises AccelsimError for what holds no results, and for a damaged file in it.
    """
    paths = [path_of(source, "report") for source in list_of(sources, "report", "folders and tables")]
    if not 0 < len(paths) <= _MOST_SECTIONS:
        raise AccelsimError(f"report: {len(paths)} folders, expected 1 to {_MOST_SECTIONS}")
    target = default_target(paths[0]) if out is None else path_of(out, "report: out")
    if target.suffix != ".html":
        raise AccelsimError(f"report: out {target}: suffix is '{target.suffix}', expected .html")
    if target.is_dir():
        raise AccelsimError(f"report: out {target}: is a folder, expected a file")
    text = page([section_of(path) for path in paths])
    with writing("report", target), whole_file(target) as new:
        new.write_text(text, encoding="utf-8")
    return target


def default_target(source: Path) -> Path:
    return source.with_suffix(".html") if source.suffix == ".csv" else source / "report.html"


def section_of(source: Path) -> Section:
    """Of a result folder, or of a sweep's table. Raises AccelsimError."""
    try:
        if source.is_file():
            return sweep_section(source)
        if (source / "store.sqlite").is_file():
            raise AccelsimError(f"report {source}: is the store of sweeps, expected a sweep's table (.csv)")
        kinds = [read for name, read in _KINDS.items() if (source / name).is_file()]
    except (OSError, ValueError) as error:
        if isinstance(error, AccelsimError):
            raise
        raise AccelsimError(f"report {str(source)[:100]}: cannot be read: {error}") from None
    if not kinds:
        found = f"holds none of {', '.join(_KINDS)}" if source.is_dir() else "no such folder"
        raise AccelsimError(f"report {source}: {found}, expected a result folder or a sweep's table (.csv)")
    return kinds[0](source)


def page(sections: Sequence[Section]) -> str:
    """HTML. Names from folders are escaped in it, and in data that scripts show as text only."""
    blocks: list[dict[str, Any]] = []
    body = "".join(_section(section, f"s{number}", 2, blocks) for number, section in enumerate(sections))
    scripts = [_static(name) for name in _SCRIPTS]
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    # Whatever slipped in as markup could neither run nor fetch anything.
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:"
    title = escape(" · ".join(section.title for section in sections)[:200])
    links = "".join(
        f'<li><a href="#s{number}">{escape(section.title)}</a></li>'
        for number, section in enumerate(sections)
    )
    contents = f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(sections) > 1 else ""
    inside = "".join(f"<script>{script}</script>\n" for script in scripts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_static('page.css')}</style>\n</head>\n<body>\n"
        f"<header><h1>accelsim report</h1>{contents}</header>\n<main>\n{body}</main>\n"
        f"<footer>Made by accelsim {escape(__version__)} from the files named in each section. Charts: "
        "Apache ECharts 6.1.0, Apache License 2.0, The Apache Software Foundation.</footer>\n"
        "<noscript><p>Tables and charts need JavaScript; it is all in this file.</p></noscript>\n"
        f'<script type="application/json" id="data">{inert(blocks)}</script>\n{inside}</body>\n</html>\n'
    )


def _section(section: Section, name: str, level: int, blocks: list[dict[str, Any]]) -> str:
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in section.facts)
    tiles = "".join(_tile(tile) for tile in section.tiles)
    parts = [f'<dl class="facts">{facts}</dl>', f'<ul class="tiles">{tiles}</ul>' if tiles else ""]
    parts += [f'<p class="note">{escape(note)}</p>' for note in section.notes]
    first = len(blocks)
    links = "".join(
        f'<li><a href="#b{number}">{escape(block.title)}</a></li>'
        for number, block in enumerate(section.blocks, start=first)
    )
    parts.append(f'<nav class="contents" aria-label="{escape(section.title)}"><ul>{links}</ul></nav>')
    parts += [_block(block, level + 1, blocks) for block in section.blocks]
    for number, inner in enumerate(section.inner):
        parts.append(
            f'<details class="run"><summary>Run at {escape(inner.title)}</summary>'
            f"{_section(inner, f'{name}r{number}', level + 1, blocks)}</details>\n"
        )
    heading = f"<h{level}>{escape(section.title)}</h{level}>"
    return f'<section class="results" id="{name}">{heading}\n{"".join(parts)}</section>\n'


def _tile(tile: Tile) -> str:
    button = ""
    if tile.rows:
        role, terms = (escape(part) for part in tile.rows)
        button = f'<button type="button" data-role="{role}" data-filter="{terms}">{role}</button>'
    return (
        f'<li><span class="label">{escape(tile.label)}</span><span class="value">{escape(tile.value)}</span>'
        f'<span class="from">{escape(tile.source)} {button}</span></li>'
    )


def _block(block: Chart | Grid, level: int, blocks: list[dict[str, Any]]) -> str:
    number = len(blocks)
    about = f'<p class="about">{escape(block.about)}</p>'
    heading = f"<h{level}>{escape(block.title)}</h{level}>"
    if isinstance(block, Chart):
        blocks.append({"kind": block.kind, "title": block.title, "data": block.data})
        inside = (
            f'<div class="chart" data-block="{number}" role="img" aria-label="{escape(block.title)}"></div>'
        )
        return f'<section class="block" id="b{number}">{heading}{about}{inside}</section>\n'
    blocks.append(
        {"kind": "table", "title": block.title, **block.extra, "data": block.table.payload(block.shown)}
    )
    role = f' data-role="{block.role}"' if block.role else ""
    inside = f'{about}<div class="grid" data-block="{number}"{role}></div>'
    if block.folded:
        summary = f"<summary>{escape(block.title)}</summary>"
        return f'<details class="block" id="b{number}">{summary}{inside}</details>\n'
    return f'<section class="block" id="b{number}">{heading}{inside}</section>\n'


def _static(name: str) -> str:
    return (_STATIC / name).read_text("utf-8")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
