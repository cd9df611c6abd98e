"""Folders that the same command finds again, and what was begun there."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import signature
from pathlib import Path

from poise.commands.recipe import read_recipe, refuse_changes
from poise.commands.run import Run, fresh_path
from poise.core.files import write_text
from poise.core.run_folder import RunFolder
from poise.training import on_main

_MARK = "command.mark"


def folder_of(wanted: Path, mark: str, ended: Callable[[Path], bool]) -> Path:
    """The newest of a folder and its numbered followers that a command with this mark began and has not ended.

    Args:
        wanted: the folder; where none was begun, it or the first free one behind it.
        mark: a digest of what makes two commands the same.
        ended: whether the work in a folder is at its end.
    """
    own = re.compile(rf"{re.escape(wanted.name)}(-\d+)?")
    found = (path for path in wanted.parent.glob(f"*/{_MARK}") if own.fullmatch(path.parent.name))
    marks = [path for path in found if path.read_text(encoding="utf-8") == mark]
    newest = sorted(marks, key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path.parent for path in newest if not ended(path.parent)), None) or fresh_path(wanted)


def marked(folder: Path, mark: str) -> Path:
    """The folder, made where it is absent, with the mark by which it is found again."""
    if not (folder / _MARK).exists():
        write_text(folder / _MARK, mark)
    return folder


def run_in(make: Callable[..., Run], *arguments: object, out: Path, **options: object) -> Run:
    """The run in a folder: as it is where it came to its end, else taken up, else begun.

    Args:
        make: `finetune`, `update` or `mix`.
        arguments: its own.
        out: the run's folder.
        options: its own, the same as when the run was begun.

    Raises:
        Misuse: where the run that is there was begun with other options.
    """
    folder = RunFolder(out)
    ended, begun = on_main(lambda: (folder.weights.is_file(), folder.recipe.is_file()))
    if not ended:
        return make(*arguments, out=out, resume=begun, **options)
    given = signature(make).bind_partial(*arguments, **options).arguments
    refuse_changes(
        folder,
        read_recipe(folder.recipe) | given,
        ignored=("trackers",),
        how="take another folder, or delete this one",
    )
    return Run(folder)
