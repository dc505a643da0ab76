"""Mappings kept on disk: the same choices with them, without them, and whatever became of the files."""

from __future__ import annotations

import multiprocessing
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accelsim.mapping import remembered
from accelsim.mapping.planning import Plan, plan
from accelsim.mapping.search.mapper import Mapper
from accelsim.request import request_of
from accelsim.system.kept import ENVIRONMENT, Kept, kept_folder


def planned(prices: dict[str, float] | None = None, *changes: str, scheme: str = "4/4/4/4") -> Plan:
    request = request_of("digits", "magnet16", scheme, changes, None, None).planned()
    return plan(request if prices is None else replace(request, prices_pj=prices))


def choices(prices: dict[str, float] | None = None, *changes: str, scheme: str = "4/4/4/4") -> list[object]:
    """All of each choice, counts in their order."""
    return [
        (repr(own.choice), [list(one.estimate.counts.items()) for one in own.choice.ranked])
        for own in planned(prices, *changes, scheme=scheme).layers
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache" / remembered.KIND


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the layers that were searched."""
    names: list[str] = []
    search = Mapper._search

    def counted(self: Mapper, layer: Any, *rest: Any) -> Any:
        names.append(layer.name)
        return search(self, layer, *rest)

    monkeypatch.setattr(Mapper, "_search", counted)
    return names


@pytest.mark.parametrize("changes", [(), ("mapping.slack=0.05",), ("mapping.objective=energy",)])
def test_choices_are_the_same_with_and_without(
    folder: Path, searches: list[str], monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...]
) -> None:
    first = choices(None, *changes)
    count = len(searches)
    assert count and len(list(folder.iterdir())) == count
    assert choices(None, *changes) == first and len(searches) == count
    monkeypatch.setenv(ENVIRONMENT, "")
    assert choices(None, *changes) == first and len(searches) == 2 * count


def test_what_a_choice_depends_on_is_asked_anew(folder: Path, searches: list[str]) -> None:
    first = choices()
    count = len(searches)
    choices(None, "name=other")
    assert len(searches) == count
    slower = choices(None, "dram_latency_cycles=77")
    assert len(searches) == 2 * count and slower != first
    choices(scheme="8/8/-/-")
    assert len(searches) == 3 * count


def test_changed_sources_are_asked_anew(
    folder: Path, searches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    choices()
    count = len(searches)
    monkeypatch.setattr(remembered, "sources_digest", lambda _: "another version")
    choices()
    assert len(searches) == 2 * count


@pytest.mark.parametrize("objective", ["energy", "edp"])
def test_prices_that_turn_candidates_around_are_searched_anew(
    folder: Path, searches: list[str], objective: str
) -> None:
    change = f"mapping.objective={objective}"
    usual = choices(None, change)
    count = len(searches)
    turned = dict.fromkeys(_counted(), -1.0)
    found = choices(turned, change)
    assert len(searches) > count
    folder.rename(folder.parent / "away")
    assert choices(turned, change) == found != usual
    assert choices(None, change) == usual


@pytest.mark.parametrize("slack", [0.0, 0.1])
def test_by_cycles_no_prices_are_searched_anew(folder: Path, searches: list[str], slack: float) -> None:
    """They decide between mappings that are about as fast as they would after a search of their own; where
    they decide nothing, the first that was found is taken."""
    # A machine on which the equally fast mappings leave the next layer the same.
    changes = (f"mapping.slack={slack}", "pes=12")
    all_prices = [dict.fromkeys(_counted(), -1.0), {}, {"noc.bit_hop": 1.0}]
    usual = [own.choice.best.mapping for own in planned(None, *changes).layers]
    first = len(searches)
    found = [choices(prices, *changes) for prices in all_prices]
    # What another choice leaves the next layer is a search of its own.
    assert len(searches) == first if slack == 0.0 else searches.count("conv1") == 2
    for number, (prices, own) in enumerate(zip(all_prices, found, strict=True)):
        folder.rename(folder.parent / f"away{number}")
        assert choices(prices, *changes) == own
    taken = [[own.choice.best.mapping for own in planned(prices, *changes).layers] for prices in all_prices]
    assert slack == 0.0 or all(own != usual for own in taken)


def _counted() -> set[str]:
    return {name for own in planned().layers for name in own.choice.best.estimate.counts}


@pytest.mark.parametrize("damage", [b"", b"x", b"half"])
def test_damaged_files_are_searched_anew(folder: Path, searches: list[str], damage: bytes) -> None:
    first = choices()
    count = len(searches)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:40] if damage == b"half" else damage)
    assert choices() == first and len(searches) == 2 * count
    assert choices() == first and len(searches) == 2 * count


def test_a_folder_that_cannot_be_is_silently_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = choices()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "file"))
    assert choices() == first
    monkeypatch.delenv(ENVIRONMENT)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert kept_folder() is None and choices() == first


def test_where_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept_folder() == tmp_path / "accelsim"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the XDG specification
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert kept_folder() == tmp_path / "home" / ".cache" / "accelsim"
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "own"))
    assert kept_folder() == tmp_path / "own"


def test_the_oldest_files_go_where_there_are_too_many(folder: Path) -> None:
    kept = Kept(remembered.KIND)
    for number in range(10):
        kept.write(f"{number}", bytes(100))
        os.utime(folder / f"{number}", (number, number))
    Kept(remembered.KIND, max_bytes=6 * 4096 + 650).write("new", bytes(100))
    assert {path.name for path in folder.iterdir()} == {"7", "8", "9", "new"}


def test_a_file_that_is_not_as_it_was_written_is_none(folder: Path) -> None:
    """Also one that reads as well: figures would be others, and no one would know."""
    kept = Kept(remembered.KIND)
    kept.write("a", zlib.compress(b"[1, 2]"))
    whole = (folder / "a").read_bytes()
    (folder / "b").write_bytes(whole)
    assert kept.read("a") == zlib.compress(b"[1, 2]") and kept.read("b") is None
    (folder / "a").write_bytes(whole[: -len(zlib.compress(b"[1, 2]"))] + zlib.compress(b"[1, 3]"))
    assert kept.read("a") is None


def _write(number: int) -> None:
    kept = Kept(remembered.KIND)
    for _ in range(200):
        kept.write("same", bytes([number]) * 5000)
        found = kept.read("same")
        assert found is not None and len(found) == 5000 and len(set(found)) == 1


def test_two_processes_never_see_half_a_file(folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_write, (1, 2))
    assert [path.name for path in folder.iterdir()] == ["same"]
