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
    spoken = time.monotonic()

    def watch(share: float, facts: Mapping[str, str]) -> None:
        nonlocal spoken
        if time.monotonic() - spoken >= _LINE_EVERY_SECONDS:
            spoken = time.monotonic()
            say(f"{label}: {share:.0%} {_joined(facts)}")

    return watch


def _joined(facts: Mapping[str, str]) -> str:
    return " ".join(f"{name} {value}" for name, value in facts.items())
