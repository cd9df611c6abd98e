"""The report for a pull request: what the page says, in Markdown, with the long parts folded up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from poise.evaluation import Estimate
from poise.reporting.chart import Chart, DataTable, Styled, accuracy_charts
from poise.reporting.conditions import Group, comparable_groups
from poise.reporting.markdown import fenced, figure, markdown_table, plain
from poise.reporting.mixtures import frontier_caption, frontier_rows, mixture_charts
from poise.reporting.origin import origin_facts
from poise.reporting.palette import Style
from poise.reporting.sentences import sentences_of, training_sentences
from poise.reporting.subject import Subject
from poise.reporting.training_charts import training_charts


def report_markdown(subjects: Sequence[Subject], title: str) -> str:
    """A report on some runs as Markdown, with the figures of the page: `write_report` draws the same charts.

    Sentences and the table come first; the data of every chart, what was mixed and where the runs come from follow,
    folded up.

    Args:
        subjects: at least one run; parts that a run lacks are left out.
        title: heading.

    Raises:
        Misuse: if there are no subjects.
    """
    groups = comparable_groups(subjects)
    runs = [(subject, Style.nth(index)) for index, subject in enumerate(subjects)]
    blocks = [f"## {plain(title)}", *_said(groups), markdown_table(subjects).strip()]
    blocks += [_folded(f"{chart.title}: {groups[at - 1]}", _data(chart)) for at, chart in accuracy_charts(groups, runs)]
    blocks += _mixtures(runs)
    if training := _training(runs):
        blocks.append(_folded("Training", *training))
    return "\n\n".join([*blocks, *map(_origin, subjects)]) + "\n"


def _said(groups: Sequence[Group]) -> list[str]:
    said = [f"- {plain(sentence)}" for group in groups for sentence in sentences_of(group)]
    return ["\n".join(said)] if said else []


def _mixtures(runs: Styled) -> list[str]:
    tables = [
        part
        for subject, _ in runs
        if subject.frontier is not None
        for part in (
            plain(frontier_caption(subject.name, subject.frontier)),
            _table(("mixture", "clean, %", "robust, %"), frontier_rows(subject.frontier)),
        )
    ]
    drawn = [part for _, chart in mixture_charts(runs)[1:] for part in (plain(chart.title), _data(chart))]
    return [_folded("Mixtures", *tables, *drawn)] if tables else []


def _training(runs: Styled) -> list[str]:
    said, warnings = training_sentences([subject for subject, _ in runs])
    charts = [part for chart in training_charts(runs) for part in (plain(chart.title), _data(chart))]
    return [*map(plain, said), *map(plain, warnings), *charts]


def _origin(subject: Subject) -> str:
    facts = {} if subject.profile is None else origin_facts(subject.profile)
    said = "\n".join(f"- {name}: {plain(fact)}" for name, fact in facts.items())
    recipe = fenced(subject.recipe, "yaml")
    return _folded(f"Origin of {subject.name}", *filter(None, (said, recipe))) if said or recipe else ""


def _data(chart: Chart) -> str:
    found = DataTable.of(chart)
    return _table(found.headings, found.rows)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str | Estimate]]) -> str:
    lines = [[plain(heading) for heading in headings], [":--", *("--:" for _ in headings[1:])]]
    lines += [[plain(cell) if isinstance(cell, str) else figure(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _folded(title: str, *parts: str) -> str:
    return "\n\n".join([f"<details><summary>{escape(title)}</summary>", *parts, "</details>"])
