"""What commands say to a person: lines, and a bar with the time left; plain lines where nobody watches live.

Of several processes only the main one speaks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from poise.core.progress import Watch, unwatched
from poise.training import is_main

CONSOLE = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress and remarks go to standard error; results go to standard output."""

_LINE_EVERY_SECONDS = 60.0


def say(text: str) -> None:
    """One line to the person."""
    if is_main():
        CONSOLE.print(text, markup=False)


@contextmanager
def watching(label: str) -> Iterator[Watch]:
    """A watcher that shows a bar on a terminal, and elsewhere one line a minute."""
    if not is_main():
        yield unwatched
        return
    if not CONSOLE.is_terminal:
        yield _lines(label)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        task = progress.add_task(label, total=1.0, facts="")
        yield lambda share, facts: progress.update(task, completed=share, facts=_joined(facts))


def _lines(label: str) -> Watch:
    begun = spoken = time.monotonic()
    first: float | None = None

    def watch(share: float, facts: Mapping[str, str]) -> None:
        nonlocal spoken, first
        now = time.monotonic()
        first = share if first is None else first
        if now - spoken >= _LINE_EVERY_SECONDS:
            spoken = now
            left = _left(share - first, 1 - share, now - begun)
            say(" ".join(filter(None, (f"{label}: {share:.0%}", _joined(facts), left))))

    return watch


def _left(done: float, undone: float, seconds: float) -> str:
    """How long the rest takes at the pace so far; nothing while there is no pace.

    Args:
        done: share of the work done since the start.
        undone: share still to be done.
        seconds: since the start.
    """
    if done <= 0:
        return ""
    minutes = round(seconds * undone / done / 60)
    return f"left {minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"left {minutes} min"


def _joined(facts: Mapping[str, str]) -> str:
    return " ".join(f"{name} {value}" for name, value in facts.items())
