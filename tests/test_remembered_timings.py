"""Timings kept on disk: the same results with them, without them, and whatever became of the files."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from conftest import contents
from pydantic import BaseModel
from test_layout import imports, room

from accelsim.api import run
from accelsim.machine.arch import PRICE_KEYS, Arch
from accelsim.mapping.planning import Plan, plan
from accelsim.mapping.residency import PrologueStep
from accelsim.mapping.search.mapper import Mapper
from accelsim.request import request_of
from accelsim.sim import remembered
from accelsim.sim.remembered import SOURCES, name_of
from accelsim.system.kept import ENVIRONMENT
from accelsim.workload.layer import NodeWork

Planned = tuple[Arch, Plan]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache" / remembered.KIND


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name for every run that was simulated, and for every layer that was laid out."""
    names: list[str] = []
    time_layers, program = remembered.time_layers, Mapper.program

    def simulated(*arguments: Any, **named: Any) -> Any:
        names.append("a run")
        return time_layers(*arguments, **named)

    def laid_out(self: Mapper, choice: Any, layer: Any, residency: Any) -> Any:
        names.append(layer.name)
        return program(self, choice, layer, residency)

    monkeypatch.setattr(remembered, "time_layers", simulated)
    monkeypatch.setattr(Mapper, "program", laid_out)
    return names


@pytest.fixture(scope="module")
def planned() -> Planned:
    request = request_of("digits", "magnet16", "4/4/4/4", (), None, None).planned()
    return request.arch, plan(request)


def written(out: Path, **options: Any) -> dict[str, bytes]:
    """All files of a run's result, but for how long it took."""
    run("digits", **options).write(out)
    files = contents(out)
    summary = json.loads(files["summary.json"])
    assert summary.pop("wall_s") >= 0
    return {**files, "summary.json": json.dumps(summary).encode()}


@pytest.mark.parametrize("options", [{}, {"gated_fraction": 0.0}, {"prices": False}])
def test_results_are_the_same_to_the_byte(
    folder: Path, timed: list[str], tmp_path: Path, options: dict[str, Any]
) -> None:
    heard: list[tuple[str, int, int]] = []
    cold = written(tmp_path / "cold", **options)
    assert "a run" in timed and len(list(folder.iterdir())) == 1
    timed.clear()
    warm = written(tmp_path / "warm", progress=lambda *told: heard.append(told), **options)
    assert not timed and warm == cold
    count = len(run("digits", prices=False).activities)
    assert [told for told in heard if "cycles" in told[0]] == [
        ("4/4/4/4 cycles", done, count) for done in range(1, count + 1)
    ]


def test_nothing_compiled_is_loaded_where_nothing_is_computed(folder: Path) -> None:
    run("digits", gated_fraction=0.0)
    heavy = ["accelsim_kernels", "numba", "llvmlite", "scipy"]
    program = (
        "import sys; from accelsim.api import run; run('digits', gated_fraction=0.0); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_timings_are_the_same(folder: Path, timed: list[str]) -> None:
    cold, warm = (run("digits", gated_fraction=0.0).activities for _ in range(2))
    assert timed.count("a run") == 1
    for own, other in zip(cold, warm, strict=True):
        a, b = own.timing, other.timing
        assert (a.layer, a.mapping, a.residency) == (b.layer, b.mapping, b.residency)
        assert (a.cycles, a.end, list(a.counts.items())) == (b.cycles, b.end, list(b.counts.items()))
        assert a.stall_cycles.dtype == b.stall_cycles.dtype and (a.stall_cycles == b.stall_cycles).all()
        b.stall_cycles[0] += 1  # nobody else's


def test_prices_and_names_change_no_timing(folder: Path, timed: list[str]) -> None:
    pes = "pes=6"  # where prices choose the same of the equally fast mappings
    run("digits", gated_fraction=0.0, overrides=[pes])
    run("digits", gated_fraction=0.5, overrides=[pes, "name=other", "voltage_v=0.7", "clock_ghz=0.2"])
    run("digits", prices=False, overrides=[pes])
    assert timed.count("a run") == 1
    run("digits", gated_fraction=0.0, overrides=[pes, "dram_latency_cycles=77"])
    assert timed.count("a run") == 2


def test_what_is_recorded_is_simulated(folder: Path, tmp_path: Path) -> None:
    first = run("digits", gated_fraction=0.0, timeline=True)
    assert first.timeline is not None and first.timeline.slices() and not folder.exists()
    run("digits", gated_fraction=0.0)
    again = run("digits", gated_fraction=0.0, timeline=True)
    assert again.timeline is not None and again.timeline.slices() == first.timeline.slices()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"x",
        None,  # half of it
        zlib.compress(b"[]\n"),
        zlib.compress(b"{}\n"),
        zlib.compress(b"[[1,2]]\n"),
        zlib.compress(b"[[1.5,{}]]\n" + bytes(16 * 7 * 8)),
        zlib.compress(b'[["1",{}]]\n' + bytes(16 * 7 * 8)),
        zlib.compress(b'[[1,{"noc.bit_hop":null}]]\n' + bytes(16 * 7 * 8)),
    ],
)
def test_damaged_files_are_timed_anew(folder: Path, timed: list[str], damage: bytes | None) -> None:
    first = run("digits", gated_fraction=0.0)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    again = run("digits", gated_fraction=0.0)
    assert timed.count("a run") == 2 and again.layers.equals(first.layers)
    assert file.read_bytes() == whole
    run("digits", gated_fraction=0.0)
    assert timed.count("a run") == 2


def test_other_sources_and_another_simpy_are_timed_anew(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {name_of(*planned)}
    with monkeypatch.context() as patched:
        patched.setattr(remembered, "sources_digest", lambda _: "another version")
        names.add(name_of(*planned))
    monkeypatch.setattr(remembered.metadata, "version", lambda _: "0")
    assert len({*names, name_of(*planned)}) == 3


def test_all_sources_that_timing_is_made_of_are_in_the_name() -> None:
    seen, todo = set(), {"accelsim.sim.run"}
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= {own for own in imports(name) if own.startswith("accelsim.")} - seen
    assert len(seen) > 30
    # What keeps files, refuses and checks arguments decides no cycle.
    assert {room(name) for name in seen} - {"errors", "arguments", "system"} == set(SOURCES)


def test_a_changed_source_changes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelsim.system import kept

    package = tmp_path / "accelsim"
    monkeypatch.setattr(kept, "__file__", str(package / "system" / "kept.py"))
    digests = set()
    for room_name in ("sim", "mapping"):
        (package / room_name / "inner").mkdir(parents=True)
        (package / room_name / "inner" / "module.py").write_text("a = 1\n")
    for change in (None, "sim/inner/module.py", "mapping/inner/module.py", "sim/new.py", "report.py"):
        if change:
            (package / change).write_text("a = 2\n")
        digests.add(kept.sources_digest.__wrapped__(("mapping", "sim")))
    assert len(digests) == 4  # report.py is in none of the rooms


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_every_parameter_of_the_machine_is_in_the_name(planned: Planned) -> None:
    arch, whole = planned
    usual = name_of(arch, whole)
    for field in Arch.model_fields:
        others = [arch.model_copy(update={field: other}) for other in changed(getattr(arch, field))]
        assert others, field
        for other in others:
            assert (name_of(other, whole) == usual) == (field in PRICE_KEYS), field


def test_all_of_every_layer_is_in_the_name(planned: Planned) -> None:
    arch, whole = planned

    def with_layer(own: Any) -> str:
        return name_of(arch, dataclasses.replace(whole, layers=(*whole.layers[:-1], own)))

    spec = whole.layers[-1].layer  # a product of matrices, which is a convolution as well
    spec = dataclasses.replace(spec, layer=dataclasses.replace(spec.layer, op="conv"))
    last = dataclasses.replace(whole.layers[-1], layer=spec)
    usual, seen = with_layer(last), set()
    others = [
        *(dataclasses.replace(last, layer=spec) for spec in changed(last.layer)),
        *(dataclasses.replace(last, residency=residency) for residency in changed(last.residency)),
        *(with_mapping(last, mapping) for mapping in changed(last.mapping)),
    ]
    assert len(others) > 60
    for other in others:
        seen.add(with_layer(other))
    # Each is another, but the one in which only the name is.
    assert len(seen) == len(others)
    named = [other for other in others if other.layer.layer.name != last.layer.layer.name]
    assert {with_layer(other) for other in named} == {usual} and len(named) == 1


def test_order_and_prologue_are_in_the_name(planned: Planned) -> None:
    arch, whole = planned
    names = {name_of(arch, whole), name_of(arch, dataclasses.replace(whole, layers=whole.layers[::-1]))}
    step = PrologueStep(NodeWork("add", 12, 24, 12), (), (96,))
    names.add(name_of(arch, dataclasses.replace(whole, prologue=(step,))))
    names |= {name_of(arch, dataclasses.replace(whole, prologue=(own,))) for own in changed(step)}
    assert len(names) == 3 + len(list(changed(step)))


def with_mapping(own: Any, mapping: Any) -> Any:
    best = dataclasses.replace(own.choice.best, mapping=mapping)
    return dataclasses.replace(own, choice=dataclasses.replace(own.choice, best=best))


# Of what a layer checks.
OTHER = {"conv": "linear", "none": "relu", "relu": "none"}


def changed(value: Any) -> Iterator[Any]:
    """The value with one thing in it changed, for each of the things in it; unchecked."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            for other in changed(getattr(value, field.name)):
                own = copy(value)
                object.__setattr__(own, field.name, other)
                yield own
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from (value.model_copy(update={name: own}) for own in changed(getattr(value, name)))
    elif isinstance(value, tuple):
        yield (*value, 1)
        for index, item in enumerate(value):
            yield from ((*value[:index], own, *value[index + 1 :]) for own in changed(item))
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield value + 1
    elif isinstance(value, str):
        yield OTHER.get(value, value + "x")
    else:
        assert value is None, type(value)
        yield 1
