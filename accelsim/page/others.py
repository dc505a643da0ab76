"""Sections of a sweep's table, of published figures beside modelled ones, and of bits."""

from __future__ import annotations

from pathlib import Path

from accelsim.errors import AccelsimError
from accelsim.page.blocks import Chart, Grid, Section, Tile, files_grid
from accelsim.page.tables import Files, Table, short
from accelsim.report.figures import NAMES
from accelsim.report.folder import BITS_TABLES

_FIGURES = ("energy_system_pj", "area_array_um2", "latency_ms", "cycles", "energy_pe_pj", "utilization")
_MORE_IS_BETTER = ("utilization", "tops_per_mm2", "highest_clock_ghz", "clock_margin")
_NO_FIGURE = ("feasible", "front", "error", "warning", "accuracy_from")
_SHOWN_VALIDATION = (
    "id",
    "family",
    "published",
    "modelled",
    "ratio",
    "unit",
    "scope",
    "scheme",
    "status",
    "reason",
    "source",
)


def sweep_section(path: Path) -> Section:
    """Of a table that `accelsim sweep` or `accelsim tune` wrote. Raises AccelsimError."""
    if path.suffix != ".csv":
        raise AccelsimError(f"report {path}: expected a result folder or a sweep's table as .csv")
    files = Files(path.parent)
    table = files.table(path.name, texts=("network", "scheme", "arch", "error"))
    figures = [
        name for name in table.columns if not table.is_text(name) and any(v is not None for v in table[name])
    ]
    figures = [name for name in figures if name not in _NO_FIGURE]
    columns = list(table.columns)
    axes = columns[3 : columns.index("macs")] if "macs" in table else []
    measured = [name for name in columns[3 + len(axes) :] if name in figures and name not in NAMES]
    failed = sum(error != "" for error in table["error"])
    networks, schemes = (list(dict.fromkeys(table[key])) for key in ("network", "scheme"))
    facts = [
        ("networks", ", ".join(networks[:20])),
        (
            "schemes",
            ", ".join(schemes[:20]) + (f" and {len(schemes) - 20} more" if len(schemes) > 20 else ""),
        ),
    ]
    tiles = [
        Tile("points", f"{len(table):,}", path.name),
        Tile("failed", f"{failed:,}", f"{path.name}: error"),
    ]
    blocks: list[Chart | Grid] = []
    notes = []
    if failed < len(table) and len(figures) > 1:
        first = [name for name in _FIGURES if name in figures]
        more = [*_MORE_IS_BETTER, *measured]
        x, y = list(dict.fromkeys(first + figures))[:2]
        about = (
            "A point a row of the table below that passes its filter and has no error; the line joins those "
            "that no other shown point is better than in one of the two figures and as good in the other. "
            "Two figures at a time: points that only a third one favours are not on it. Energy and time of "
            "one network say nothing of another's, so that each network has a front of its own."
        )
        data = {"figures": figures, "x": x, "y": y, "more": more}
        blocks.append(Chart("pareto", "Pareto front", about, data))
    else:
        notes.append("No front: no two figures of points without an error.")
    order = ("network", "scheme", "arch", *axes, *_FIGURES, *measured, "front", "feasible", "error")
    about = (
        f"{path.name}, a row a point; docs/sweep.md defines the columns. The filter also chooses points of "
        "the chart."
    )
    blocks += [Grid("Points", about, table, order, role="points"), files_grid(files.hashes)]
    return Section(path.name, facts, tiles, blocks, notes)


def validation_section(folder: Path) -> Section:
    """Of a folder that `accelsim validate` wrote. Raises AccelsimError."""
    files = Files(folder)
    texts = ("id", "family", "claim", "unit", "scope", "scheme", "status", "reason", "source", "workload")
    rows = files.table("validate.csv", numbers=("published",), texts=texts)
    for column in ("modelled", "ratio"):
        if column not in rows or rows.is_text(column):
            raise AccelsimError(f"report {folder / 'validate.csv'}: expected numbers in {column}")
    points = []
    columns = ("family", "id", "ratio", "published", "modelled", "unit", "claim", "status", "source")
    for family, name, ratio, *rest in zip(*(rows[key] for key in columns), strict=True):
        if ratio is not None and ratio > 0:
            published, modelled, unit, claim, status, source = rest
            lines = [claim, f"published {published:.4g} {unit}, modelled {modelled or 0:.4g}", status, source]
            points.append([family, name, short(ratio), *lines])
    about = (
        "Modelled over published, a point a figure, by family; 1 is a figure that is met. validate.csv; "
        "docs/validate.md says what each line says."
    )
    tiles = [
        Tile("published figures", f"{len(rows):,}", "validate.csv"),
        Tile("of them modelled", f"{sum(r is not None for r in rows['ratio']):,}", "validate.csv: ratio"),
    ]
    blocks: list[Chart | Grid] = []
    if points:
        blocks.append(Chart("ratios", "Modelled over published", about, {"points": points}))
    blocks.append(
        Grid(
            "Figures",
            "validate.csv, misses included, each with its source and the reason of a miss.",
            rows,
            _SHOWN_VALIDATION,
            role="figures",
        )
    )
    for name, title, said in (
        ("errors", "Errors by family", "of what is predicted; percent"),
        ("free_parameters", "Free parameters", "what publications leave open, what it is set to, and why"),
    ):
        if files.has(f"{name}.csv"):
            blocks.append(Grid(title, f"{name}.csv: {said}.", files.table(f"{name}.csv")))
    if files.has("tornado.csv"):
        blocks += _tornado(files)
    blocks.append(files_grid(files.hashes))
    families = list(dict.fromkeys(rows["family"]))
    return Section("Published figures", [("families", ", ".join(families))], tiles, blocks)


def _tornado(files: Files) -> list[Chart | Grid]:
    numbers = ("as_set", "at_low", "at_high")
    table = files.table("tornado.csv", numbers=numbers, texts=("figure", "parameter", "low", "high"))
    about = (
        "A figure with one free parameter at its low and its high end and the others as they are set: a bar "
        "a parameter, the one that moves most on top; the line is the figure as set. tornado.csv, the table "
        "below, whose filter chooses bars; docs/validate.md says what the parameters are."
    )
    data = {
        "role": "tornado",
        "by": ["figure"],
        "first": {},
        "name": "parameter",
        "of": "parameter",
        "low_is": "low",
        "high_is": "high",
        "as_set": "as_set",
        "low": "at_low",
        "high": "at_high",
        "short_unit": "",
        "points": "",
        "set": "as set",
    }
    shown = "tornado.csv: figures as set and with each parameter at its ends."
    return [
        Chart("tornado", "What free parameters move", about, data),
        Grid("Figures at the ends of parameters", shown, table, role="tornado"),
    ]


# What histograms.csv counts, and along which axis (docs/bits.md).
_QUANTITIES = {
    "dot_product": ("dot products", "bits of the magnitude, 0 of a zero"),
    "scale_product": ("scale products", "bits of the magnitude, 0 of a zero"),
    "partial_sum": ("partial sums, after each step", "bits of the magnitude, 0 of a zero"),
    "psum": ("final partial sums", "bits of the magnitude, 0 of a zero"),
    "output_bits": ("outputs, by the width that their partial sums need", "bits in two's complement"),
}
_NEEDED = "output_bits"  # which the accumulator can be compared with
_MOST_BITS = 128


def _bits_chart(table: Table, accumulator_bits: int, where: str) -> Chart:
    if not all(isinstance(bits, int) and 0 <= bits <= _MOST_BITS for bits in table["bits"]):
        raise AccelsimError(f"{where}: column bits: expected whole numbers of 0 to {_MOST_BITS}")
    if min(table["count"]) < 0:
        raise AccelsimError(f"{where}: column count: expected numbers of at least 0")
    about = (
        "How many bits values take on this trace's data, a row a layer: the darker, the larger the share of "
        "the layer's values. Colours are decades of the share, since a few values decide a width. "
        "histograms.csv, the table below, whose filter chooses layers; docs/bits.md defines the quantities. "
        "The line is the machine's accumulator, which outputs that need more bits overflow."
    )
    data = {"quantity": _NEEDED, "accumulator_bits": accumulator_bits, "said": _QUANTITIES}
    return Chart("bits", "Bits of values", about, data)


def bits_section(folder: Path) -> Section:
    """Of a folder that `accelsim bits` wrote. Raises AccelsimError."""
    files = Files(folder)
    found = files.json("bits.json")
    facts = []
    for key in ("trace", "scheme", "arch", "accelsim_version", "trace_sha256"):
        value = found.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= 500:
            raise AccelsimError(
                f"report {folder / 'bits.json'}: {key} is {ascii(value)[:40]}, expected a text"
            )
        facts.append((key.replace("_", " "), value))
    tiles = [
        Tile(key.replace("_", " "), str(found.get(key))[:20], f"bits.json: {key}")
        for key in ("accumulator_bits", "overflows", "partial_sum_bits", "psum_bits", "lossless_bits")
    ]
    accumulator_bits = found.get("accumulator_bits")
    if type(accumulator_bits) is not int or not 0 < accumulator_bits <= _MOST_BITS:
        said = ascii(accumulator_bits)[:40]
        raise AccelsimError(
            f"report {folder / 'bits.json'}: accumulator_bits is {said}, expected 1 to {_MOST_BITS}"
        )
    titles = ("Layers", "Widths", "Histograms", "Codes")
    grids: list[Chart | Grid] = []
    for name, title in zip(BITS_TABLES, titles, strict=True):
        counted = name == "histograms"
        table: Table = files.table(
            f"{name}.csv",
            texts=("layer", "quantity") if counted else ("layer",),
            numbers=("bits", "count") if counted else (),
        )
        about = f"{name}.csv; docs/bits.md defines its columns."
        grids.append(Grid(title, about, table, role=name if counted else "", folded=len(table) > 100))
        if counted:
            where = f"report {folder / f'{name}.csv'}"
            grids.insert(0, _bits_chart(table, accumulator_bits, where))
    grids.append(files_grid(files.hashes))
    title = f"{found['trace']} at {found['scheme']} on {found['arch']}: bits"
    return Section(title, facts, tiles, grids)
