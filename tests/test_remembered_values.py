"""Values kept on disk: the same results with them, without them, and whatever became of the files."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import contents
from test_layout import imports, room
from test_remembered_timings import changed

import accelsim.compute.values as values
from accelsim import network
from accelsim.api import compare, run
from accelsim.compute import remembered
from accelsim.compute.computed import Computed, ZeroCounts
from accelsim.compute.remembered import SOURCES, WHERE_AND_WHEN, KeptValues
from accelsim.compute.values import ComputeRequest, compute
from accelsim.errors import AccelsimError
from accelsim.machine.arch import PRICE_KEYS, Arch
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.plan import step_order
from accelsim.mapping.planning import plan
from accelsim.network import RunRequest
from accelsim.open import open_workload
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.report.results import RunResult
from accelsim.request import request_of
from accelsim.system.kept import ENVIRONMENT
from accelsim.trace.write import write_trace
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import FloatLayer, Layer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache" / remembered.KIND


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the layers that were computed, and of those whose floats were multiplied."""
    names: list[str] = []
    own_compute, own_float = values.compute, network.float_output

    def counted(request: ComputeRequest) -> Computed:
        names.append(request.layer.name)
        return own_compute(request)

    def multiplied(layer: Any) -> Any:
        names.append("floats")
        return own_float(layer)

    monkeypatch.setattr(values, "compute", counted)
    monkeypatch.setattr(network, "float_output", multiplied)
    return names


def written(out: Path, **options: Any) -> dict[str, bytes]:
    """All files of a run's result, but for how long it took."""
    run("digits", keep_tensors=False, **options).write(out, plots=False)
    files = contents(out)
    summary = json.loads(files["summary.json"])
    assert summary.pop("wall_s") >= 0
    return {**files, "summary.json": json.dumps(summary).encode()}


@pytest.mark.parametrize("options", [{}, {"prices": False}, {"scheme": "mxfp4"}])
def test_results_are_the_same_to_the_byte(
    folder: Path, computed: list[str], tmp_path: Path, options: dict[str, Any]
) -> None:
    heard: list[tuple[str, int, int]] = []
    cold = written(tmp_path / "cold", **options)
    count = len(list(folder.iterdir()))
    assert count == 6 and len(computed) == 12 and computed.count("floats") == 6
    computed.clear()
    warm = written(tmp_path / "warm", progress=lambda *told: heard.append(told), **options)
    assert not computed and warm == cold
    assert [done for what, done, _ in heard if "values" in what] == list(range(1, count + 1))


def test_narrow_sums_and_layers_alike(folder: Path, computed: list[str]) -> None:
    first = compare("minilm_layer0", schemes=["4/4/4/4", "4/8/6/10"], keep_tensors=False)
    count = len(computed)
    assert computed.count("floats") == len(first.runs[0].activities)  # once for both schemes
    again = compare("minilm_layer0", schemes=["4/4/4/4", "4/8/6/10"], keep_tensors=False)
    assert len(computed) == count and again.table.equals(first.table)
    assert first.runs[0].narrow == again.runs[0].narrow
    for own, other in zip(first.runs[0].activities, again.runs[0].activities, strict=True):
        assert own.computed == other.computed or vars(own.computed) == vars(other.computed)


def test_a_machine_that_differs_in_where_and_when_computes_nothing(folder: Path, computed: list[str]) -> None:
    """Where it maps alike in what values depend on."""
    pins = ["mapping.tile_pixels=1", "mapping.c_split=1"]
    run("digits", keep_tensors=False, overrides=pins)
    count = len(computed)
    for change in ("dram_bits_per_cycle=64", "voltage_v=0.9", "pes=4", "global_buffer_kb=256", "name=other"):
        run("digits", keep_tensors=False, overrides=[*pins, change])
    assert len(computed) == count
    run("digits", keep_tensors=False, overrides=[*pins, "accumulator_bits=20"])
    assert len(computed) == 2 * count


@pytest.mark.parametrize("change", ["tile_pixels=4", "dtile_pixels=1", "dataflow=ws"])
def test_another_order_of_steps_is_computed_anew(folder: Path, computed: list[str], change: str) -> None:
    """Found is what would be computed, also beside what another order has left."""
    usual = {"tile_pixels": "2", "dtile_pixels": "0", "c_split": "1", "dataflow": "os-lws"}

    def run_with(pins: dict[str, str]) -> RunResult:
        pinned = [f"mapping.{key}={value}" for key, value in pins.items()]
        return run("digits", keep_tensors=False, overrides=["dataflows=[os-lws, ws]", *pinned])

    run_with(usual)
    count = len(computed)
    name, value = change.split("=")
    found = run_with({**usual, name: value})
    assert len(computed) > count
    folder.rename(folder.parent / "away")
    again = run_with({**usual, name: value})
    for own, other in zip(found.activities, again.activities, strict=True):
        assert own.computed.toggles == other.computed.toggles


def test_kept_tensors_are_computed(folder: Path, computed: list[str]) -> None:
    first = run("digits")
    assert computed and not folder.exists() and first.activities[0].psums.any()
    run("digits", keep_tensors=False)
    count = len(computed)
    assert run("digits").activities[0].psums.any() and len(computed) > count


def test_a_layer_that_is_refused_is_refused_again(folder: Path, computed: list[str]) -> None:
    said = []
    for _ in range(2):
        with pytest.raises(AccelsimError, match="overflows at") as error:
            run("digits", keep_tensors=False, overrides=["accumulator_bits=12", "overflow=error"])
        said.append(str(error.value))
    assert said[0] == said[1] and computed.count("conv1") == 1 + (said[0].startswith("layer conv1"))


DAMAGE = (
    b"", b"x", None, zlib.compress(b"[]"), zlib.compress(b"{}"),
    zlib.compress(b'{"toggles":null,"zeros":[1,2,3]}'),
    zlib.compress(b'{"toggles":{"a":1},"zeros":[1,2,3,4]}'),
    zlib.compress(b'{"toggles":null,"zeros":[1,2,3,4],"other":1}'),
)  # fmt: skip


def test_a_trace_whose_file_is_another_since_it_was_opened(folder: Path, tmp_path: Path) -> None:
    """Its values are kept under what was opened, not under what bears its name by now."""
    path, layer = tmp_path / "own.safetensors", Layer("fc", "linear", Geometry(1, 32, 1, 4, 16))

    def write(seed: int) -> Path:
        draw = np.random.default_rng(seed).standard_normal
        weight, image = (draw(shape).astype(np.float32) for shape in ((16, 32, 1, 1), (1, 32, 1, 4)))
        return write_trace(path, "own", [FloatLayer(layer, weight, image)], {})

    first = open_workload(write(1))
    second = open_workload(write(2))
    before = run(first, keep_tensors=False)
    after = run(second, keep_tensors=False)
    assert before.summary["trace_sha256"] != after.summary["trace_sha256"]
    assert after.layers.equals(run(second).layers) and not after.layers.equals(before.layers)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_computed_anew(folder: Path, computed: list[str], damage: bytes | None) -> None:
    first = run("digits", keep_tensors=False)
    count, whole = len(computed), {path: path.read_bytes() for path in folder.iterdir()}
    for path, data in whole.items():
        path.write_bytes(data[: len(data) // 2] if damage is None else damage)
    again = run("digits", keep_tensors=False)
    assert len(computed) == 2 * count and again.layers.equals(first.layers)
    assert {path: path.read_bytes() for path in folder.iterdir()} == whole


def test_nothing_compiled_is_loaded_where_all_values_are_known(folder: Path) -> None:
    program = (
        "import sys; from accelsim.api import run; run('digits', keep_tensors=False); "
        "print([name for name in ('accelsim_kernels', 'numba', 'llvmlite') if name in sys.modules])"
    )
    for expected in ("['accelsim_kernels', 'numba', 'llvmlite']\n", "[]\n"):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)
        assert done.stdout == expected, done.stderr


# --- what values depend on ----------------------------------------------------------------------------------

OTHERS: dict[str, Any] = {
    "dataflows": ("os", "ws"), "mapping": {"objective": "energy"}, "gb_output_banks": 3,
    "gb_weight_banks": 3, "gb_weight_kb": 100, "psum_port_bits": 64, "dram_efficiency": 0.5,
    "accumulate_latency": 3, "dot_stages": 2, "scale_stages": 2, "clock_ghz": 0.5, "dram_kind": "hbm2",
    "name": "other", "node_nm": 40.0, "placement_utilization": 0.5, "ppu_stages": "coarse",
    "sram_device": "itrs-lop", "sram_energy_factor": 3.0, "voltage_v": 0.9,
    "ppu_latency_cycles": {"static": 9, "per_vector": 9},
}  # fmt: skip


@pytest.mark.parametrize("scheme", ["4/4/4/4", "mxfp4"])
def test_values_depend_on_no_parameter_that_is_left_out(scheme: str) -> None:
    """At one and the same order of steps."""
    request = request_of("digits", "magnet16", scheme, (), None, None)
    (layer, *_), (own, *_) = request.workload.layers, plan(request.planned()).layers
    words = request.workload.quantized_layer(layer.name, request.scheme, 16, None)
    order = step_order(request.arch, own.layer, own.mapping)

    def found(arch: Arch) -> dict[str, Any]:
        return vars(compute(ComputeRequest(arch, words, order, narrow=True, toggles=True)))

    usual, arch = found(request.arch), request.arch
    for name in sorted(WHERE_AND_WHEN):
        before = getattr(arch, name)
        other = OTHERS.get(name, not before if isinstance(before, bool) else None)
        if other is None:
            other = before * 2
        assert other != before
        assert found(Arch(**{**arch.model_dump(), name: other})) == usual, name
    assert scheme == "mxfp4" or found(arch.model_copy(update={"accumulator_bits": 14})) != usual


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_every_other_parameter_of_the_machine_is_in_the_name(folder: Path) -> None:
    arch = load_arch("magnet16")
    usual = name_of(arch)
    assert PRICE_KEYS < WHERE_AND_WHEN < set(Arch.model_fields)
    for field in Arch.model_fields:
        others = [arch.model_copy(update={field: other}) for other in changed(getattr(arch, field))]
        assert others, field
        for other in others:
            assert (name_of(other) == usual) == (field in WHERE_AND_WHEN), field


def name_of(arch: Arch, run: Any = "run", layer: Any = "layer") -> str:
    """Of the file that is written."""
    kept, names = KeptValues(arch, run), []
    kept._kept.write = lambda name, data: names.append(name)  # type: ignore[method-assign]
    kept.of(layer, lambda: Computed(ZeroCounts(1, 2, 3, 4)))
    return str(names[0])


def test_all_of_a_run_that_values_depend_on_is_in_the_name(folder: Path) -> None:
    request = request_of("digits", "magnet16", "4/4/4/4", (), None, None)
    others = [
        request,
        replace(request, workload=request_of("resnet18", "magnet16", "4/4/4/4", (), None, None).workload),
        replace(request, options=QuantizeOptions(weight_calibration="max")),
        replace(request, references=None),
        replace(request, narrow=True),
        replace(request, activity="tables"),
        replace(request, arch=load_arch("magnet16", ["fold=never"])),
        replace(request, arch=load_arch("magnet16", ["scale_rounding=nearest"])),
    ]
    facts = [repr(own.values_depend_on()) for own in others]
    assert len(set(facts)) == len(others)
    assert len({name_of(request.arch, own) for own in facts}) == len(others)
    assert name_of(request.arch, layer="a") != name_of(request.arch, layer="b")
    assert replace(request, library=None).values_depend_on() == others[5].values_depend_on()
    assert isinstance(request, RunRequest)


def test_all_sources_that_values_are_made_of_are_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, todo = set(), {"accelsim.compute.values", "accelsim.trace.file", "accelsim.synthetic.workload"}
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= {own for own in imports(name) if own.startswith("accelsim.")} - seen
    # What keeps files, refuses and checks arguments decides no value; of a mapping, what it decides is known.
    found = {room(name) for name in seen} - {"errors", "arguments", "system", "mapping", "version"}
    assert found | {"network.py"} == set(SOURCES)  # which says what is computed of a layer
    arch = load_arch("magnet16")
    names = {name_of(arch)}
    for target, value in (("sources_digest", lambda *_: "another"), ("np.__version__", "0")):
        with monkeypatch.context() as patched:
            patched.setattr(f"accelsim.compute.remembered.{target}", value)
            names.add(name_of(arch))
    assert len(names) == 3


def test_sources_of_the_kernels_are_in_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelsim.system.kept import sources_digest

    digests = {
        sources_digest.__wrapped__(("compute",)),
        sources_digest.__wrapped__(("compute",), ("accelsim_kernels",)),
        sources_digest.__wrapped__(("compute", "network.py")),
    }
    (tmp_path / "accelsim_kernels").mkdir()
    (tmp_path / "accelsim_kernels" / "__init__.py").write_text("")
    monkeypatch.setattr(
        "accelsim.system.kept.find_spec",
        lambda name: type("Spec", (), {"submodule_search_locations": [str(tmp_path / name)]}),
    )
    digests.add(sources_digest.__wrapped__(("compute",), ("accelsim_kernels",)))
    assert len(digests) == 4
