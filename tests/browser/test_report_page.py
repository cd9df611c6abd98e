from __future__ import annotations

import pytest

from poise.reporting import write_report
from tests.reporting.samples import subject


@pytest.fixture
def opened(offline, tmp_path):
    path = tmp_path / "report.html"
    write_report([subject("old", held=(9, 6, 2)), subject("new", held=(8, 7, 5))], path, title="A <b>title</b>")
    offline.page.goto(path.as_uri())
    offline.page.wait_for_selector(".plot .main-svg")
    return offline


def _visible(page) -> list[bool]:
    return page.evaluate("document.querySelector('.plot').data.map((trace) => trace.visible !== false)")


def test_a_report_opens_from_a_file_without_a_network_and_without_a_complaint(opened):
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("file:")] == []
    assert opened.page.locator("h1").inner_text() == "A <b>title</b>"


def test_its_charts_hold_the_figures_of_its_table(opened):
    drawn = opened.page.evaluate(
        "document.querySelector('.plot').data.filter((t) => t.fill === undefined).map((t) => t.y)"
    )
    assert drawn == [[0.9, 0.6, 0.2], [0.8, 0.7, 0.5]]
    cells = opened.page.locator(".results tbody tr").first.locator("td b").all_inner_texts()
    assert cells[:2] == ["90.0", "20.0"]


def test_the_legend_hides_a_line_with_its_band_and_shows_it_again(opened):
    button = opened.page.locator("figure .legend button").first
    assert _visible(opened.page) == [True] * 4
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert _visible(opened.page) == [False, True, False, True]
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert _visible(opened.page) == [True] * 4


def test_nothing_is_wider_than_a_phone(opened):
    opened.page.set_viewport_size({"width": 360, "height": 740})
    opened.page.wait_for_timeout(1500)  # charts follow the window a moment later
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
