"""The tables of a comparison as plain text, the same in the terminal, in Markdown and on the page."""

from __future__ import annotations

from dataclasses import dataclass

from poise.evaluation import Estimate
from poise.evaluation.comparison import Comparison, worst_classes
from poise.evaluation.flips import Change, Count, Side, rate, spelled
from poise.evaluation.gate import Outcome, Verdict

MOST_CLASSES = 20
"""Classes that a table lists; the others are as good or better."""

MARKS: dict[Outcome, str] = {"passed": "✓", "failed": "✗", "cannot be judged": "?"}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A table.

    Args:
        title: what stands above it.
        headings: one a column; the first column names the rows.
        rows: its cells.
        note: what stands below it; "" for nothing.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def flip_rows(comparison: Comparison) -> Rows:
    """Accuracies, flips and McNemar's test at every epsilon; attack noise where it was measured."""
    noise = tuple(f"noise of {floor.of}" for floor in comparison.noise)
    rows = []
    for point, (found, change) in enumerate(zip(comparison.flips, comparison.accuracy_changes, strict=True)):
        rows.append(
            (
                spelled(found.epsilon),
                share(found.old_right),
                share(found.new_right),
                figure(change, signed=True),
                share(found.lost),
                share(found.gained),
                share(found.union),
                probability(found.mcnemar),
                *(figure(floor.rate(point)) for floor in comparison.noise),
            )
        )
    return Rows(
        title="What is lost and gained, in % of all images",
        headings=("epsilon", "old right", "new right", "change", "lost", "gained", "or clean", "p", *noise),
        rows=tuple(rows),
        note=(
            "Brackets hold 95 % confidence intervals, exact for shares, and for changes such as hold for any number of "
            "images. 'Or clean' counts what is lost here, on the clean image, or both. p is McNemar's: how likely "
            "losses and gains would differ so much if both were equally likely. A change's bracket takes less for "
            "granted, so that it may hold 0 where p is small."
        ),
    )


def rate_rows(comparison: Comparison) -> Rows:
    """The further rates at every epsilon: joint flips, backward trust, relative rate."""
    rows = [
        (
            spelled(found.epsilon),
            share(found.joint),
            "-" if found.trust is None else share(found.trust),
            "-" if found.relative is None else f"{found.relative:.3f}",
        )
        for found in comparison.flips
    ]
    return Rows(
        title="Further rates",
        headings=("epsilon", "lost here and clean, %", "backward trust, %", "relative rate"),
        rows=tuple(rows),
        note=(
            "Backward trust is the share of what the old model gets right that stays right. The relative rate is 1 "
            "where the new model loses as much as one would that knows nothing of the old one."
        ),
    )


def outcome_rows(comparison: Comparison) -> Rows:
    """The four outcomes of old against new, in images."""
    rows = [
        (
            spelled(found.epsilon),
            *(counted(each) for each in (found.stays_right, found.lost, found.gained, found.stays_wrong)),
        )
        for found in comparison.flips
    ]
    return Rows(
        title="Old against new, in images",
        headings=("epsilon", "stays right", "lost", "gained", "stays wrong"),
        rows=tuple(rows),
    )


def class_rows(comparison: Comparison) -> Rows:
    """The classes that lose most at the largest epsilon."""
    worst = worst_classes(comparison, len(comparison.flips) - 1)
    rows = [
        (name, str(clean.lost.total), share(clean.lost), share(robust.lost), share(robust.union), share(robust.gained))
        for name, clean, robust in worst[:MOST_CLASSES]
    ]
    at = spelled(comparison.flips[-1].epsilon)
    rest = len(worst) - MOST_CLASSES
    return Rows(
        title="Classes, those that lose most first, in %",
        headings=("class", "images", "lost clean", f"lost at {at}", "either", f"gained at {at}"),
        rows=tuple(rows),
        note=f"{rest} more classes lose no larger share." if rest > 0 else "",
    )


def gate_rows(verdicts: tuple[Verdict, ...]) -> Rows:
    """What became of each limit of a gate."""
    return Rows(
        title="Release gate",
        headings=("limit", "verdict", "why"),
        rows=tuple(
            (str(verdict.limit), f"{MARKS[verdict.outcome]} {verdict.outcome}", verdict.reason) for verdict in verdicts
        ),
    )


def change_rows(changed: tuple[Change, ...]) -> Rows:
    """Examples that flipped, and what changed about each."""
    return Rows(
        title="Images that flipped",
        headings=("image", "class", "flip", "at epsilon", "old", "new"),
        rows=tuple(
            (change.id, change.label, change.kind, span(change.epsilons), side(change.old), side(change.new))
            for change in changed
        ),
    )


def span(epsilons: tuple[float, ...]) -> str:
    """Neighbouring grid points by their ends."""
    first, last = spelled(epsilons[0]), spelled(epsilons[-1])
    return first if first == last else f"{first} to {last}"


def side(found: Side) -> str:
    """What one model makes of an example."""
    if found.held_to is None:
        return f"wrong: {found.prediction}"
    if found.broken_from is None:
        return f"holds to {spelled(found.held_to)}"
    return f"holds to {spelled(found.held_to)}, broken at {spelled(found.broken_from)} by {found.broken_by}"


def share(count: Count) -> str:
    """A share in percent with its exact interval; a range while verdicts are open."""
    found = rate(count)
    if count.settled:
        return figure(found)
    ends = (100 * each / count.total for each in (count.certain, count.possible))
    return f"{'..'.join(f'{end:.2f}' for end in ends)} {_interval(found)}"


def figure(estimate: Estimate, *, signed: bool = False) -> str:
    """An estimate in percent with its interval: "1.20 [0.62, 2.09]"."""
    return f"{100 * estimate.value:{'+' if signed else ''}.2f} {_interval(estimate, signed=signed)}"


def _interval(estimate: Estimate, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"[{100 * estimate.low:{sign}.2f}, {100 * estimate.high:{sign}.2f}]"


def counted(count: Count) -> str:
    """A number of examples; a range while verdicts are open."""
    return str(count.certain) if count.settled else f"{count.certain}..{count.possible}"


def probability(value: float) -> str:
    """A p-value."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
