"""The timeline against the numbers of the run it was recorded in."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import Said, contents
from machines import Features, random_run

from accelsim.machine.arch_file import load_arch
from accelsim.mapping.layout.program import LayerProgram, build_program
from accelsim.mapping.residency import decide_residency
from accelsim.report.perfetto import write_perfetto
from accelsim.report.timeline import Timeline
from accelsim.sim.layer_run import STALL_REASONS
from accelsim.sim.run import LayerTiming, TimeRequest, time_layers

Cli = Callable[..., Said]
Slice = dict[str, Any]
SEEDS = range(4000, 4060)


def timed(
    seed: int, path: Path, features: Features = "plain", **options: int
) -> tuple[list[LayerTiming], dict[str, Any]]:
    arch, layers, mappings, _ = random_run(seed, features)
    specs = [layer.spec for layer in layers]
    programs: list[LayerProgram] = [
        build_program(arch, spec, mapping, residency)
        for spec, mapping, residency in zip(specs, mappings, decide_residency(arch, specs), strict=True)
    ]
    timeline = Timeline(arch, programs, title="a test", **options)
    timings = time_layers(TimeRequest(arch, programs), recorder=timeline)
    timeline.write(path)
    return timings, json.loads(path.read_bytes(), object_pairs_hook=no_key_twice)


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def tracks(document: dict[str, Any]) -> dict[tuple[str, str], list[Slice]]:
    """(process, track) -> its slices by time, named as a viewer names them."""
    names: dict[tuple[str, int], str] = {}
    slices: dict[tuple[str, str], list[Slice]] = {}
    for event in document["traceEvents"]:
        if event["ph"] == "M" and event["name"] in ("process_name", "thread_name"):
            key = event["pid"] if event["name"] == "process_name" else event["tid"]
            names[event["name"], key] = event["args"]["name"]
    for (kind, key), name in names.items():
        if kind == "thread_name":
            slices[names["process_name", key // 100_000], name] = []
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            own = names["process_name", event["pid"]], names["thread_name", event["tid"]]
            slices[own].append(event)
    for own in slices.values():
        own.sort(key=lambda event: event["ts"])
    return slices


def test_every_event_is_of_the_format(tmp_path: Path) -> None:
    _, document = timed(4000, tmp_path / "t.json")
    assert set(document) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert document["displayTimeUnit"] in ("ms", "ns")
    processes_of_thread: dict[int, set[int]] = defaultdict(set)
    for event in document["traceEvents"]:
        assert event["ph"] in ("M", "X")
        assert type(event["pid"]) is type(event["tid"]) is int
        assert isinstance(event["name"], str) and isinstance(event["args"], dict)
        processes_of_thread[event["tid"]].add(event["pid"])
        if event["ph"] == "X":
            assert set(event) == {"ph", "pid", "tid", "ts", "dur", "name", "args"}
            within_cycles = event["tid"] // 100_000 == 2  # DRAM, whose transfers share them
            assert within_cycles or type(event["ts"]) is type(event["dur"]) is int
            assert event["ts"] >= 0 and event["dur"] > 0
    assert all(len(processes) == 1 for processes in processes_of_thread.values())


def overlaps(slices: list[Slice]) -> list[tuple[Slice, Slice]]:
    # Three digits are written.
    return [(a, b) for a, b in pairwise(slices) if round(a["ts"] + a["dur"], 3) > b["ts"]]


@pytest.mark.parametrize("features", ["plain", "all"])
@pytest.mark.parametrize("seed", SEEDS)
def test_slices_of_a_track_never_overlap(seed: int, features: Features, tmp_path: Path) -> None:
    """A viewer shows slices of a track that overlap as if one were part of the other."""
    timings, document = timed(seed, tmp_path / "t.json", features)
    for track, own in tracks(document).items():
        assert not overlaps(own), track
        assert all(event["ts"] + event["dur"] <= timings[-1].end for event in own)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_dram_port_moves_no_more_than_its_width(seed: int, tmp_path: Path) -> None:
    """Reads and writes share one port, whose cycles those that follow each other share."""
    arch, *_ = random_run(seed)
    found = tracks(timed(seed, tmp_path / "t.json")[1])
    moved = sorted(
        found["DRAM", "reads"] + found["DRAM", "writes"], key=lambda e: (e["ts"], e["ts"] + e["dur"])
    )
    assert not overlaps(moved)
    for move in moved:
        assert abs(move["args"]["bits"] / arch.dram_bits - move["dur"]) < 0.0011, (
            move
        )  # it is rounded at both ends


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("most", [10**9, 0])
def test_slices_of_a_pe_are_its_buckets(seed: int, most: int, tmp_path: Path) -> None:
    timings, document = timed(seed, tmp_path / "t.json", max_blocks=most)
    found = tracks(document)
    for pe in range(len(timings[0].stall_cycles)):
        got: Counter[tuple[str, str]] = Counter()
        for event in found[f"PE {pe}", "compute"]:
            args = event["args"]
            got[event["name"], "compute"] += args["steps"]
            got[event["name"], "bubble"] += args["bubble"]
            assert args["steps"] + args["bubble"] == event["dur"]
        for event in found[f"PE {pe}", "stalls"]:
            got[event["args"]["layer"], event["name"].replace(" ", "_")] += event["dur"]
        for timing in timings:
            want = dict(zip(STALL_REASONS, timing.stall_cycles[pe].tolist(), strict=True))
            assert {name: got[timing.layer.name, name] for name in STALL_REASONS} == want
        # Compute and stalls together leave no cycle of the run out.
        both = found[f"PE {pe}", "compute"] + found[f"PE {pe}", "stalls"]
        assert sum(event["dur"] for event in both) == timings[-1].end


def test_blocks_are_joined_above_the_limit(tmp_path: Path) -> None:
    fewer = 0
    for seed in SEEDS:
        _, whole = timed(seed, tmp_path / "a.json")
        _, joined = timed(seed, tmp_path / "b.json", max_blocks=0)
        fewer += len(whole["traceEvents"]) - len(joined["traceEvents"])
        blocks = [e["args"].get("blocks", 0) for e in joined["traceEvents"] if "steps" in e["args"]]
        assert sum(blocks) == sum("steps" in event["args"] for event in whole["traceEvents"])
    assert fewer > 100


@pytest.mark.parametrize("seed", SEEDS)
def test_transfers_add_up_to_the_counts(seed: int, tmp_path: Path) -> None:
    timings, document = timed(seed, tmp_path / "t.json")
    found = tracks(document)
    for timing in timings:
        name, counts = timing.layer.name, timing.counts

        def bits(process: str, track: str = "", name: str = name) -> int:
            return sum(
                event["args"]["bits"]
                for (own, thread), events in found.items()
                if own == process and track in thread
                for event in events
                if event["args"]["layer"] == name
            )

        assert bits("DRAM", "reads") == counts["dram.read_bit"]
        assert bits("DRAM", "writes") == counts["dram.write_bit"]
        drained = [e for (_, t), own in found.items() if t == "PPU drain" for e in own if e["name"] == name]
        assert sum(event["args"]["fifo_entries"] for event in drained) == counts["out_fifo.write"]
        # Every output leaves one PE and enters one bank; a multicast leaves one bank and enters every PE.
        out = bits("NoC ports", "out")
        assert bits("global buffer", "outputs") == out
        sent = [e for (p, _), own in found.items() if p == "global buffer" for e in own]
        into = sum(e["args"]["bits"] * e["args"].get("to_pes", 0) for e in sent if e["args"]["layer"] == name)
        assert bits("NoC ports", "in") == into


def test_layers_follow_one_another(tmp_path: Path) -> None:
    for seed in SEEDS:
        timings, document = timed(seed, tmp_path / "t.json")
        layers = tracks(document)["layers", "layer"]
        assert [event["dur"] for event in layers] == [timing.cycles for timing in timings]
        assert [event["ts"] + event["dur"] for event in layers] == [timing.end for timing in timings]


def test_recording_changes_nothing() -> None:
    arch, layers, mappings, _ = random_run(4001)
    specs = [layer.spec for layer in layers]
    residencies = decide_residency(arch, specs)
    programs = [build_program(arch, *parts) for parts in zip(specs, mappings, residencies, strict=True)]
    plain = time_layers(TimeRequest(arch, programs))
    recorded = time_layers(TimeRequest(arch, programs), recorder=Timeline(arch, programs, title=""))
    for a, b in zip(plain, recorded, strict=True):
        assert (a.end, a.counts, a.stall_cycles.tolist()) == (b.end, b.counts, b.stall_cycles.tolist())


def test_the_command_writes_it_and_replaces_it(trace: Path, cli: Cli, tmp_path: Path) -> None:
    first = cli("run", trace, "--timeline", "--no-plots", "--out", "r")
    assert first.status == 0, first.err
    once, packed = (contents(tmp_path / "r")[f"timeline.{kind}"] for kind in ("json", "pftrace"))
    assert len(packed) < len(once) / 2
    assert {event["ph"] for event in json.loads(once)["traceEvents"]} == {"M", "X"}
    assert cli("run", trace, "--timeline", "--no-plots", "--out", "r").status == 0
    assert contents(tmp_path / "r")["timeline.json"] == once
    assert contents(tmp_path / "r")["timeline.pftrace"] == packed
    assert cli("run", trace, "--no-plots", "--out", "r").status == 0
    assert not {"timeline.json", "timeline.pftrace"} & set(contents(tmp_path / "r"))
    both = cli("compare", trace, "--scheme", "8/8/-/-", "--scheme", "4/4/4/4", "--timeline", "--no-plots")
    assert both.status == 0, both.err
    written = contents(tmp_path / "results" / "small")
    assert written["4_4_4_4/timeline.json"] == once != written["8_8_-_-/timeline.json"]


def test_tracks_are_named_after_the_machine(trace: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("run", trace, "--timeline", "--no-plots", "--out", "r").status == 0
    found = tracks(json.loads((tmp_path / "r" / "timeline.json").read_text()))
    arch = load_arch("magnet16", [])
    for pe in range(arch.pes):
        assert {t for p, t in found if p == f"PE {pe}"} == {"compute", "stalls", "PPU drain"}
        assert ("NoC ports", f"PE {pe} in") in found and ("NoC ports", f"PE {pe} out") in found
    assert sum(process == "global buffer" for process, _ in found) == arch.gb_banks
    names = {event["name"] for event in found["DRAM", "reads"]}
    assert {"weight first", "input first"} <= names
    assert {event["name"] for event in found["DRAM", "writes"]} == {"output matmul"}


# --- Perfetto's own trace -----------------------------------------------------------------------------------


def perfetto_slices(path: Path) -> dict[tuple[str, str], list[Slice]]:
    """As `tracks`, read with Perfetto's protos: slices with ts and dur in cycles."""
    protos = pytest.importorskip(
        "perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="perfetto is not installed"
    )
    trace = protos.Trace.FromString(path.read_bytes())
    processes: dict[int, str] = {}
    found: dict[int, tuple[tuple[str, str], list[Slice]]] = {}
    texts: dict[str, dict[int, str]] = {"names": {}, "keys": {}, "texts": {}}
    opened: dict[int, Slice] = {}
    assert trace.packet[0].sequence_flags == protos.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id == 1
        interned = packet.interned_data
        texts["names"] |= {own.iid: own.name for own in interned.event_names}
        texts["keys"] |= {own.iid: own.name for own in interned.debug_annotation_names}
        texts["texts"] |= {own.iid: own.str.decode() for own in interned.debug_annotation_string_values}
        if packet.HasField("track_descriptor"):
            own = packet.track_descriptor
            if own.HasField("process"):
                processes[own.uuid] = own.process.process_name
            else:
                found[own.uuid] = (processes[own.parent_uuid], own.name), []
        elif packet.HasField("track_event"):
            assert packet.sequence_flags == protos.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
            event = packet.track_event
            if event.type == protos.TrackEvent.TYPE_SLICE_BEGIN:
                assert event.track_uuid not in opened  # in order of time, each ended before the next begins
                args = {
                    texts["keys"][own.name_iid]: texts["texts"][own.string_value_iid]
                    if own.WhichOneof("value") == "string_value_iid"
                    else getattr(own, own.WhichOneof("value"))
                    for own in event.debug_annotations
                }
                opened[event.track_uuid] = {
                    "name": texts["names"][event.name_iid],
                    "ts": packet.timestamp / 1000,
                    "args": args,
                }
            else:
                assert event.type == protos.TrackEvent.TYPE_SLICE_END
                done = opened.pop(event.track_uuid)
                before = found[event.track_uuid][1]
                assert not before or before[-1]["ts"] + before[-1]["dur"] <= done["ts"] + 1e-6
                before.append(done | {"dur": packet.timestamp / 1000 - done["ts"]})
    assert not opened
    return dict(found.values())


@pytest.mark.parametrize("most", [10**9, 0])
def test_perfettos_trace_is_the_timeline(most: int, tmp_path: Path) -> None:
    """Each track, slice, name, argument and time; and the slices of a track are in order."""
    for seed in SEEDS[::10]:
        arch, layers, mappings, _ = random_run(seed, "all")
        specs = [layer.spec for layer in layers]
        programs = [
            build_program(arch, *parts)
            for parts in zip(specs, mappings, decide_residency(arch, specs), strict=True)
        ]
        timeline = Timeline(arch, programs, title="a test", max_blocks=most)
        time_layers(TimeRequest(arch, programs), recorder=timeline)
        timeline.write_perfetto(tmp_path / "t.pftrace")
        timeline.write(tmp_path / "t.json")
        said = tracks(json.loads((tmp_path / "t.json").read_text()))
        read = perfetto_slices(tmp_path / "t.pftrace")
        assert list(read) == list(said)
        for track, own in said.items():
            assert [(s["name"], s["args"]) for s in read[track]] == [(s["name"], s["args"]) for s in own]
            for a, b in zip(read[track], own, strict=True):
                assert (a["ts"], round(a["dur"], 3)) == (b["ts"], b["dur"]), track


def test_odd_names_and_numbers_survive_perfetto(tmp_path: Path) -> None:
    args = {"text": 'ünder\u4e00 "x"', "negative": -5, "large": 2**62, "float": 0.1, "zero": 0}
    where = {"pid": 3, "tid": 300_001}
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 3, "tid": 300_000, "name": "process_name", "args": {"name": "p" * 300}},
        {"ph": "M", **where, "name": "thread_name", "args": {"name": "t"}},
        {"ph": "X", **where, "ts": 0, "dur": 2**40, "name": "first", "args": args},
    ]
    write_perfetto(events, tmp_path / "odd.pftrace")
    ((track, (own,)),) = perfetto_slices(tmp_path / "odd.pftrace").items()
    assert track == ("p" * 300, "t") and own == {"name": "first", "ts": 0, "dur": 2**40, "args": args}
