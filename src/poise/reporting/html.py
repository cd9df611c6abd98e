"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from poise.reporting import markup, sections
from poise.reporting.conditions import comparable_groups
from poise.reporting.page import resource, write_page
from poise.reporting.palette import Style
from poise.reporting.subject import Subject


def write_report(subjects: Sequence[Subject], path: Path, title: str) -> None:
    """Write a report on some runs: what was found, figures, charts with their data, recipes and origins.

    The page loads nothing from anywhere and holds no date, so that the same runs give the same bytes.

    Args:
        subjects: at least one run; parts that a run lacks are left out.
        path: the HTML file; an older one is replaced whole.
        title: heading of the page.

    Raises:
        Misuse: if there are no subjects.
    """
    groups = comparable_groups(subjects)
    runs = [(subject, Style.nth(index)) for index, subject in enumerate(subjects)]
    charts = sections.curves(groups, runs) + sections.mixtures(runs) + sections.training(runs)
    body = Template(resource("report.html")).substitute(
        summary=sections.summary(groups),
        results=sections.results(groups, runs),
        charts=charts,
        runs=sections.origins(runs),
    )
    opening = markup.paragraphs(map(str, groups), class_="conditions") if len(groups) == 1 else ""
    write_page(path, title, body.rstrip(), opening=opening, charts=bool(charts))
