"""What the figures say, in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from poise.core.threat import Epsilon
from poise.evaluation import Estimate, certified_curve
from poise.reporting.conditions import Group, listed
from poise.reporting.subject import Subject
from poise.reporting.summary import SummaryRow, interval, percent, summary_rows, unsettled

_Measure = Callable[[SummaryRow], Estimate | None]


def sentences_of(group: Group) -> list[str]:
    """Who is ahead in each figure, and whether the intervals let one say so.

    Returns:
        One sentence a figure, then one on overlapping intervals where there are any. Plain text, not yet escaped.
    """
    if group.conditions is None:
        return []
    rows = summary_rows(group.subjects)
    measures: list[tuple[str, _Measure]] = [
        ("clean accuracy", lambda row: row.clean),
        (f"robust accuracy at {group.conditions.norm} {group.conditions.largest}", lambda row: row.robust),
        ("expected robustness", lambda row: row.expected),
    ]
    found = [(name, [(row.name, figure) for row in rows if (figure := of(row))]) for name, of in measures]
    certified = [sentence for subject in group.subjects if (sentence := proven(subject))]
    if len(rows) == 1:
        alone = f"{rows[0].name}: {listed([f'{name} {_figure(own[0][1])}' for name, own in found if own])}."
        return [alone, *certified]
    lines = [_leader(name, figures) for name, figures in found if figures]
    if any(_close(figures) for _, figures in found if figures):
        lines.append("Where intervals overlap, these images do not tell the runs apart.")
    return lines + certified


def proven(subject: Subject) -> str:
    """What is certified of a run, at the middle and the end of its certified curve; "" for nothing."""
    if subject.profile is None or subject.profile.certificate is None:
        return ""
    curve, certificate = certified_curve(subject.profile), subject.profile.certificate
    if not certificate.radii.any():
        return f"Nothing is proven of {subject.name} ({certificate})."
    places = sorted({len(curve.epsilons) // 2, len(curve.epsilons) - 1})
    said = [f"{_figure(curve.accuracy[at])} at {Epsilon(float(f'{curve.epsilons[at]:.3g}'))}" for at in places]
    return f"{subject.name} is proven right ({certificate}) on {listed(said)}."


def warnings_of(group: Group) -> list[str]:
    """What a reader must know before trusting the figures: unfinished profiles, and what soundness checks object to."""
    objections = [
        f"{subject.name}: {finding}"
        for subject in group.subjects
        for finding in (subject.profile.findings if subject.profile else ())
        if finding.status in {"warn", "block"}
    ]
    parts = [
        f"{subject.name} is a part: {len(subject.profile)} of {subject.profile.header.whole} images were judged."
        for subject in group.subjects
        if subject.profile is not None and subject.profile.partial
    ]
    return (
        objections
        + parts
        + [
            f"{subject.name} is not settled: {count} of {len(subject.profile)} images lack a verdict at some epsilon "
            "and count as robust there."
            for subject in group.subjects
            if subject.profile is not None and (count := unsettled(subject))
        ]
    )


def training_sentences(subjects: Sequence[Subject]) -> tuple[list[str], list[str]]:
    """How runs took up their tasks, and what was the matter.

    Args:
        subjects: any runs; those that know nothing of it are passed over.

    Returns:
        A sentence for each that validated, and warnings. Plain text, not yet escaped.
    """
    known = [(subject, subject.uptake) for subject in subjects if subject.uptake is not None]
    said = [told for subject, uptake in known for told in uptake.sentences(subject.name, len(subject.history))]
    return said, [warning for subject, uptake in known for warning in uptake.warnings(subject.name)]


def _leader(measure: str, figures: Sequence[tuple[str, Estimate]]) -> str:
    """The sentence on one figure of several runs."""
    best = max(figure.value for _, figure in figures)
    leaders = [(name, figure) for name, figure in figures if figure.value == best]
    if len(leaders) == len(figures):
        return f"{_capital(measure)} is the same for all: {_figure(leaders[0][1])}."
    opening = f"{_capital(measure)} is highest for {listed([name for name, _ in leaders])}: {_figure(leaders[0][1])}"
    match _close(figures):
        case []:
            return f"{opening}; no other interval reaches it."
        case [only]:
            return f"{opening}; the interval of {only} overlaps with it."
        case several:
            return f"{opening}; the intervals of {listed(several)} overlap with it."


def _close(figures: Sequence[tuple[str, Estimate]]) -> list[str]:
    """Names of those behind the best whose intervals overlap with the best one's."""
    best = max((figure for _, figure in figures), key=lambda figure: figure.value)
    return [name for name, figure in figures if figure.value < best.value and figure.high >= best.low]


def _figure(estimate: Estimate) -> str:
    """The value and its interval, held together on one line by no-break spaces."""
    return f"{percent(estimate.value)} % {interval(estimate)}".replace(" ", "\u00a0")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
