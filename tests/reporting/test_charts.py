from __future__ import annotations

import math
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from poise.evaluation import share
from poise.reporting.chart import accuracy_chart
from poise.reporting.conditions import Conditions
from poise.reporting.figure import plotly_figure
from poise.reporting.markup import embedded_json
from poise.reporting.palette import BACKGROUNDS, COLOURS, Style
from poise.reporting.training_charts import training_charts
from tests.reporting.samples import history, subject


def _chart(one):
    return accuracy_chart([(one, Style.nth(0))], Conditions.of(one.profile))


def test_the_curve_holds_the_profiles_accuracies_and_intervals():
    (line,) = _chart(subject(held=(9, 8, 5))).lines
    assert line.x == (0, 1, 2)
    assert line.y == (0.9, 0.8, 0.5)
    assert line.intervals == (share(9, 10), share(8, 10), share(5, 10))


@pytest.mark.parametrize(
    ("changes", "places", "label"),
    [
        ({"epsilons": (0.0, 2 / 255, 16 / 255)}, (0, 2, 16), "epsilon (linf, in units of 1/255)"),
        ({"epsilons": (0.0, 0.01, 0.02)}, (0, 0.01, 0.02), "epsilon (linf, in units of the image range)"),
        ({"epsilons": (0.0, 0.25, 0.5), "norm": "l2"}, (0, 0.25, 0.5), "epsilon (l2, in units of the image range)"),
        ({"epsilons": (0.0, 1.0, 2.0), "norm": "l2"}, (0, 1, 2), "epsilon (l2, in units of the image range)"),
    ],
)
def test_epsilon_is_counted_in_levels_only_where_the_grid_lies_on_them(changes, places, label):
    chart = _chart(subject(**changes))
    assert chart.lines[0].x == places
    assert chart.x_label == label


def test_a_band_runs_along_the_upper_ends_and_back_along_the_lower_ones():
    band, line = plotly_figure(_chart(subject(held=(9, 8, 5))))["data"]
    ends = [share(count, 10) for count in (9, 8, 5)]
    assert band["x"] == [0, 1, 2, 2, 1, 0]
    assert band["y"] == [*(end.high for end in ends), *(end.low for end in reversed(ends))]
    assert line["customdata"] == [[end.low, end.high] for end in ends]


def test_every_figure_of_the_history_has_a_chart():
    charts = {chart.title: chart for chart in training_charts([(subject(), Style.nth(0))])}
    assert list(charts) == [
        "Epsilon used in training, in units of 1/255",
        "Training loss",
        "Accuracy on the training batches",
        "Clean accuracy on the validation images",
        "Robust accuracy on the validation images",
        "Learning rate",
    ]
    epsilon = charts["Epsilon used in training, in units of 1/255"].lines[0]
    assert epsilon.x == (1, 2, 3)
    assert epsilon.y == pytest.approx((0, 1, 2))
    assert charts["Accuracy on the training batches"].lines[0].y == (0.25, 0.5, 0.75)
    assert [chart.shares for chart in charts.values()] == [False, False, True, True, True, False]


def test_a_run_stays_out_of_charts_it_noted_nothing_for():
    quiet = replace(subject("quiet"), history=[{"epoch": 0, "train/loss": 1.0, "train/kl": 0.5}])
    charts = {chart.title: chart for chart in training_charts([(subject("full"), Style.nth(0)), (quiet, Style.nth(1))])}
    assert [line.name for line in charts["Training loss"].lines] == ["full", "quiet"]
    assert [line.name for line in charts["Learning rate"].lines] == ["full"]
    assert [(line.name, line.y) for line in charts["train/kl"].lines] == [("quiet", (0.5,))]


def test_what_is_not_finite_leaves_a_gap():
    rows = history(3)
    rows[1]["train/loss"] = math.nan
    (loss,) = [
        chart for chart in training_charts([(replace(subject(), history=rows), Style.nth(0))]) if "loss" in chart.title
    ]
    assert loss.lines[0].y == (2.0, None, 1.0)
    assert "null" in embedded_json(plotly_figure(loss))


def test_an_empty_history_has_no_charts():
    assert training_charts([(replace(subject(), history=[]), Style.nth(0))]) == []


def test_plotly_knows_every_word_of_a_figure():
    runs = [(subject(), Style.nth(index)) for index in range(7)]
    for chart in [_chart(subject()), *training_charts(runs)]:
        figure = plotly_figure(chart)
        go.Figure(data=figure["data"], layout=figure["layout"])


def _luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_colours_stand_out_on_both_backgrounds(colour, background):
    """A contrast of 3:1, which WCAG 2.2 (1.4.11) asks of graphics."""
    high, low = sorted((_luminance(colour), _luminance(background)), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 3


def test_many_runs_are_all_drawn_differently():
    assert len({Style.nth(index) for index in range(42)}) == 42


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "\u2028"])
def test_embedded_json_cannot_leave_its_element(text):
    embedded = embedded_json({"name": text})
    assert not set("<>&\u2028") & set(embedded)
    with pytest.raises(ValueError, match="JSON"):
        embedded_json(math.nan)


def test_a_line_and_its_band_belong_to_the_same_entry_of_the_legend_even_under_equal_names():
    one, other = subject(), subject()
    chart = accuracy_chart([(one, Style.nth(0)), (other, Style.nth(1))], Conditions.of(one.profile))
    traces = plotly_figure(chart)["data"]
    assert [(trace["legendgroup"], trace.get("fill")) for trace in traces] == [
        ("0", "toself"),
        ("1", "toself"),
        ("0", None),
        ("1", None),
    ]
