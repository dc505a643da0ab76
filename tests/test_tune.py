"""The tuner: fronts, and a search that depends on its seed alone and beats drawing at random."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Said
from test_sweep import Inline, inline, space_of

from accelsim.errors import AccelsimError
from accelsim.sweep import Space, Store, sweep, tune
from accelsim.sweep.front import front, hypervolume
from accelsim.sweep.space import Point
from accelsim.sweep.store import Known

pytestmark = pytest.mark.kept

__all__ = ["inline"]  # a fixture of test_sweep.py, used here as well

OBJECTIVES = {"energy_system_pj": "min", "latency_ms": "min"}


# --- fronts -------------------------------------------------------------------------------------------------


def test_a_front_by_hand() -> None:
    values = [(1, 4), (2, 2), (4, 1), (2, 3), (2, 2), (5, 5)]
    assert list(front(values)) == [True, True, True, False, True, False]
    assert hypervolume(values, (5, 5)) == 4 * 1 + 3 * 2 + 1 * 1
    assert hypervolume(values, (1, 1)) == hypervolume(np.empty((0, 2)), (5, 5)) == 0
    assert hypervolume([(1, 2, 3)], (2, 4, 6)) == 1 * 2 * 3
    assert hypervolume([(0, 1, 1), (1, 0, 1), (1, 1, 0)], (2, 2, 2)) == 4  # of 8 cubes those with one 0


@pytest.mark.parametrize("ways", [1, 2, 3, 4])
def test_fronts_and_volumes_against_counting(ways: int) -> None:
    """Of points on a small grid, cell by cell."""
    draw = np.random.default_rng(ways)
    for _ in range(20):
        values = draw.integers(0, 5, (draw.integers(1, 9), ways))
        corner = np.full(ways, 4)
        cells = np.array(list(product(range(4), repeat=ways)))
        counted = (values[:, None] <= cells).all(axis=2).any(axis=0).sum()
        assert hypervolume(values, corner) == counted
        better = [any((other <= own).all() and (other < own).any() for other in values) for own in values]
        assert list(front(values)) == [not own for own in better]


# --- searches -----------------------------------------------------------------------------------------------

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'accelsim[tune]'")

BOWLS = {"pes": 12, "lanes": 12, "gb_banks": 12, "fold": 4}


def bowls() -> Space:
    """6,912 points whose figures are a formula."""
    return Space.of(
        {
            "networks": ["digits"],
            "schemes": ["4/4/4/4"],
            "set": {name: list(range(many)) for name, many in BOWLS.items()},
            "tune": {"objectives": OBJECTIVES, "constraints": {"area_array_um2": {"max": 14.0}}},
        }
    )


def known_of(point: Point) -> Known:
    """Two bowls whose lowest points are apart; where one is deep another parameter has to be right too."""
    a, b, c, d = (value for _, value in point.changes)
    if a == b == 0:
        return Known(None, "no such machine")
    one = (a - 2) ** 2 + (b - 8) ** 2 + 3 * abs(c - 5) + 4 * d
    other = (a - 9) ** 2 + (b - 8) ** 2 + 3 * abs(c - 5) + 4 * (d - 1) ** 2
    figures = {"energy_system_pj": 1.0 + one, "latency_ms": 1.0 + other, "clock_margin": 0.1}
    return Known(figures | {"area_array_um2": float(a + c)}, "")


def searched(url: str, trials: int, seed: int, name: str = "study") -> list[Point]:
    from accelsim.sweep.tuner import search, tune_of

    space = bowls()
    evaluate: Callable[[Sequence[Point]], list[Known]] = lambda points: [known_of(own) for own in points]  # noqa: E731
    return [point for point, _ in search(space, tune_of(space), url, name, evaluate, trials, seed)]


def volume(points: Sequence[Point]) -> float:
    figures = [known.figures for known in map(known_of, points) if known.figures]
    good = [own for own in figures if own["area_array_um2"] <= 14]
    return hypervolume([[own[name] for name in OBJECTIVES] for own in good] or np.empty((0, 2)), (120, 120))


@pytest.mark.slow
def test_it_beats_drawing_at_random() -> None:
    """At 10 seeds, 80 of 6,912 points each: nearly always, and by far in the mean."""
    points = list(bowls().points())
    whole = volume(points)
    tuned = [volume(searched("sqlite://", 80, seed)) / whole for seed in range(10)]
    drawn = [volume(random.Random(seed).sample(points, 80)) / whole for seed in range(10)]
    assert sum(a > b for a, b in zip(tuned, drawn, strict=True)) >= 9
    assert np.mean(tuned) > 0.95 > np.mean(drawn)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler looks at what is known from the start, and at most twice where it has been."""
    from accelsim.sweep import tuner

    monkeypatch.setattr(tuner, "_STARTUP", 4)
    monkeypatch.setattr(tuner, "_TRIES", 2)


def test_no_point_is_drawn_twice_and_the_seed_decides(soon: None) -> None:
    one, again, other = (searched("sqlite://", 10, seed) for seed in (1, 1, 2))
    assert len(set(one)) == 10
    assert one == again != other


class Killed(Exception):
    pass


def test_a_killed_search_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every third moment in which the storage is written to."""
    from optuna.storages import RDBStorage

    whole = searched("sqlite://", 16, 5)
    left = 3

    def killing(plain: Callable[..., Any]) -> Callable[..., Any]:
        def own(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return plain(*given, **named)

        return own

    for name in ("create_new_trial", "set_trial_param", "set_trial_state_values", "set_trial_system_attr"):
        monkeypatch.setattr(RDBStorage, name, killing(getattr(RDBStorage, name)))
    kills = 0
    while True:
        try:
            found = searched(f"sqlite:///{tmp_path / 'tune.sqlite'}", 16, 5)
            break
        except Killed:
            kills, left = kills + 1, 11 + kills
    assert kills >= 4
    assert found == whole


def test_a_space_that_is_all_searched(trace: Path, tmp_path: Path, soon: None) -> None:
    """More trials than points: each once; the front is that of the sweep."""
    space = space_of(
        trace,
        set={"pes": [2, 4, 2000], "clock_ghz": [0.5, 1.0]},
        accuracy={str(trace): {"4/4/4/4": {"top-1 (%)": 70.0}, "8/8/-/-": {"top-1 (%)": 76.0}}},
        tune={"objectives": {"energy_pe_pj": "min", "top-1 (%)": "max"}},
    )
    frame = tune(space, tmp_path / "store", trials=100).to_frame()
    assert len(frame) == 12 and (frame["error"] != "").sum() == 4
    assert not frame.loc[frame["error"] != "", "feasible"].any()
    swept = sweep(space, tmp_path / "store")
    assert swept.counts.computed == 0
    best = frame[frame["front"]]
    expected = swept.to_frame().groupby("scheme")["energy_pe_pj"].min()
    assert best.set_index("scheme")["energy_pe_pj"].to_dict() == expected.to_dict()


def test_constraints_and_clocks(trace: Path, tmp_path: Path) -> None:
    space = space_of(trace, set={"clock_ghz": [0.5, 5.0], "pes": [2, 4]})
    most = float(sweep(space, tmp_path / "store").to_frame()["area_array_um2"].median())
    limits = {"area_array_um2": {"max": most}}
    space = Space.of(space.model_dump() | {"tune": {"objectives": OBJECTIVES, "constraints": limits}})
    frame = tune(space, tmp_path / "store", trials=8).to_frame()
    expected = (frame["clock_ghz"] == 0.5) & (frame["area_array_um2"] <= most)
    assert expected.any() and not expected.all()
    assert (frame["feasible"] == expected).all()
    assert frame.loc[frame["front"], "feasible"].all() and frame["front"].any()


def test_one_search_at_a_time(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of(trace, tune={"objectives": OBJECTIVES})
    plain, said = Inline.submit, []

    def submit(own: Inline, task: Any) -> None:
        with pytest.raises(AccelsimError) as raised:
            tune(space, tmp_path / "store", trials=2)
        said.append(str(raised.value))
        plain(own, task)

    monkeypatch.setattr(Inline, "submit", submit)
    tune(space, tmp_path / "store", trials=2)
    assert said and "another search of this space and seed is under way" in said[0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "space: has no key 'tune', expected objectives"),
        ({"tune": {"objectives": {}}}, "tune.objectives: "),
        ({"tune": {"objectives": {"energy": "min"}}}, "tune has 'energy', expected what accuracy has of"),
        (
            {"tune": {"objectives": {"cycles": "less"}}},
            "tune.objectives.cycles: Input should be 'min' or 'max'",
        ),
        (
            {"tune": {"objectives": OBJECTIVES, "constraints": {"top-1 (%)": {"min": 1}}}},
            "tune has 'top-1 (%)'",
        ),
        ({"networks": ["a", "b"], "tune": {"objectives": OBJECTIVES}}, "tune is for one network, not 2"),
    ],
)
def test_refusals(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(AccelsimError) as raised:
        tune(space_of("digits", **more), tmp_path / "store")
    assert said in str(raised.value)
    assert not (tmp_path / "store").exists()


def test_without_optuna(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(AccelsimError, match=r"tune needs Optuna: expected `pip install accelsim\[tune\]`"):
        tune(space_of(trace, tune={"objectives": OBJECTIVES}), tmp_path / "store")


def test_the_command(trace: Path, tmp_path: Path, cli: Callable[..., Said]) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        f"networks: [{trace}]\nschemes: [4/4/4/4, 8/8/-/-]\nset: {{pes: [2, 4]}}\n"
        "tune: {objectives: {energy_system_pj: min, latency_ms: min}}\n"
    )
    said = cli("tune", file, "--store", "store", "--trials", "3")
    assert said.status == 0, said.err
    assert "3 of 4 points, 0 failed, 3 keep all constraints" in said.out
    assert "on the front: column front of results/space-tune.csv" in said.out
    assert len(Path("results/space-tune.csv").read_text().splitlines()) == 4
    said = cli("tune", file, "--store", "store", "--trials", "4")  # one more
    assert "4 of 4 points" in said.out
    with Store("store") as store:
        assert store.pace(str(trace)).run_s
