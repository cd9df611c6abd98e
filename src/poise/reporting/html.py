"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from poise.core.files import write_text
from poise.reporting import markup, sections
from poise.reporting.conditions import comparable_groups
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
    page = Template(_resource("report.html")).substitute(
        title=escape(title),
        style=_resource("report.css"),
        conditions=markup.paragraphs(map(str, groups), class_="conditions") if len(groups) == 1 else "",
        summary=sections.summary(groups),
        results=sections.results(groups, runs),
        charts=charts,
        runs=sections.origins(runs),
        scripts=markup.scripts(get_plotlyjs(), _resource("report.js")) if charts else "",
    )
    write_text(path, page)


def _resource(name: str) -> str:
    return files("poise.reporting").joinpath(name).read_text(encoding="utf-8")
