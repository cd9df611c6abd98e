"""The table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poise.evaluation import Estimate
from poise.reporting.conditions import Group, comparable_groups, incomparable
from poise.reporting.sentences import warnings_of
from poise.reporting.subject import Subject
from poise.reporting.summary import MISSING, duration, headings, interval, percent, summary_rows

_UNLIMITED = 10_000


def print_table(subjects: Sequence[Subject], console: Console | None = None) -> None:
    """Print the summary of some runs; figures in percent with their 95 % intervals.

    Runs whose profiles differ in threat, suite, grid or images stand in tables of their own, and a line says so.
    Where the console is too narrow, intervals move below their figures and names are broken; from 60 columns on
    nothing is cut off.

    Args:
        subjects: at least one run.
        console: where to; by default standard output, without colour codes unless it is a terminal.

    Raises:
        Misuse: if there are no subjects.
    """
    console = console or Console()
    groups = comparable_groups(subjects)
    if line := incomparable(groups):
        console.print(Text(line, style="yellow"))
    for group in groups:
        console.print(_fitting(group, console))
        for warning in warnings_of(group):
            console.print(Text(printable(warning), style="yellow"))
        console.print()


def _fitting(group: Group, console: Console) -> Table:
    """The table with its intervals beside the figures, or below them where that is too wide."""
    wide = _table(group, " ")
    needed = console.measure(wide, options=console.options.update(max_width=_UNLIMITED)).maximum
    return wide if needed <= console.width else _table(group, "\n")


def _table(group: Group, between: str) -> Table:
    title = Text.assemble(
        (printable(str(group)), "bold"), ("\nin %, with 95 % intervals" * bool(group.conditions), "dim")
    )
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
    )
    model, *figures, seconds = headings(group.conditions)
    table.add_column(model, overflow="fold", min_width=8)
    for heading in figures:
        table.add_column(heading.replace(" ", "\n", 1), justify="right", no_wrap=True)
    table.add_column(seconds, justify="right", no_wrap=True)
    for row in summary_rows(group.subjects):
        cells = [_figure(estimate, between) for estimate in (row.clean, row.robust, row.expected)]
        table.add_row(Text(printable(row.name)), *cells, Text(duration(row.seconds)))
    return table


def _figure(estimate: Estimate | None, between: str) -> Text:
    if estimate is None:
        return Text(MISSING, style="dim")
    return Text.assemble(percent(estimate.value), between, (interval(estimate), "dim"))


def printable(text: str) -> str:
    """Text without control characters, which could otherwise steer the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
