"""The page of a search: how it went on, and what each option did; one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from itertools import accumulate
from pathlib import Path
from typing import Any

from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from poise.core.files import write_text
from poise.reporting.palette import Style
from poise.reporting.tried import Tried, best_of

_KINDS: tuple[tuple[str, Callable[[Tried], bool]], ...] = (
    ("finished within the bounds", lambda each: each.eligible),
    ("outside the bounds", lambda each: each.state == "finished" and not each.within),
    ("stopped early", lambda each: each.state == "stopped"),
)
_ROW_PIXELS = 320


def write_search_page(tried: Sequence[Tried], path: Path, *, figure: str, logarithmic: Sequence[str] = ()) -> None:
    """Draw every trial's figure over the course of the search and over each option.

    The page loads nothing from anywhere and holds no date, so that the same trials give the same bytes.

    Args:
        tried: the trials that have ended.
        path: the HTML file; an older one is replaced whole.
        figure: what the search maximises, in [0, 1].
        logarithmic: options whose axis is logarithmic.
    """
    shown = [each for each in tried if each.value is not None]
    options = list(dict.fromkeys(name for each in shown for name in each.values))
    charts = make_subplots(rows=1 + len(options), cols=1, subplot_titles=["in the order of the trials", *options])
    _draw(charts, 1, shown, lambda each: each.number + 1, legend=True)
    _draw_best(charts, shown)
    for row, option in enumerate(options, 2):
        having = [each for each in shown if option in each.values]
        _draw(charts, row, having, partial(_place, option))
        if option in logarithmic:
            charts.update_xaxes(type="log", row=row, col=1)
    charts.update_yaxes(tickformat=".0%", title_text=figure)
    charts.update_layout(height=_ROW_PIXELS * (1 + len(options)), template="plotly_white")
    body = charts.to_html(include_plotlyjs=True, full_html=False, div_id="search", config={"displayModeBar": False})
    write_text(path, _page(tried, figure, body))


def _draw(
    charts: Figure, row: int, shown: Sequence[Tried], place: Callable[[Tried], Any], *, legend: bool = False
) -> None:
    """A mark for each trial, those of a kind alike."""
    for index, (name, belongs) in enumerate(_KINDS):
        chosen, style = [each for each in shown if belongs(each)], Style.nth(index)
        marks = Scatter(
            x=[place(each) for each in chosen],
            y=[each.value for each in chosen],
            name=name,
            legendgroup=name,
            showlegend=legend,
            mode="markers",
            marker={"color": style.colour, "symbol": style.symbol, "size": 9},
            text=[_told(each) for each in chosen],
            hovertemplate="%{text}<extra></extra>",
        )
        charts.add_trace(marks, row=row, col=1)


def _draw_best(charts: Figure, shown: Sequence[Tried]) -> None:
    """The best figure so far, as a staircase."""
    ordered = sorted((each for each in shown if each.eligible), key=lambda each: each.number)
    best = list(accumulate((each.value or 0.0 for each in ordered), max))
    line = Scatter(
        x=[each.number + 1 for each in ordered],
        y=best,
        name="best so far",
        mode="lines",
        line={"shape": "hv", "color": Style.nth(0).colour},
        hoverinfo="skip",
    )
    charts.add_trace(line, row=1, col=1)


def _place(option: str, each: Tried) -> Any:
    value = each.values[option]
    return str(value) if isinstance(value, bool | None) else value


def _told(each: Tried) -> str:
    figures = {name: f"{value:.1%}" for name, value in each.figures.items()}
    values = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in each.values.items()}
    lines = [f"trial {each.number}", *(f"{name} {value}" for name, value in {**figures, **values}.items())]
    return "<br>".join(map(escape, lines))


def _page(tried: Sequence[Tried], figure: str, body: str) -> str:
    best = best_of(list(tried))
    found = f"best: {_told(best).replace('<br>', ', ')}" if best else "no trial has finished within the bounds"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Search</title></head>\n'
        '<body style="font-family: system-ui, sans-serif; max-width: 60rem; margin: 2rem auto">\n'
        f"<h1>Search for {escape(figure)}</h1>\n<p>{len(tried)} trials; {found}</p>\n{body}\n</body></html>\n"
    )
