"""The figures that stand for a run: clean accuracy, robust accuracy, expected robustness, and what training took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poise.evaluation import Estimate, accuracy_curve, expected_robustness
from poise.reporting.conditions import Conditions
from poise.reporting.subject import Subject

MISSING = "-"
"""What stands in a table where there is no figure."""


@dataclass(frozen=True)
class SummaryRow:
    """One run in a table.

    Args:
        name: the run.
        clean: accuracy without an attack; None without a profile.
        robust: accuracy at the largest epsilon; None without a profile, and where no epsilon beyond 0 was attacked.
        expected: expected robustness; None where `robust` is.
        seconds: duration of training, if known.
    """

    name: str
    clean: Estimate | None
    robust: Estimate | None
    expected: Estimate | None
    seconds: float | None


def summary_rows(subjects: Sequence[Subject]) -> list[SummaryRow]:
    """A row for each subject, in their order; whether the rows are comparable is said by `conditions`."""
    return [_row(subject) for subject in subjects]


def _row(subject: Subject) -> SummaryRow:
    if subject.profile is None:
        return SummaryRow(subject.name, None, None, None, subject.seconds)
    curve = accuracy_curve(subject.profile)
    if not Conditions.of(subject.profile).attacked:
        return SummaryRow(subject.name, curve.clean, None, None, subject.seconds)
    return SummaryRow(subject.name, curve.clean, curve.robust, expected_robustness(subject.profile), subject.seconds)


def headings(conditions: Conditions | None) -> tuple[str, str, str, str, str]:
    """The headings of a table of summary rows."""
    robust = f"robust @ {conditions.largest}" if conditions and conditions.attacked else "robust"
    return ("model", "clean", robust, "expected robustness", "seconds")


def percent(share: float) -> str:
    """A share in [0, 1] in percent, with one decimal and without its sign: "93.9"."""
    return f"{100 * share:.1f}"


def interval(estimate: Estimate) -> str:
    """The interval of an estimate in percent: "[91.0, 96.1]"."""
    return f"[{percent(estimate.low)}, {percent(estimate.high)}]"


def duration(seconds: float | None) -> str:
    """Seconds with one decimal, or what stands for a missing figure."""
    return MISSING if seconds is None else f"{seconds:.1f}"


def unsettled(subject: Subject) -> int:
    """How many images of a subject's profile still lack a verdict at some epsilon; they count as robust there."""
    return 0 if subject.profile is None else subject.profile.unsettled
