"""Put runs beside each other: a table in the terminal and a page to show."""

from __future__ import annotations

from pathlib import Path

from poise.commands.run import fresh_path
from poise.commands.terminal import say
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder


def report(
    runs: list[Path | str] | Path | str, *, out: Path | str | None = None, title: str = "Robustness report"
) -> Path:
    """Print a table of runs and write a self-contained page with their curves, histories and recipes.

    Args:
        runs: run folders.
        out: the page to write; by default report.html in the run's folder, or runs/report.html for several.
        title: headline of the page.

    Returns:
        The page's path.

    Raises:
        Misuse: for a folder that is no run.
    """
    from poise.reporting import print_table, read_subject, write_report  # noqa: PLC0415 - plotly is slow to import

    if not runs:
        raise Misuse("name at least one run folder, e.g. poise report runs/a runs/b")
    runs = [runs] if isinstance(runs, (str, Path)) else runs
    subjects = [read_subject(Path(run)) for run in runs]
    alone = RunFolder(Path(runs[0])).report if len(runs) == 1 else None
    target = Path(out) if out else alone or fresh_path(Path("runs/report.html"))
    print_table(subjects)
    write_report(subjects, target, title=title)
    say(f"report: {target}")
    return target
