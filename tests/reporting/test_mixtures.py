"""The frontier and the gate's alphas in a report."""

from __future__ import annotations

from dataclasses import replace

from poise.evaluation import share
from poise.evaluation.frontier import Alphas, Frontier, Point, read_frontier, write_frontier
from poise.reporting import Subject, write_report
from poise.reporting.mixtures import alpha_chart, frontier_chart
from poise.reporting.palette import Style


def _frontier(*, gate: bool = True) -> Frontier:
    tried = [("alpha 0.5 to 1", 0.5, 90, 30), ("alpha <0.9>", 0.9, 80, 45), ("robust alone", 1.0, 70, 50)]
    points = tuple(
        Point(name=name, alpha_low=low, alpha_high=1.0, clean=share(clean, 100), robust=share(robust, 100))
        for name, low, clean, robust in tried
    )
    alphas = Alphas(low=0.5, high=0.9, clean=(3, 1), attacked=(1, 4))
    return Frontier(
        threat="linf 8/255",
        suite="fast",
        images=100,
        points=points,
        chosen=1,
        lose=5.0,
        alphas=alphas if gate else None,
    )


def _subject(frontier: Frontier | None) -> Subject:
    return Subject(name="mixed", profile=None, history=[], recipe="", seconds=None, frontier=frontier)


def test_a_frontier_survives_its_file(tmp_path):
    for gate in (True, False):
        write_frontier(_frontier(gate=gate), tmp_path / "frontier.json")
        assert read_frontier(tmp_path / "frontier.json") == _frontier(gate=gate)


def test_the_chart_goes_from_the_least_to_the_most_robust_mixture():
    chart = frontier_chart([(_subject(_frontier()), Style.nth(0)), (_subject(None), Style.nth(1))])
    (line,) = chart.lines
    assert line.x == (30.0, 45.0, 50.0)
    assert line.y == (0.9, 0.8, 0.7)
    assert line.intervals[0] == share(90, 100)
    assert frontier_chart([(_subject(None), Style.nth(0))]) is None


def test_alphas_are_drawn_as_shares_in_the_middle_of_their_bins():
    clean, attacked = alpha_chart("mixed", _frontier().alphas).lines
    assert (clean.name, attacked.name) == ("clean", "attacked")
    assert [round(place, 12) for place in clean.x] == [0.6, 0.8]
    assert (clean.y, attacked.y) == ((0.75, 0.25), (0.2, 0.8))


def test_the_page_shows_what_was_tried_and_chosen(tmp_path):
    write_report([_subject(_frontier())], tmp_path / "r.html", title="t")
    page = (tmp_path / "r.html").read_text()
    assert "alpha &lt;0.9&gt; (chosen)" in page
    assert "100 validation images, linf 8/255, fast" in page
    assert "Alpha given by the gate of mixed" in page
    write_report([replace(_subject(None))], tmp_path / "none.html", title="t")
    assert "Mixtures" not in (tmp_path / "none.html").read_text()
