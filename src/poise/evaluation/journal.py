"""The journal of an evaluation in progress: a line an outcome, so that an interruption has nothing attacked twice.

Brackets are a function of the outcomes in their order, so replaying the lines restores them. A line that was torn by
the end of a process is dropped, and its item is attacked again, with the same result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from poise.core.misuse import Misuse
from poise.evaluation.brackets import Work
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
        rank: number of this process, which writes a file of its own.
    """

    def __init__(self, path: Path, header: Header, rank: int = 0) -> None:
        self._path, self._header = path, json.loads(json.dumps(asdict(header)))
        self._own = path.with_name(f"{path.name}.journal.{rank}")

    def replay(self) -> Iterator[Event]:
        """The outcomes so far, each example's in their order; torn lines are cut off this process's file.

        Raises:
            Misuse: for a journal of another model, data set, threat or suite, which names the file and what differs.
        """
        for file in _files(self._path):
            lines = file.read_bytes().split(b"\n")
            whole = [line for line in lines[:-1] if line]
            if not whole:
                continue
            self._check(file, whole[0])
            for line in whole[1:]:
                row, unit, point, found = json.loads(line)
                yield Event(row, Work(unit, point), found)

    def open(self) -> None:
        """Make this process's file ready to be appended to."""
        self._own.parent.mkdir(parents=True, exist_ok=True)
        kept = self._own.read_bytes() if self._own.exists() else b""
        kept = kept[: kept.rfind(b"\n") + 1] or json.dumps(self._header).encode() + b"\n"
        self._own.write_bytes(kept)

    def write(self, events: list[Event]) -> None:
        """Append outcomes; they survive the end of the process at any instant from when this returns."""
        text = "".join(f"[{e.row},{e.work.unit},{e.work.point},{json.dumps(e.point)}]\n" for e in events)
        with self._own.open("ab", buffering=0) as handle:
            handle.write(text.encode())

    def _check(self, file: Path, line: bytes) -> None:
        try:
            found = json.loads(line)
            different = next((name for name, value in self._header.items() if found[name] != value), None)
        except (ValueError, KeyError, TypeError) as error:
            raise Misuse(f"{file} is no journal of a profile; move it away or write elsewhere with --out") from error
        if different is not None:
            raise Misuse(
                f"{file} was begun with another {different.replace('_', ' ')} ({found[different]}, now "
                f"{self._header[different]}); go on as it was begun, or move it away, or write elsewhere with --out"
            )


def remove_journals(path: Path) -> None:
    """Remove the journals of a profile that is whole.

    Args:
        path: the profile.
    """
    for file in _files(path):
        file.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.journal.*"))
