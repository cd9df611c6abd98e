"""Put runs beside each other: a table in the terminal and a page to show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from poise.commands.run import fresh_path
from poise.commands.telling.attaching import attach_report, trackers_of
from poise.commands.telling.terminal import say
from poise.core.files import write_text
from poise.core.misuse import Misuse, check_choice
from poise.reporting.claim import OPEN, Entry, claim_issue, claim_record

if TYPE_CHECKING:
    from poise.reporting import Subject

Format = Literal["html", "markdown", "json", "robustbench"]

_NAMES: dict[Format, str] = {
    "html": "report.html",
    "markdown": "report.md",
    "json": "report.json",
    "robustbench": "claim.json",
}
_ENDINGS: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json"}


def report(
    runs: list[Path | str] | Path | str,
    *,
    format: Format | None = None,  # noqa: A002 - what people call it
    out: Path | str | None = None,
    title: str = "Robustness report",
    claim: Entry = Entry(),
    trackers: tuple[str, ...] | None = None,
) -> Path:
    """Print a table of runs and write a self-contained page with their curves, histories and recipes.

    Args:
        runs: run folders.
        format: html; or the same figures as markdown, for a pull request, or as json, for programs;
            or robustbench, a claim for its leaderboards as JSON, with the issue to open in Markdown beside it. By
            default what the ending of `out` says (.html, .md, .json), and html without one.
        out: the file to write; by default report.html, report.md, report.json or claim.json in the run's folder, or in
            runs for several.
        title: headline of the report.
        claim: what only you know of a claim: title, authors, link, venue, architecture, additional_data and the like;
            what is left out stands there as to be filled in.
        trackers: where accelerate sends the report, as a file or to TensorBoard as text; by default, for a single run,
            where its training was sent; [] for nowhere.

    Returns:
        The report's path.

    Raises:
        Misuse: for a folder that is no run, an unknown format, and a claim that RobustBench has no leaderboard for, or
            whose profile is not of AutoAttack, not of the whole test set, not finished or not sound.
    """
    from poise.reporting import print_table, read_subject  # noqa: PLC0415 - plotly is slow to import

    kind = _format(format, None if out is None else Path(out))
    if not runs:
        raise Misuse("name at least one run folder, e.g. poise report runs/a runs/b")
    listed = [runs] if isinstance(runs, (str, Path)) else runs
    folders = [Path(str(run).removeprefix("run:")) for run in listed]
    subjects = [read_subject(folder) for folder in folders]
    alone = len(folders) == 1 and not out
    sent = [trackers_of(f"run:{folder.as_posix()}", trackers, own=alone) for folder in folders]
    target = Path(out) if out else _default_path(folders, _NAMES[kind])
    print_table(subjects)
    if kind == "robustbench":
        _write_claim(subjects, target, claim)
    else:
        _write(subjects, target, title, kind)
    say(f"report: {target}")
    if any(sent):
        from poise.reporting import report_markdown  # noqa: PLC0415 - as above

        attach_report(folders, target, report_markdown(subjects, title), sent)
    return target


def _format(asked: Format | None, out: Path | None) -> Format:
    """What is written: as asked, or as the file is named.

    Raises:
        Misuse: for an unknown format, and a file that is named like another or like none.
    """
    if asked is not None:
        check_choice("format", asked, get_args(Format))
    named = None if out is None else _ENDINGS.get(out.suffix.lower())
    if asked is None and named is None and out is not None:
        raise Misuse(f"a report is written as {', '.join(_ENDINGS)}; got {out}, so say --format")
    if asked and named and Path(_NAMES[asked]).suffix != Path(_NAMES[named]).suffix:
        raise Misuse(f"{out} is named like {named}, and --format says {asked}")
    return asked or named or "html"


def _default_path(folders: Sequence[Path], name: str) -> Path:
    alone = len(folders) == 1
    return folders[0] / name if alone else fresh_path(Path("runs") / name)


def _write_claim(subjects: Sequence[Subject], target: Path, entry: Entry) -> None:
    if len(subjects) != 1 or subjects[0].profile is None:
        raise Misuse("a claim is about one run that has been profiled; name it alone, after poise profile")
    record, issue = claim_record(subjects[0].profile, entry), claim_issue(subjects[0].profile, entry)
    write_text(target, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_text(target.with_suffix(".md"), issue)
    if still := [name for name, value in record.items() if value == OPEN]:
        say(f"{target}: to be filled in: {', '.join(still)}")


def _write(subjects: Sequence[Subject], target: Path, title: str, kind: Format) -> None:
    from poise.reporting import report_markdown, report_record, write_report  # noqa: PLC0415 - as above

    if kind == "html":
        write_report(subjects, target, title=title)
    elif kind == "markdown":
        write_text(target, report_markdown(subjects, title))
    else:
        record = json.dumps(report_record(subjects, title), allow_nan=False, indent=1, ensure_ascii=False)
        write_text(target, record + "\n")
