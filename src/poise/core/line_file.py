"""A file of lines that is only appended to, and survives the end of its process at any instant."""

from __future__ import annotations

import os
from pathlib import Path
from weakref import finalize


class LineFile:
    """A file open for appending. What it holds already stays as it is, but for a last line that was torn.

    Nothing is rewritten, so that whole lines outlive a full disk and a process that is killed. The folder and the file
    are made where there are none.

    Args:
        path: the file.

    Raises:
        OSError: where it cannot be opened or cut.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        finalize(self, os.close, self._handle)
        whole = _end_of_lines(path)
        os.truncate(self._handle, whole)
        self.empty = not whole
        """Whether it held no whole line when it was opened."""

    def append(self, text: str) -> None:
        """Append text; it survives the end of the process at any instant from when this returns.

        Raises:
            OSError: for a full disk and the like; part of the text may be in the file then.
        """
        left = text.encode()
        while left:
            left = left[os.write(self._handle, left) :]


def _end_of_lines(path: Path) -> int:
    """Where the last whole line of a file ends."""
    end = 0
    with path.open("rb") as handle:
        for line in handle:
            end += len(line) if line.endswith(b"\n") else 0
    return end
