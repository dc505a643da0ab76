"""The command line on bad input: one line with exit status 2 for whatever is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Said, contents, python_m, refused

from accelsim.cli import progress

pytestmark = pytest.mark.kept

Cli = Callable[..., Said]


@pytest.fixture
def doors(trace: Path, tmp_path: Path) -> Path:
    """A folder with one of everything that can be wrong."""
    good = trace.read_bytes()
    (tmp_path / "good.safetensors").write_bytes(good)
    (tmp_path / "cut.safetensors").write_bytes(good[:-9])
    (tmp_path / "head.safetensors").write_bytes(good[:40])
    (tmp_path / "noise.safetensors").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "none.safetensors").write_bytes(b"")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("mine")
    for name, text in {
        "unknown": "base: magnet16\npess: 4\n",
        "nested": "base: magnet16\nmapping: {ordre: KP}\n",
        "twice": "base: magnet16\npes: 4\npes: 8\n",
        "type": "base: magnet16\npes: many\n",
        "nan": "base: magnet16\nclock_ghz: .nan\n",
        "list": "- pes\n- 4\n",
        "deep": "[" * 1200,
        "cycle": "base: cycle.yaml\n",
        "sram": "base: magnet16\nsram_device: steam\n",
        "node": "base: magnet16\nnode_nm: 200\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "noise.yaml").write_bytes(bytes(range(256)))
    return tmp_path


RUN = ("run", "good.safetensors")
BAD = {
    # trace
    "truncated": (("run", "cut.safetensors"), "cut.safetensors", "truncated"),
    "header only": (("run", "head.safetensors"), "head.safetensors"),
    "noise": (("run", "noise.safetensors"), "noise.safetensors"),
    "empty": (("run", "none.safetensors"), "0 bytes"),
    "no trace": (("run", "absent"), "'absent'", "digits"),
    "folder as trace": (("run", "foreign"), "foreign"),
    "info": (("trace", "info", "cut.safetensors"), "truncated"),
    "compare": (("compare", "cut.safetensors"), "truncated"),
    "quantize": (("trace", "quantize", "cut.safetensors", "--scheme", "4/4/4/4", "--out", "q"), "truncated"),
    # scheme
    "weight bits": ((*RUN, "--scheme", "9/8/-/-"), "9/8/-/-", "weight bits is 9", "2 to 8"),
    "no weight bits": ((*RUN, "--scheme", "0/4/4/4"), "weight bits is 0"),
    "activation bits": ((*RUN, "--scheme", "4/1/4/4"), "activation bits is 1"),
    "scale of 0 bits": ((*RUN, "--scheme", "4/4/0/4"), "'4/4/0/4'", "weight-scale"),
    "scale bits": ((*RUN, "--scheme", "4/4/4/11"), "activation-scale bits is 11"),
    "sp of 0": ((*RUN, "--scheme", "4/4/4/4:sp0"), "scale-product"),
    "nonsense": ((*RUN, "--scheme", "int8"), "'int8'", "W/A/ws/as"),
    "nonsense in compare": (("compare", "good.safetensors", "--scheme", "4/4"), "'4/4'"),
    "scheme twice": (("compare", "good.safetensors", *["--scheme", "4/4/4/4"] * 2), "twice"),
    # arch
    "no arch": ((*RUN, "--arch", "absent.yaml"), "absent.yaml", "magnet16"),
    "folder as arch": ((*RUN, "--arch", "foreign"), "foreign"),
    "unknown key": ((*RUN, "--arch", "unknown.yaml"), "unknown.yaml", "'pess'", "pes"),
    "unknown nested key": ((*RUN, "--arch", "nested.yaml"), "'mapping.ordre'", "order"),
    "key twice": ((*RUN, "--arch", "twice.yaml"), "twice.yaml", "'pes'", "line 3"),
    "wrong type": ((*RUN, "--arch", "type.yaml"), "pes = 'many'", "integer"),
    "nan": ((*RUN, "--arch", "nan.yaml"), "clock_ghz = nan", "finite"),
    "list": ((*RUN, "--arch", "list.yaml"), "list.yaml", "mapping of parameter names"),
    "binary": ((*RUN, "--arch", "noise.yaml"), "noise.yaml", "UTF-8"),
    "deep": ((*RUN, "--arch", "deep.yaml"), "deep.yaml"),
    "base of itself": ((*RUN, "--arch", "cycle.yaml"), "refers back to itself"),
    "sram device": ((*RUN, "--arch", "sram.yaml"), "'steam'", "itrs-lstp"),
    "node": ((*RUN, "--arch", "node.yaml"), "200", "3 to 130"),
    # overrides
    "set unknown": ((*RUN, "--set", "pess=4"), "'pess'"),
    "set unknown nested": ((*RUN, "--set", "mapping.ordre=KP"), "'mapping.ordre'"),
    "set too deep": ((*RUN, "--set", "pes.pes=4"), "pes.pes=4"),
    "set without value": ((*RUN, "--set", "pes"), "KEY=VALUE"),
    "set with empty value": ((*RUN, "--set", "pes="), "KEY=VALUE"),
    "set wrong type": ((*RUN, "--set", "pes=4.5"), "pes = 4.5"),
    "set out of range": ((*RUN, "--set", "pes=0"), "pes = 0"),
    "set bad yaml": ((*RUN, "--set", "pes=[4"), "pes=[4"),
    "set together": ((*RUN, "--set", "lanes=12"), "vector_size 16", "lanes 12"),
    "set odd buffer": ((*RUN, "--set", "input_buffer_words=7"), "input_buffer_words is 7", "even"),
    "dram kind": ((*RUN, "--set", "dram_kind=punchcards"), "'punchcards'", "lpddr4"),
    # quantize options
    "quantize nonsense": ((*RUN, "--quantize", "better"), "better", "KEY=VALUE", "gamma_percentile"),
    "quantize key": ((*RUN, "--quantize", "rounding=up"), "rounding=up"),
    "quantize value": ((*RUN, "--quantize", "elements=best"), "'best'", "integer_scale"),
    "quantize number": ((*RUN, "--quantize", "weight_percentile=most"), "weight_percentile=most", "number"),
    "quantize nan": ((*RUN, "--quantize", "weight_percentile=nan"), "weight_percentile is nan"),
    "quantize percentile": (
        (*RUN, "--quantize", "percentile=99.9"),
        "--quantize percentile=99.9: percentile is now weight_percentile, activation_percentile, gamma_perc",
    ),
    # machine and layer do not fit
    "unsigned machine": ((*RUN, "--set", "activation_sign=unsigned"), "layer first", "signed"),
    "signed machine": ((*RUN, "--set", "activation_sign=signed"), "layer middle", "unsigned"),
    "overflow": (
        (*RUN, "--set", "overflow=error", "--set", "accumulator_bits=8"),
        "layer first", "8 bits", "pixel", "channel",
    ),
    "input buffer": (
        (*RUN, "--set", "input_buffer_words=2", "--set", "mapping.units_per_tile=1"),
        "an input tile takes", "words", "at most 1 (half of input_buffer_words)",
    ),
    "pinned weight tile": (
        (*RUN, "--set", "weight_buffer_words=8", "--set", "mapping.units_per_tile=1"),
        "layer middle", "a weight tile takes 12 words", "at most 4 (half of weight_buffer_words)",
    ),
    "weight region": (
        (*RUN, *("--set global_buffer_kb=1 --set gb_weight_kb=null --set output_staging_tiles=2"
         " --set mapping.units_per_tile=1").split()),
        "layer", "weight tile takes", "weight region of 2048 bits",
    ),
    "out fifo": ((*RUN, "--set", "vector_size=64"), "out_fifo_words is 32", "at least 64"),
    "accumulator": ((*RUN, "--set", "accumulator_bits=63"), "accumulator_bits is 63"),
    "too many pes": ((*RUN, "--set", "mapping.k_split=17"), "k_split 17", "pes = 16"),
    # where results go
    "out is a file": ((*RUN, "--out", "file"), "results file", "is a file"),
    "out below a file": ((*RUN, "--out", "file/out"), "file/out", "not a folder"),
    "out holds other files": ((*RUN, "--out", "foreign"), "foreign", "holds other files"),
    "compare out holds other files": (("compare", "good.safetensors", "--out", "foreign"), "other files"),
    "out name too long": ((*RUN, "--out", "y" * 300), "too long"),
    "out name of many lines": ((*RUN, "--out", "y\n" * 150), "too long"),
    "quantize into a folder": (
        ("trace", "quantize", "good.safetensors", "--scheme", "4/4/4/4", "--out", "foreign"), "foreign",
    ),
    "quantize into nothing": (
        ("trace", "quantize", "good.safetensors", "--scheme", "4/4/4/4", "--out", "no/q"), "no/q",
    ),
    # usage
    "unknown option": ((*RUN, "--shceme", "4/4/4/4"), "--shceme"),
    "unknown command": (("rum", "good.safetensors"), "'rum'"),
    "no argument": (("run",), "TRACE"),
    "extra argument": ((*RUN, "more"), "more"),
    "option without value": ((*RUN, "--scheme"), "--scheme"),
    "quantize without out": (("trace", "quantize", "good.safetensors", "--scheme", "4/4/4/4"), "--out"),
    "vector size": (
        ("trace", "quantize", "good.safetensors", "--scheme", "4/4/4/4", "--out", "q", "--vector-size", "0"),
        "--vector-size",
    ),
    "unknown component": (("costs", "flux_capacitor"), "'flux_capacitor'", "dot_product"),
    "one unknown component": (("costs", "sram", "flux_capacitor"), "'flux_capacitor'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(doors: Path, cli: Cli, case: str) -> None:
    arguments, *wanted = BAD[case]
    before = contents(doors)
    line = refused(cli(*arguments))
    for text in wanted:
        assert text in line
    assert contents(doors) == before


# Each of these is a traceback where one line is promised; the mark goes when the bug does.
BUGS = {
    "huge bit width": ((*RUN, "--scheme", "9" * 5000 + "/4/4/4"), "scheme"),
    "digits of another script": ((*RUN, "--scheme", "٤/٤/٤/٤"), "scheme"),
    "set a date": ((*RUN, "--set", "pes=2001-99-99"), "--set"),
    "set a wrong tag": ((*RUN, "--set", "pes=!!bool x"), "--set"),
    "set something deep": ((*RUN, "--set", "pes=" + "[" * 1200), "--set"),
    "set nothing in hex": ((*RUN, "--set", "pes=0x_"), "--set"),
    "set a key twice": ((*RUN, "--set", "mapping={order: KP, order: PK}"), "'order'"),
}


@pytest.mark.parametrize("case", BUGS)
def test_bad_input_that_gets_through(doors: Path, cli: Cli, case: str) -> None:
    arguments, *wanted = BUGS[case]
    before = contents(doors)
    line = refused(cli(*arguments))
    assert len(line) < 1000 and all(text in line for text in wanted)
    assert contents(doors) == before


@pytest.mark.parametrize("patience_s", [60.0, 0.0])
def test_one_line_on_stderr(
    trace: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE_S", patience_s)
    assert cli("run", trace, "--no-plots", "--out", "r").err == ""
    narrow = ("--set", "overflow=error", "--set", "accumulator_bits=8")
    for bad in (("--set", "pes=0"), ("--scheme", "9/8/-/-"), narrow):
        said = cli("run", trace, *bad)
        assert said.status == 2
        assert said.err.startswith("error: ") and said.err.count("\n") == 1


@pytest.mark.parametrize("name", ["a[/b]c", r"a$\foo$c", "a[red]c"])
def test_names_are_text_not_markup(trace: Path, cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"base": "magnet16", "name": name}))
    said = cli("run", trace, "--arch", "m.yaml", "--out", "r")
    assert said.status == 2 and said.err.count("\n") == 1 and name in said.err.replace(r"\\", "\\")


def test_trace_names_are_text(trace: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copy(trace, tmp_path / r"a$\foo$c.safetensors")
    assert cli("run", r"a$\foo$c.safetensors", "--out", "r").status == 0


def test_output_in_ascii(trace: Path, tmp_path: Path) -> None:
    shutil.copy(trace, tmp_path / "größe.safetensors")
    done = python_m(
        "run", "größe.safetensors", "--out", "r", "--no-plots", cwd=tmp_path, PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 0, done.stderr


def test_quantize_does_not_overwrite_what_it_should_not(trace: Path, cli: Cli, tmp_path: Path) -> None:
    quantize = ("trace", "quantize", trace, "--scheme", "4/4/4/4", "--out")
    before = Path(trace).read_bytes()
    assert "is the trace that is read" in refused(cli(*quantize, trace))
    assert Path(trace).read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine")
    assert "not a trace" in refused(cli(*quantize, "notes.txt"))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert cli(*quantize, "new.safetensors").status == 0
    assert cli(*quantize, "new.safetensors").status == 0


def test_rtl_is_written(trace: Path, cli: Cli, tmp_path: Path) -> None:
    for _ in range(2):
        said = cli("rtl", "--trace", trace, "--layer", "middle", "--out", "pe", "--set", "pes=4")
        assert said.status == 0 and "pe/" in said.out
    names = {path.name for path in (tmp_path / "pe").iterdir()}
    assert {"pe_top.sv", "tb_pe_top.sv", "vector_mac.sv", "vectors", "Makefile"} <= names


def test_rtl_refuses(trace: Path, cli: Cli, tmp_path: Path) -> None:
    assert "layer" in refused(cli("rtl", "--trace", trace, "--layer", "none", "--out", "pe"))
    assert "--synth" in refused(cli("rtl", "--trace", trace, "--out", "pe", "--liberty", "x.lib"))
    assert not (tmp_path / "pe").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    assert "holds other files" in refused(cli("rtl", "--trace", trace, "--out", "mine"))


def test_compare_says_which_operands_moved(cli: Cli) -> None:
    schemes = ("--scheme", "8/8/-/-", "--scheme", "4/4/4/4")
    said = cli("compare", "minilm_layer0", *schemes, "--set", "gb_weight_banks=2", "--no-plots")
    assert said.status == 0
    assert "4/4/4/4: operands live elsewhere than at 8/8/-/- in query" in said.out


def test_timing_only(trace: Path, cli: Cli) -> None:
    said = cli("compare", trace, "--no-data", "--gated-fraction", "0.2", "--no-plots")
    assert said.status == 0, said.err
    assert "No values computed: 0.2 of the lane steps" in said.out
    assert "integers on the tables' operands" not in said.out
    formats = cli("compare", trace, "--no-data", "--scheme", "8/8/-/-", "--scheme", "mxfp4", "--no-plots")
    assert "integers on the tables' operands" in formats.out, formats.err
    assert "--no-data" in refused(cli("run", trace, "--gated-fraction", "0.2"))
    assert "--dump" in refused(cli("run", trace, "--no-data", "--dump"))


def test_map_explains_a_choice(trace: Path, cli: Cli) -> None:
    said = cli("map", trace, "middle", "--top", "3")
    assert said.status == 0, said.err
    for word in ("bound_cycles", "bound_by", "candidates", "of_bound", "k_split", "os-lws"):
        assert word in said.out
    assert "nowhere" in refused(cli("map", trace, "nowhere"))
