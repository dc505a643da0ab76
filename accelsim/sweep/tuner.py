"""The tuner: searches a space that is too large to sweep for its Pareto front, with Optuna.

Points are asked for in batches and told in order, each drawn with a seed of its own number: what is found
depends on the seed alone, not on how many workers there are or on how often the search was killed.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.arguments import check_progress
from accelsim.errors import AccelsimError, listed
from accelsim.report.figures import NAMES
from accelsim.sweep.front import front
from accelsim.sweep.groups import batches
from accelsim.sweep.identity import digest_of, resolve
from accelsim.sweep.run import Counts, Session, SweepProgress, labels_of, open_workers, plots_of
from accelsim.sweep.space import Point, Space, Tune
from accelsim.sweep.store import Known, Store

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.distributions import BaseDistribution

    from accelsim.report.plots.pareto import SweepPlots

BATCH = 8
"""Points that are drawn before any of them is known."""
_STARTUP = 24
_TRIES = 10
_KEYS = "objectives: {energy_system_pj: min, ...}"

Choice = tuple[int, ...]
"""Of each side of the space which one."""
Evaluate = Callable[[Sequence[Point]], Sequence[Known]]


@dataclass(frozen=True)
class Tuned:
    """What a search has looked at. trials: (point, what is known of it), in order."""

    space: Space
    trials: list[tuple[Point, Known]]

    def to_frame(self) -> pd.DataFrame:
        """One row a point: where it is, figures, accuracy, error. `feasible`: it reaches its clock and keeps
        all constraints; `front`: no other feasible point is better in one objective and as good in all."""
        import pandas as pd

        wanted = tune_of(self.space)
        rows = []
        for own, (_, known) in zip(resolve(point for point, _ in self.trials), self.trials, strict=True):
            figures = {**(known.figures or {}), **self.space.accuracy_of(own.point)}
            feasible = bool(known.figures) and max(violations(wanted, figures).values()) <= 0
            labels, accuracy = labels_of(own, self.space.axes), self.space.accuracy_columns(own.point)
            rows.append({**labels, **figures, **accuracy, "feasible": feasible, "error": known.error})
        frame = pd.DataFrame(rows)
        frame["front"] = False
        if frame["feasible"].any():
            values = frame.loc[frame["feasible"], list(wanted.objectives)].astype(float)
            signs = [-1.0 if way == "max" else 1.0 for way in wanted.objectives.values()]
            frame.loc[frame["feasible"], "front"] = front(values.to_numpy() * signs)
        return frame

    @property
    def plot(self) -> SweepPlots:
        """Figures: pareto (docs/plots.md)."""
        return plots_of(self.space, self.to_frame())


def tune(
    space: Space,
    store: str | Path | Store,
    *,
    trials: int = 200,
    seed: int = 0,
    workers: int | None = None,
    dask: str | None = None,
    progress: SweepProgress | None = None,
) -> Tuned:
    """Search a space for what its `tune` asks; go on where an earlier search of it with this seed has ended.

    trials: points to look at in all, those of earlier searches among them. Raises AccelsimError where Optuna
    is not installed, for a space without `tune`, and where store or cluster cannot be used.
    """
    check_progress(progress)
    wanted = tune_of(space)
    if type(trials) is not int or not 1 <= trials <= 1_000_000:
        raise AccelsimError(f"trials is {trials}, expected 1 to 1,000,000")
    own = store if isinstance(store, Store) else Store(store)
    name = digest_of([space.model_dump(mode="json"), seed])
    owner = own.owner()
    try:
        if not own.claim(f"tune {name}", owner):
            raise AccelsimError(f"store {own.folder}: another search of this space and seed is under way")
        counts = Counts(trials)
        with open_workers(workers, dask) as pool:
            session = Session(own, owner, pool, counts, retry_failed=False)

            def evaluate(points: Sequence[Point]) -> list[Known]:
                session.run(batches(points, own), progress)
                keys = [found.key for found in resolve(points)]
                known = own.known(keys)
                return [known[key] for key in keys]

            url = f"sqlite:///{(own.folder / 'tune.sqlite').resolve()}"
            found = search(space, wanted, url, name, evaluate, trials, seed)
        own.release(f"tune {name}")
    finally:
        owner.close()
    return Tuned(space, found)


def tune_of(space: Space) -> Tune:
    """Raises AccelsimError where the space does not say what to look for, or looks for what is not known."""
    if space.tune is None:
        raise AccelsimError(f"space: has no key 'tune', expected {_KEYS}")
    if len(space.networks) > 1:
        raise AccelsimError(f"space: tune is for one network, not {len(space.networks)}")
    measured = [set(space.accuracy.get(space.networks[0], {}).get(own, {})) for own in space.schemes]
    known = [*NAMES, *sorted(set.intersection(*measured))]
    for name in (*space.tune.objectives, *space.tune.constraints):
        without = [own for own, has in zip(space.schemes, measured, strict=True) if name not in has]
        if name not in known and len(without) < len(measured):
            raise AccelsimError(
                f"space: tune has '{name}', which accuracy does not have of scheme {without[0]}, expected all"
            )
        if name not in known:
            raise AccelsimError(
                f"space: tune has '{name}', expected what accuracy has of every scheme, or one of "
                f"{listed(known, name)}"
            )
    return space.tune


def violations(wanted: Tune, figures: Mapping[str, Any]) -> dict[str, float]:
    """By how much a point is beyond each limit, as a share of it; 0 or less within. A machine that does not
    reach its clock is beyond one too."""
    found = {"clock": -figures["clock_margin"]}
    for name, limits in wanted.constraints.items():
        for side, limit, sign in (("max", limits.max, 1), ("min", limits.min, -1)):
            if limit is not None:
                found[f"{name} {side}"] = sign * (figures[name] - limit) / (abs(limit) or 1.0)
    return found


def search(
    space: Space, wanted: Tune, url: str, name: str, evaluate: Evaluate, trials: int, seed: int
) -> list[tuple[Point, Known]]:
    """Points in the order in which they were drawn, none twice. url: of Optuna's storage."""
    with _optuna() as optuna:
        directions = ["maximize" if way == "max" else "minimize" for way in wanted.objectives.values()]
        study = optuna.create_study(study_name=name, storage=url, directions=directions, load_if_exists=True)
        own = _Search(study, space, wanted, seed)
        while asked := own.draw(min(trials, space.size)):
            for choice, known in zip(asked, evaluate([own.point(one) for one in asked]), strict=True):
                own.tell(choice, known)
        points = [own.point(choice) for choice in own.drawn]
    return list(zip(points, evaluate(points), strict=True))


class _Search:
    """A study, and which points of the space its trials are."""

    def __init__(self, study: optuna.Study, space: Space, wanted: Tune, seed: int) -> None:
        import optuna
        from optuna.distributions import CategoricalDistribution, IntDistribution
        from optuna.trial import TrialState

        self.study, self.space, self.wanted, self.seed = study, space, wanted, seed
        self.places: dict[str, list[int]] = {}  # of each side with a choice, in the order of its numbers
        self.asked: dict[str, BaseDistribution] = {}
        for name, side in space.sides.items():
            places = list(range(len(side)))
            if all(type(own) in (int, float) for own in side):
                places.sort(key=list(side).__getitem__)
                self.asked[name] = IntDistribution(0, len(side) - 1)
            else:
                self.asked[name] = CategoricalDistribution(places)
            self.places[name] = places
        self.drawn: dict[Choice, None] = {}
        self.again = 0  # how often in a row a point was drawn that had been drawn before
        self.open: dict[Choice, optuna.Trial] = {}  # whose figures are not told yet
        for trial in study.get_trials(deepcopy=False):
            resumed = None if trial.state.is_finished() else optuna.Trial(study, trial._trial_id)
            if len(trial.params) == len(self.asked):
                self._take(trial.params, resumed)
            elif resumed is not None:  # killed while it was drawn: drawn anew
                study.tell(resumed, state=TrialState.FAIL)

    def draw(self, most: int) -> list[Choice]:
        """A batch, or what is left of it to tell, up to so many points in all; [] where there is none."""
        from optuna.samplers import PartialFixedSampler

        while (not self.open or len(self.drawn) % BATCH) and len(self.drawn) < most:
            self.study.sampler = self._sampler()
            if self.again >= _TRIES:
                self.study.sampler = PartialFixedSampler(self._elsewhere(), self.study.sampler)
            trial = self.study.ask(self.asked)
            self._take(trial.params, trial)
        return list(self.open)

    def point(self, choice: Choice) -> Point:
        sides = self.space.sides.values()
        return self.space.point([side[own] for side, own in zip(sides, choice, strict=True)])

    def tell(self, choice: Choice, known: Known) -> None:
        """The figures of a point that is open; one that failed teaches nothing."""
        from optuna.trial import TrialState

        trial = self.open.pop(choice)
        if known.figures is None:
            self.study.tell(trial, state=TrialState.FAIL)
            return
        figures = {**known.figures, **self.space.accuracy_of(self.point(choice))}
        for name, beyond in violations(self.wanted, figures).items():
            trial.set_constraint(name, beyond)
        self.study.tell(trial, [float(figures[name]) for name in self.wanted.objectives])

    def _take(self, params: Mapping[str, Any], trial: optuna.Trial | None) -> None:
        """A point that was drawn. trial: None where its figures are told."""
        from optuna.trial import TrialState

        choice = self._choice(params)
        if choice in self.drawn:
            self.again += 1
            if trial is not None:
                self.study.tell(trial, state=TrialState.FAIL)
            return
        self.drawn[choice], self.again = None, 0
        if trial is not None:
            self.open[choice] = trial

    def _random(self) -> random.Random:
        """What is drawn follows from the seed and from how much was drawn before."""
        return random.Random(digest_of([self.seed, len(self.drawn), self.again]))

    def _sampler(self) -> optuna.samplers.BaseSampler:
        from optuna.samplers import TPESampler

        seed = self._random().getrandbits(31)
        return TPESampler(seed=seed, multivariate=True, n_startup_trials=_STARTUP)

    def _elsewhere(self) -> dict[str, int]:
        """A point that was not drawn: at random, or where nearly all were, the next."""
        own = self._random()
        for _ in range(1000):
            places = {name: own.randrange(len(places)) for name, places in self.places.items()}
            if self._choice(places) not in self.drawn:
                return places
        every = product(*(range(len(places)) for places in self.places.values()))
        named = (dict(zip(self.places, own, strict=True)) for own in every)
        return next(own for own in named if self._choice(own) not in self.drawn)

    def _choice(self, params: Mapping[str, int]) -> Choice:
        return tuple(places[params[name]] for name, places in self.places.items())


@contextmanager
def _optuna() -> Iterator[Any]:
    """Optuna, quiet. Raises AccelsimError where it is not installed, or its storage cannot be used."""
    try:
        import optuna
    except ImportError:
        raise AccelsimError("tune needs Optuna: expected `pip install accelsim[tune]`") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "The constraint value is ignored")  # told again, after a kill
        try:
            yield optuna
        except optuna.exceptions.StorageInternalError as error:
            raise AccelsimError(f"tune: Optuna's storage cannot be used: {error}") from None
