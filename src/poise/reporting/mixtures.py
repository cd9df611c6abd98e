"""What `poise mix` tried: the frontier between both branches, and what the gate does to clean and attacked images."""

from __future__ import annotations

from html import escape

from poise.evaluation.frontier import Alphas, Frontier
from poise.reporting import markup
from poise.reporting.chart import Chart, Line, Styled
from poise.reporting.palette import Style
from poise.reporting.summary import interval, percent


def frontier_chart(runs: Styled) -> Chart | None:
    """Clean over robust accuracy of every mixture that was tried, one line a run; None where none was mixed."""
    lines = []
    for subject, style in runs:
        if subject.frontier is not None:
            points = sorted(subject.frontier.points, key=lambda point: (point.robust.value, point.clean.value))
            lines.append(
                Line(
                    subject.name,
                    style,
                    tuple(100 * point.robust.value for point in points),
                    tuple(point.clean.value for point in points),
                    tuple(point.clean for point in points),
                )
            )
    if not lines:
        return None
    title = "Clean over robust accuracy of mixtures, on validation images"
    return Chart(title=title, x_label="robust accuracy, %", shares=True, lines=tuple(lines))


def alpha_chart(name: str, alphas: Alphas) -> Chart:
    """Shares of clean and of attacked images over alpha."""
    width = (alphas.high - alphas.low) / len(alphas.clean)
    middles = tuple(alphas.low + width * (index + 0.5) for index in range(len(alphas.clean)))
    lines = tuple(
        Line(kind, Style.nth(index), middles, tuple(count / max(sum(counts), 1) for count in counts))
        for index, (kind, counts) in enumerate((("clean", alphas.clean), ("attacked", alphas.attacked)))
    )
    return Chart(title=f"Alpha given by the gate of {name}", x_label="alpha", shares=True, lines=lines)


def frontier_table(name: str, frontier: Frontier) -> str:
    """Every mixture that was tried with its intervals; the chosen one is marked."""
    rows = [
        [
            escape(point.name) + (" (chosen)" if index == frontier.chosen else ""),
            f"{percent(point.clean.value)} {escape(interval(point.clean))}",
            f"{percent(point.robust.value)} {escape(interval(point.robust))}",
        ]
        for index, point in enumerate(frontier.points)
    ]
    caption = f"{name}: {frontier.images} validation images, {frontier.threat}, {frontier.suite}"
    return markup.table(["mixture", "clean, %", "robust, %"], rows, caption)
