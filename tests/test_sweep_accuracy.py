"""Accuracy of a space's points: from a table, from a function, in tables and in a search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Said
from test_sweep import inline, space_of

from accelsim.errors import AccelsimError
from accelsim.machine.plain_yaml import load_yaml
from accelsim.sweep import Space, sweep, tune
from accelsim.sweep.accuracy import AccuracyTable, read_table

pytestmark = pytest.mark.kept

__all__ = ["inline"]  # a fixture of test_sweep.py, used here as well

SCHEMES = ["4/4/4/4", "8/8/-/-", "6/6/-/-"]
TABLE = """network,scheme,quantize,accuracy,cosine,note
digits,8/8/-/-,plain,0.98,0.999,
digits,4/4/4/4,plain,0.93,,of 10000 images
digits,4/4/4/4,best,0.95,0.99,
digits,float,float,0.985,1,
digits,3/3/4/4,plain,banana,,not of the space
lenet,8/8/-/-,plain,0.5,,
"""


def written(folder: Path, text: str = TABLE) -> Path:
    file = folder / "measured.csv"
    file.write_text(text)
    return file


def table_of(file: Path | str, **more: Any) -> dict[str, Any]:
    return {"file": str(file), "where": {"quantize": "plain"}, **more}


def test_a_table_is_joined_by_network_and_scheme(trace: Path, tmp_path: Path) -> None:
    """The network by the name of its file; other networks and schemes are none of the space's."""
    text = TABLE.replace("digits", trace.stem)
    space = space_of(
        trace, schemes=SCHEMES, prices=[{}, {"voltage_v": 0.8}], accuracy=table_of(written(tmp_path, text))
    )
    frame = sweep(space, tmp_path / "store").to_frame()
    assert frame["accuracy"].fillna(-1).tolist() == [0.93, 0.93, 0.98, 0.98, -1, -1]
    assert frame["accuracy_from"].str.slice(0, 29).tolist()[::2] == [
        "measured.csv line 3, SHA-256 ",
        "measured.csv line 2, SHA-256 ",
        "",
    ]
    axes = sweep(space, tmp_path / "store").plot.pareto("energy_system_pj", "area_array_um2", "accuracy")
    assert "none" in [own.get_label() for own in axes.collections]


def test_a_name_that_two_files_have_is_neither_s(tmp_path: Path) -> None:
    """Rows of a network would be taken for those of another."""
    networks = [str(tmp_path / folder / "net.safetensors") for folder in ("old", "new")]
    lines = ["network,scheme,accuracy", "net,4/4/4/4,0.5", f"{networks[0]},4/4/4/4,0.9"]
    table = AccuracyTable(file=str(written(tmp_path, "\n".join(lines))))
    assert read_table(table, networks, ["4/4/4/4"]).values == {networks[0]: {"4/4/4/4": {"accuracy": 0.9}}}
    assert list(read_table(table, [networks[1]], ["4/4/4/4"]).values) == [networks[1]]


def test_a_table_that_changes_needs_no_new_simulation(trace: Path, tmp_path: Path) -> None:
    text = TABLE.replace("digits", str(trace))
    for value in ("0.93", "0.91"):
        own = written(tmp_path, text.replace("0.93", value))
        done = sweep(space_of(trace, accuracy=table_of(own)), tmp_path / "store")
        assert done.to_frame()["accuracy"].tolist() == [float(value), 0.98]
    assert done.counts.computed == 0


def test_columns_have_the_names_that_the_space_gives_them(tmp_path: Path) -> None:
    columns = {"accuracy": "top-1", "cosine": "cosine of logits"}
    space = space_of("digits", accuracy=table_of(written(tmp_path), columns=columns))
    assert space.accuracy == {
        "digits": {"4/4/4/4": {"top-1": 0.93}, "8/8/-/-": {"top-1": 0.98, "cosine of logits": 0.999}}
    }


def test_the_file_is_looked_for_beside_the_space(tmp_path: Path) -> None:
    written(tmp_path, "network,scheme,accuracy\ndigits,4/4/4/4,0.5\n")
    file = tmp_path / "space.yaml"
    for how in ("measured.csv", "{file: measured.csv}"):
        file.write_text(f"networks: [digits]\nschemes: [4/4/4/4]\naccuracy: {how}\n")
        assert Space.read(file).accuracy == {"digits": {"4/4/4/4": {"accuracy": 0.5}}}


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        (
            TABLE,
            {"where": {}},
            "lines 3 and 4 are both of digits at 4/4/4/4, expected one; they differ in quantize, acc",
        ),
        (
            TABLE,
            {"columns": {"top": "top"}},
            "expected one column 'top', its header is: network, scheme, quan",
        ),
        (
            TABLE,
            {"columns": {"note": "note"}},
            "line 3, note: is 'of 10000 images', expected a finite number",
        ),
        (TABLE.replace("0.93", "nan"), {}, "line 3, accuracy: is 'nan', expected a finite number"),
        (TABLE, {"columns": {"accuracy": "cycles"}}, "'cycles' is another column of the table"),
        (TABLE, {"columns": {"accuracy": ""}}, "accuracy: a name is '', expected 1 to 60 printable"),
        (TABLE, {"column": {}}, "unknown key 'column'; known keys are file, columns, where"),
        (TABLE, {"where": {"quantize": "none"}}, "none of 6 rows is of a network and a scheme of the space"),
        (TABLE.replace("network", "net"), {}, "expected one column 'network'"),
        (TABLE.replace("note", "accuracy"), {}, "expected one column 'accuracy'"),
        ("", {}, "expected one column 'network'"),
        ('network,scheme,accuracy\n"digits', {}, "cannot be read as CSV: unexpected end of data"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(AccelsimError) as raised:
        space_of("digits", accuracy=table_of(written(tmp_path, text), **more))
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for what, said in ((tmp_path / "nowhere.csv", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(AccelsimError, match=f"cannot be read as CSV: {said}"):
            space_of("digits", accuracy=str(what))
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AccelsimError, match="cannot be read as CSV"):
        space_of("digits", accuracy=str(tmp_path / "bytes.csv"))


def test_the_pages_table_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "sweep.md").read_text("utf-8").partition("## Accuracy")[2]
    monkeypatch.chdir(docs)
    space = Space.of(load_yaml(page.partition("```yaml\n")[2].partition("```")[0], "docs/sweep.md"))
    assert set(space.accuracy[space.networks[0]]) == set(space.schemes)


# --- a function ---------------------------------------------------------------------------------------------


def measured(network: str, scheme: str) -> dict[str, float] | None:
    return None if scheme == "6/6/-/-" else {"top-1 (%)": 90.0 + int(scheme[0])}


def test_a_function_is_asked_once_for_each_network_and_scheme(trace: Path, tmp_path: Path) -> None:
    asked = []

    def measure(network: str, scheme: str) -> dict[str, float] | None:
        asked.append((network, scheme))
        return measured(network, scheme)

    space = space_of(trace, schemes=SCHEMES, set={"clock_ghz": [0.5, 1.0]}).with_accuracy(measure)
    frame = sweep(space, tmp_path / "store").to_frame()
    assert asked == [(str(trace), scheme) for scheme in SCHEMES]
    assert frame["top-1 (%)"].fillna(0).tolist() == [94, 94, 98, 98, 0, 0]
    assert frame["accuracy_from"].str.endswith("measure").tolist() == [True] * 4 + [False] * 2
    again = space.with_accuracy(measured)
    assert again.accuracy == space.accuracy and again.size == space.size


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (0.9, "accuracy of digits at 4/4/4/4: is 0.9, expected numbers by name or None"),
        ({"top-1": float("nan")}, "accuracy of digits at 4/4/4/4: top-1: is nan, expected a finite number"),
        ({"cycles": 1.0}, "'cycles' is another column of the table"),
        ({"clock_ghz": 1.0}, "accuracy: clock_ghz is a parameter that varies"),
    ],
)
def test_functions_that_say_something_else(said: Any, expected: str) -> None:
    with pytest.raises(AccelsimError) as raised:
        space_of("digits", set={"clock_ghz": [0.5, 1.0]}).with_accuracy(lambda network, scheme: said)
    assert expected in str(raised.value)
    with pytest.raises(AccelsimError, match="expected a function of network and scheme"):
        space_of("digits").with_accuracy("module:function")  # type: ignore[arg-type]


# --- a search -----------------------------------------------------------------------------------------------


def test_a_search_with_a_floor(trace: Path, tmp_path: Path, cli: Callable[..., Said]) -> None:
    """And with accuracy as an objective: the front is that of the sweep's table."""
    pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'accelsim[tune]'")
    written(
        tmp_path,
        "network,scheme,accuracy\n" + "".join(f"{trace.stem},{own},{own[0]}e-1\n" for own in SCHEMES),
    )
    file = tmp_path / "space.yaml"
    file.write_text(
        f"networks: [{trace}]\nschemes: [4/4/4/4, 8/8/-/-, 6/6/-/-]\nset: {{pes: [2, 4]}}\n"
        "accuracy: measured.csv\n"
        "tune:\n  objectives: {energy_pe_pj: min, accuracy: max}\n  constraints: {accuracy: {min: 0.5}}\n"
    )
    said = cli("tune", file, "--store", tmp_path / "store", "--out", tmp_path / "tuned.csv")
    assert said.status == 0, said.err
    frame = pd.read_csv(tmp_path / "tuned.csv", keep_default_na=False)
    assert (frame["feasible"] == (frame["scheme"] != "4/4/4/4")).all() and len(frame) == 6
    kept = frame[frame["feasible"]]
    assert set(frame.loc[frame["front"], "energy_pe_pj"]) == set(kept.groupby("scheme")["energy_pe_pj"].min())
    assert frame["accuracy_from"].str.startswith("measured.csv line ").all()


def test_a_search_needs_it_of_every_scheme(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'accelsim[tune]'")
    wanted = {"objectives": {"cycles": "min"}, "constraints": {"accuracy": {"min": 0.75}}}
    space = space_of("digits", schemes=SCHEMES, accuracy=table_of(written(tmp_path)), tune=wanted)
    with pytest.raises(AccelsimError, match="'accuracy', which accuracy does not have of scheme 6/6/-/-"):
        tune(space, tmp_path / "store")
