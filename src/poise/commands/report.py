"""Put runs beside each other: a table in the terminal and a page to show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from poise.commands.attaching import attach_report, trackers_of
from poise.commands.run import fresh_path
from poise.commands.terminal import say
from poise.core.files import write_text
from poise.core.misuse import Misuse, suggestion
from poise.core.run_folder import RunFolder

if TYPE_CHECKING:
    from poise.reporting import Subject

Format = Literal["html", "markdown", "json"]

_ENDINGS: dict[Format, str] = {"html": ".html", "markdown": ".md", "json": ".json"}


def report(
    runs: list[Path | str] | Path | str,
    *,
    format: Format = "html",  # noqa: A002 - what people call it
    out: Path | str | None = None,
    title: str = "Robustness report",
    trackers: tuple[str, ...] | None = None,
) -> Path:
    """Print a table of runs and write a self-contained page with their curves, histories and recipes.

    Args:
        runs: run folders.
        format: html; or the same figures as markdown, for a pull request, or as json, for programs.
        out: the file to write; by default report.html, .md or .json in the run's folder, or in runs for several.
        title: headline of the report.
        trackers: where accelerate sends the report, as a file or to TensorBoard as text; by default, for a single run,
            where its training was sent; [] for nowhere.

    Returns:
        The report's path.

    Raises:
        Misuse: for a folder that is no run, and an unknown format.
    """
    from poise.reporting import print_table, read_subject  # noqa: PLC0415 - plotly is slow to import

    if format not in get_args(Format):
        raise Misuse(f"unknown format {format!r}; {suggestion(str(format), get_args(Format))}")
    if not runs:
        raise Misuse("name at least one run folder, e.g. poise report runs/a runs/b")
    folders = [Path(run) for run in ([runs] if isinstance(runs, (str, Path)) else runs)]
    subjects = [read_subject(folder) for folder in folders]
    alone = len(folders) == 1 and not out
    sent = [trackers_of(f"run:{folder.as_posix()}", trackers, own=alone) for folder in folders]
    target = Path(out) if out else _default_path(folders, _ENDINGS[format])
    print_table(subjects)
    _write(subjects, target, title, format)
    say(f"report: {target}")
    if any(sent):
        from poise.reporting import report_markdown  # noqa: PLC0415 - as above

        attach_report(folders, target, report_markdown(subjects, title), sent)
    return target


def _default_path(folders: Sequence[Path], ending: str) -> Path:
    alone = len(folders) == 1
    return RunFolder(folders[0]).report.with_suffix(ending) if alone else fresh_path(Path("runs") / f"report{ending}")


def _write(subjects: Sequence[Subject], target: Path, title: str, kind: Format) -> None:
    from poise.reporting import report_markdown, report_record, write_report  # noqa: PLC0415 - as above

    if kind == "html":
        write_report(subjects, target, title=title)
    elif kind == "markdown":
        write_text(target, report_markdown(subjects, title))
    else:
        record = json.dumps(report_record(subjects, title), allow_nan=False, indent=1, ensure_ascii=False)
        write_text(target, record + "\n")
