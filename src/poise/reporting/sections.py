"""The sections of the report, from top to bottom; each is markup, and "" where there is nothing to say."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from poise.evaluation import Estimate
from poise.reporting import markup
from poise.reporting.chart import Chart, DataTable, Styled, accuracy_charts, members
from poise.reporting.conditions import Group, incomparable
from poise.reporting.figure import plotly_figure
from poise.reporting.mixtures import frontier_table, mixture_charts
from poise.reporting.origin import origin
from poise.reporting.sentences import sentences_of, training_sentences, warnings_of
from poise.reporting.summary import MISSING, SummaryRow, duration, headings, interval, percent, summary_rows
from poise.reporting.training_charts import training_charts


def summary(groups: Sequence[Group]) -> str:
    """What the figures say, in plain sentences, with all that a reader must know before trusting them."""
    apart = incomparable(groups)
    blocks = [markup.paragraphs([apart], class_="warning")] if apart else []
    for group in groups:
        said, warnings = sentences_of(group), warnings_of(group)
        if apart and (said or warnings):
            blocks.append(markup.element("h3", escape(str(group))))
        blocks += [markup.paragraphs(said), markup.paragraphs(warnings, class_="warning")]
    return "\n".join(filter(None, blocks)) or markup.paragraphs(["No run has been profiled yet."])


def results(groups: Sequence[Group], runs: Styled) -> str:
    """A table for each group of comparable runs."""
    return "\n".join(_table(group, runs) for group in groups)


def _table(group: Group, runs: Styled) -> str:
    rows = summary_rows(group.subjects)
    lines = [
        [markup.run_name(style, row.name), *_cells(row)]
        for row, (_, style) in zip(rows, members(group, runs), strict=True)
    ]
    model, *figures, seconds = headings(group.conditions)
    return markup.table([model, *(f"{figure}, %" for figure in figures), f"training, {seconds}"], lines, str(group))


def _cells(row: SummaryRow) -> list[str]:
    return [*(_figure(estimate) for estimate in (row.clean, row.robust, row.expected)), duration(row.seconds)]


def _figure(estimate: Estimate | None) -> str:
    if estimate is None:
        return MISSING
    return f"<b>{percent(estimate.value)}</b> {markup.element('span', interval(estimate), class_='interval')}"


def curves(groups: Sequence[Group], runs: Styled) -> str:
    """Accuracy over epsilon, one chart for each group of comparable runs that were attacked."""
    drawn = [drawn_chart(chart, f"accuracy-{at}", str(groups[at - 1])) for at, chart in accuracy_charts(groups, runs)]
    return markup.section("Accuracy over epsilon", "\n".join(drawn)) if drawn else ""


def mixtures(runs: Styled) -> str:
    """What was tried where two models were mixed, and what a gate does."""
    charts = mixture_charts(runs)
    tables = [frontier_table(subject.name, subject.frontier) for subject, _ in runs if subject.frontier is not None]
    drawn = [drawn_chart(chart, key, chart.title) for key, chart in charts]
    if not drawn:
        return ""
    parts = [drawn[0], *tables, *drawn[1:]]
    return markup.section("Mixtures", "\n".join(parts))


def training(runs: Styled) -> str:
    """How the tasks were taken up, and what was noted down over the epochs, one chart a figure."""
    drawn = [drawn_chart(chart, f"training-{at}", chart.title) for at, chart in enumerate(training_charts(runs), 1)]
    said, warnings = training_sentences([subject for subject, _ in runs])
    charts = markup.element("div", *drawn, class_="grid") if drawn else ""
    blocks = (markup.paragraphs(said), markup.paragraphs(warnings, class_="warning"), charts)
    told = "\n".join(filter(None, blocks))
    return markup.section("Training", told) if told else ""


def drawn_chart(chart: Chart, key: str, caption: str, data_table: str = "") -> str:
    """A chart with its legend and, folded up, its data.

    Args:
        chart: what to draw.
        key: its name on the page, which no other chart has.
        caption: plain text above it.
        data_table: the table of its data as markup; by default its lines, with shares to one decimal.
    """
    legend = markup.element(
        "ul", *(markup.element("li", markup.run_name(line.style, line.name)) for line in chart.lines), class_="legend"
    )
    plot = markup.element(
        "div", id=key, class_="plot", role="img", aria_label=f"{chart.title}: the data follow as a table"
    )
    data = markup.element("script", markup.embedded_json(plotly_figure(chart)), type="application/json", data_for=key)
    caption = markup.element("figcaption", escape(caption))
    return markup.element("figure", caption, legend, plot, data, markup.details("Data", data_table or _data(chart)))


def _data(chart: Chart) -> str:
    found = DataTable.of(chart)
    rows = [[cell if isinstance(cell, str) else _figure(cell) for cell in row] for row in found.rows]
    return markup.table(found.headings, rows)


def origins(runs: Styled) -> str:
    """Where every run comes from: digests, versions and recipe."""
    return "\n".join(origin(subject, style) for subject, style in runs)
