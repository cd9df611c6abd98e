"""What is drawn, before anyone decides how: lines over an axis, from which both a chart and its table are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from poise.core.threat import Epsilon
from poise.evaluation import Curve, Estimate, accuracy_curve, certified_curve
from poise.reporting.conditions import Conditions, Group
from poise.reporting.palette import Style
from poise.reporting.subject import Subject
from poise.reporting.summary import percent

LEVELS = 255

_CERTIFIED = (1, 4)
"""Strokes and gaps of what is proven, finer than any run's own."""

Styled = Sequence[tuple[Subject, Style]]
"""Runs and how each is drawn in all charts of a report."""


@dataclass(frozen=True)
class Line:
    """One run in a chart.

    Args:
        name: the run.
        style: how it is drawn.
        x: places on the axis, ascending.
        y: values there; None where a value is not finite, which leaves a gap.
        intervals: estimates that belong to `y`; empty where there are none.
    """

    name: str
    style: Style
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    intervals: tuple[Estimate, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over an axis.

    Args:
        title: what is drawn, with its unit.
        x_label: what the horizontal axis counts, with its unit.
        shares: whether values are shares in [0, 1], to be shown in percent.
        whole: whether the axis of shares spans 0 to 100 %, rather than as much as they need.
        lines: at least one.
    """

    title: str
    x_label: str
    shares: bool
    lines: tuple[Line, ...]
    whole: bool = True


@dataclass(frozen=True)
class DataTable:
    """The table from which a chart could be drawn again.

    Args:
        headings: the axis, and each line with its unit.
        rows: the place on the axis, and what stands there: an estimate, or text, "" for nothing.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str | Estimate, ...], ...]

    @classmethod
    def of(cls, chart: Chart) -> DataTable:
        """The data of a chart, shares in percent; the table's reader says how an estimate is written."""
        places = sorted({place for line in chart.lines for place in line.x})
        columns = [dict(zip(line.x, _values(line, chart), strict=True)) for line in chart.lines]
        rows = tuple((f"{place:.6g}", *(column.get(place, "") for column in columns)) for place in places)
        unit = ", %" if chart.shares else ""
        return cls((chart.x_label, *(f"{line.name}{unit}" for line in chart.lines)), rows)


def _values(line: Line, chart: Chart) -> Sequence[str | Estimate]:
    if line.intervals:
        return line.intervals
    shown = percent if chart.shares else "{:.6g}".format
    return ["not finite" if value is None else shown(value) for value in line.y]


def accuracy_charts(groups: Sequence[Group], runs: Styled) -> list[tuple[int, Chart]]:
    """Accuracy over epsilon of each group that was attacked or certified, with the group's number, from 1."""
    return [
        (at, accuracy_chart(members(group, runs), group.conditions))
        for at, group in enumerate(groups, 1)
        if group.conditions is not None and (group.conditions.attacked or _certified(group))
    ]


def members(group: Group, runs: Styled) -> Styled:
    """The runs of a group, drawn as in the whole report."""
    return [(subject, style) for subject, style in runs if any(subject is member for member in group.subjects)]


def _certified(group: Group) -> bool:
    return any(subject.profile is not None and subject.profile.certificate is not None for subject in group.subjects)


def accuracy_chart(runs: Styled, conditions: Conditions) -> Chart:
    """Accuracy over epsilon with its intervals, of runs that share these conditions; certified accuracy below it."""
    lines = []
    for subject, style in runs:
        if subject.profile is not None:
            lines.append(_line(subject.name, style, accuracy_curve(subject.profile), conditions))
            if subject.profile.certificate is not None:
                certified, dotted = certified_curve(subject.profile), replace(style, dash=_CERTIFIED)
                lines.append(_line(f"{subject.name}, certified", dotted, certified, conditions))
    return Chart(title="Accuracy over epsilon", x_label=epsilon_label(conditions), shares=True, lines=tuple(lines))


def _line(name: str, style: Style, curve: Curve, conditions: Conditions) -> Line:
    places = _places(curve.epsilons, conditions)
    return Line(name, style, places, tuple(estimate.value for estimate in curve.accuracy), curve.accuracy)


def epsilon_places(conditions: Conditions) -> tuple[float, ...]:
    """Where the grid points stand on the axis that `epsilon_label` names."""
    return _places(conditions.epsilons, conditions)


def _places(epsilons: tuple[float, ...], conditions: Conditions) -> tuple[float, ...]:
    levels = counted_in_levels(conditions)
    return tuple(float(round(epsilon * LEVELS)) if levels else epsilon for epsilon in epsilons)


def epsilon_label(conditions: Conditions) -> str:
    """The axis of epsilons, with its unit."""
    unit = "1/255" if counted_in_levels(conditions) else "the image range"
    return f"epsilon ({conditions.norm}, in units of {unit})"


def counted_in_levels(conditions: Conditions) -> bool:
    """Whether epsilons are shown in units of 1/255: in linf, if each point of the grid is a whole number of them."""
    whole = all(epsilon == 0 or str(Epsilon(epsilon)).endswith(f"/{LEVELS}") for epsilon in conditions.epsilons)
    return conditions.norm == "linf" and conditions.attacked and whole
