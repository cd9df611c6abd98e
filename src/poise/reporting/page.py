"""The shell of every page: its style, its programs, and a promise that it loads nothing from anywhere."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from poise.core.files import write_text
from poise.reporting import markup


def write_page(path: Path, title: str, body: str, *, opening: str = "", charts: bool = False) -> None:
    """Write a page that needs nothing but itself; the same arguments give the same bytes.

    Args:
        path: the HTML file; an older one is replaced whole.
        title: plain text, which is the heading as well.
        body: markup.
        opening: markup beneath the heading.
        charts: whether the body holds charts, which need programs.
    """
    page = Template(resource("page.html")).substitute(
        title=escape(title),
        style=resource("report.css"),
        opening=opening,
        body=body,
        scripts=markup.scripts(get_plotlyjs(), resource("report.js")) if charts else "",
    )
    write_text(path, page)


def resource(name: str) -> str:
    """A file that lies beside this module, as text."""
    return files("poise.reporting").joinpath(name).read_text(encoding="utf-8")
