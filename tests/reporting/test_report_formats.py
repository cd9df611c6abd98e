"""The report as Markdown and as JSON holds the figures of the page."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest

from poise.cli import main
from poise.core.misuse import Misuse
from poise.evaluation import write_profile
from poise.reporting import report_markdown, report_record, write_report
from tests.reporting.page import Page
from tests.reporting.samples import history, profile, subject
from tests.reporting.test_mixtures import _frontier


@pytest.fixture
def runs():
    mixed = replace(subject("mixed", (8, 7, 6)), frontier=_frontier())
    return [subject("new", (9, 8, 5)), subject("old|er", (10, 4, 0), images=12), mixed]


def _tables(markdown):
    """Tables as lists of rows of cells, with escapes undone."""
    found, last = [], -2
    for number, line in enumerate(markdown.splitlines()):
        if line.startswith("|"):
            if number != last + 1:
                found.append([])
            cells = re.split(r"(?<!\\) ?\| ?", line)[1:-1]
            found[-1].append([re.sub(r"\\(.)", r"\1", cell) for cell in cells])
            last = number
    return [[table[0], *table[2:]] for table in found]


def test_every_table_of_the_page_stands_in_the_markdown(runs, tmp_path):
    write_report(runs, tmp_path / "r.html", title="t")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    tables = _tables(report_markdown(runs, "t"))
    bodies = [table[1:] for table in tables]
    drawn = [table for table in page.tables if table[0][0] != "robust accuracy, %"]
    assert len(drawn) == len(tables) > 8
    assert all(table[1:] in bodies for table in drawn)


def test_markdown_opens_with_sentences_and_folds_up_what_is_long(runs):
    text = report_markdown(runs, "A *report*")
    head, *folded = text.split("<details>")
    assert head.startswith("## A \\*report\\*\n\n- ")
    assert "Clean accuracy is highest for new" in head
    assert "old\\|er" in head
    assert len(head.splitlines()) < 40
    assert text.count("</details>") == len(folded)
    assert [re.match("<summary>(\\w+)", each)[1] for each in folded] == [
        "Accuracy", "Accuracy", "Mixtures", "Training", "Origin", "Origin", "Origin",
    ]  # fmt: skip


def test_json_holds_what_the_page_draws(runs, tmp_path):
    write_report(runs, tmp_path / "r.html", title="t")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    record = json.loads(json.dumps(report_record(runs, "t"), allow_nan=False))
    for number, chart in enumerate(record["accuracy"], 1):
        assert {line["name"]: line["y"] for line in chart["lines"]} == {
            name: trace["y"] for name, trace in page.lines(f"accuracy-{number}").items()
        }
        for line, band in zip(chart["lines"], page.bands(f"accuracy-{number}"), strict=True):
            assert [*line["high"], *reversed(line["low"])] == band["y"]
    for number, chart in enumerate(record["training"], 1):
        assert [line["y"] for line in chart["lines"]] == [
            trace["y"] for trace in page.lines(f"training-{number}").values()
        ]
    new = record["groups"][0]["runs"][0]
    assert (new["name"], new["clean"]["value"], new["robust"]["value"]) == ("new", 0.9, 0.5)
    assert record["mixtures"][0]["tried"][1]["name"] == "alpha <0.9> (chosen)"
    assert record["origins"][0]["recipe"] == "data: digits\n"


def test_a_figure_that_is_no_number_is_null():
    broken = replace(subject("a"), history=[row | {"train/loss": math.nan} for row in history()])
    charts = report_record([broken], "t")["training"]
    assert "Training loss" not in [chart["title"] for chart in charts]
    mended = replace(broken, history=[*broken.history, *history()])
    (loss,) = (chart for chart in report_record([mended], "t")["training"] if chart["title"] == "Training loss")
    assert loss["lines"][0]["y"][:3] == [None] * 3


def test_the_command_writes_either_beside_the_page(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("data: digits\n")
    write_profile(profile((9, 8, 5)), tmp_path / "profile.parquet")
    for format_, ending in (("markdown", "md"), ("json", "json"), ("html", "html")):
        assert main(["report", str(tmp_path), "--format", format_, "--title", "Mine"]) == 0
        assert "Mine" in (tmp_path / f"report.{ending}").read_text(encoding="utf-8")
    assert main(["report", str(tmp_path), "--format", "pdf"]) == 2


def test_nothing_to_report_is_refused():
    for made in (report_markdown, report_record):
        with pytest.raises(Misuse, match="at least one run"):
            made([], "t")
