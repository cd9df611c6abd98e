"""One fine-tuning of a study, as it reports to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poise.commands.searching.space import Value
from poise.commands.searching.stopping import Course, behind
from poise.commands.telling.terminal import say


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a trial stands after an epoch.

    Args:
        epoch: from 0.
        done: share of the trial's epochs, in (0, 1].
        epsilon: what the epoch ended with.
        value: what the search maximises.
        figures: what was measured.
        violations: how far each bound is exceeded; at most 0 where it is kept.
    """

    epoch: int
    done: float
    epsilon: float
    value: float
    figures: Mapping[str, float]
    violations: Mapping[str, float]


class Trial:
    """One fine-tuning of a study; `again` says whether it takes up one that was interrupted.

    Args:
        trial: optuna's.
        found: what the study knew of it when it began.
        prune_after: share of its epochs up to which it is not stopped.
        rivals: what it is compared with: how the trials went that were finished within the bounds.
    """

    def __init__(self, trial: Any, found: Any, *, prune_after: float, rivals: Callable[[], Iterable[Course]]) -> None:
        self._trial, self._prune_after, self._rivals = trial, prune_after, rivals
        self._course = course_of(found)
        self.origin, self.again = origin_of(found), found.number != origin_of(found)
        self.value: float | None = None

    def number(self, path: str, low: float, high: float, *, log: bool) -> float:
        """A suggested number."""
        return float(self._trial.suggest_float(path, low, high, log=log))

    def whole(self, path: str, low: int, high: int, *, log: bool) -> int:
        """A suggested whole number."""
        return int(self._trial.suggest_int(path, low, high, log=log))

    def among(self, path: str, values: Sequence[Value]) -> Value:
        """A suggested choice."""
        chosen: Value = self._trial.suggest_categorical(path, list(values))
        return chosen

    def report(self, standing: Standing) -> None:
        """Note an epoch's figures; ends the trial where it falls behind the others, but never after its last epoch."""
        self._note(standing)
        if self._prune_after < standing.done < 1 and behind(self._course, standing.epoch, self._rivals()):
            self.settle()
            self._end(f"stopped after epoch {standing.epoch + 1}, as it fell behind the others")

    def recall(self, standings: Sequence[Standing]) -> None:
        """Note where the trial stood when it was interrupted, as far as that was not noted then."""
        missing = [standing for standing in standings if standing.epoch not in self._course.values]
        for standing in missing or standings[-1:]:
            self._note(standing)

    def settle(self) -> None:
        """Tell the search how far the trial ended from its bounds."""
        for bound, excess in self._trial.user_attrs.get("violations", {}).items():
            if bound not in self._trial.constraints:  # one that was interrupted here has told already
                self._trial.set_constraint(bound, excess)

    def give_up(self, reason: str) -> None:
        """End the trial without a figure."""
        self._trial.set_user_attr("reason", reason)
        self._end(f"given up: {reason}")

    def _note(self, standing: Standing) -> None:
        self.value, known = standing.value, standing.epoch in self._course.values
        epsilons = {**self._course.epsilons, standing.epoch: standing.epsilon}
        self._course = Course({**self._course.values, standing.epoch: standing.value}, epsilons)
        self._trial.set_user_attr("figures", dict(standing.figures))
        self._trial.set_user_attr("violations", dict(standing.violations))
        self._trial.set_user_attr("epsilons", epsilons)
        if not known:
            self._trial.report(standing.value, standing.epoch)

    def _end(self, told: str) -> None:
        from optuna import TrialPruned  # noqa: PLC0415 - an extra

        say(f"trial {self.origin} {told}")
        raise TrialPruned


def course_of(trial: Any) -> Course:
    """How a trial went, as the study remembers it."""
    epsilons = trial.user_attrs.get("epsilons", {})  # JSON has no numbers for keys
    return Course(dict(trial.intermediate_values), {int(epoch): epsilon for epoch, epsilon in epsilons.items()})


def within(trial: Any) -> bool:
    """Whether a trial kept the bounds where it stood last."""
    return all(excess <= 0 for excess in trial.user_attrs.get("violations", {}).values())


def origin_of(trial: Any) -> int:
    """The number of a trial; where it takes up a killed one, of that."""
    return int(trial.system_attrs.get("failed_trial", trial.number))
