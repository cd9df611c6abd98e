"""What `poise profile` tells while it works, where nobody watches live: a line a minute."""

from __future__ import annotations

import re

import pytest

from poise.commands.telling import terminal
from poise.commands.telling.terminal import watching
from poise.core.threat import Threat
from poise.evaluation import Examination, examine
from tests.models_for_tests import linear_classifier, random_images


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""
    time = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: time[0])
    return time


def _told(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_line_a_minute_with_the_time_left(clock, capsys):
    """A tenth is there from an earlier run; a fifth more in 100 seconds leaves seven tenths, which take 350 seconds."""
    with watching("profiling a") as watch:
        watch(0.1, {"settled": "10/100"})
        clock[0] += 59
        watch(0.2, {})
        clock[0] += 41
        watch(0.3, {"settled": "30/100", "robust": "10.0%..80.0%"})
        clock[0] += 59
        watch(0.4, {})
        clock[0] += 1
        watch(0.5, {"settled": "50/100"})
    assert _told(capsys) == [
        "profiling a: 30% settled 30/100 robust 10.0%..80.0% left 6 min",
        "profiling a: 50% settled 50/100 left 3 min",
    ]


def test_hours_are_called_hours_and_no_pace_gives_no_forecast(clock, capsys):
    with watching("b") as watch:
        watch(0.0, {})
        clock[0] += 60
        watch(0.0, {})
        clock[0] += 60
        watch(0.01, {})
    assert _told(capsys) == ["b: 0%", "b: 1% left 3 h 18 min"]


def test_profiling_tells_what_is_settled_and_the_bounds_of_robust_accuracy(clock, capsys):
    """Every look comes a minute after the other; at the end the bounds meet at the profile's own figure."""
    classifier = linear_classifier(3, (1, 3, 3))
    images, shares = random_images(classifier, 20), []
    with watching("profiling c") as lines:

        def watch(share, facts):
            clock[0] += 60
            shares.append(share)
            lines(share, facts)

        examination = Examination(threat=Threat(epsilon=0.1), suite="fast", batch_size=4)
        made = examine(classifier, images, examination, model_address="c", watch=watch)
    told = _told(capsys)
    assert len(told) == len(shares) > 5
    assert shares == sorted(shares)
    assert shares[-1] == 1
    pattern = re.compile(r"profiling c: \d+% settled (\d+)/20 robust ([\d.]+)%\.\.([\d.]+)%( left (\d+ h )?\d+ min)?")
    found = [pattern.fullmatch(line) for line in told]
    assert all(found)
    bounds = [(float(match[2]), float(match[3])) for match in found]
    assert all(low <= high for low, high in bounds)
    robust = 100 * made.robust()[:, -1].mean()
    assert bounds[0][0] < bounds[0][1]
    assert bounds[-1] == (robust, robust)
    assert [int(match[1]) for match in found][-1] == 20
    assert told[-1].endswith("left 0 min")
