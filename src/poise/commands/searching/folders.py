"""Where a search lies: in a folder that the same command finds again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from poise.commands.run import fresh_path
from poise.core.files import write_text

_MARK = "study.mark"


def search_folder(mark: str, ended: Callable[[Path], bool]) -> Path:
    """The newest of runs/tune, runs/tune-2, ... that a command with this mark began and has not ended; or a fresh one.

    Args:
        mark: a digest of what makes two commands the same.
        ended: whether the search in a folder is at its end.
    """
    marks = [path for path in Path("runs").glob(f"tune*/{_MARK}") if path.read_text(encoding="utf-8") == mark]
    newest = sorted(marks, key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path.parent for path in newest if not ended(path.parent)), None) or fresh_path(Path("runs/tune"))


def marked(folder: Path, mark: str) -> Path:
    """The folder, made where it is absent, with the mark by which it is found again."""
    if not (folder / _MARK).exists():
        write_text(folder / _MARK, mark)
    return folder
