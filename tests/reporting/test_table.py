from __future__ import annotations

import io

import pytest
from rich.console import Console

from poise.reporting import Subject, markdown_table, print_table
from tests.reporting.samples import subject

HOSTILE = "[red]a[/red] | <script>alert(1)</script>\n\x1b[2J`b` *c*"


def _printed(subjects, width=80):
    target = io.StringIO()
    print_table(subjects, Console(file=target, width=width))
    return target.getvalue()


def test_the_table_holds_the_figures_and_their_intervals():
    printed = _printed([subject("new", (9, 8, 5)), subject("old", (10, 4, 0))])
    lines = printed.splitlines()
    assert lines[0].rstrip() == "linf 2/255, suite pgd, 10 images of digits:test"
    assert "@ 2/255" in printed
    (new,) = [line.split() for line in lines if line.startswith("new")]
    (old,) = [line.split() for line in lines if line.startswith("old")]
    assert new == ["new", "90.0", "[55.5,", "99.7]", "50.0", "[18.7,", "81.3]", "75.0", "[49.7,", "100.0]", "4.5"]
    assert old[:7] == ["old", "100.0", "[69.2,", "100.0]", "0.0", "[0.0,", "30.8]"]
    assert "Not comparable" not in printed


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("name", ["a", "a-name-that-goes-on-and-on-" * 4])
def test_no_figure_is_cut_off_at_any_width(width, name):
    printed = _printed([subject(name)], width)
    assert all(len(line) <= width for line in printed.splitlines())
    assert "\u2026" not in printed
    for figure in ("90.0", "[55.5, 99.7]", "50.0", "[18.7, 81.3]", "75.0", "[49.7, 100.0]", "4.5"):
        assert figure in printed


def test_a_file_gets_no_colour_codes(tmp_path, capsys):
    print_table([subject(), subject("b", suite="fast")])
    printed = capsys.readouterr().out
    assert "90.0" in printed
    assert "\x1b" not in printed


def test_what_cannot_be_compared_stands_apart_under_a_line_that_says_why():
    printed = _printed([subject("a"), subject("b", suite="fast", norm="l2")])
    assert printed.startswith("Not comparable across tables: they differ in threat and attack suite.")
    assert "linf 2/255, suite pgd" in printed
    assert "l2 2/255, suite fast" in printed


def test_a_missing_profile_and_a_single_grid_point():
    printed = _printed([subject("clean", (9,), epsilons=(0.0,)), Subject("none", None, [], "", None)])
    assert "no attack, 10 images" in printed
    assert "not profiled yet" in printed
    (clean,) = [line.split() for line in printed.splitlines() if line.startswith("clean ")]
    (none,) = [line.split() for line in printed.splitlines() if line.startswith("none")]
    assert clean == ["clean", "90.0", "[55.5,", "99.7]", "-", "-", "4.5"]
    assert none == ["none", "-", "-", "-", "-"]


def test_a_hostile_name_is_shown_as_it_is_and_steers_nothing():
    printed = _printed([subject(HOSTILE)], width=200)
    assert "\x1b" not in printed
    assert "[red]a[/red] | <script>alert(1)</script>??[2J`b` *c*" in printed


def test_markdown_holds_the_same_figures():
    lines = markdown_table([subject("new", (9, 8, 5)), subject("fine_tuned", (10, 4, 0))]).splitlines()
    assert lines[0] == "**linf 2/255, suite pgd, 10 images of digits:test**"
    assert lines[2] == "| model | clean | robust @ 2/255 | expected robustness | seconds |"
    assert lines[3] == "|:--|--:|--:|--:|--:|"
    assert lines[4] == "| new | 90.0 [55.5, 99.7] | 50.0 [18.7, 81.3] | 75.0 [49.7, 100.0] | 4.5 |"
    assert lines[5].startswith("| fine_tuned | 100.0 [69.2, 100.0] | 0.0 [0.0, 30.8] |")


def test_markdown_escapes_names_and_sets_apart():
    text = markdown_table([subject(HOSTILE), subject("_b_", suite="fast")])
    assert text.startswith("Not comparable across tables: they differ in attack suite.\n\n**")
    assert r"| \[red\]a\[/red\] \| \<script\>alert(1)\</script\>" in text
    assert r"\`b\` \*c\* |" in text
    assert r"| \_b\_ |" in text
