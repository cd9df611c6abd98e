"""What `poise mix` tried: the frontier between both branches, and what the gate does to clean and attacked images."""

from __future__ import annotations

from html import escape

from poise.evaluation import Estimate
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


def mixture_charts(runs: Styled) -> list[tuple[str, Chart]]:
    """The frontier and each gate's alphas, under the names by which a page tells them apart; none without mixtures."""
    chart = frontier_chart(runs)
    alphas = [
        (f"alpha-{at}", alpha_chart(subject.name, subject.frontier.alphas))
        for at, (subject, _) in enumerate(runs, 1)
        if subject.frontier is not None and subject.frontier.alphas is not None
    ]
    return [] if chart is None else [("frontier", chart), *alphas]


def frontier_rows(frontier: Frontier) -> list[tuple[str, Estimate, Estimate]]:
    """Every mixture that was tried: its name, the chosen one marked, clean and robust accuracy."""
    return [
        (point.name + (" (chosen)" if index == frontier.chosen else ""), point.clean, point.robust)
        for index, point in enumerate(frontier.points)
    ]


def frontier_caption(name: str, frontier: Frontier) -> str:
    """What the accuracies of a frontier were measured on."""
    return f"{name}: {frontier.images} validation images, {frontier.threat}, {frontier.suite}"


def frontier_table(name: str, frontier: Frontier) -> str:
    """Every mixture that was tried with its intervals; the chosen one is marked."""
    rows = [
        [escape(tried), *(f"{percent(share.value)} {escape(interval(share))}" for share in shares)]
        for tried, *shares in frontier_rows(frontier)
    ]
    return markup.table(["mixture", "clean, %", "robust, %"], rows, frontier_caption(name, frontier))
