"""Whatever an arch file holds, load_arch returns an Arch or raises AccelsimError with one line."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch

PRESET = (resources.files("accelsim.machine.presets") / "magnet16.yaml").read_text("utf-8")
LINES = PRESET.splitlines()
KEYS = [line.split(":")[0] for line in LINES if not line.startswith("#")]
FUZZ = settings(max_examples=250, deadline=3000, suppress_health_check=[HealthCheck.function_scoped_fixture])

NASTY = (
    st.sampled_from(
        ["", "~", "[]", "{}", "-1", "0", "1e9", "0x10", "0b_", "0o7", "1_0", "1:30", ".nan", "-.inf", "true",
         "yes", "*x", "&x 4", "!x 4", "'", '"', "|", ">", "%", "@", "- 4", "? 4", "16 #", "9" * 30, "9" * 400,
         "auto", "KP", "{order: KP}", "{order: }", "2001-01-01", "2001-99-99", "[1, [2, {a: 3}]]"]
    )
)  # fmt: skip
VALUES = st.one_of(
    NASTY,
    NASTY,
    NASTY,
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(repr),
    st.text(max_size=8),
)


def check(path: Path, content: bytes, overrides: list[str]) -> Arch | None:
    path.write_bytes(content)
    try:
        arch = load_arch(path, overrides)
    except AccelsimError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500
        return None
    assert isinstance(arch, Arch)
    # What was accepted is a machine: what it says about itself is another like it.
    assert Arch.model_validate(arch.model_dump()) == arch
    assert arch.dram_bits >= 1 and min(arch.bank_groups) >= 1
    assert sum(arch.bank_groups) == arch.gb_banks
    return arch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.yaml"


@FUZZ
@given(content=st.binary(max_size=300))
def test_random_bytes(path: Path, content: bytes) -> None:
    check(path, content, [])


@FUZZ
@given(text=st.text("!&*:[]{}-?|>%@`'\"#,0x.\n ~<=ab1\\\t", max_size=60))
def test_random_punctuation(path: Path, text: str) -> None:
    check(path, text.encode(), [])


@FUZZ
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from([*KEYS, "base", "x"]) | st.integers(), inner, max_size=6)
        ),
        max_leaves=20,
    ),
    based=st.booleans(),
)
def test_random_documents(path: Path, document: object, based: bool) -> None:
    if based and isinstance(document, dict):
        document = {"base": "magnet16", **document}
    check(path, yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"), [])


@FUZZ
@given(data=st.data())
def test_mutated_preset(path: Path, data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["value", "value", "drop", "again", "cut", "character", "indent"])):
            case "value":
                lines[at] = f"{lines[at].split(':')[0]}: {data.draw(VALUES)}"
            case "drop":
                del lines[at]
            case "again":
                lines.insert(at, data.draw(st.sampled_from(lines)))
            case "cut":
                lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
            case "character":
                where = data.draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:where] + data.draw(st.characters(codec="utf-8")) + lines[at][where:]
            case "indent":
                lines[at] = " " + lines[at]
        if not lines:
            lines = [""]
    check(path, "\n".join(lines).encode(), [])


@FUZZ
@given(
    items=st.lists(
        st.tuples(st.sampled_from([*KEYS, "mapping.order", "mapping.k_split", "a.b", "", "."]), VALUES),
        max_size=3,
    )
)
def test_overrides(path: Path, items: list[tuple[str, str]]) -> None:
    # test_config and test_cli hold the values that are known to get through `--set`.
    overrides = [f"{key}={value}" for key, value in items]
    check(path, PRESET.encode(), overrides)


def test_check_tells_machines_from_refusals(path: Path) -> None:
    assert check(path, PRESET.encode(), ["pes=3"]) == load_arch("magnet16", ["pes=3"])
    assert check(path, b"pes: 3", []) is None
