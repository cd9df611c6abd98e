"""The journal of a certification in progress: a line an example, so that an interruption samples none twice.

Outcomes are a function of the header and the example, so the rest of an interrupted certification is the rest of an
uninterrupted one. A line that was torn by the end of a process is dropped, and its example sampled again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from poise.core.line_file import LineFile
from poise.core.misuse import Misuse
from poise.evaluation.certificates.sampling import Outcome


class OutcomeJournal:
    """Outcomes on disk, appended as they come.

    Args:
        path: the file.
        header: what is being certified and how; a journal of anything else is refused.
    """

    _file: LineFile

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path, self._header = path, json.loads(json.dumps(dict(header)))

    def replay(self) -> Iterator[tuple[int, Outcome]]:
        """The outcomes so far, under their rows.

        Raises:
            Misuse: for a journal of another certification, which names the file and what differs.
        """
        whole = self._whole()
        if not whole:
            return
        self._check(whole[0])
        for line in whole[1:]:
            outcome = Outcome(*json.loads(line))
            yield outcome.row, outcome

    def open(self) -> None:
        """Make the file ready to be appended to: a torn last line is cut off, in one step."""
        self._file = LineFile(self._path)
        if self._file.empty:
            self._file.append(json.dumps(self._header) + "\n")

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Append outcomes; they survive the end of the process at any instant from when this returns."""
        self._file.append("".join(json.dumps(astuple(outcome)) + "\n" for outcome in outcomes))

    def _whole(self) -> list[bytes]:
        kept = self._path.read_bytes() if self._path.exists() else b""
        return kept.split(b"\n")[:-1]

    def _check(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            different = next((name for name, value in self._header.items() if found[name] != value), None)
        except (ValueError, KeyError, TypeError) as error:
            raise Misuse(f"{self._path} is no journal of a certification; move it away, or write elsewhere") from error
        if different is not None:
            raise Misuse(
                f"{self._path} was begun with another {different} ({found[different]}, now {self._header[different]}); "
                "go on as it was begun, or move it away, or write elsewhere with --out"
            )
