"""A chart as plotly's JSON. Whatever depends on light or dark is left to `report.css`."""

from __future__ import annotations

import html
from typing import Any

from poise.reporting.chart import Chart, Line

Json = dict[str, Any]

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_SPIKE: Json = {"showspikes": True, "spikemode": "across", "spikethickness": 1, "spikedash": "solid"}
_MOST_MARKERS = 40
_BAND = 0.16


def plotly_figure(chart: Chart) -> Json:
    """Data, layout and configuration of a chart, as `Plotly.newPlot` takes them."""
    bands = [_band(line) | _entry(at) for at, line in enumerate(chart.lines) if line.intervals]
    return {
        "data": [*bands, *(_trace(line, chart) | _entry(at) for at, line in enumerate(chart.lines))],
        "layout": _layout(chart),
        "config": {"responsive": True, "displayModeBar": False},
    }


def _entry(at: int) -> Json:
    """Which entry of the page's legend shows and hides a trace."""
    return {"legendgroup": str(at)}


def _band(line: Line) -> Json:
    """The intervals as a shaded area: along the upper ends, back along the lower ones."""
    upper = [estimate.high for estimate in line.intervals]
    lower = [estimate.low for estimate in line.intervals]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*line.x, *reversed(line.x)],
        "y": [*upper, *reversed(lower)],
        "fill": "toself",
        "fillcolor": line.style.faint(_BAND),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _trace(line: Line, chart: Chart) -> Json:
    trace: Json = {
        "type": "scatter",
        "mode": "lines+markers" if len(line.x) <= _MOST_MARKERS else "lines",
        "name": html.escape(line.name, quote=False),
        "x": list(line.x),
        "y": list(line.y),
        "line": {"color": line.style.colour, "width": 2.5, "dash": _dash(line)},
        "cliponaxis": False,
        "marker": {"color": line.style.colour, "symbol": line.style.symbol, "size": 8},
        "hovertemplate": "%{y:.1%}" if chart.shares else "%{y:.6~g}",
    }
    if line.intervals:
        trace["customdata"] = [[estimate.low, estimate.high] for estimate in line.intervals]
        trace["hovertemplate"] = "%{y:.1%} [%{customdata[0]:.1%}, %{customdata[1]:.1%}]"
    return trace


def _dash(line: Line) -> str:
    return ",".join(f"{length}px" for length in line.style.dash) or "solid"


def _upward(chart: Chart) -> Json:
    if not chart.shares:
        return {"nticks": 6}
    return (
        {"range": [0, 1], "tickformat": ".0%", "dtick": 0.2}
        if chart.whole
        else {"rangemode": "tozero", "tickformat": ".1%"}
    )


def _layout(chart: Chart) -> Json:
    axis: Json = {"fixedrange": True, "zeroline": False, "automargin": True, "title": {"standoff": 12}}
    across = axis | {"title": {"text": chart.x_label, "standoff": 12}, "showgrid": False, "ticks": "outside"} | _SPIKE
    upward = axis | _upward(chart)
    places = {place for line in chart.lines for place in line.x}
    if all(place.is_integer() for place in places) and max(places) - min(places) <= 12:
        across["dtick"] = 1
    return {
        "font": {"family": _FONT, "size": 13},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 48, "r": 12, "t": 12, "b": 48},
        "showlegend": False,
        "hovermode": "x unified",
        "hoverlabel": {"namelength": -1},
        "dragmode": False,
        "xaxis": across,
        "yaxis": upward,
    }
