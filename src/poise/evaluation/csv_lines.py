"""The lines of a CSV file that a person or a tool wrote, each refused by its number where it is not understood."""

from __future__ import annotations

import csv
import io

from poise.core.misuse import Misuse
from poise.core.threat import Epsilon


class CsvLines:
    """A file while it is read: lines that begin with # first, then cells.

    Args:
        text: of the file.
        name: what complaints call it.
    """

    def __init__(self, text: str, name: str) -> None:
        lines = list(io.StringIO(text, newline=""))
        self._comments = next((at for at, line in enumerate(lines) if not line.startswith("#")), len(lines))
        self._reader = csv.reader(io.StringIO("".join(lines[self._comments :]), newline=""), strict=True)
        self.name = name
        self.described = lines[: self._comments]
        self.line = 1

    def wrong(self, what: str) -> Misuse:
        """A complaint about the line that was read last."""
        return Misuse(f"{self.name}, line {self.line}: {what}")

    def next(self) -> list[str] | None:
        """The cells of the next line that is not empty; None at the end."""
        self.line = self._comments + self._reader.line_num + 1
        for cells in self._reader:
            if cells:
                return cells
            self.line = self._comments + self._reader.line_num + 1
        return None

    def epsilon(self, text: str) -> float:
        """A cell that holds an epsilon, such as 8/255."""
        try:
            return float(Epsilon(text))
        except Misuse as error:
            raise self.wrong(str(error)) from None

    def whole(self, name: str, text: str) -> int:
        """A cell that holds a whole number from 0 up; the name is what complaints call it."""
        if not (text.isascii() and text.isdigit()):
            raise self.wrong(f"{name} is a whole number from 0 up; got {text!r}")
        return int(text)

    def number(self, name: str, text: str) -> float:
        """A cell that holds a number; the name is what complaints call it."""
        try:
            return float(text)
        except ValueError:
            raise self.wrong(f"{name} is a number; got {text!r}") from None
