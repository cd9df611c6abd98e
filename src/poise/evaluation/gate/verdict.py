"""The verdict of a gate on a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from poise.attacks.suites import is_of
from poise.core.misuse import suggestion
from poise.evaluation.flips.pair import Pair, place, spelled
from poise.evaluation.gate.evidence import Bounded, Evidence
from poise.evaluation.gate.figures import FIGURES, Group
from poise.evaluation.gate.limit import EVERY, Gate, Limit
from poise.evaluation.soundness.catalogue import CHECKS, missing_checks

Outcome = Literal["passed", "failed", "cannot be judged"]

_SEVERITY: dict[Outcome, int] = {"passed": 0, "cannot be judged": 1, "failed": 2}
_EXIT_CODES: dict[Outcome, int] = {"passed": 0, "failed": 1, "cannot be judged": 2}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one limit.

    Args:
        limit: what was to be kept.
        outcome: passed, failed, or cannot be judged.
        reason: one sentence with the numbers that decided.
        value: the measured figure, the least favourable that open verdicts allow; None where there is none.
        bound: its one-sided confidence bound; None where the estimate is limited, and where there is no value.
        examples: how many examples it was measured on.
        where: of several classes or epsilons, the one that decided; "" for no choice.
        needed: about how many such examples would be enough, where there are too few.
    """

    limit: Limit
    outcome: Outcome
    reason: str
    value: float | None = None
    bound: float | None = None
    examples: int = 0
    where: str = ""
    needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What became of a gate.

    Args:
        gate: the limits.
        verdicts: one for each limit, in their order.
    """

    gate: Gate
    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Outcome:
        """Passed if every limit is; failed if any has; otherwise it cannot be judged."""
        return max((verdict.outcome for verdict in self.verdicts), key=_SEVERITY.__getitem__)

    @property
    def exit_code(self) -> int:
        """0 for passed, 1 for failed, 2 for what cannot be judged."""
        return _EXIT_CODES[self.outcome]


def judge(gate: Gate, pair: Pair) -> Judgement:
    """Judge a comparison.

    A limit on a bound passes if the figure's one-sided confidence bound keeps it. It fails if already the measured
    value breaks it. Between the two there are too few examples, and the verdict says about how many are needed. A limit
    for every class, or at every epsilon, passes if each passes: the confidence needs no correction for their number,
    since to pass wrongly the one that is broken would have to pass too (Berger 1982). What the new profile shows beyond
    the old one's grid changes no figure; what it lacks of that may be what would have spoken against it. Nothing is
    judged of profiles at which some soundness check has not looked or whose objection somebody overrode, unless the
    gate allows that, and of profiles by other attacks or of other splits than the gate asks for.
    """
    if reason := _unchecked(gate, pair) or _overruled(gate, pair) or _too_weak(gate, pair) or _of_others(gate, pair):
        return unjudged(gate, reason)
    alpha = 1 - gate.confidence
    on_bounds = sum(limit.by == "bound" for limit in gate.limits)
    sharpest = alpha if gate.joint == "none" else alpha / max(on_bounds, 1)
    readings = [_readings(limit, pair, gate, sharpest) for limit in gate.limits]
    levels = _levels(gate, readings)
    return Judgement(
        gate=gate,
        verdicts=tuple(
            _decisive([reading.verdict(limit, level) for reading in found])
            for limit, found, level in zip(gate.limits, readings, levels, strict=True)
        ),
    )


def unjudged(gate: Gate, reason: str) -> Judgement:
    """The judgement where there is nothing to judge, such as profiles that do not match."""
    return Judgement(
        gate=gate,
        verdicts=tuple(Verdict(limit=limit, outcome="cannot be judged", reason=reason) for limit in gate.limits),
    )


def _unchecked(gate: Gate, pair: Pair) -> str:
    """Which checks have not looked at which profile, where the gate wants them to have; "" for none."""
    told = []
    for name, profile in (("old", pair.old), ("new", pair.new)):
        missing = missing_checks(profile.findings)
        if len(missing) == len(CHECKS):
            told.append(f"no soundness check has looked at the {name} profile")
        elif missing:
            told.append(f"soundness checks that have not looked at the {name} profile: {', '.join(missing)}")
    if not told or gate.unchecked == "allow":
        return ""
    return f"{'; '.join(told)} (poise profile runs all checks; unchecked: allow in the gate does without)"


def _overruled(gate: Gate, pair: Pair) -> str:
    """Which objections to which profile somebody overrode without the gate's leave; "" for none."""
    told = []
    for name, profile in (("old", pair.old), ("new", pair.new)):
        names = [found.check for found in profile.findings if found.overridden and found.check not in gate.overridden]
        if names:
            told.append(f"objections to the {name} profile were overridden when it was made: {', '.join(names)}")
    return f"{'; '.join(told)} (overridden: in the gate names those that it accepts)" if told else ""


def _of_others(gate: Gate, pair: Pair) -> str:
    """Which profile is of a split that the gate does not judge by; "" for neither."""
    told = [
        f"the {name} profile is of {profile.header.split} images"
        for name, profile in (("old", pair.old), ("new", pair.new))
        if profile.header.split and profile.header.split not in gate.splits
    ]
    return f"{' and '.join(told)}; the gate judges by {' or '.join(gate.splits)} images" if told else ""


def _too_weak(gate: Gate, pair: Pair) -> str:
    """Which profile is of none of the suites that the gate asks for; "" for neither."""
    told = [
        f"the {name} profile is by {profile.header.suite or 'attacks that it does not name'}"
        for name, profile in (("old", pair.old), ("new", pair.new))
        if gate.suites and not any(is_of(profile.header.suite, wanted) for wanted in gate.suites)
    ]
    return f"{' and '.join(told)}; the gate asks for {' or '.join(gate.suites)}" if told else ""


@dataclass(frozen=True)
class _Reading:
    """A limit's figure for one class at one epsilon; without evidence, `where` says why there is none."""

    where: str
    evidence: Evidence | None
    missing: str = ""

    def doubt(self, limit: Limit) -> float:
        return self.evidence.doubt(limit.value, limit.side) if isinstance(self.evidence, Bounded) else 1.0

    def verdict(self, limit: Limit, level: float) -> Verdict:
        if self.evidence is None:
            return Verdict(limit=limit, outcome="cannot be judged", reason=self.missing, where=self.where)
        outcome, bound, why, needed = _weighed(limit, self.evidence, level)
        value = self.evidence.value(limit.side)
        measured = f"{limit.shown(value)} of {self.evidence.examples} examples"
        return Verdict(
            limit=limit,
            outcome=outcome,
            reason=f"{f'{self.where}: ' if self.where else ''}{measured}{why}",
            value=value,
            bound=bound,
            examples=self.evidence.examples,
            where=self.where,
            needed=needed,
        )


def _weighed(limit: Limit, evidence: Evidence, level: float) -> tuple[Outcome, float | None, str, int | None]:
    """Outcome, bound, the rest of the reason, and how many examples are needed."""
    if limit.by == "estimate" or not isinstance(evidence, Bounded):
        passed, bound, said = evidence.keeps(limit.value, limit.side), None, ""
    else:
        passed, bound = evidence.doubt(limit.value, limit.side) <= level, evidence.bound(level, limit.side)
        side = limit.side.replace("_", " ")
        said = f", {side} {limit.shown(bound)} with {100 * (1 - level):.4g} % confidence"
    if passed or evidence.breaks(limit.value, limit.side):
        return "passed" if passed else "failed", bound, said, None
    if bound is None or not isinstance(evidence, Bounded) or not evidence.keeps(limit.value, limit.side):
        return "cannot be judged", bound, f"{said}; verdicts are open that decide: finish the profiles", None
    needed = evidence.needed(limit.value, level, limit.side)
    more = "no number of examples is enough" if needed is None else f"about {needed} examples are needed"
    return "cannot be judged", bound, f"{said}: too few examples; {more}", needed


def _readings(limit: Limit, pair: Pair, gate: Gate, level: float) -> list[_Reading]:
    points = _points(limit, pair, gate)
    if isinstance(points, str):
        return [_Reading("", None, points)]
    groups = _groups(limit, pair)
    if isinstance(groups, str):
        return [_Reading("", None, groups)]
    found = []
    for name, group in groups.items():
        for point in points:
            at = f"epsilon {spelled(pair.epsilons[point])}" if limit.at == EVERY else ""
            where = ", ".join(filter(None, (name if limit.every_class else "", at)))
            evidence = FIGURES[limit.figure].measure(group, point, level) if len(group.rows) else None
            missing = f"{name or 'the profiles'}: {_missing(group, point)}"
            found.append(_Reading(where, evidence, missing))
    return found


def _missing(group: Group, point: int) -> str:
    """Why a figure could not be measured."""
    if len(group.rows) and not group.flips[point].settled:
        return "verdicts are open that this figure needs: finish the profiles"
    return "there are no examples that this figure could be measured on"


def _points(limit: Limit, pair: Pair, gate: Gate) -> Sequence[int] | str:
    """Indices of the epsilons that a limit is for, or why there are none."""
    if limit.over_grid and pair.only_old and gate.grid == "old":
        return (
            f"the new profile lacks epsilon {', '.join(map(spelled, pair.only_old))} of the old one's grid: profile it "
            "with the same --points, or say grid: common in the gate"
        )
    if limit.at is None:
        return [0]
    if isinstance(limit.at, str):
        return range(1, len(pair.epsilons)) or "the profiles have no epsilon in common beyond 0"
    point = place(limit.at, pair.epsilons)
    if point is None:
        return f"epsilon {limit.at} is not on the common grid: {', '.join(map(spelled, pair.epsilons))}"
    return [point]


def _groups(limit: Limit, pair: Pair) -> dict[str, Group] | str:
    """The examples that a limit is for, by class name, or why there are none."""
    if limit.every_class:
        return {name: Group(pair, pair.rows_of(label)) for label, name in enumerate(pair.classes)}
    if not limit.of:
        return {"": Group(pair, np.arange(len(pair)))}
    if limit.of not in pair.classes:
        return f"there is no class {limit.of!r}; {suggestion(limit.of, pair.classes)}"
    return {limit.of: Group(pair, pair.rows_of(pair.classes.index(limit.of)))}


def _levels(gate: Gate, readings: Sequence[Sequence[_Reading]]) -> list[float]:
    """The error rate that each limit on a bound is allowed; limits on estimates need none."""
    alpha = 1 - gate.confidence
    judged = [place for place, limit in enumerate(gate.limits) if limit.by == "bound"]
    levels = [alpha] * len(gate.limits)
    if gate.joint == "bonferroni":
        for place in judged:
            levels[place] = alpha / len(judged)
    elif gate.joint == "holm":
        doubts = {place: max(each.doubt(gate.limits[place]) for each in readings[place]) for place in judged}
        level, stopped = alpha, False
        for rank, place in enumerate(sorted(judged, key=doubts.__getitem__)):
            if not stopped:
                level = alpha / (len(judged) - rank)
                stopped = doubts[place] > level
            levels[place] = level
    return levels


def _decisive(verdicts: Sequence[Verdict]) -> Verdict:
    """Of one limit's verdicts, the worst; among equals the one closest to the limit or furthest beyond it."""

    def rank(verdict: Verdict) -> tuple[int, float]:
        reached = verdict.bound if verdict.bound is not None else verdict.value
        if reached is None:
            return _SEVERITY[verdict.outcome], float("inf")
        return _SEVERITY[verdict.outcome], reached if verdict.limit.side == "at_most" else -reached

    return max(verdicts, key=rank)
