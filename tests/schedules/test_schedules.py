from __future__ import annotations

import pytest

from poise.core.misuse import Misuse
from poise.schedules import Fixed, Hinge


def test_hinge_is_the_papers_at_every_epoch():
    """T1 = 12, T2 = 37 of 50 epochs (arXiv 2509.23325): 0 through epoch 12, 1/25 at 13, 24/25 at 36, 1 from 37."""
    schedule = Hinge(start=12 / 50, stop=37 / 50)
    for epoch in range(50):
        expected = 0.0 if epoch < 12 else 1.0 if epoch >= 37 else (epoch - 12) / 25
        assert schedule.share(epoch / 50) == pytest.approx(expected, abs=1e-12)
    assert schedule.share(12 / 50) == 0
    assert schedule.share(37 / 50) == 1


@pytest.mark.parametrize(
    ("start", "stop", "shares"),
    [(0, 0, [1, 1, 1]), (0, 1, [0, 0.5, 0.9]), (0.5, 0.5, [0, 1, 1]), (1, 1, [0, 0, 0])],
)
def test_special_cases_of_the_hinge(start, stop, shares):
    schedule = Hinge(start=start, stop=stop)
    assert [schedule.share(progress) for progress in (0, 0.5, 0.9)] == pytest.approx(shares)


def test_fixed_is_always_the_target():
    assert [Fixed().share(progress) for progress in (0, 0.3, 1)] == [1, 1, 1]


@pytest.mark.parametrize(("start", "stop"), [(-0.1, 0.5), (0.8, 0.2), (0.5, 1.5), (float("nan"), 1)])
def test_an_impossible_hinge_is_refused(start, stop):
    with pytest.raises(Misuse, match="0 <= start <= stop <= 1"):
        Hinge(start=start, stop=stop)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_rhythm_is_refused():
    with pytest.raises(Misuse, match="every 'epoch' or every 'step'; got 'week'"):
        Fixed(every="week")
