"""Arch files: presets, bases, overrides, and one clear line for what no machine can be."""

from __future__ import annotations

import time
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch, presets

PRESET = (resources.files("accelsim.machine.presets") / "magnet16.yaml").read_text("utf-8")


def load(folder: Path, text: str, *overrides: str) -> Arch:
    path = folder / "m.yaml"
    path.write_text(text, "utf-8")
    return load_arch(path, list(overrides))


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(AccelsimError) as error:
        load(folder, text, *overrides)
    message = str(error.value)
    assert "\n" not in message and len(message) < 1000
    return message


def test_presets_load_and_are_complete() -> None:
    assert "magnet16" in presets()
    for name in presets():
        arch = load_arch(name)
        assert arch.name == name
    assert load_arch("magnet16").model_dump(exclude={"mapping"})["dram_efficiency"] == 0.8


def test_base_and_overrides(tmp_path: Path) -> None:
    arch = load(
        tmp_path,
        "base: magnet16\nname: mine\npes: 4\nppu_latency_cycles: {static: 5, per_vector: 9}\n",
        "clock_ghz=2.5", "mapping.order=PK", "mapping.tile_pixels=8", "ppu_latency_cycles.static=6",
        "overflow=wrap", "accumulator_bits=20",
    )  # fmt: skip
    expected = load_arch("magnet16").model_dump() | {
        "name": "mine", "pes": 4, "clock_ghz": 2.5, "overflow": "wrap", "accumulator_bits": 20,
    }  # fmt: skip
    expected["ppu_latency_cycles"] = {"static": 6, "per_vector": 9}
    expected["mapping"] |= {"order": "PK", "tile_pixels": 8}
    assert arch.model_dump() == expected


def test_a_derived_machine_has_a_name_of_its_own(tmp_path: Path) -> None:
    assert load(tmp_path, "base: magnet16\npes: 4\n").name == "m"


def test_an_override_leaves_the_preset_alone() -> None:
    load_arch("magnet16", ["ppu_latency_cycles.static=99", "mapping.order=PK"])
    assert load_arch("magnet16").ppu_latency_cycles.static == 6
    assert load_arch("magnet16").mapping.order is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("pes: 16", "pes: 16\npess: 4"), ("unknown key 'pess'", "pes")),
        (("pes: 16", "pes: 16\npes: 4"), ("'pes' is given twice", "line 7")),
        (("{static: 6, per_vector: 15}", "{static: 6}"), ("ppu_latency_cycles.per_vector", "missing")),
        (("pes: 16", ""), ("'pes' is missing",)),
        (("pes: 16", "pes: 16.0"), ("pes = 16.0", "integer")),
        (("pes: 16", "pes: '16'"), ("pes = '16'", "integer")),
        (("pes: 16", "pes: true"), ("pes = True", "integer")),
        (("pes: 16", "pes:"), ("pes = None", "integer")),
        (("pes: 16", "pes: 16\nmapping: {slack: 0.1, objective: energy}"), ("slack is 0.1", "expected 0")),
        (("pes: 16", "pes: 0"), ("pes = 0", "1")),
        (("pes: 16", "pes: 1025"), ("pes = 1025", "1024")),
        (("clock_ghz: 1.0", "clock_ghz: .nan"), ("clock_ghz = nan", "finite")),
        (("clock_ghz: 1.0", "clock_ghz: .inf"), ("clock_ghz = inf", "finite")),
        (("clock_ghz: 1.0", "clock_ghz: 0"), ("clock_ghz = 0", "greater than 0")),
        (("overflow: saturate", "overflow: explode"), ("overflow = 'explode'", "'wrap'")),
        (("accumulator_bits: auto", "accumulator_bits: 63"), ("accumulator_bits is 63", "2 to 62")),
        (("accumulator_bits: auto", "accumulator_bits: 1"), ("accumulator_bits is 1", "2 to 62")),
        (("accumulator_bits: auto", "accumulator_bits: '20'"), ("accumulator_bits is '20'", "2 to 62")),
        (("pes: 16", "pes: 16\ngate_on_scale_product: all"), ("gate_on_scale_product = 'all'", "'dot'")),
        (
            ("accumulate_latency: 2", "accumulate_latency: 3\ngate_on_scale_product: dot"),
            ("gate_on_scale_product is dot, which needs dataflows [os-lws] and accumulate_latency 2", "3"),
        ),
        (
            ("pes: 16", "pes: 16\ngate_on_scale_product: multiply\ndataflows: [os-lws, ws]"),
            ("gate_on_scale_product is multiply", "not [os-lws, ws] and 2"),
        ),
        (("out_fifo_words: 32", "out_fifo_words: 15"), ("out_fifo_words is 15", "16")),
        (("weight_buffer_words: 256", "weight_buffer_words: 255"), ("weight_buffer_words is 255", "even")),
        (("lanes: 16", "lanes: 24"), ("vector_size 16", "lanes 24", "divide")),
        (("dram_efficiency: 0.8", "dram_efficiency: 0.001"), ("below 1 bit",)),
        (("dram_efficiency: 0.8", "dram_efficiency: 1.5"), ("dram_efficiency = 1.5",)),
        (("gb_banks: 16", "gb_banks: 2"), ("gb_banks = 2", "3")),
    ],
)
def test_refusals_say_what_and_where(tmp_path: Path, change: tuple[str, str], words: tuple[str, ...]) -> None:
    assert load(tmp_path, PRESET) == load_arch("magnet16")
    assert change[0] in PRESET
    message = refusal(tmp_path, PRESET.replace(*change))
    assert message.startswith(f"arch {tmp_path / 'm.yaml'}: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "text",
    ["", "5", "- pes", "a: [", "a: b: c", "!!python/object/apply:os.system [id]", "1: 2", "? [a]\n: b",
     "a: 2001-99-99", "a: \x01", "---\na: 1\n---\nb: 2", "[" * 1500, "{a: " * 1500, "&a\na: *a", "a: &a [*a]",
     "<<: 5", "base: 5", "base: ''", "base: nothing", "base: [magnet16]"],
)  # fmt: skip
def test_files_that_are_no_machine(tmp_path: Path, text: str) -> None:
    refusal(tmp_path, text)


def test_a_base_that_refers_back_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(tmp_path, "base: m.yaml").endswith("'base' refers back to itself")


def test_binary_and_absent_files(tmp_path: Path) -> None:
    for name, content in (("noise", bytes(range(256))), ("utf16", PRESET.encode("utf-16"))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AccelsimError, match=f"arch .*{name}: "):
            load_arch(tmp_path / name)
    for path in (tmp_path, tmp_path / "absent", "/dev/zero", "a\0b"):
        with pytest.raises(AccelsimError, match="no such file or preset; presets are keller5, magnet16"):
            load_arch(path)


@pytest.mark.parametrize(
    "text",
    ["a: !!bool x", "a: !!int ''", "a: !!float ''", "a: !!timestamp x", "base: " + "x" * 5000,
     PRESET.replace("pes: 16", "pes: 0x" + "f" * 5000)],
)  # fmt: skip
def test_exceptions_that_get_through(tmp_path: Path, text: str) -> None:
    refusal(tmp_path, text)


def test_alias_bomb(tmp_path: Path) -> None:
    """Seven levels here, to be quick; nine make a message of 200 MB."""
    levels = "abcdefg"
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{own}: &{own} [{', '.join([f'*{below}'] * 9)}]\n" for below, own in pairwise(levels)
    )
    refusal(tmp_path, f"{bomb}base: *g\n")


def test_merge_bomb(tmp_path: Path) -> None:
    bomb = "a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 15)
    )
    start = time.perf_counter()
    refusal(tmp_path, bomb)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("name", [r'"\ud800"', r'"a\nb"', r'"\e[31m"', "''"])
def test_names_can_be_printed(tmp_path: Path, name: str) -> None:
    refusal(tmp_path, f"base: magnet16\nname: {name}\n")


def test_unknown_nested_keys_list_their_neighbours(tmp_path: Path) -> None:
    message = refusal(tmp_path, "base: magnet16\nppu_latency_cycles: {static: 1, per_vector: 2, vector: 3}\n")
    assert "static, per_vector" in message and "gb_banks" not in message


@pytest.mark.parametrize(
    ("scheme", "sign", "shift", "bits"),
    # max(24, bit_length(4608 * qmax_w * qmax_a * max(sp) / 2^p) + 1) by hand (docs/numerics.md)
    [("8/8/-/-", "both", 0, 29), ("8/8/-/-", "signed", 0, 28), ("4/4/4/4", "both", 0, 28),
     ("4/4/4/4", "signed", 0, 27), ("4/4/4/4:sp4", "both", 0, 24), ("4/8/6/10", "both", 0, 40),
     ("4/8/6/10", "both", 8, 32), ("2/2/-/-", "both", 0, 24), ("8/8/10/10", "unsigned", 0, 49)],
)  # fmt: skip
def test_accumulator_width(scheme: str, sign: str, shift: int, bits: int) -> None:
    arch = load_arch("magnet16", [f"activation_sign={sign}", f"product_shift={shift}"])
    assert arch.accumulator_width(Scheme.parse(scheme)) == bits
    fixed = load_arch("magnet16", ["accumulator_bits=19"])
    assert fixed.accumulator_width(Scheme.parse(scheme)) == 19


def test_bank_groups_and_ports() -> None:
    for banks, groups in ((3, (1, 1, 1)), (7, (1, 5, 1)), (8, (2, 4, 2)), (13, (3, 7, 3))):
        free = [f"gb_banks={banks}", "gb_weight_banks=null"]
        assert load_arch("magnet16", free).bank_groups == groups
    assert load_arch("magnet16", ["gb_weight_banks=4", "gb_output_banks=1"]).bank_groups == (4, 11, 1)
    with pytest.raises(AccelsimError, match="of 16 banks for inputs"):
        load_arch("magnet16", ["gb_weight_banks=12"])
    arch = load_arch("magnet16", ["gb_bank_bits=64", "lanes=4"])
    assert (arch.crossbar_bits, arch.dram_bits, arch.unit_channels(0)) == (64, 409, 16)
    assert load_arch("magnet16", ["lanes=32"]).unit_channels(0) == 32
    # Blocks between L and V are staged by themselves: units of V would not fit the FIFO that is asked for.
    narrow = load_arch("magnet16", ["lanes=4", "ppu_lanes=4", "vector_size=32", "out_fifo_words=64"])
    assert [narrow.unit_channels(block) for block in (0, 4, 8, 32, 64)] == [32, 32, 8, 32, 64]


def test_scheme_text_round_trips() -> None:
    for text in ("8/8/-/-", "4/4/4/4", "4/8/6/10:sp8", "2/8/-/10", "8/2/1/-"):
        assert str(Scheme.parse(f" {text}\n")) == text
    assert len({Scheme.parse(text).folder_name for text in ("4/4/4/4", "4/4/4/4:sp4", "4/4/-/4")}) == 3
    for text in ("", "4/4/4", "4/4/4/4/4", "4/4/4/4:", "-/4/4/4", "4 /4/4/4", "4/4/4/4:sp", "4/4/4/-4"):
        with pytest.raises(AccelsimError, match="expected W/A/ws/as"):
            Scheme.parse(text)
