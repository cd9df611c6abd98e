"""The report as plain data, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from poise.evaluation import Estimate
from poise.reporting.chart import Chart, accuracy_charts
from poise.reporting.conditions import Group, comparable_groups, incomparable
from poise.reporting.mixtures import frontier_caption, frontier_rows, mixture_charts
from poise.reporting.origin import origin_facts
from poise.reporting.palette import Style
from poise.reporting.sentences import sentences_of, warnings_of
from poise.reporting.subject import Subject
from poise.reporting.summary import summary_rows
from poise.reporting.training_charts import training_charts

FORMAT = 1
"""Grows when a field changes its meaning or goes away."""

Json = dict[str, Any]


def report_record(subjects: Sequence[Subject], title: str) -> Json:
    """A report on some runs as an object that JSON can hold, with the figures of the page, unrounded.

    Shares are in [0, 1], `low` and `high` the ends of the 95 % interval; each chart names the unit of its axis, and a
    value that is not finite is null.

    Args:
        subjects: at least one run; parts that a run lacks are left out.
        title: heading.

    Raises:
        Misuse: if there are no subjects.
    """
    groups = comparable_groups(subjects)
    runs = [(subject, Style.nth(index)) for index, subject in enumerate(subjects)]
    return {
        "format": FORMAT,
        "title": title,
        "incomparable": incomparable(groups),
        "groups": [_group(group) for group in groups],
        "accuracy": [{"group": at - 1, **_chart(chart)} for at, chart in accuracy_charts(groups, runs)],
        "mixtures": [_mixture(subject) for subject in subjects if subject.frontier is not None],
        "mixture_charts": [_chart(chart) for _, chart in mixture_charts(runs)],
        "uptake": [{"name": each.name, **asdict(each.uptake)} for each in subjects if each.uptake is not None],
        "training": [_chart(chart) for chart in training_charts(runs)],
        "origins": [_origin(subject) for subject in subjects],
    }


def _group(group: Group) -> Json:
    found = group.conditions
    conditions = found and {
        "norm": found.norm,
        "epsilons": list(found.epsilons),
        "suite": found.suite,
        "data": found.data_address,
        "images": found.images,
    }
    rows = [
        {
            "name": row.name,
            "clean": _estimate(row.clean),
            "robust": _estimate(row.robust),
            "expected_robustness": _estimate(row.expected),
            "seconds": row.seconds,
        }
        for row in summary_rows(group.subjects)
    ]
    said = {"sentences": sentences_of(group), "warnings": warnings_of(group)}
    return {"name": str(group), "conditions": conditions, "runs": rows, **said}


def _chart(chart: Chart) -> Json:
    lines = [
        {
            "name": line.name,
            "x": list(line.x),
            "y": list(line.y),
            "low": [estimate.low for estimate in line.intervals],
            "high": [estimate.high for estimate in line.intervals],
        }
        for line in chart.lines
    ]
    return {"title": chart.title, "x": chart.x_label, "shares": chart.shares, "lines": lines}


def _mixture(subject: Subject) -> Json:
    assert subject.frontier is not None  # noqa: S101 - the caller asked
    tried = [
        {"name": name, "clean": _estimate(clean), "robust": _estimate(robust)}
        for name, clean, robust in frontier_rows(subject.frontier)
    ]
    return {"name": subject.name, "measured": frontier_caption(subject.name, subject.frontier), "tried": tried}


def _origin(subject: Subject) -> Json:
    profile = subject.profile
    facts = {} if profile is None else origin_facts(profile)
    findings = [] if profile is None else [finding.to_dict() for finding in profile.findings]
    return {"name": subject.name, **facts, "findings": findings, "recipe": subject.recipe}


def _estimate(estimate: Estimate | None) -> Json | None:
    return None if estimate is None else estimate._asdict()
