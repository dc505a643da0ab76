"""Prices: facts have birthplaces, laws meet their rows and never fall with size, scaling is as published."""

import csv
import itertools
import math
import shutil
from pathlib import Path

import pytest

from accelsim.costs import SRAM_DEVICES, CostLibrary, Technology
from accelsim.costs.tables import ALL_TABLES, TABLES_DIR, read_table
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import SCHEMES
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.report.inventory import Part, build_inventory

ORIGINALS = Path(__file__).parents[2] / "shared" / "costs"
WEIGHT_BITS, OPERAND_BITS, SIZES = range(2, 9), range(2, 10), (1, 2, 4, 8, 15, 16, 17, 32, 64, 128)
AT_TABLE = Technology(node_nm=7, voltage_v=0.7)


@pytest.fixture(scope="module")
def library() -> CostLibrary:
    return CostLibrary(Technology())


@pytest.fixture(scope="module")
def unscaled() -> CostLibrary:
    """At the node and supply of the datapath table."""
    return CostLibrary(AT_TABLE)


def table_rows(file: str) -> list[dict[str, str]]:
    with open(TABLES_DIR / file, newline="") as handle:
        return list(csv.DictReader(handle))


# -- facts -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", ALL_TABLES, ids=lambda spec: spec.file)
def test_every_row_has_a_source(spec):
    rows = read_table(spec, TABLES_DIR)
    assert all(row.text["source"].strip() for row in rows)
    assert spec.file in (TABLES_DIR / "README.md").read_text()


def test_every_synthesized_netlist_matched_its_model():
    assert all(row["output_mismatches"] in ("", "0") for row in table_rows("datapath.csv"))


def test_rows_list_every_constant_with_unit_source_and_status(library):
    rows = library.rows()
    wanted = {"component", "item", "quantity", "value", "unit", "node_nm", "vdd_v", "source", "status"}
    assert all(set(row) == wanted and row["unit"] and row["source"] and row["status"] for row in rows)
    statuses = {"synthesis", "cacti", "primary", "secondary", "assumption"}
    assert {row["status"] for row in rows} == statuses
    dots = library.rows("dot_product")
    assert dots and all(row["component"] == "dot_product" for row in dots)
    with pytest.raises(AccelsimError, match=r"component 'flux' is unknown, expected one of .*dram"):
        library.rows("flux")


@pytest.mark.skipif(
    not ORIGINALS.is_dir(), reason="the original campaign's tables are not beside the repository"
)
def test_copied_rows_equal_the_originals():
    def original(file):
        with open(ORIGINALS / file, newline="") as handle:
            return list(csv.DictReader(handle))

    ours = {(r["block"], r["stimulus"]): r for r in table_rows("datapath.csv")}
    theirs = {(r["block"], r["stimulus"]): r for r in original("datapath_asap7.csv")}
    assert {key for key in theirs if key not in ours} == {
        ("ppu_recip_comb_16", s) for s in ("uniform", "dnn")
    }
    # The originals were rounded twice: a unit of the last place.
    units = {"area_um2": 1e-3, "leakage_nW": 1e-2, "delay_ps": 0.1, "energy_fJ_per_op": 1e-3}
    names = {"area_um2": "area_um2", "leakage_nW": "leakage_nw", "delay_ps": "delay_ps"}
    for key in ours.keys() & theirs.keys():
        # Operands measured on real data took the place of a fixed spread.
        measured = ours[key]["family"] in ("scaling_mul", "scale_product", "align_shift") and key[1] == "dnn"
        energy = {} if measured else {"energy_fJ_per_op": "energy_fj"}
        for name, column in {**names, **energy}.items():
            assert float(ours[key][column]) == pytest.approx(
                float(theirs[key][name]), abs=1.01 * units[name]
            ), key
        same = {"weight_bits": "Nw", "activation_bits": "Na", "dot_bits": "dot_bits", "width_bits": "width"}
        assert all(ours[key][a] == theirs[key][b] for a, b in same.items()), key
    sram_names = {
        "device": "cell_device",
        "words": "words",
        "width_bits": "width_bits",
        "read_energy_pj": "read_energy_pJ",
        "write_energy_pj": "write_energy_pJ",
        "leakage_mw": "leakage_mW",
        "area_mm2": "area_mm2",
        "cycle_time_ns": "cycle_time_ns",
    }
    for mine, his in zip(table_rows("sram_cacti22.csv"), original("sram_cacti22.csv"), strict=True):
        for name, column in sram_names.items():
            assert mine[name] == his[column]
    for mine, his in zip(table_rows("logic_scaling.csv"), original("scaling.csv"), strict=True):
        assert mine["area_relative"] == his["area_relative_to_7nm"]
        if mine["node_nm"] not in ("45", "32"):  # low-power devices there
            assert all(mine[name] == his[name] for name in ("energy_a2", "energy_a1", "energy_a0"))


# -- laws --------------------------------------------------------------------------------------------------
def test_synthesized_dot_products_are_priced_by_their_row(unscaled):
    seen = 0
    for row in table_rows("datapath.csv"):
        if row["family"] != "dot" or row["activation_signed"] != "1" or row["stimulus"] == "uniform":
            continue
        size, weight, operand = (int(row[c]) for c in ("vector_size", "weight_bits", "activation_bits"))
        values = row["stimulus"] if row["stimulus"] in SCHEMES else None
        held = row["stimulus"] == "dnn_ws16" or values is not None
        cost = unscaled.dot_product(size, weight, operand, held_operand=held, values=values)
        tolerance = 1e-9 if size == 16 else 0.07  # larger vectors: the size law, largest error 6.2 %
        assert cost.energy_pj["op"] == pytest.approx(float(row["energy_fj"]) / 1e3, rel=tolerance)
        assert cost.area_um2 == pytest.approx(float(row["area_um2"]), rel=min(tolerance, 0.01))
        seen += 1
    assert seen == 99


def test_single_multipliers_are_priced_by_their_row(unscaled):
    for row in table_rows("datapath.csv"):
        if row["family"] == "mul" and row["stimulus"] == "dnn":
            weight, operand = int(row["weight_bits"]), int(row["activation_bits"])
            cost = unscaled.dot_product(1, weight, operand, held_operand=False)
            assert cost.energy_pj["op"] == pytest.approx(float(row["energy_fj"]) / 1e3)
            assert cost.area_um2 == pytest.approx(float(row["area_um2"]))


LARGEST_ERROR = {"area_um2": 0.15, "leakage_nw": 0.36, "delay_ps": 0.36, "energy_fj": 0.26}


def test_laws_hold_on_their_rows(library):
    """Stated errors: percents for areas at V = 16, adders and arrays, up to a quarter for small energies."""
    laws = library.laws()
    for law in laws:
        # Of scales that hardly change little is left to be right about; clock gates come one by one.
        calm = law["law"] in ("scale_product activity, below dnn", "scale_multiply activity, below dnn")
        # Small blocks, and what is mapped for depth: their netlists scatter most.
        small = str(law["law"]).startswith(("vector scale", "ppu_quotient", "quick_"))
        gates = law["quantity"] == "energy_fj, idle"
        assert law["median_error"] <= (0.16 if calm else 0.20 if gates else 0.13 if small else 0.10), law
        bound = LARGEST_ERROR.get(str(law["quantity"]), 0.37)
        assert law["max_error"] <= (0.57 if calm else 0.45 if small else bound), law
    tight = {(law["law"], law["quantity"]): law["max_error"] for law in laws}
    assert tight["dot_product widths, V = 16", "area_um2"] < 0.011
    assert tight["scale_multiply", "area_um2"] < 0.045
    assert tight["scale_multiply", "energy_fj"] < 0.16
    assert tight["accumulator", "energy_fj"] < 0.16
    assert tight["adder", "energy_fj"] < 0.03
    assert tight["sram itrs-lstp", "read_energy_pj"] < 0.25


def test_readme_states_the_residuals():
    text = (TABLES_DIR / "README.md").read_text()
    for device in SRAM_DEVICES:
        for law in CostLibrary(Technology(sram_device=device)).laws():
            errors = f"{law['median_error'] * 100:.1f} | {law['max_error'] * 100:.1f}"
            assert (
                f"| {law['law']} | {law['quantity']} | {law['formula']} | {law['rows']} | {errors} |" in text
            )


def test_fast_blocks_meet_their_rows_and_close_where_they_say(unscaled):
    """Every fast dot product of V = 16 at the period of its own row, in its own stages, is priced by it."""
    seen = 0
    for row in table_rows("datapath.csv"):
        if row["family"] != "fast_dot" or row["vector_size"] != "16" or row["stimulus"] != "dnn_ws16":
            continue
        weight, operand, stages = (int(row[c]) for c in ("weight_bits", "activation_bits", "kind"))
        if stages == 1:
            continue  # the one for area may do
        sizes = dict(held_operand=True, stages=stages, period_ps=float(row["delay_ps"]) * (1 + 1e-9))
        cost = unscaled.dot_product(16, weight, operand, **sizes)
        assert cost.area_um2 == pytest.approx(float(row["area_um2"]))
        assert cost.energy_pj["op"] + cost.energy_pj["idle"] == pytest.approx(float(row["energy_fj"]) / 1e3)
        assert f"netlist: mapped for delay, cut into {stages} stages" in cost.scaling
        seen += 1
    assert seen == 18


def test_the_smallest_netlist_that_meets_the_period_is_priced(library):
    """A shorter period never costs less, and is met or priced as the fastest; more cycles never slow it."""
    calls = {
        "dot": lambda n, p: library.dot_product(16, 8, 9, held_operand=True, stages=n, period_ps=p),
        "multiply": lambda n, p: library.scale_multiply(17, 16, held=False, stages=min(n, 3), period_ps=p),
        "product": lambda n, p: library.scale_product(6, 10, 0, held=True, stages=n, period_ps=p),
        "accumulator": lambda n, p: library.accumulator(24, 24, period_ps=p),
    }
    for price in calls.values():
        for stages in (1, 2, 3, 4):
            costs = [price(stages, period) for period in (None, 3000, 1500, 1000, 800, 600, 10)]
            areas = [cost.area_um2 for cost in costs]
            assert areas[:-1] == sorted(areas[:-1]) and areas[0] == areas[1]
            fastest = costs[-1].delay_ps
            for period, cost in zip((3000, 1500, 1000, 800, 600), costs[1:-1], strict=True):
                assert cost.delay_ps <= period or cost.delay_ps == fastest > period
            assert fastest <= price(max(1, stages - 1), 10).delay_ps
    narrow = library.dot_product(16, 4, 5, held_operand=True, stages=3, period_ps=1000)
    assert "cut into 2 stages and 1 row of registers behind it" in " ".join(narrow.scaling)
    one, two = (calls["dot"](n, 3000) for n in (1, 2))
    assert two.area_um2 == pytest.approx(one.area_um2 + library.register(21).area_um2)
    assert "1 row of registers behind it" in " ".join(two.scaling)


@pytest.mark.parametrize("scheme", ["8/8/-/-", "4/4/4/4", "4/4/4/6", "4/8/6/10"])
def test_lanes_of_magnet16_meet_their_clock(scheme):
    arch = load_arch("magnet16")
    library = CostLibrary(Technology(arch.node_nm, arch.voltage_v))
    parts = {part.name: part for part in build_inventory(arch, Scheme.parse(scheme), library)}
    lane = [
        parts[name]
        for name in ("dot_product", "scale_product", "scale_multiply", "accumulator", "psum_adder")
        if name in parts
    ]
    assert len(lane) == (3 if scheme == "8/8/-/-" else 5)
    assert all(part.cost.delay_ps <= 1e3 / arch.clock_ghz for part in lane), [
        (p.name, p.cost.delay_ps) for p in lane
    ]
    assert parts["dot_product"].cycle_action == "idle"


@pytest.mark.parametrize("held", [True, False])
def test_dot_products_never_get_cheaper_with_size(unscaled, held):
    """The whole grid, one step in each direction: a wider operand or a longer vector costs more."""
    price = {}
    for size, weight, operand in itertools.product(SIZES, WEIGHT_BITS, OPERAND_BITS):
        cost = unscaled.dot_product(size, weight, operand, held_operand=held)
        price[size, weight, operand] = (cost.area_um2, cost.energy_pj["op"], cost.leakage_uw)
        assert cost.delay_ps > 0 and cost.energy_pj["gated"] == 0
    for (size, weight, operand), values in price.items():
        larger_sizes = [s for s in SIZES if s > size][:1]
        steps = [(s, weight, operand) for s in larger_sizes]
        steps += [(size, weight + 1, operand), (size, weight, operand + 1)]
        for step in steps:
            if step in price:
                larger = price[step]
                assert all(b > a for a, b in zip(values, larger, strict=True)), (
                    (size, weight, operand),
                    step,
                )


def test_dot_product_grows_with_partial_products(unscaled):
    """4x9 lies above 4x8 by about the ninth row of partial products."""
    eight = unscaled.dot_product(16, 4, 8, held_operand=True)
    nine = unscaled.dot_product(16, 4, 9, held_operand=True)
    assert nine.area_um2 / eight.area_um2 == pytest.approx(9 / 8, rel=0.02)
    assert 9 / 8 < nine.energy_pj["op"] / eight.energy_pj["op"] < 1.2
    held, changing = (unscaled.dot_product(16, 4, 4, held_operand=h).energy_pj["op"] for h in (True, False))
    assert (held, changing) == (pytest.approx(0.085322), pytest.approx(0.104872))


def test_ninth_operand_bit_meets_the_unsigned_row(unscaled):
    """8 x 9 signed carries unsigned 8-bit codes: the synthesized unsigned 8 x 8 switches nearly as much."""
    (row,) = (
        row
        for row in table_rows("datapath.csv")
        if row["block"] == "dot_v16_w8_a8_u" and row["stimulus"] == "dnn_ws16"
    )
    nine = unscaled.dot_product(16, 8, 9, held_operand=True).energy_pj["op"] * 1e3
    assert 1.0 < nine / float(row["energy_fj"]) < 1.05


def test_other_blocks_never_get_cheaper_with_size(library):
    def rising(costs, action):
        values = [(c.area_um2, c.leakage_uw, c.energy_pj[action]) for c in costs]
        assert all(b >= a for low, high in itertools.pairwise(values) for a, b in zip(low, high, strict=True))
        assert values[-1] > values[0]

    bits = range(1, 11)
    for weight in bits:
        for held in (False, True):
            rising([library.scale_product(weight, activation, 0, held=held) for activation in bits], "op")
            products = range(1, weight + 11)
            rising([library.scale_product(weight, 10, product, held=held) for product in products], "op")
    for held in (False, True):
        for scale in range(1, 21):
            rising([library.scale_multiply(dot, scale, held=held) for dot in range(5, 25)], "op")
        for dot in range(5, 25):
            rising([library.scale_multiply(dot, scale, held=held) for scale in range(1, 21)], "op")
    for product in (2, 8, 13, 32, 64):
        rising([library.accumulator(n, product) for n in range(8, 65)], "add")
    rising([library.accumulator(24, product) for product in range(8, 65)], "add")
    for data in ("random", "half zero"):
        rising([library.register(n, data=data) for n in range(1, 100)], "write")
    rising([library.zero_detect(n) for n in (1, 2, 64, 128, 144)], "op")
    rising([library.ppu(16, n, 8) for n in range(16, 64)], "op")
    rising([library.ppu_vector_scale(size, size, 8, 8) for size in (1, 2, 4, 16, 64)], "op")
    narrow = [library.ppu_vector_scale(16, lanes, 8, 8) for lanes in (1, 2, 4, 8, 16)]
    assert [cost.area_um2 for cost in narrow] == sorted(cost.area_um2 for cost in narrow)
    for code in (3, 4, 6, 8):
        rising([library.ppu_vector_scale(16, 4, code, scale) for scale in range(1, 11)], "op")
    rising([library.ppu_select(ways, 96) for ways in (1, 2, 3, 4, 8, 16)], "op")
    rising([library.ppu_select(4, bits) for bits in (1, 24, 96, 300)], "op")
    for action, kind in itertools.product(("idle", "read", "write"), ("latch", "ff")):
        rising([library.array(64, depth, kind) for depth in range(1, 65)], action)
        rising([library.array(width, 16, kind) for width in (1, 24, 64, 384, 640)], action)


@pytest.mark.parametrize("device", SRAM_DEVICES)
def test_sram_never_gets_cheaper_with_size(device):
    library = CostLibrary(Technology(sram_device=device))
    words = (16, 64, 128, 512, 1024, 4096, 65536)
    widths = (16, 32, 64, 68, 132, 140, 255, 256, 257, 512, 2048)
    for changing, sizes in (
        (words, [[(n, w) for n in words] for w in widths]),
        (widths, [[(n, w) for w in widths] for n in words]),
    ):
        for line in sizes:
            costs = [library.sram(*size) for size in line]
            for low, high in itertools.pairwise(costs):
                assert high.area_um2 > low.area_um2 and high.leakage_uw > low.leakage_uw, changing
                assert all(high.energy_pj[a] > low.energy_pj[a] for a in ("read", "write")), changing


def test_array_cycle_energies_add_up(unscaled):
    """idle + read + write of one cycle is the synthesized read-and-write row, at every depth."""
    depths = set()
    for row in table_rows("datapath.csv"):
        if row["family"] == "array" and row["stimulus"] == "readwrite":
            depths.add(row["depth"])
            cost = unscaled.array(int(row["width_bits"]), int(row["depth"]), row["kind"])
            assert sum(cost.energy_pj.values()) == pytest.approx(float(row["energy_fj"]) / 1e3, rel=0.08), row
            assert cost.area_um2 == pytest.approx(float(row["area_um2"]), rel=0.002)
    assert depths == {"4", "8", "16"}


def test_arrays_meet_their_rows_at_every_depth(unscaled):
    """Of the row read, what it spends above the idle row; a law in depth alone was 49 % low at four words."""
    energy = {
        (row["kind"], row["width_bits"], row["depth"], row["stimulus"]): float(row["energy_fj"])
        for row in table_rows("datapath.csv")
        if row["family"] == "array"
    }
    for kind, width, depth, stimulus in energy:
        if stimulus in ("read", "write"):
            added = energy[kind, width, depth, stimulus] - energy[kind, width, depth, "idle"]
            priced = unscaled.array(int(width), int(depth), kind).energy_pj[stimulus] * 1e3
            assert priced == pytest.approx(added, rel=0.07), (kind, width, depth, stimulus)


def test_registers_are_priced_by_what_they_store(unscaled):
    rows = {
        row["stimulus"]: float(row["energy_fj"]) / 1e3
        for row in table_rows("datapath.csv")
        if row["block"] == "ff32_icgen"
    }
    quiet = rows["en0_quiet"]
    assert quiet < 0.2 * rows["en0"], "the clock gate alone"
    written = pytest.approx(rows["en1"] - quiet)
    assert unscaled.register(32).energy_pj == {"idle": quiet, "write": written, "read": 0}
    half_zero = unscaled.register(32, data="half zero").energy_pj["write"]
    assert half_zero == pytest.approx(rows["en1_half_zero"] - quiet)
    mixed = unscaled.register(32, held_bits=8).energy_pj["write"]
    assert mixed == pytest.approx(0.75 * rows["en1"] + 0.25 * rows["en1_held"] - quiet)
    assert rows["en1_held"] < rows["en1_half_zero"] < rows["en1"]


def test_held_scales_cost_less(unscaled):
    for bits in (4, 6, 8, 10):
        held, changing = (unscaled.scale_product(bits, bits, 0, held=h) for h in (True, False))
        assert held.energy_pj["op"] < changing.energy_pj["op"] and held.area_um2 == changing.area_um2
        for dot in (13, 17) if bits > 4 else (13,):
            held, changing = (unscaled.scale_multiply(dot, bits, held=h) for h in (True, False))
            assert held.energy_pj["op"] < changing.energy_pj["op"] and held.stimulus == "dnn_ws16"


def test_accumulators_meet_their_rows(unscaled):
    rows = [row for row in table_rows("datapath.csv") if row["family"] == "accumulator"]
    for row in rows:
        if row["stimulus"] == "dnn":
            bits, product = int(row["accumulator_bits"]), int(row["input_bits"])
            cost = unscaled.accumulator(bits, product)
            assert cost.area_um2 == pytest.approx(float(row["area_um2"]), rel=0.08)
            assert cost.energy_pj["add"] == pytest.approx(float(row["energy_fj"]) / 1e3, rel=0.16)
    assert len(rows) == 28
    # Too wide a product takes an adder of its width.
    assert unscaled.accumulator(24, 33) == unscaled.accumulator(33, 24)


# -- components --------------------------------------------------------------------------------------------
def test_absent_scales_cost_nothing(library):
    for sides in ((0, 0), (6, 0), (0, 10)):
        cost = library.scale_product(*sides, 0, held=False)
        assert cost.area_um2 == cost.leakage_uw == cost.energy_pj["op"] == 0
    assert library.scale_product(0, 10, 10, held=False).area_um2 == 0
    assert library.scale_product(0, 10, 6, held=False).area_um2 > 0, "rounding alone is an adder"
    assert library.scale_product(4, 4, 0, held=True) == library.scale_product(4, 4, 8, held=True)


def test_hop_energy_by_hand(library):
    """0.5 * 0.5 * 0.2 pF/mm * (0.8 V)^2 = 0.032 pJ/mm over sqrt(0.7 mm2 / 0.7) = 1 mm, and one register."""
    cost = library.noc(16, 128, 700_000.0, 0.7)
    assert cost.energy_pj["bit_hop"] == pytest.approx(0.032 + library.register(1).energy_pj["write"])
    assert cost.area_um2 == pytest.approx(32 * library.register(128).area_um2)
    assert cost.evidence == "assumption" and "hop 1 mm" in cost.scaling[0]


def test_system_rows_keep_their_standing(library):
    assert library.dram().evidence == "secondary" and library.dram().energy_pj == {"bit": 8}
    assert library.dram("hbm2").energy_pj == {"bit": 3.9}
    assert library.sram(128, 128).evidence == "cacti"
    assert library.dot_product(16, 8, 8, held_operand=True).evidence == "synthesis"


def test_control_is_its_counters(library):
    one, two = library.control([10]), library.control([10, 10])
    assert two.energy_pj["cycle"] == pytest.approx(2 * one.energy_pj["cycle"])
    assert library.control([]).energy_pj == {"cycle": 0}


# -- what machines are priced with -------------------------------------------------------------------------
def parts_of(library: CostLibrary, scheme: str, *overrides: str) -> dict[str, Part]:
    inventory = build_inventory(load_arch("magnet16", list(overrides)), Scheme.parse(scheme), library)
    return {part.name: part for part in inventory}


def test_scales_of_weights_are_held_as_long_as_weights(library):
    """4/4/4/-: dot 4 + 5 + 4 = 13 bits, scale 4, product 17, psum of 24."""
    clock = {"period_ps": 1000.0, "stages": 3}
    alone, both = parts_of(library, "4/4/4/-"), parts_of(library, "4/4/4/4")
    assert alone["scale_multiply"].cost == library.scale_multiply(13, 4, held=True, **clock)
    assert alone["pipeline_register"].cost == library.register(13 + 4 + 17 + 24, held_bits=4)
    assert both["scale_multiply"].cost == library.scale_multiply(13, 8, held=False, **clock)
    assert both["scale_product"].cost == library.scale_product(4, 4, 0, held=True, **clock)
    assert both["pipeline_register"].cost == library.register(13 + 8 + 21 + 28)
    assert both["accumulator"].cost == library.accumulator(28, 21, period_ps=1000.0)
    assert (
        parts_of(library, "4/4/4/4", "product_shift=5")["accumulator"].cost.energy_pj["add"]
        < (both["accumulator"].cost.energy_pj["add"])
    )
    changing = parts_of(library, "4/4/4/4", "dataflows=[os]")
    assert changing["scale_product"].cost == library.scale_product(4, 4, 0, held=False, **clock)
    changing = parts_of(library, "4/4/4/-", "dataflows=[os]")
    assert changing["scale_multiply"].cost == library.scale_multiply(13, 4, held=False, **clock)


def test_registers_of_a_machine_rest_where_nothing_is_stored(library):
    parts = parts_of(library, "8/8/-/-")
    assert parts["input_register"].cost == library.register(128, data="half zero")
    for name in ("weight_register", "ppu_register"):
        cost = parts[name].cost
        assert cost.energy_pj["idle"] < 0.04 * cost.energy_pj["write"], "the clock gates alone"


# -- scaling -----------------------------------------------------------------------------------------------
def test_logic_scaling_by_hand(library, unscaled):
    here = library.dot_product(16, 8, 8, held_operand=True)
    there = unscaled.dot_product(16, 8, 8, held_operand=True)
    sixteen = 0.2958 * 0.64 - 0.1241 * 0.8 + 0.03024
    seven = 0.1776 * 0.49 - 0.09097 * 0.7 + 0.02447
    assert here.energy_pj["op"] / there.energy_pj["op"] == pytest.approx(sixteen / seven)
    assert here.leakage_uw / there.leakage_uw == pytest.approx(sixteen / seven)
    assert here.area_um2 / there.area_um2 == pytest.approx(3.2)
    delay_sixteen = 24.8 * 0.64 - 47.52 * 0.8 + 28.87
    delay_seven = -28.58 * 0.343 + 76.6 * 0.49 - 70.26 * 0.7 + 24.69
    assert here.delay_ps / there.delay_ps == pytest.approx(delay_sixteen / delay_seven)
    assert here.scaling[0].startswith("area x3.2: logic 7 -> 16 nm")
    node, voltage = (float(line.split("x")[1].split(":")[0]) for line in here.scaling[1:3])
    assert node * voltage == pytest.approx(sixteen / seven, rel=1e-3)
    assert there.energy_pj["op"] == pytest.approx(0.427222, rel=1e-6)


def test_nodes_between_and_below_the_table():
    def area(node_nm):
        return CostLibrary(Technology(node_nm=node_nm)).register(32).area_um2

    share = math.log(22 / 20) / math.log(32 / 20)
    devices = [row["source"].split()[-1] for row in table_rows("logic_scaling.csv")]
    assert devices == ["130", "90", "65", "HP45", "HP32", "HP20", "HP16", "HP14", "HP10", "HP7"], "one family"
    assert area(22) / area(7) == pytest.approx(3.6 ** (1 - share) * 7.8**share)
    assert area(5) / area(7) == pytest.approx(5 / 7)
    five, seven = (CostLibrary(Technology(n, 0.8)).register(1).energy_pj["write"] for n in (5, 7))
    assert five / seven == pytest.approx(math.sqrt(5 / 7))


@pytest.mark.parametrize("device", SRAM_DEVICES)
def test_large_sram_is_banked(device):
    """Beyond 128 KiB: banks of that size, of which one is accessed, over wires."""
    library = CostLibrary(Technology(22, 0.8, device))
    bank, eight = library.sram(8192, 128), library.sram(65536, 128)
    assert not any(line.startswith("banks") for line in bank.scaling)
    (said,) = (line for line in eight.scaling if line.startswith("banks"))
    assert said.startswith("banks: 8 of 128 KiB")
    assert eight.area_um2 == pytest.approx(8 * bank.area_um2)
    assert eight.leakage_uw == pytest.approx(8 * bank.leakage_uw) and eight.delay_ps == bank.delay_ps
    wire_mm = math.sqrt(eight.area_um2) * (1 - math.sqrt(1 / 8)) / 1e3
    for action in ("read", "write"):
        added = eight.energy_pj[action] - bank.energy_pj[action]
        assert added == pytest.approx(128 * wire_mm * 0.032)


def test_sram_scaling_by_hand():
    """One table point at CACTI's own node and supply against 16 nm 0.8 V, for every device."""
    for device, vdd in (("itrs-lstp", 0.8), ("itrs-lop", 0.6), ("itrs-hp", 0.8)):
        base = CostLibrary(Technology(22, vdd, device)).sram(128, 128)
        here = CostLibrary(Technology(16, 0.8, device)).sram(128, 128)
        ratio = math.sqrt(16 / 22)
        assert here.energy_pj["read"] / base.energy_pj["read"] == pytest.approx(ratio * (0.8 / vdd) ** 2)
        assert here.leakage_uw / base.leakage_uw == pytest.approx(ratio * 0.79 * 0.8 / vdd)
        assert here.area_um2 / base.area_um2 == pytest.approx(0.074 / 0.092)


def test_the_level_of_sram_can_be_chosen(library):
    """8 KB of 32-bit words lie well below the published row; a factor moves accesses, nothing else."""
    (published,) = (row for row in table_rows("system.csv") if row["key"] == "local_sram_8kb")
    ours = library.sram(2048, 32)
    assert 5 < float(published["value"]) / ours.energy_pj["read"] < 7
    six = CostLibrary(Technology(sram_energy_factor=6)).sram(2048, 32)
    assert six.energy_pj == {action: pytest.approx(6 * pj) for action, pj in ours.energy_pj.items()}
    assert (six.area_um2, six.leakage_uw) == (ours.area_um2, ours.leakage_uw)
    assert any("sram_energy_factor" in line for line in six.scaling)


def test_sram_area_meets_the_asap7_macros():
    """Independent macros at 7 nm, by their own library: within a quarter for 512 words and more."""
    library = CostLibrary(Technology(node_nm=7, voltage_v=0.7))
    for row in table_rows("sram_asap7_area.csv"):
        words, width = int(row["words"]), int(row["width_bits"])
        if words >= 512 and width >= 32:
            assert library.sram(words, width).area_um2 == pytest.approx(float(row["area_um2"]), rel=0.25)


# -- faults ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"node_nm": 2}, "node_nm: 2 is out of range, expected 3 to 130"),
        ({"node_nm": math.nan}, "node_nm: nan is out of range"),
        ({"voltage_v": math.inf}, "voltage_v: inf is out of range, expected 0.3 to 1.3"),
        ({"voltage_v": "0.8"}, "voltage_v: '0.8' is not a number"),
        ({"sram_energy_factor": 0}, "sram_energy_factor: 0 is out of range, expected 0.01 to 100"),
        ({"sram_device": "hp"}, "sram_device: 'hp' is unknown, expected one of itrs-lstp"),
    ],
)
def test_impossible_technologies_are_refused(arguments, message):
    with pytest.raises(AccelsimError, match=message):
        Technology(**arguments)


def test_supply_below_the_energy_law_is_refused():
    with pytest.raises(AccelsimError, match=r"voltage_v: 0.4 is below the range of the 130 nm energy law"):
        CostLibrary(Technology(node_nm=130, voltage_v=0.4)).register(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda c: c.dot_product(0, 8, 8, held_operand=True),
            "dot_product: vector_size is 0, expected a whole",
        ),
        (
            lambda c: c.dot_product(16, 0, 8, held_operand=True),
            "weight_bits is 0, expected a whole number 2 to 8",
        ),
        (lambda c: c.dot_product(16, 8, 10, held_operand=True), "activation_operand_bits is 10"),
        (
            lambda c: c.dot_product(16, 8, 8, held_operand=True, stages=5),
            "stages is 5, expected a whole number",
        ),
        (
            lambda c: c.scale_multiply(12, 8, held=True, stages=4),
            "stages is 4, expected a whole number 1 to 3",
        ),
        (lambda c: c.accumulator(24, 20, period_ps=0.0), "period_ps is 0.0, expected a number above 0"),
        (lambda c: c.scale_product(11, 4, 0, held=True), "weight_scale_bits is 11"),
        (
            lambda c: c.scale_product(4, 4, 9, held=True),
            "scale_product_bits is 9, expected a whole number 0 to 8",
        ),
        (lambda c: c.scale_multiply(12, 0, held=True), "scale_bits is 0"),
        (lambda c: c.accumulator(0, 8), "accumulator: bits is 0"),
        (lambda c: c.accumulator(24, 1), "accumulator: product_bits is 1"),
        (lambda c: c.register(8, held_bits=9), "held_bits is 9, expected a whole number 0 to 8"),
        (lambda c: c.register(1.5), "register: bits is 1.5"),
        (lambda c: c.array(64, 16, "sram"), "kind is 'sram', expected latch or ff"),
        (lambda c: c.sram(0, 64), "sram: words is 0"),
        (lambda c: c.zero_detect(0), "zero_detect: bits is 0"),
        (lambda c: c.noc(4, 128, math.nan, 0.7), "pe_area_um2 is nan"),
        (
            lambda c: c.noc(4, 128, 1e5, 1.5),
            "placement_utilization is 1.5, expected a number above 0 and at most 1",
        ),
        (lambda c: c.dram("ddr9"), "kind 'ddr9' is unknown, expected one of lpddr4"),
    ],
)
def test_impossible_requests_are_refused(library, call, message):
    with pytest.raises(AccelsimError, match=message) as error:
        call(library)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("datapath.csv", lambda t: t[:3000], "truncated|fields, expected"),
        ("datapath.csv", lambda t: "\n".join(t.split("\n")[:200]) + "\n", "no row of family"),
        ("datapath.csv", lambda t: t.replace("area_um2", "area", 1), "column 'area_um2' is missing"),
        (
            "datapath.csv",
            lambda t: t.replace("0.598", "much", 1),
            "line 2: area_um2 is 'much', expected",
        ),
        ("sram_cacti22.csv", lambda t: t.replace("0.38016", "-0.38016", 1), "read_energy_pj is '-0.38016'"),
        ("sram_cacti22.csv", lambda t: t.replace("0.38016", "nan", 1), "read_energy_pj is 'nan'"),
        ("sram_cacti22.csv", lambda t: t.replace("itrs-lstp", "itrs-none"), "no row of device 'itrs-lstp'"),
        ("sram_bitcell.csv", lambda t: t.split("\n")[0] + "\n", "no rows, expected at least one"),
        ("system.csv", lambda t: t.replace("common textbook value", "", 1), "source is empty, expected text"),
        (
            "system.csv",
            lambda t: t.replace("wire_capacitance", "wire_cap", 1),
            "row 'wire_capacitance' is missing",
        ),
        ("logic_scaling.csv", None, "cannot be read"),
    ],
)
def test_bad_tables_give_one_line(tmp_path, file, spoil, message):
    directory = tmp_path / "tables"
    shutil.copytree(TABLES_DIR, directory)
    if spoil is None:
        (directory / file).unlink()
    else:
        (directory / file).write_text(spoil((TABLES_DIR / file).read_text()))
    with pytest.raises(AccelsimError, match=message) as error:
        CostLibrary(Technology(), directory)
    assert "\n" not in str(error.value)


def test_laws_are_fitted_once_and_again_where_a_table_changes(tmp_path):
    """In the same folder, by as many bytes."""
    directory = tmp_path / "tables"
    shutil.copytree(TABLES_DIR, directory)
    before, same = (CostLibrary(Technology(node_nm=node), directory) for node in (16, 7))
    assert same._dots is before._dots
    assert same.register(8).area_um2 < before.register(8).area_um2
    path = directory / "system.csv"
    path.write_text(path.read_text().replace('LPDDR4",8,', 'LPDDR4",9,'))
    after = CostLibrary(Technology(), directory)
    assert (before.dram().energy_pj["bit"], after.dram().energy_pj["bit"]) == (8, 9)
