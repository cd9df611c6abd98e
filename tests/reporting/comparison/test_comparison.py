from __future__ import annotations

import base64
import io
import json
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs
from rich.console import Console

from poise.evaluation import share
from poise.reporting.comparison.gallery import Picture
from poise.reporting.comparison.junit import junit_xml
from poise.reporting.comparison.markdown import comparison_markdown
from poise.reporting.comparison.page import write_comparison
from poise.reporting.comparison.record import comparison_record
from poise.reporting.comparison.terminal import print_comparison
from tests.reporting.comparison.samples import comparison, impossible
from tests.reporting.page import Page

HOSTILE = "<script>alert(1)</script>|\x1b[31m\x00&"
LOST = share(10, 100)


@pytest.fixture
def source(tmp_path):
    def write(compared, pictures=()):
        write_comparison(compared, tmp_path / "page.html", pictures)
        return (tmp_path / "page.html").read_text(encoding="utf-8").replace(get_plotlyjs(), "")

    return write


def _printed(compared, width=150):
    console = Console(file=io.StringIO(), width=width)
    print_comparison(compared, console)
    return console.file.getvalue()


def test_all_forms_give_the_same_figures(source):
    compared = comparison()
    lost = f"10.00 [{100 * LOST.low:.2f}, {100 * LOST.high:.2f}]"
    page = Page(source(compared))
    assert page.tables[-1] != []
    flips = next(table for table in page.tables if table[0][:3] == ["epsilon", "old right", "new right"])
    assert flips[4][0] == "0.3"
    assert flips[4][4] == flips[4][5] == lost
    assert flips[4][3].startswith("+0.00 [")
    assert (
        next(row for row in comparison_markdown(compared).splitlines() if row.startswith("| 0.3 |")).count(
            lost.replace("[", "\\[").replace("]", "\\]")
        )
        == 2
    )
    assert next(row for row in _printed(compared).splitlines() if row.startswith("0.3 ")).count(lost) == 2
    record = comparison_record(compared)["flips"][3]
    assert record["lost"] == {"certain": 10, "possible": 10, "total": 100, "low": LOST.low, "high": LOST.high}
    assert (record["joint"]["certain"], record["union"]["certain"]) == (0, 15)
    outcomes = next(
        table for table in page.tables if table[0] == ["epsilon", "stays right", "lost", "gained", "stays wrong"]
    )
    assert outcomes[1] == ["0", "75", "5", "10", "10"]
    assert outcomes[4] == ["0.3", "50", "10", "10", "30"]


def test_noise_stands_beside_the_flips_and_is_subtracted_nowhere(source):
    quiet, noisy = comparison(noise=False), comparison()
    assert noisy.flips == quiet.flips
    page = Page(source(noisy))
    assert page.lines("flips")["noise of old"]["y"] == [0, 0, 0, 0.01]
    assert page.lines("flips")["lost"]["y"] == [0.05, 0.15, 0.1, 0.1]
    assert "noise" not in Page(source(quiet)).lines("flips")
    assert "Attack noise of the old model (seeds 0 and 1) alone makes 1.00 [0.12, 3.52] %" in page.text
    assert comparison_record(noisy)["noise"][0]["rate"][3]["value"] == 0.01


def test_the_gate_stands_first_with_its_reasons(source):
    for text in (Page(source(comparison())).text, comparison_markdown(comparison()), _printed(comparison())):
        told = " ".join(text.split())
        assert "The gate fails: 1 of 3 limits is broken, and 1 cannot be judged." in told
        assert "✗ failed" in told
        assert "? cannot be judged" in told
        assert "✓ passed" in told
    assert "Release gate" not in source(comparison(gate=None))


def test_the_page_needs_nothing_else_and_is_whole(source):
    text = source(comparison(), [])
    page = Page(text)
    assert page.unclosed == []
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text
    assert source(comparison()) == text


def test_lost_images_are_shown_clean_and_adversarial(source):
    compared = comparison()
    change = compared.changes[0]
    clean, moved = np.zeros((1, 4, 4)), np.full((1, 4, 4), 1.0)
    pictures = [
        Picture(change=change, clean=clean, adversarial=moved),
        Picture(change=change, clean=np.zeros((3, 4, 4))),
    ]
    page = Page(source(compared, [*pictures, Picture(change=change, clean=np.zeros((7, 4, 4)))]))
    shown = [dict(attributes) for tag, attributes in page.tags if tag == "img"]
    assert [each["alt"] for each in shown] == [
        f"{change.id}, clean",
        f"{change.id}, adversarial for the new model",
        f"{change.id}, clean",
    ]
    for each, level in zip(shown, (0, 255), strict=False):
        kind, _, content = each["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).tolist() == [[level] * 4] * 4
    assert page.unclosed == []


def test_hostile_names_are_shown_and_not_run(source):
    ids = [f"{HOSTILE}{row}" for row in range(100)]
    compared = comparison(names=(HOSTILE, "new"), ids=ids, classes=(HOSTILE, "b", "c"))
    text = source(compared)
    assert "<script>alert" not in text
    assert Page(text).unclosed == []
    assert "\x1b" not in _printed(compared)
    markdown = comparison_markdown(compared)
    assert "<script>" not in markdown.replace("\\<script\\>", "")
    table = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} <= {4, 6, 7, 10}
    ET.fromstring(junit_xml(compared.judgement, compared.old))  # noqa: S314 - our own
    json.dumps(comparison_record(compared), allow_nan=False)


def test_nothing_to_compare_says_why_in_every_form(source):
    for text in (source(impossible()), comparison_markdown(impossible()), _printed(impossible())):
        assert "is only in old" in text
    assert comparison_record(impossible())["gate"]["exit_code"] == 2
    assert comparison_record(impossible())["obstacle"].endswith("'a' is only in old")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_nothing_is_cut_off_on_a_narrow_terminal(width):
    text = _printed(comparison(noise=False), width)
    assert "…" not in text
    for figure in ("80.00", "85.00", "[4.90,", "17.62]", "0.302"):
        assert figure in text


ATTRIBUTES = {
    "testsuites": {"name", "tests", "failures", "errors", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "time"},
    "testcase": {"classname", "name", "time"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "system-out": set(),
}
"""The elements and attributes that all readers of Ant's JUnit format share."""


def test_junit_has_a_case_for_each_limit_and_counts_that_agree():
    root = ET.fromstring(junit_xml(comparison().judgement, "old → new"))  # noqa: S314 - our own
    for element in root.iter():
        assert set(element.attrib) == ATTRIBUTES[element.tag]
    suite = root.find("testsuite")
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [["system-out"], ["failure"], ["error"]]
    for element in (root, suite):
        assert [element.get(name) for name in ("tests", "failures", "errors", "time")] == ["3", "1", "1", "0"]
    assert cases[1].get("name") == "robust flips at 0.1 at most 5 %"
    assert "15 % of 100 examples" in cases[1].find("failure").get("message")
    assert "examples are needed" in cases[2].find("error").text
