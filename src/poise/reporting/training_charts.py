"""What a run noted down over its epochs: one chart a figure, so that any number of runs stays readable."""

from __future__ import annotations

from typing import Any

from poise.reporting.chart import LEVELS, Chart, Line, Styled, counted_in_levels
from poise.reporting.conditions import Conditions
from poise.reporting.subject import finite_number

_TITLES = {
    "epsilon": "Epsilon used in training",
    "train/loss": "Training loss",
    "train/accuracy": "Accuracy on the training batches",
    "validation/clean": "Clean accuracy on the validation images",
    "validation/robust": "Robust accuracy on the validation images",
    "validation/union_flips": "Lost against the old model on the validation images",
    "learning_rate": "Learning rate",
}
"""The known figures, in the order in which they are shown; others follow under their own names."""

_SHARES = {"accuracy", "clean", "robust", "expected", "flips", "clean_flips", "robust_flips", "union_flips"}
_NOT_DRAWN = {"epoch", "seconds"}


def training_charts(runs: Styled) -> list[Chart]:
    """A chart for each figure in the history of any run: first those known by name, then the others as they come."""
    noted = dict.fromkeys(figure for subject, _ in runs for row in subject.history for figure in row)
    figures = [figure for figure in dict.fromkeys([*_TITLES, *noted]) if figure in noted and figure not in _NOT_DRAWN]
    charts = [_chart(runs, figure) for figure in figures]
    return [chart for chart in charts if any(value is not None for line in chart.lines for value in line.y)]


def _chart(runs: Styled, figure: str) -> Chart:
    title, scale = _TITLES.get(figure, figure), 1.0
    if figure == "epsilon":
        levels = _in_levels(runs)
        title, scale = f"{title}, in units of {'1/255' if levels else 'the image range'}", LEVELS if levels else 1.0
    lines = []
    for subject, style in runs:
        rows = [row for row in subject.history if figure in row and finite_number(row.get("epoch")) is not None]
        if rows:
            epochs = tuple(float(row["epoch"]) + 1 for row in rows)
            lines.append(Line(subject.name, style, epochs, tuple(_scaled(row, figure, scale) for row in rows)))
    return Chart(title=title, x_label="epoch", shares=figure.rpartition("/")[2] in _SHARES, lines=tuple(lines))


def _scaled(row: dict[str, Any], figure: str, scale: float) -> float | None:
    value = finite_number(row[figure])
    return None if value is None else value * scale


def _in_levels(runs: Styled) -> bool:
    """Whether every run was judged on a grid of whole multiples of 1/255; only a profile tells a run's norm."""
    return all(subject.profile is not None and counted_in_levels(Conditions.of(subject.profile)) for subject, _ in runs)
