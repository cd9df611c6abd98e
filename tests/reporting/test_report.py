from __future__ import annotations

import re
from dataclasses import replace

import pytest
from plotly.offline import get_plotlyjs

from poise.core.misuse import Misuse
from poise.evaluation import share
from poise.reporting import Subject, write_report
from poise.reporting.palette import BACKGROUNDS, COLOURS
from tests.reporting.page import Page
from tests.reporting.samples import subject

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def source(tmp_path):
    """Writes a report and gives what stands in it, without the library."""

    def write(*subjects, title="A report"):
        write_report(subjects, tmp_path / "report.html", title=title)
        return (tmp_path / "report.html").read_text(encoding="utf-8").replace(get_plotlyjs(), "")

    return write


def test_the_table_holds_the_figures_and_their_intervals(source):
    page = Page(source(subject("new", (9, 8, 5)), subject("old", (10, 4, 0))))
    head, new, old = page.tables[0]
    assert head == ["model", "clean, %", "robust @ 2/255, %", "expected robustness, %", "training, seconds"]
    assert new == ["new", "90.0 [55.5, 99.7]", "50.0 [18.7, 81.3]", "75.0 [49.7, 100.0]", "4.5"]
    assert old[:3] == ["old", "100.0 [69.2, 100.0]", "0.0 [0.0, 30.8]"]
    assert (
        "Clean accuracy is highest for old: 100.0 % [69.2, 100.0]; the interval of new overlaps with it." in page.text
    )


def test_the_curve_and_the_table_below_it_hold_the_same_figures(source):
    page = Page(source(subject("new", (9, 8, 5)), subject("old", (10, 4, 0))))
    lines = page.lines("accuracy-1")
    assert lines["new"]["x"] == lines["old"]["x"] == [0, 1, 2]
    assert lines["new"]["y"] == [0.9, 0.8, 0.5]
    assert lines["old"]["y"] == [1.0, 0.4, 0.0]
    band = page.bands("accuracy-1")[0]
    assert band["y"][:3] == [share(count, 10).high for count in (9, 8, 5)]
    assert page.tables[1][0] == ["epsilon (linf, in units of 1/255)", "new, %", "old, %"]
    assert page.tables[1][1] == ["0", "90.0 [55.5, 99.7]", "100.0 [69.2, 100.0]"]
    assert page.tables[1][3] == ["2", "50.0 [18.7, 81.3]", "0.0 [0.0, 30.8]"]


def test_training_charts_and_their_tables_hold_the_history(source):
    page = Page(source(subject("new")))
    assert page.lines("training-1")["new"]["y"] == pytest.approx([0, 1, 2])
    assert page.lines("training-2")["new"]["y"] == [2.0, 1.5, 1.0]
    assert page.tables[3] == [["epoch", "new"], ["1", "2"], ["2", "1.5"], ["3", "1"]]
    assert page.tables[4] == [["epoch", "new, %"], ["1", "25.0"], ["2", "50.0"], ["3", "75.0"]]


def test_a_run_has_one_colour_in_all_charts(source):
    page = Page(source(subject("a"), subject("b", suite="fast"), subject("c")))
    for figure in page.figures.values():
        colours = {trace["name"]: trace["line"]["color"] for trace in figure["data"] if "name" in trace}
        assert colours.items() <= dict(zip("abc", COLOURS, strict=False)).items()
    assert set(page.lines("accuracy-1")) == {"a", "c"}
    assert set(page.lines("accuracy-2")) == {"b"}


def test_what_cannot_be_compared_stands_apart(source):
    page = Page(source(subject("a"), subject("b", suite="fast")))
    assert "Not comparable across tables: they differ in attack suite." in page.text
    assert [table[1][0] for table in page.tables[:2]] == ["a", "b"]
    assert "highest" not in page.text


def test_origins_are_complete(source):
    text = Page(source(replace(subject("new"), recipe="seed: 3\n"))).text
    for fact in (
        f"run:runs/a, digest {'a' * 32}",
        f"digits:test, test: 10 images, digest {'d' * 32}",
        "2: zero, one",
        "linf, epsilon 0, 1/255, 2/255",
        "suite pgd, by bisect in fp32, seed 7",
        "poise 0.1.0, torch 2.11.0",
        "seed: 3",
    ):
        assert fact in text


def test_hostile_words_are_shown_and_not_run(source):
    words = {"model_address": HOSTILE, "data_address": HOSTILE, "classes": (HOSTILE, "one"), "versions": {"x": HOSTILE}}
    hostile = replace(subject(HOSTILE, **words), recipe=f"name: '{HOSTILE}'\n</pre></script>")
    hostile.history.append({"epoch": 3, "</script><b>": 1.0})
    text = source(hostile, title=HOSTILE)
    harmless = source(subject())
    assert HOSTILE not in text
    page = Page(text)
    assert len([tag for tag, _ in page.tags if tag == "script"]) == len(page.figures) + 2
    assert len(page.figures) == len(Page(harmless).figures) + 1
    assert page.unclosed == []
    assert page.text.count(HOSTILE) >= 8
    assert page.lines("accuracy-1").keys() == {"&lt;script&gt;alert(1)&lt;/script&gt;"}


def test_nothing_is_loaded_from_anywhere(source):
    text = source(subject("new"))
    for tag, attributes in Page(text).tags:
        assert tag not in {"link", "img", "iframe", "object"}
        assert not {"src", "href", "srcset", "action"} & attributes.keys()
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def test_the_library_is_there_once_and_only_if_something_is_drawn(tmp_path):
    path = tmp_path / "report.html"
    write_report([subject()], path, title="drawn")
    assert path.read_text(encoding="utf-8").count(get_plotlyjs()) == 1
    write_report([Subject("bare", None, [], "", None)], path, title="nothing drawn")
    assert path.stat().st_size < 20_000


def test_the_same_runs_give_the_same_bytes(tmp_path):
    for name in ("one.html", "two.html"):
        write_report([subject("a"), subject("b", suite="fast")], tmp_path / name, title="A report")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_missing_profile_a_single_point_and_an_empty_history(source):
    bare = Subject("bare", None, [], "", None)
    page = Page(source(replace(subject("clean", (9,), epsilons=(0.0,)), history=[]), bare))
    assert page.figures == {}
    assert page.tables[0][1] == ["clean", "90.0 [55.5, 99.7]", "-", "-", "4.5"]
    assert page.tables[1][1] == ["bare", "-", "-", "-", "-"]
    assert "Not profiled yet" in page.text
    assert "Recipe" in page.text
    assert page.unclosed == []
    assert "No run has been profiled yet." in Page(source(bare)).text


def test_dark_and_light_backgrounds_are_those_the_colours_were_chosen_for(source):
    text = source(subject())
    assert [colour for colour in BACKGROUNDS if f"--card: {colour};" in text] == list(BACKGROUNDS)
    assert "prefers-color-scheme: dark" in text


def test_no_runs_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(Misuse, match="at least one run"):
        write_report([], tmp_path / "report.html", title="Nothing")
    assert list(tmp_path.iterdir()) == []
