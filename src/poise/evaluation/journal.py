"""The journal of an evaluation in progress: a line an outcome, so that an interruption has nothing attacked twice.

Brackets are a function of the outcomes in their order, so replaying the lines restores them. A line that was torn by
the end of a process is dropped, and its item is attacked again, with the same result. Each process has a file of its
own, and an example may move to another process when work is taken up again; a line with the number of the session,
counted from the first, keeps the order of its outcomes across files.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from glob import escape
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from poise.core.files import digest_words
from poise.core.line_file import LineFile
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

    _file: LineFile

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
        self._session = 0

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
        for _, event in heapq.merge(*map(self._outcomes, _files(self._path)), key=itemgetter(0)):
            yield event

    def open(self) -> None:
        """Make this process's file ready for a new session: a torn line at its end is cut off, in one step."""
        self._file = LineFile(self._own)
        begin = json.dumps(self._header) + "\n" if self._file.empty else ""
        self._file.append(f"{begin}[{self._session + 1}]\n")

    def write(self, events: list[Event]) -> None:
        """Append outcomes; they survive the end of the process at any instant from when this returns."""
        self._file.append("".join(f"[{e.row},{e.work.unit},{e.work.point},{json.dumps(e.point)}]\n" for e in events))

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
            what = f"another {different.replace('_', ' ')}" if different != "data" else "other images"
            hint = " (the same --data, --limit and --split)" if different == "data" else ""
            raise Misuse(
                f"{file} was begun with {what} ({found.get(different)}, now {self._header[different]}); go on as it "
                f"was begun{hint}, or move it away, or write elsewhere with --out"
            )

    def _outcomes(self, file: Path) -> Iterator[tuple[int, Event]]:
        """What a file holds, each outcome with the session in which it was written, which never falls."""
        session = 0
        with file.open("rb") as handle:
            for number, line in enumerate(handle, start=1):
                if not line.endswith(b"\n"):
                    break
                if number == 1:
                    self._check(file, line)
                    continue
                match self._read(line):
                    case Event() as event:
                        yield session, event
                    case int(later) if later > session:
                        session = later
                        self._session = max(self._session, session)
                    case _:
                        raise Misuse(f"{file} is damaged in line {number}; move it away or write elsewhere with --out")

    def _read(self, line: bytes) -> Event | int | None:
        """An outcome or the number of a session; None for what is neither."""
        count, units, points = self._sizes
        try:
            found = json.loads(line)
        except ValueError:
            return None
        match found:
            case [int(session)]:
                return session
            case [int(row), int(unit), int(point), None | int() as within] if not _flagged(found):
                possible = 0 <= row < count and 0 <= unit < units and 1 <= point < points
                return Event(row, Work(unit, point), within) if possible and _lies(within, point) else None
        return None


def _flagged(values: list[object]) -> bool:
    """Whether any is true or false, which Python counts as numbers."""
    return any(isinstance(value, bool) for value in values)


def _lies(within: int | None, point: int) -> bool:
    return within is None or 1 <= within <= point


def remove_journals(path: Path) -> None:
    """Remove the journals of a profile that is whole, and those of its images.

    Args:
        path: the profile.
    """
    for file in (*_files(path), *image_journals(path)):
        file.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{escape(path.name)}.journal.*"))
