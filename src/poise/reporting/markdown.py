"""The table for a README or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from poise.evaluation import Estimate
from poise.reporting.conditions import Group, comparable_groups, incomparable
from poise.reporting.sentences import warnings_of
from poise.reporting.subject import Subject
from poise.reporting.summary import MISSING, duration, headings, interval, percent, summary_rows

_SPECIAL = re.compile(r"[\\`*\[\]<>&|~#]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that Markdown might read as more than themselves; an underscore inside a word is not among them."""


def markdown_table(subjects: Sequence[Subject]) -> str:
    """The summary of some runs as Markdown, one table for each set of comparable runs.

    Args:
        subjects: at least one run.

    Raises:
        Misuse: if there are no subjects.
    """
    groups = comparable_groups(subjects)
    line = incomparable(groups)
    blocks = [plain(line)] if line else []
    for group in groups:
        blocks += [f"**{plain(str(group))}**", _table(group)]
        blocks += [plain(warning) for warning in warnings_of(group)]
    return "\n\n".join(blocks) + "\n"


def _table(group: Group) -> str:
    lines = [_line(headings(group.conditions)), "|:--|--:|--:|--:|--:|"]
    for row in summary_rows(group.subjects):
        figures = [figure(estimate) for estimate in (row.clean, row.robust, row.expected)]
        lines.append(_line([plain(row.name), *figures, duration(row.seconds)]))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def figure(estimate: Estimate | None) -> str:
    """An estimate in percent with its interval: "93.9 [91.0, 96.1]"."""
    return MISSING if estimate is None else f"{percent(estimate.value)} {interval(estimate)}"


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def fenced(text: str, language: str) -> str:
    """Text as a block of code, behind a fence longer than any in it; "" for nothing."""
    inside = text.strip()
    runs = "".join(letter if letter == "`" else " " for letter in inside).split()
    fence = "`" * max(3, 1 + max(map(len, runs), default=0))
    return f"{fence}{language}\n{inside}\n{fence}" if inside else ""
