"""A comparison in the terminal."""

from __future__ import annotations

from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poise.evaluation.comparison import Comparison
from poise.reporting.comparison.rows import Rows, class_rows, flip_rows, gate_rows
from poise.reporting.comparison.sentences import headline, summary
from poise.reporting.table import printable

_COLOURS = {"passed": "green", "failed": "red", "cannot be judged": "yellow"}
_CLASSES = 5
_UNLIMITED = 10_000


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print what is lost and gained at every epsilon, the classes that lose most, and what became of the gate.

    Args:
        comparison: what to print.
        console: where to; by default standard output, without colour codes unless it is a terminal.
    """
    console = console or Console()
    console.print(Text(printable(f"{comparison.old} → {comparison.new}"), style="bold"))
    for sentence in summary(comparison):
        console.print(Text(printable(sentence)))
    if comparison.pair is not None:
        for note in comparison.pair.notes:
            console.print(Text(printable(note), style="yellow"))
        console.print()
        console.print(_flips(flip_rows(comparison), console))
        console.print()
        console.print(_fitting(class_rows(comparison), console, _CLASSES))
    if comparison.judgement is not None:
        console.print()
        console.print(_table(gate_rows(comparison.judgement.verdicts), " [", texts=True))
        outcome = comparison.judgement.outcome
        console.print()
        console.print(Text(headline(comparison.judgement), style=f"bold {_COLOURS[outcome]}"))


def _flips(rows: Rows, console: Console) -> Table:
    """The flips without unions and intervals of accuracies, which the page has; where narrow, without changes."""
    table = _fitting(_without(rows, "or clean"), console)
    return table if _width(table, console) <= console.width else _fitting(_without(rows, "or clean", "change"), console)


def _without(rows: Rows, *left_out: str) -> Rows:
    kept = [at for at, heading in enumerate(rows.headings) if heading not in left_out]
    bare = {at for at in kept if rows.headings[at].startswith(("old", "new", "noise"))}
    return replace(
        rows,
        headings=tuple(rows.headings[at].replace(" ", "\n", 1) for at in kept),
        rows=tuple(tuple(row[at].partition(" [")[0] if at in bare else row[at] for at in kept) for row in rows.rows),
    )


def _fitting(rows: Rows, console: Console, most: int | None = None) -> Table:
    """A table of figures with its intervals beside them, or below them where that is too wide."""
    wide = _table(rows, " [", most)
    return wide if _width(wide, console) <= console.width else _table(rows, "\n[", most)


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(max_width=_UNLIMITED)).maximum


def _table(rows: Rows, before_interval: str, most: int | None = None, *, texts: bool = False) -> Table:
    table = Table(
        title=Text(rows.title, "bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for at, heading in enumerate(rows.headings):
        named = texts or at == 0
        table.add_column(heading, justify="left" if named else "right", no_wrap=not named, overflow="fold")
    for row in rows.rows[:most]:
        table.add_row(*(Text(before_interval.join(printable(cell).split(" ["))) for cell in row))
    return table
