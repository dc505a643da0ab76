"""What a stranger's file says is read, and never done: names, texts for terminals, files without end."""

from __future__ import annotations

import gzip
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Said, refused

from accelsim.characterise import liberty
from accelsim.characterise.boolean import NotBooleanError, truth_table
from accelsim.characterise.liberty import parse_liberty
from accelsim.characterise.library import read_library
from accelsim.characterise.recipe import load_recipe
from accelsim.characterise.roles import find_roles
from accelsim.characterise.synthesis import Synthesiser
from accelsim.characterise.verilog import is_identifier
from accelsim.errors import LONG, AccelsimError, listed, one_line
from accelsim.machine.arch_file import load_arch
from accelsim.open import open_workload
from accelsim.system.tools import run_tool

Cli = Callable[..., Said]
TINY = (Path(__file__).parent / "data/tiny.lib").read_text()
INCLUDE = 'FA (input A); endmodule `include "/etc/hostname" module FA2'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cell (FA)", f"cell ({INCLUDE})"),
        ("cell (FA)", 'cell ("FA\nendmodule")'),
        ("cell (FA)", "cell (endmodule)"),
        ("cell (FA)", "cell (FA B)"),
        ("pin (A)", 'pin ("A; read_verilog x")'),
        ("ff (IQ", 'ff ("IQ ; shell id"'),
    ],
)
def test_names_in_a_library_are_names(tmp_path: Path, cli: Cli, old: str, new: str) -> None:
    assert old in TINY
    (tmp_path / "x.lib").write_text(TINY.replace(old, new))
    with pytest.raises(AccelsimError, match=r"x\.lib.*expected a name as in Verilog"):
        read_library([tmp_path / "x.lib"])
    if shutil.which("yosys") is not None:  # which the PE's synthesis gives the file as it is
        assert cli("rtl", "--out", "pe").status == 0
        line = refused(cli("rtl", "--out", "pe", "--synth", "--liberty", "x.lib"))
        assert "expected a name as in Verilog" in line


def test_what_yosys_is_given_holds_names_and_numbers(tmp_path: Path) -> None:
    """Attributes that are handed on say only what was understood of them."""
    text = TINY.replace("timing_sense : positive_unate", 'timing_sense : "x EVIL"')
    text = text.replace("next_state :", 'power_down_function : "EVIL";\n next_state :')
    assert text.count("EVIL") > 1
    (tmp_path / "x.lib").write_text(text)
    library, recipe = read_library([tmp_path / "x.lib"]), load_recipe(None)
    Synthesiser(library, find_roles(library, recipe), recipe, tmp_path / "w").prepare()
    files = list((tmp_path / "w").iterdir())
    assert len(files) == 4 and not any("EVIL" in path.read_text() for path in files)


def test_identifiers() -> None:
    for name in ("FA", "_x1", "a$b", "sky130_fd_sc_hd__fa_1"):
        assert is_identifier(name)
    for name in ("", "1a", "a b", "a-b", "a\n", "module", "\\a", "a" * 300, "é"):
        assert not is_identifier(name)
    parse_liberty("library (l) { cell (M) { pin (D[0]) { } pin (A, B) { } } }", "l")


def test_libraries_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liberty, "_MAX_BYTES", 1000)
    (tmp_path / "bomb.lib.gz").write_bytes(gzip.compress(b" " * 100_000))
    with pytest.raises(AccelsimError, match="unpacks to more"):
        liberty.read_liberty(tmp_path / "bomb.lib.gz")
    with pytest.raises(AccelsimError, match="near line 1"):
        parse_liberty("library (l) {" + "a (b) {" * 5000, "l")
    for text in ("(" * 5000 + "A" + ")" * 5000, "!" * 5001):
        with pytest.raises(NotBooleanError):
            truth_table(text, ["A"])
    assert truth_table("!" * 5001 + "A", ["A"]) == 0b01


def test_a_terminal_obeys_nothing(tmp_path: Path, cli: Cli) -> None:
    name = "\x1b[31mred\nerror: \u202e\x07.safetensors"
    (tmp_path / name).write_text("x")
    assert "\\x1b[31mred" in refused(cli("run", name))
    line = refused(cli("run", "a" * 150))
    assert len(line) <= 300 and "no such file or bundled trace" in line and "resnet18" in line


def test_lines_of_the_command_line_are_short_but_for_lists_of_what_is_needed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(refused(cli("run", "digits", "--" + "x" * 3000))) <= 300
    assert len(refused(cli("x" * 3000))) <= 300

    def absent(*_: object, **__: object) -> None:
        raise AccelsimError("not on disk: " + "file, " * 100, LONG)

    monkeypatch.setattr("accelsim.api.run", absent)
    assert refused(cli("run", "digits")).count("file") == 100


def test_long_messages_keep_both_ends() -> None:
    line = one_line("arch " + "a" * 5000 + " expected b")
    assert len(line) == 290 and line.startswith("arch a") and line.endswith("expected b")
    assert listed(["a", "b"]) == "a, b"
    names = [f"name_{number}" for number in range(1000)]
    assert listed(names, "nam_777").startswith("name_777, name_77, ") and len(listed(names)) <= 110
    assert listed(names).endswith(", ... (1,000 in all)")


def test_an_unknown_parameter_is_answered_with_those_like_it() -> None:
    with pytest.raises(AccelsimError, match=r"unknown key 'gb_bank'; known keys are gb_banks, .*in all"):
        load_arch("magnet16", ["gb_bank=16"])


@pytest.mark.parametrize("text", ["pes: " + "[" * 3000, "pes: " + "{" * 3000, "- " * 3000])
def test_deep_yaml_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(AccelsimError, match="nested more than 20 deep"):
        load_arch(tmp_path / "x.yaml")


def test_a_wide_topology_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("Layer name" + "," * 3_000_000)
    with pytest.raises(AccelsimError, match="3,000,001 cells"):
        open_workload(tmp_path / "x.csv")


def test_tools_have_no_shell_and_a_limit(tmp_path: Path) -> None:
    said = run_tool([sys.executable, "-c", "import sys; print(sys.argv)", "$HOME; id"], tmp_path, 60, "tool")
    assert said == "['-c', '$HOME; id']\n"
    with pytest.raises(AccelsimError, match=r"tool is not done after 0\.2 s"):
        run_tool(["sleep", "60"], tmp_path, 0.2, "tool")
    with pytest.raises(AccelsimError, match="tool: ERROR: no"):
        run_tool([sys.executable, "-c", "print('x'); print('ERROR: no'); exit(1)"], tmp_path, 60, "tool")
    for path in (Path(__file__).resolve().parents[1] / "accelsim").rglob("*.py"):
        assert not any(word in path.read_text("utf-8") for word in ("shell=", "os.system", "popen("))


def test_a_delay_of_a_cell_without_timing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.lib").write_text(TINY.replace("related_pin", "related_pinn"))
    library = read_library([tmp_path / "x.lib"])
    cell = next(own for own in library.cells.values() if own.outputs and not own.arcs)
    with pytest.raises(AccelsimError, match="no timing, expected an arc"):
        cell.delay_ps(1.0)


def test_overrides_that_are_an_array_are_refused() -> None:
    with pytest.raises(AccelsimError, match="overrides: one is"):
        load_arch("magnet16", np.zeros(3))  # type: ignore[arg-type]
