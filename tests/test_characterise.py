"""Characterisation: Liberty to cells, generators against integers, the simulator against sums by hand."""

from __future__ import annotations

import csv
import errno
import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Said, contents
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import cost_table
from accelsim.characterise import activity, run, stimuli, synthesis
from accelsim.characterise.block import elements, signed
from accelsim.characterise.boolean import NotBooleanError, truth_table
from accelsim.characterise.campaign import all_blocks
from accelsim.characterise.carry_save import CarrySave, cut
from accelsim.characterise.cells import Grid
from accelsim.characterise.circuit import circuit_of
from accelsim.characterise.fast import prefix_adder
from accelsim.characterise.liberty import parse_liberty, read_liberty
from accelsim.characterise.library import Library, read_library
from accelsim.characterise.netlist import ONE, UNCONNECTED, ZERO, Instance, Netlist
from accelsim.characterise.recipe import Recipe, load_recipe
from accelsim.characterise.roles import PLAIN_FULL_ADDER, PLAIN_HALF_ADDER, Roles, find_roles
from accelsim.characterise.simulator import Activity, simulate
from accelsim.characterise.table import COLUMNS
from accelsim.characterise.timing import static_timing
from accelsim.costs import CostLibrary, Technology
from accelsim.costs.tables import ACTIVITY, ALL_TABLES, DATAPATH, TABLES_DIR, read_table
from accelsim.errors import AccelsimError

pytestmark = pytest.mark.kept

Cli = Callable[..., Said]
TINY = Path(__file__).parent / "data" / "tiny.lib"
PDK = Path(__file__).parents[2] / "shared" / "pdk" / "asap7"
needs_yosys = pytest.mark.skipif(shutil.which("yosys") is None, reason="yosys is not installed")
needs_pdk = pytest.mark.skipif(not PDK.is_dir(), reason="the ASAP7 library is not beside the repository")


@pytest.fixture(scope="module")
def tiny() -> Library:
    return read_library([TINY])


@pytest.fixture(scope="module")
def roles(tiny: Library) -> Roles:
    return find_roles(tiny, Recipe())


def shipped_rows() -> list[dict[str, str]]:
    with open(TABLES_DIR / DATAPATH.file, newline="") as file:
        return list(csv.DictReader(file))


# -- Liberty -----------------------------------------------------------------------------------------------
def test_liberty_syntax() -> None:
    library = parse_liberty(
        'library (x) { /* a { comment */ a : 1;; b : "two, (2)" ;\n c : 3\n ; list (1, ff);\n'
        ' inner ("name") { values ("1, -2.5e-1", \\\n "+3"); } ; other () { } }',
        "test",
    )
    assert library.attributes == {"a": "1", "b": "two, (2)", "c": "3"}
    assert [group.kind for group in library.groups] == ["inner", "other"]
    assert library.groups[0].argument == "name"
    assert library.groups[0].numbers("values") == [1, -0.25, 3]
    assert library.groups[0].numbers("index_1") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "not a Liberty file"),
        (b"", "not a Liberty file"),
        (b"module m (a); endmodule", "not a Liberty file"),
        (TINY.read_bytes()[:5000], r"inside .*library \(tiny\): not Liberty, or cut short"),
        (TINY.read_bytes().replace(b"area : 2.0", b"= 3", 1), r"near line \d+, inside cell \(BUF\)"),
        (gzip.compress(TINY.read_bytes())[:500], "broken gzip file"),
        (b"\x1f\x8b rubbish", "broken gzip file"),
        (TINY.read_bytes().replace(b'"1ns"', b'"1fortnight"'), "time_unit is '1fortnight'"),
        (TINY.read_bytes().replace(b"nom_voltage", b"no_voltage"), "nom_voltage is missing"),
        (TINY.read_bytes().replace(b"    ff (", b"    ff_bank ("), "no flip-flop cell"),
        (TINY.read_bytes().replace(b"lu_table_template", b"no_template"), "no delay template"),
    ],
)
def test_bad_liberty_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.lib"
    path.write_bytes(content)
    with pytest.raises(AccelsimError, match=message) as error:
        read_library([path])
    assert "bad.lib" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["much", "nan", "inf"])
def test_a_load_that_is_no_number_does_not_reach_the_mapper(tmp_path: Path, value: str) -> None:
    path = tmp_path / "bad.lib"
    path.write_text(TINY.read_text().replace("max_capacitance : 0.1", f"max_capacitance : {value}", 1))
    library = read_library([path])
    with pytest.raises(AccelsimError, match=f"max_capacitance is '{value}', expected a number") as error:
        synthesis.mapping_library(library)
    assert "bad.lib" in str(error.value)


def test_files_add_up_but_not_twice_and_not_at_two_supplies(tmp_path: Path, tiny: Library) -> None:
    packed = tmp_path / "tiny.lib.gz"
    packed.write_bytes(gzip.compress(TINY.read_bytes()))
    assert list(read_library([packed]).cells) == list(tiny.cells)
    assert len(read_liberty(packed).groups) == len(read_liberty(TINY).groups)
    with pytest.raises(AccelsimError, match="cell INV is in an earlier file too"):
        read_library([TINY, packed])
    other = tmp_path / "other.lib"
    other.write_text(TINY.read_text().replace("nom_voltage : 1.0", "nom_voltage : 0.8"))
    with pytest.raises(AccelsimError, match=r"0\.8 V, 1 V, expected one corner"):
        read_library([TINY, other])


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("A", "0101"), ("!A", "1010"), ("A'", "1010"), ("A B", "0001"), ("A*!B", "0100"),
        ("A + B' ", "1101"), ("(A ^ B)'", "1001"), ("A ^ B & B", "0010"), ("!(A|B)&1", "1000"), ("0", "0000"),
    ],
)  # fmt: skip
def test_boolean_functions(text: str, rows: str) -> None:
    assert format(truth_table(text, ("A", "B")), "04b")[::-1] == rows


@pytest.mark.parametrize("text", ["", "C", "A +", "(A", "A)", "A $ B"])
def test_what_is_no_function(text: str) -> None:
    with pytest.raises(NotBooleanError):
        truth_table(text, ("A", "B"))


def test_cells_in_our_units(tiny: Library) -> None:
    assert {"SCANDFF", "TRIBUF"}.isdisjoint(tiny.cells)
    xor = tiny.cells["XOR2"]
    assert (xor.area_um2, xor.leakage_nw, xor.capacitances_ff) == (3.0, 2.0, pytest.approx((2.0, 2.0)))
    assert tiny.grid == Grid((10, 100), (1, 10))
    # Load is the first axis of its tables: 5 ps at 1 fF, 50 ps at 10 fF; the VSS rail is not counted.
    assert np.allclose(xor.arcs[0, 0][0], [[5, 50], [5, 50]])
    assert np.allclose(xor.arcs[0, 1][4:], [[[0.5] * 2] * 2, [[0.3] * 2] * 2])
    (entry,) = xor.passive[0]
    assert entry.rise_fj == pytest.approx([0.5, 0.5]) and entry.fall_fj == pytest.approx([0.7, 0.7])
    assert [k for k in range(8) if entry.states >> k & 1] == [0b010, 0b011]  # B and not Y, whatever A
    flip_flop = tiny.cells["DFF"]
    assert (flip_flop.kind, flip_flop.active, flip_flop.inverted) == ("flip_flop", True, (True,))
    assert flip_flop.inputs[flip_flop.data_pin] == "D" and flip_flop.inputs[flip_flop.clock_pin] == "CK"
    assert (tiny.cells["LATL"].kind, tiny.cells["LATL"].active) == ("latch", False)
    assert (tiny.cells["ICG"].kind, tiny.cells["ICG"].test_pins) == ("clock_gate", ("SE",))


def test_roles_are_found_by_function(tiny: Library, roles: Roles) -> None:
    full = roles.full_adder
    assert (full.name, full.sum_pin, full.carry_pin, full.sum_inverted, full.carry_inverted) == (
        "FA", "S", "CO", False, False,
    )  # fmt: skip
    assert roles.half_adder.name == "HA" and roles.inverter.name == "INV"
    assert roles.clock_gate is tiny.cells["ICG"] and roles.latch_low is tiny.cells["LATL"]
    assert list(roles.or_gates) == [2]
    avoided = find_roles(read_library([TINY], ["FA", "H*", "ICG"]), Recipe())
    assert avoided.full_adder is PLAIN_FULL_ADDER and avoided.half_adder is PLAIN_HALF_ADDER
    assert avoided.clock_gate is None
    with pytest.raises(AccelsimError, match="full_adder HA does not have the function"):
        find_roles(tiny, Recipe(full_adder="HA"))
    with pytest.raises(AccelsimError, match=r"latch_low NONE is not a usable cell of tiny\.lib"):
        find_roles(tiny, Recipe(latch_low="NONE"))


def test_complementing_adders_are_found(tmp_path: Path) -> None:
    path = tmp_path / "inverting.lib"
    path.write_text(TINY.read_text().replace('"A^B^CI"', '"!(A^B^CI)"').replace('"A&B"', '"!A+!B"'))
    found = find_roles(read_library([path]), Recipe())
    assert (found.full_adder.sum_inverted, found.full_adder.carry_inverted) == (True, False)
    assert (found.half_adder.sum_inverted, found.half_adder.carry_inverted) == (False, True)


# -- generators --------------------------------------------------------------------------------------------
_PRODUCT = re.compile(r"wire (\w+) = ~\((\w+)\[(\d+)\] & (\w+)\[(\d+)\]\);")
_INVERTED = re.compile(r"wire (\w+) = ~(\w+);")
_ADDER = re.compile(r"wire (\w+), (\w+); \w+ \w+ \((.*)\);")
_ROW = re.compile(r"wire \[\d+:0\] \w+ = \{(.*)\};")


def evaluate(lines: list[str], words: dict[str, int], roles: Roles) -> int:
    """The value of the text that CarrySave.emit gives, line by line."""
    nets = {"1'b0": 0, "1'b1": 1}
    total = 0
    for line in lines:
        if found := _PRODUCT.fullmatch(line):
            out, a, i, b, j = found.groups()
            nets[out] = 1 - (words[a] >> int(i) & words[b] >> int(j) & 1)
        elif found := _INVERTED.fullmatch(line):
            nets[found[1]] = 1 - nets[found[2]]
        elif found := _ADDER.fullmatch(line):
            pins = dict(re.findall(r"\.(\w+)\((\w+)\)", found[3]))
            cell = roles.full_adder if len(pins) == 5 else roles.half_adder
            count = sum(nets[pins[pin]] for pin in cell.inputs)
            nets[pins[cell.sum_pin]] = count & 1 ^ cell.sum_inverted
            nets[pins[cell.carry_pin]] = count >> 1 ^ cell.carry_inverted
        elif found := _ROW.fullmatch(line):
            for weight, net in enumerate(reversed(found[1].split(", "))):
                total += (1 - nets[net[1:]] if net[0] == "~" else nets[net]) << weight
    return total


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.booleans(), st.booleans()), min_size=1, max_size=4
    ),
    st.integers(0, 1 << 12),
    st.integers(-9, 9),
    st.sampled_from(["", "inverting sum", "inverting carry", "plain"]),
    st.randoms(use_true_random=False),
)
def test_carry_save_sums_products(roles, shapes, seed, constant, polarity, random) -> None:
    from dataclasses import replace

    if polarity == "plain":
        roles = replace(roles, full_adder=PLAIN_FULL_ADDER, half_adder=PLAIN_HALF_ADDER)
    elif polarity:
        pin = polarity.split()[1] + "_inverted"
        roles = replace(
            roles,
            full_adder=replace(roles.full_adder, **{pin: True}),
            half_adder=replace(roles.half_adder, **{pin: True}),
        )
    width = random.randint(1, 16)
    tree = CarrySave(width, roles)
    tree.constant(constant)
    words, expected = {}, constant
    for k, (a_bits, b_bits, a_signed, b_signed) in enumerate(shapes):
        a, b = random.getrandbits(a_bits), random.getrandbits(b_bits)
        words |= {f"a{k}": a, f"b{k}": b}
        tree.product(f"a{k}", a_bits, f"b{k}", b_bits, a_signed, b_signed)
        expected += (signed(a, a_bits) if a_signed else a) * (signed(b, b_bits) if b_signed else b)
    assert evaluate(tree.emit("s"), words, roles) % (1 << width) == expected % (1 << width)


_STORED = re.compile(r"reg .*; always .* <= \{(.*)\}; assign \{(.*)\} = \w+;")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 7), st.integers(2, 5), st.integers(0, 1 << 30))
def test_a_cut_tree_sums_what_entered_together(roles, size, a_bits, b_bits, stages, seed) -> None:
    """Every bit passes as many registers as its column's others: words of different cycles never meet."""
    bits = a_bits + b_bits + size.bit_length()

    def made(stage: float) -> CarrySave:
        tree = CarrySave(bits, roles, stage=stage)
        for k in range(size):
            tree.product(f"a{k}", a_bits, f"b{k}", b_bits, True, True)
        return tree

    lines = cut(made, stages).stages("x", stages)
    random = np.random.default_rng(seed)
    words = {
        f"{name}{k}": int(random.integers(1 << n))
        for k in range(size)
        for name, n in (("a", a_bits), ("b", b_bits))
    }
    stored, age = [], {"1'b0": stages - 1, "1'b1": stages - 1}
    for line in lines:
        if found := _STORED.fullmatch(line):
            stored += list(zip(*(found[k].split(", ") for k in (1, 2)), strict=True))
    source = {shown: taken for taken, shown in stored}
    assert len(source) == len(stored)
    logic = [
        line
        for line in lines
        if _PRODUCT.fullmatch(line) or _INVERTED.fullmatch(line) or _ADDER.fullmatch(line)
    ]

    def age_of(net: str) -> int:
        return age_of(source[net]) + 1 if net in source else age[net]

    for line in logic:
        if found := _ADDER.fullmatch(line):
            pins = dict(re.findall(r"\.(\w+)\((\w+)\)", found[3]))
            cell = roles.full_adder if len(pins) == 5 else roles.half_adder
            ages = {age_of(pins[pin]) for pin in cell.inputs}
            assert len(ages) == 1
            age |= dict.fromkeys((pins[cell.sum_pin], pins[cell.carry_pin]), ages.pop())
        elif found := _INVERTED.fullmatch(line):
            age[found[1]] = age_of(found[2])
        else:
            age[line.split()[1]] = 0
    for row in lines[-2:]:
        assert {age_of(net.lstrip("~")) for net in _ROW.fullmatch(row)[1].split(", ")} == {stages - 1}

    def plain(line: str) -> str:
        """Registers as wires."""

        def origin(found: re.Match) -> str:
            net = found[0]
            while net in source:
                net = source[net]
            return net

        return re.sub(r"\bt\d+\b", origin, line)

    total = evaluate([plain(line) for line in (*logic, *lines[-2:])], words, roles)
    products = (signed(words[f"a{k}"], a_bits) * signed(words[f"b{k}"], b_bits) for k in range(size))
    assert (total - sum(products)) % (1 << bits) == 0


@pytest.mark.parametrize("bits", [1, 2, 3, 8, 13, 24])
def test_prefix_adder_adds(bits: int) -> None:
    random = np.random.default_rng(bits)
    for a, b in random.integers(1 << bits, size=(20, 2)).tolist():
        values: dict[str, int] = {}

        def bit(net: str, values: dict[str, int] = values) -> int:
            name, _, index = net.rstrip("]").partition("[")
            return values[name] >> int(index) & 1 if index else values[name]

        first, *levels, last = prefix_adder("a", "b", bits, "s")
        assert first == f"wire [{bits - 1}:0] s_p = a ^ b, s_g = a & b;"
        values |= {"s_p": a ^ b, "s_g": a & b, "1'b0": 0}
        for line in levels:
            made, passed = re.findall(r"wire (\S+) = ([^;]*);", line)
            own, carried, below = re.findall(r"[\w\[\]]+", made[1])
            values[made[0]] = bit(own) | bit(carried) & bit(below)
            values[passed[0]] = bit(passed[1].split(" & ")[0]) & bit(passed[1].split(" & ")[1])
        carries = re.search(r"\{(.*)\}", last)[1].split(", ")
        total = values["s_p"] ^ sum(bit(net) << i for i, net in enumerate(reversed(carries)))
        assert total == (a + b) % (1 << bits)


def test_blocks_are_those_of_the_shipped_table(roles: Roles) -> None:
    ours = [
        {"block": block.name, "family": block.family, "stimulus": stimulus}
        | {name: str(value) for name, value in block.columns.items()}
        for block in all_blocks(roles)
        for stimulus in stimuli.stimuli_of(block)
    ]
    results = COLUMNS[COLUMNS.index("stimulus") + 1 :]
    shipped = [
        {name: value for name, value in row.items() if value and name not in results}
        for row in shipped_rows()
    ]
    assert ours == shipped
    assert tuple(shipped_rows()[0]) == COLUMNS


def test_toggles_of_the_table_are_those_of_its_operands(roles: Roles) -> None:
    """Counted bit by bit: partial products of multipliers, inputs of an adder and of a register."""
    rows = {
        (row["block"], row["stimulus"]): row for row in csv.DictReader((TABLES_DIR / ACTIVITY.file).open())
    }
    chosen = ("dot_v16_w4_a5_s", "smul_d14_s8", "sprod_w4_a6_spfull", "acc_p16_n24", "ff32_icgen")
    blocks = {block.name: block for block in all_blocks(roles)}
    for block in (blocks[name] for name in chosen):
        for stimulus in activity.stimuli_of(block):
            words = stimuli.words(block, stimulus)
            _, warm_up = stimuli.vectors_of(block)
            found = activity.toggles(block, words, warm_up)
            assert f"{found:.3f}" == rows[block.name, stimulus]["toggles"], (block.name, stimulus)
            ports = [port for port in block.inputs if port.name in ("w", "a", "d")]
            bits = [
                np.array([[word >> i & 1 for i in range(port.bits)] for word in words[port.name]], np.int8)
                for port in ports
            ]
            if block.family in ("accumulator", "register"):
                nets = np.concatenate(bits, axis=1)
            else:
                w, a = (
                    own.reshape(len(own), -1, port.element_bits)
                    for own, port in zip(bits, ports, strict=True)
                )
                nets = (w[..., :, None] & a[..., None, :]).reshape(len(w), -1)
            changed = np.abs(np.diff(nets, axis=0)).sum(axis=1)[warm_up - 1 :]
            assert found == pytest.approx(changed.mean())


def test_stimuli_have_their_distributions(roles: Roles) -> None:
    blocks = {block.name: block for block in all_blocks(roles)}
    dot = blocks["dot_v16_w4_a8_s"]
    driven = stimuli.words(dot, "dnn")
    weights = [signed(x, 4) for word in driven["w"] for x in elements(word, 4, 16)]
    activations = [signed(x, 8) for word in driven["a"] for x in elements(word, 8, 16)]
    assert min(weights) == -7 and max(weights) == 7 and abs(np.std(weights) - 7 / 3) < 0.1
    assert min(activations) == 0 and max(activations) == 127
    assert abs(np.mean([x == 0 for x in activations]) - 0.5) < 0.03
    held = stimuli.words(dot, "dnn_ws16")["w"]
    assert len(set(held)) == len(held) // 16 and held[0] == held[15] != held[16]
    assert {x for word in stimuli.words(dot, "uniform")["w"] for x in elements(word, 4, 16)} == set(range(16))
    assert driven == stimuli.words(dot, "dnn")
    bits = stimuli.bits(dot, driven)
    assert bits.shape == (608, 16 * 12)
    assert sum(int(bit) << i for i, bit in enumerate(bits[7, :64])) == driven["w"][7]


# -- simulator ---------------------------------------------------------------------------------------------
def netlist(
    tiny: Library, instances: list[tuple[str, list[int], list[int]]], inputs: list[int], outputs: list[int],
    clock: int = UNCONNECTED,
) -> Netlist:  # fmt: skip
    placed = tuple(Instance(tiny.cells[name], tuple(ins), tuple(outs)) for name, ins, outs in instances)
    nets = 1 + max(net for part in placed for net in (*part.inputs, *part.outputs))
    return Netlist(nets, tuple(inputs), tuple(outputs), clock, placed)


def simulated(
    tiny: Library, circuit: Netlist, vectors: list[list[int]], *, load_ff: float = 0.0, warm_up: int = 0
) -> Activity:
    flat = circuit_of(circuit, tiny, load_ff, 20.0)
    return simulate(flat, static_timing(flat), np.array(vectors, np.uint8), warm_up)


def test_inverter_chain_by_hand(tiny: Library) -> None:
    chain = netlist(tiny, [("INV", [2], [3]), ("INV", [3], [4]), ("INV", [4], [5])], [2], [5])
    flat = circuit_of(chain, tiny, 2.0, 20.0)
    assert static_timing(flat).critical_ps == pytest.approx(30)
    # Each operation toggles the input and with it every net: pins of 1 fF at 1 V, 2 fF at the end.
    found = simulated(tiny, chain, [[0], [1], [0], [1], [0]], load_ff=2.0, warm_up=1)
    assert found.input_pins_fj == pytest.approx(0.5 * 1)
    assert found.switching_fj == pytest.approx(0.5 * (1 + 1 + 2))
    # Three inverters, half of the edges rising: 0.3 fJ rising, 0.1 fJ falling.
    assert found.internal_fj == pytest.approx(3 * (0.3 + 0.1) / 2)
    assert found.total_fj == pytest.approx(0.5 + 2.0 + 0.6)
    assert found.zero_delay_fj == pytest.approx(found.total_fj)
    assert found.transitions == 4 and found.hidden_fj == 0
    assert found.outputs[:, 0].tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(("load_ff", "glitch"), [(1.0, True), (10.0, False)])
def test_a_glitch_costs_unless_it_is_too_short(tiny: Library, load_ff: float, glitch: bool) -> None:
    # y = a ^ !a with the inverter 10 ps late: a pulse of 10 ps at a gate of 5 ps (1 fF) or 50 ps (10 fF).
    glitching = netlist(tiny, [("INV", [2], [3]), ("XOR2", [2, 3], [4])], [2], [4])
    found = simulated(tiny, glitching, [[0], [1], [0]], load_ff=load_ff, warm_up=1)
    assert found.outputs[:, 0].tolist() == [1, 1, 1]
    input_pins, inverter = 0.5 * (1 + 2), 0.5 * 2 + (0.3 + 0.1) / 2
    pulse = 2 * 0.5 * load_ff + 0.5 + 0.3 if glitch else 0.0
    assert found.input_pins_fj == pytest.approx(input_pins)
    assert found.switching_fj + found.internal_fj == pytest.approx(inverter + pulse)
    assert found.zero_delay_fj == pytest.approx(input_pins + inverter)
    assert found.transitions == 2 + 2 * glitch
    # `when : B * !Y` of pin A never holds while A moves: Y is still 1.
    assert found.hidden_fj == 0


def test_passive_energy_of_an_input_edge(tiny: Library) -> None:
    gate = netlist(tiny, [("XOR2", [2, 3], [4])], [2, 3], [4])
    # A rises, then falls, with B = 1: Y is 0 before the second edge alone.
    found = simulated(tiny, gate, [[0, 1], [1, 1], [0, 1]], load_ff=1.0, warm_up=1)
    assert found.hidden_fj == pytest.approx(0.7 / 2)
    assert found.outputs[:, 0].tolist() == [1, 0, 1]


def test_flip_flop_latch_and_clock_gate(tiny: Library) -> None:
    clock, data, enable, gated = 2, 3, 4, 5
    circuit = netlist(
        tiny,
        [
            ("ICG", [clock, enable, ZERO], [gated]),
            ("DFF", [clock, data], [6]),
            ("DFF", [gated, data], [7]),
            ("LATH", [clock, data], [8]),
            ("LATL", [clock, data], [9]),
            ("NAND2", [data, ONE], [10]),
            ("LATH", [gated, data], [11]),
        ],
        [data, enable],
        [6, 7, 8, 9, 10, 11],
        clock,
    )
    vectors = [[1, 0], [0, 1], [1, 1], [1, 0], [0, 0], [0, 0]]
    found = simulated(tiny, circuit, vectors)
    # Operands change after the edge: flip-flops show the complement of the operation before, the gated one
    # only after an enable; the latch open in the high phase has the new value, the other follows in the low.
    assert found.outputs[1:, 0].tolist() == [0, 1, 0, 0, 1]
    assert found.outputs[:, 1].tolist() == [1, 1, 1, 0, 0, 0]
    assert found.outputs[:, 2].tolist() == [1, 0, 1, 1, 0, 0]
    assert found.outputs[:, 3].tolist() == [1, 0, 1, 1, 0, 0]
    assert found.outputs[:, 4].tolist() == [0, 1, 0, 0, 1, 1]
    # The last latch is closed but for the two cycles after an enable.
    assert found.outputs[:, 5].tolist() == [0, 0, 1, 1, 1, 1]
    # The clock's four pins of 1 fF twice a cycle, 0.2 and 0.1 fJ each for its edges there; the gated clock
    # of 2 fF and its two pins in two of the six cycles.
    pins = 4 * (2 * 0.5 * 1 + 0.3)
    assert found.clock_fj == pytest.approx(pins + 2 * (2 * 0.5 * 1 + 0.3) * 2 / 6)


# -- whole runs --------------------------------------------------------------------------------------------
SMALL = (
    "^(mul_w2_a3|mul_w4_a4|sprod_w4_a4_sp4|acc_p8_n16|ff32_icgen|zero_detect_4x4|fp4_mul|ppu_clip_24_o4|"
    "ppu_reciprocal_4|ppu_quotient_a4_s3|quick_ppu_partial_24x8)$"
)


@needs_yosys
def test_a_filtered_run_is_an_incomplete_table(cli: Cli) -> None:
    command = ("costs", "characterise", "--liberty", TINY, "--node-nm", 22, "--filter", SMALL, "--out")
    said = cli(*command, "first")
    assert said == Said(0, said.out, "")
    assert "26 rows of 11 blocks in first/" in said.out and "not a folder for --costs" in said.out
    assert list(contents(Path.cwd())) == ["first", f"first/{ACTIVITY.file}", f"first/{DATAPATH.file}"]
    rows = read_table(DATAPATH, Path("first"))
    assert {row["node_nm"] for row in rows} == {22} and {row["vdd_v"] for row in rows} == {1}
    assert all("tiny.lib" in row.text["source"] and "Yosys" in row.text["source"] for row in rows)
    with open(f"first/{DATAPATH.file}", newline="") as file:
        assert {row["output_mismatches"] for row in csv.DictReader(file)} == {"0"}
    tiny_gate, *_ = (row for row in rows if row.text["block"] == "mul_w2_a3")
    assert tiny_gate["energy_fj"] > tiny_gate["input_pin_energy_fj"] > 0
    refused = cli("costs", "--costs", "first")
    assert refused.status == 2 and "cannot be read" in refused.err
    # Equal input, equal bytes; two at a time, and over an earlier table.
    assert cli(*command, "second", "--filter", "^mul_w2_a3$").status == 0
    assert contents(Path("first")) != contents(Path("second"))
    assert cli(*command, "second", "--jobs", 2).status == 0
    assert contents(Path("first")) == contents(Path("second"))


@needs_yosys
def test_without_adder_latch_and_gate_cells_plain_logic_takes_their_place(tmp_path: Path) -> None:
    recipe = tmp_path / "bare.yaml"
    recipe.write_text("avoid: [FA, HA, ICG, OR2, LATL]\ntarget_ps: 500.0\n")
    pattern = "^(mul_w3_a3|ff32_icgen|zero_detect_4x4|arr_ff_64x16)$"
    done = run.characterise([TINY], 22, tmp_path / "out", pattern=pattern, recipe=recipe)
    assert (done.blocks, done.complete) == (4, False)
    energies = {
        (row.text["block"], row.text["stimulus"]): row["energy_fj"]
        for row in read_table(DATAPATH, tmp_path / "out")
    }
    assert energies["ff32_icgen", "en0"] < 0.3 * energies["ff32_icgen", "en1"]
    assert energies["arr_ff_64x16", "idle"] < energies["arr_ff_64x16", "write"]


@needs_yosys
def test_a_netlist_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch) -> None:
    def wrong(roles: Roles) -> list:
        from dataclasses import replace

        block = next(block for block in all_blocks(roles) if block.name == "mul_w2_a2")
        return [replace(block, reference=lambda words: (words["w"] * words["a"]) % 16)]

    monkeypatch.setattr(run, "all_blocks", wrong)
    with pytest.raises(AccelsimError, match=r"mul_w2_a2, uniform: \d+ of 608 outputs .* differ"):
        run.characterise([TINY], 22, tmp_path / "out")
    assert contents(tmp_path) == {}


@needs_yosys
def test_yosys_that_fails_or_a_full_disk_leave_nothing(tmp_path: Path, monkeypatch) -> None:
    def characterise() -> None:
        run.characterise([TINY], 22, tmp_path / "out", pattern="^mul_w2_a2$")

    with monkeypatch.context() as patch:
        patch.setitem(synthesis.ABC_SCRIPTS, "area", "no_such_command{reduce}{fanout}{choices}")
        with pytest.raises(AccelsimError, match=r"yosys: mul_w2_a2: .*ERROR|left, no library cell"):
            characterise()
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(run, "write_tables", full)
        with pytest.raises(AccelsimError, match="out: cannot be written: No space left on device"):
            characterise()
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--liberty": "none.lib"}, ("none.lib", "cannot be read")),
        ({"--liberty": __file__}, ("not a Liberty file",)),
        ({"--out": "taken"}, ("taken", "is a file")),
        ({"--out": "other"}, ("other", "holds other files")),
        ({"--out": "."}, ("current folder",)),
        ({"--filter": "("}, ("--filter", "not a regular expression")),
        ({"--filter": "^nothing$"}, ("no block's name matches", "mul_w2_a2")),
        ({"--node-nm": "1000"}, ("node_nm is 1000", "expected 3 to 130")),
        ({"--node-nm": "nan"}, ("node_nm is nan",)),
        ({"--recipe": "none"}, ("recipe none", "asap7")),
        ({"--recipe": "bad.yaml"}, ("bad.yaml", "colour")),
        ({"--recipe": "wrong.yaml"}, ("clock_buffer INV does not have the function",)),
        ({"--jobs": "0"}, ("--jobs",)),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, changed: dict[str, str], words: tuple[str, ...], monkeypatch
) -> None:
    monkeypatch.setattr(run, "find_yosys", lambda: "Yosys")
    Path("taken").write_text("mine")
    Path("other").mkdir()
    Path("other/mine.txt").write_text("mine")
    Path("bad.yaml").write_text("colour: red\n")
    Path("wrong.yaml").write_text("clock_buffer: INV\n")
    before = contents(Path.cwd())
    options = {"--liberty": str(TINY), "--node-nm": "22", "--out": "out", "--filter": "mul_w2_a2"} | changed
    said = cli("costs", "characterise", *(part for option in options.items() for part in option))
    assert said.status == 2 and said.out == "" and said.err.count("\n") == 1
    assert all(word in said.err for word in words), said.err
    assert contents(Path.cwd()) == before


def test_without_yosys(cli: Cli, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    said = cli("costs", "characterise", "--liberty", TINY, "--node-nm", 22, "--out", "out")
    assert said.status == 2 and "yosys is not installed" in said.err and not Path("out").exists()


def test_the_shipped_recipe_is_complete() -> None:
    recipe = load_recipe("asap7")
    assert all(getattr(recipe, name) is not None for name in Recipe.model_fields)


# -- tables of one's own -----------------------------------------------------------------------------------
def test_costs_shows_as_before_and_knows_its_command(cli: Cli) -> None:
    assert (
        cli("costs", "show", "dram", "--csv")
        == cli("costs", "dram", "--csv")
        == cli("costs", "--csv", "dram")
    )
    assert "characterise" in cli("costs", "--help").out
    for word in ("--liberty", "--node-nm", "--filter", "--jobs", "--recipe"):
        assert word in cli("costs", "characterise", "--help").out


def test_own_tables_price_a_run(cli: Cli, trace: Path) -> None:
    shutil.copytree(TABLES_DIR, "mine")
    table = Path("mine") / DATAPATH.file
    rows = shipped_rows()
    for row in rows:
        row["area_um2"] = str(2 * float(row["area_um2"]))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    package, own = (cost_table("register", costs=folder) for folder in (None, "mine"))
    areas = package["quantity"] == "area"
    assert np.allclose(own["value"][areas], 2 * package["value"][areas])
    assert "error" not in cli("costs", "register", "--costs", "mine").err
    for command in (("run", trace, "--no-plots"), ("compare", trace, "--no-plots", "--scheme", "4/4/4/4")):
        assert (
            cli(*command, "--out", "a").status == cli(*command, "--out", "b", "--costs", "mine").status == 0
        )
    with open("a/comparison.csv") as first, open("b/comparison.csv") as second:
        (shipped,), (doubled,) = csv.DictReader(first), csv.DictReader(second)
    ratio = float(doubled["area_datapath_um2"]) / float(shipped["area_datapath_um2"])
    # Buffers of the clock tree are of a table of their own.
    assert ratio == pytest.approx(2, rel=2e-3)
    said = cli("run", trace, "--costs", "nowhere")
    assert said.status == 2 and "costs nowhere: no such folder" in said.err
    assert "--costs is for --synth" in cli("rtl", "--out", "rtl", "--costs", "mine").err


@needs_yosys
@pytest.mark.slow
@pytest.mark.long
def test_a_full_run_is_a_folder_of_cost_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every block, on fewer operations than are measured: simulating those would be most of the time.
    monkeypatch.setattr(stimuli, "VECTORS", stimuli.VECTORS // 8)
    monkeypatch.setattr(stimuli, "ARRAY_VECTORS", stimuli.ARRAY_VECTORS // 8)
    done = run.characterise([TINY], 22, tmp_path / "tables", jobs=2)
    assert done.complete and done.rows == len(shipped_rows())
    assert set(contents(done.out)) == {spec.file for spec in ALL_TABLES}
    library = CostLibrary(Technology(22, 1.0), done.out)
    wide, narrow = (library.dot_product(16, bits, bits, held_operand=False) for bits in (8, 4))
    assert wide.area_um2 > 3 * narrow.area_um2 and wide.energy_pj["op"] > 3 * narrow.energy_pj["op"]


@needs_yosys
@needs_pdk
def test_asap7_gives_the_shipped_rows(tmp_path: Path) -> None:
    names = (
        "mul_w4_a4|dot_v16_w4_a4_s|sprod_w4_a4_sp4|smul_d12_s4|acc_add_16|acc_p16_n24|ff32_.*|arr_ff_64x16|"
        "arr_latch_64x4|zero_detect_16x6"
    )
    files = [next(PDK.glob(f"*_{part}_*")) for part in ("AO", "OA", "SIMPLE", "INVBUF", "SEQ")]
    run.characterise(files, 7, tmp_path / "out", pattern=f"^({names})$", recipe="asap7")
    shipped = {(row["block"], row["stimulus"]): row for row in shipped_rows()}
    places = {
        "area_um2": 3, "leakage_nw": 2, "delay_ps": 1, "energy_fj": 3, "input_pin_energy_fj": 3,
        "hidden_energy_fj": 3, "zero_delay_energy_fj": 3,
    }  # fmt: skip
    with open(tmp_path / "out" / DATAPATH.file, newline="") as file:
        ours = list(csv.DictReader(file))
    assert len(ours) == 38
    for row in ours:
        theirs = shipped[row["block"], row["stimulus"]]
        for name, digits in places.items():
            if theirs[name]:
                # One unit of the last place: the shipped figures were rounded twice.
                unit = 1.01 * 10**-digits
                assert float(row[name]) == pytest.approx(float(theirs[name]), abs=unit), (row["block"], name)
