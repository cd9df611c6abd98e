"""A search's memory, shared by the processes that work on it: optuna's study, whose trials survive a kill."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poise.commands.searching.interruptions import listening
from poise.commands.searching.stopping import Course
from poise.commands.searching.trial import Trial, course_of, origin_of, within
from poise.commands.telling.terminal import say
from poise.core.misuse import Misuse, first_line
from poise.core.streams import hashed
from poise.reporting.tried import Tried

HEARTBEAT_SECONDS, GRACE_SECONDS = 60, 180
"""How often a trial says that it lives, and after how long a silence others take it up."""

_NAME = "poise"
_RETRIES = 3
_LOCK_SECONDS = 60
_LOOK_SECONDS, _CLOCK_SECONDS = 0.5, 2
_OPENINGS, _OPENING_SECONDS = 10, 0.3


class Study:
    """What was tried so far, in a database.

    Args:
        study: optuna's.
        prune_after: share of a trial's epochs up to which it is not stopped.
        seed: decides what is tried: suggestions are a function of it, the trial's number and the history.
    """

    def __init__(self, study: Any, *, prune_after: float, seed: int) -> None:
        self._study, self._prune_after, self._seed = study, prune_after, seed

    def run(self, attempt: Callable[[Trial], None], count: int, after: Callable[[], None]) -> None:
        """Try until the study holds a number of trials, counting those that other processes are at.

        A process that was killed cannot say so: its trial counts until it has been silent for `GRACE_SECONDS`. So the
        end waits that long for trials of others, and takes up those that fall silent.

        Args:
            attempt: carries out a trial; its last report is the trial's value.
            count: trials in the end.
            after: called after each.
        """
        from optuna.storages import fail_stale_trials  # noqa: PLC0415

        def objective(found: Any) -> float:
            self._study.sampler = self._sampler(found.number)
            known = self._study.trials[found.number]
            trial = Trial(found, known, prune_after=self._prune_after, rivals=self._rivals)
            try:
                attempt(trial)
            except KeyboardInterrupt:
                interruptions.deaf = True
                _retry()(self._study, self._study.trials[found.number])
                raise
            if trial.value is None:
                trial.give_up("it ended without a figure")
            trial.settle()
            return float(trial.value or 0.0)

        def finish(study: Any, _: Any) -> None:
            after()
            interruptions.heed()
            if self._enough(count):
                study.stop()

        fail_stale_trials(self._study)
        with listening() as interruptions:
            while not self._enough(count) or self._abandoned(count):
                self._study.optimize(objective, callbacks=[finish])

    @property
    def working(self) -> int:
        """How many trials processes are at."""
        return sum(trial.state.name == "RUNNING" for trial in self._study.get_trials(deepcopy=False))

    def history(self) -> list[Tried]:
        """All trials that ended with a figure, or without one, in their order."""
        names = {"COMPLETE": "finished", "PRUNED": "stopped"}
        return [
            Tried(
                number=origin_of(trial),
                values=dict(trial.params),
                value=trial.value if trial.value is not None else _last(trial),
                state=names[trial.state.name],
                figures=dict(trial.user_attrs.get("figures", {})),
                within=within(trial),
            )
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state.name in names
        ]

    def _abandoned(self, count: int) -> bool:
        """Whether trials are left to do after all: waits until all have ended, or any still at work must be alive."""
        from optuna.storages import fail_stale_trials  # noqa: PLC0415

        if working := self.working:
            trials = f"{working} trial{'s' * (working > 1)}"
            say(f"waiting for {trials} that another process may still be at, at most {GRACE_SECONDS} s")
        until = time.monotonic() + GRACE_SECONDS + _CLOCK_SECONDS
        while self.working and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
            fail_stale_trials(self._study)
            if not self._enough(count):
                return True
        return False

    def _rivals(self) -> list[Course]:
        """How the trials went that may be the best."""
        ended = self._study.get_trials(deepcopy=False)
        return [course_of(trial) for trial in ended if trial.state.name == "COMPLETE" and within(trial)]

    def _enough(self, count: int) -> bool:
        counted = {"COMPLETE", "PRUNED", "RUNNING"}
        return sum(trial.state.name in counted for trial in self._study.get_trials(deepcopy=False)) >= count

    def _sampler(self, number: int) -> Any:
        """A sampler of the trial's own, so that processes that share a study do not try the same."""
        from optuna.samplers import TPESampler  # noqa: PLC0415

        return TPESampler(seed=hashed(self._seed, number) % 2**32)


@contextmanager
def open_study(place: str, *, identity: str, prune_after: float, seed: int) -> Iterator[Study]:
    """A study, created or resumed.

    Args:
        place: a file, or the URL of a database.
        identity: digest of what is searched and what for; a study of something else is refused.
        prune_after: share of a trial's epochs up to which it is not stopped.
        seed: decides what is tried.

    Raises:
        Misuse: for a database that cannot be opened, and a study of something else.
    """
    import optuna  # noqa: PLC0415 - an extra
    from optuna.pruners import NopPruner  # noqa: PLC0415

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would tell of an interruption by its traceback
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                study = optuna.create_study(
                    study_name=_NAME,
                    storage=_storage(place),
                    direction="maximize",
                    pruner=NopPruner(),  # `stopping` decides
                    load_if_exists=True,
                )
            except Exception as error:  # every database raises its own kinds
                raise Misuse(f"the study at {place} cannot be opened: {first_line(error)}") from error
            _claim(study, place, identity)
            yield Study(study, prune_after=prune_after, seed=seed)
    finally:
        optuna.logging.set_verbosity(level)


def ended(place: Path, count: int) -> bool:
    """Whether a study holds so many trials that have ended.

    Args:
        place: its file; where there is none, nothing has ended.
        count: trials.
    """
    from optuna import load_study  # noqa: PLC0415

    if not place.is_file():
        return False
    try:
        study = load_study(study_name=_NAME, storage=f"sqlite:///{place}")
    except KeyError:  # it is being made
        return False
    return sum(trial.state.name in {"COMPLETE", "PRUNED"} for trial in study.get_trials(deepcopy=False)) >= count


def _storage(place: str) -> Any:
    """The database; where another process makes its tables at the same moment, opened when they are there."""
    from optuna.storages import RDBStorage  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    if "://" not in place:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        place = f"sqlite:///{place}"
    waiting = {"connect_args": {"timeout": _LOCK_SECONDS}} if place.startswith("sqlite") else {}

    def open_now() -> RDBStorage:
        return RDBStorage(
            place,
            engine_kwargs=waiting,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=_retry(),
        )

    for _ in range(_OPENINGS):
        try:
            return open_now()
        except DBAPIError:
            time.sleep(_OPENING_SECONDS)
    return open_now()


def _retry() -> Any:
    from optuna.storages import RetryHeartbeatStaleTrialCallback  # noqa: PLC0415

    return RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES, inherit_intermediate_values=True)


def _claim(study: Any, place: str, identity: str) -> None:
    """Refuse a study that was begun for something else."""
    found = study.user_attrs.get("identity")
    if found is None:
        study.set_user_attr("identity", identity)
    elif found != identity:
        raise Misuse(
            f"the study at {place} was begun with another recipe, figure, bounds or suite; go on with those, or search "
            "elsewhere with --out"
        )


def _last(trial: Any) -> float | None:
    values = trial.intermediate_values
    return values[max(values)] if values else None
