"""The journal of an evaluation in progress: a line an outcome, so that an interruption has nothing attacked twice.

Brackets are a function of the outcomes in their order, so replaying the lines restores them. A line that was torn by
the end of a process is dropped, and its item is attacked again, with the same result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from poise.core.files import digest_words
from poise.core.misuse import Misuse
from poise.evaluation.brackets import Work
from poise.evaluation.image_journal import image_journals
from poise.evaluation.profile import Header


class Event(NamedTuple):
    """An outcome.

    Args:
        row: the example's row.
        work: what was tried.
        point: the grid point within which an adversarial image was found; None for a failure.
    """

    row: int
    work: Work
    point: int | None


class Journal:
    """Outcomes on disk, appended as they come. The files of all processes that worked on a profile are read together.

    Args:
        path: the profile's path; journals stand beside it.
        header: what is being measured; a journal of anything else is refused.
        count: number of examples.
        units: number of units of the suite.
        rank: number of this process, which writes a file of its own.
        also: what else an interrupted examination must be resumed with, by name.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        count: int,
        units: int,
        rank: int = 0,
        also: Mapping[str, str | bool] | None = None,
    ) -> None:
        self._path, self._header = path, json.loads(json.dumps({**asdict(header), **(also or {})}))
        self._sizes = count, units, len(header.epsilons)
        self._own = path.with_name(f"{path.name}.journal.{rank}")

    @property
    def mark(self) -> str:
        """A digest of what is being measured: 32 hexadecimal digits."""
        return digest_words([json.dumps(self._header)])

    def replay(self) -> Iterator[Event]:
        """The outcomes so far, each example's in their order; a torn last line is left out.

        Raises:
            Misuse: for a journal of another model, data set, threat or suite, which names the file and what differs,
                and for lines that no journal has, which are named.
        """
        for file in _files(self._path):
            with file.open("rb") as handle:
                for number, line in enumerate(handle, start=1):
                    if not line.endswith(b"\n"):
                        break
                    if number == 1:
                        self._check(file, line)
                    else:
                        yield self._event(file, number, line)

    def open(self) -> None:
        """Make this process's file ready to be appended to: a torn line at its end is cut off, in one step."""
        self._own.parent.mkdir(parents=True, exist_ok=True)
        with self._own.open("a+b") as handle:
            os.truncate(handle.fileno(), whole := _end_of_lines(self._own))
            if not whole:
                handle.write(json.dumps(self._header).encode() + b"\n")

    def write(self, events: list[Event]) -> None:
        """Append outcomes; they survive the end of the process at any instant from when this returns."""
        text = "".join(f"[{e.row},{e.work.unit},{e.work.point},{json.dumps(e.point)}]\n" for e in events)
        with self._own.open("ab") as handle:
            handle.write(text.encode())

    def _check(self, file: Path, line: bytes) -> None:
        try:
            found = json.loads(line)
            foreign = not isinstance(found, dict) or "epsilons" not in found
        except ValueError:
            foreign = True
        if foreign:
            raise Misuse(f"{file} is no journal of a profile; move it away or write elsewhere with --out")
        different = next((name for name, value in self._header.items() if found.get(name) != value), None)
        if different is not None:
            raise Misuse(
                f"{file} was begun with another {different.replace('_', ' ')} ({found.get(different)}, now "
                f"{self._header[different]}); go on as it was begun, or move it away, or write elsewhere with --out"
            )

    def _event(self, file: Path, number: int, line: bytes) -> Event:
        count, units, points = self._sizes
        try:
            row, unit, point, found = json.loads(line)
            whole = all(type(value) is int for value in (row, unit, point, 1 if found is None else found))
            possible = whole and 0 <= row < count and 0 <= unit < units and 1 <= point < points
            if possible and (found is None or 1 <= found <= point):
                return Event(row, Work(unit, point), found)
        except (ValueError, TypeError):
            pass
        raise Misuse(f"{file} is damaged in line {number}; move it away or write elsewhere with --out")


def remove_journals(path: Path) -> None:
    """Remove the journals of a profile that is whole, and those of its images.

    Args:
        path: the profile.
    """
    for file in (*_files(path), *image_journals(path)):
        file.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.journal.*"))


def _end_of_lines(path: Path) -> int:
    """Where the last whole line of a file ends."""
    end = 0
    with path.open("rb") as handle:
        for line in handle:
            end += len(line) if line.endswith(b"\n") else 0
    return end
