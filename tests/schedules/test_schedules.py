from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.core.misuse import Misuse
from poise.core.streams import Stream, example_keys
from poise.schedules import Automatic, Cosine, Fixed, Hinge, Linear, Moment, Random

shares = st.floats(0, 1)
moments = st.floats(0, 1, exclude_max=True)


def _share(schedule, progress: float) -> float:
    return schedule.share(Moment(progress))


def test_hinge_is_the_papers_at_every_epoch():
    """T1 = 12, T2 = 37 of 50 epochs (arXiv 2509.23325): 0 through epoch 12, 1/25 at 13, 24/25 at 36, 1 from 37."""
    schedule = Hinge(start=12 / 50, stop=37 / 50)
    for epoch in range(50):
        expected = 0.0 if epoch < 12 else 1.0 if epoch >= 37 else (epoch - 12) / 25
        assert _share(schedule, epoch / 50) == pytest.approx(expected, abs=1e-12)
    assert _share(schedule, 12 / 50) == 0
    assert _share(schedule, 37 / 50) == 1


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 0, [1, 1, 1]), (0, 1, [0, 0.5, 0.9]), (0.5, 0.5, [0, 1, 1]), (1, 1, [0, 0, 0])],
)
def test_special_cases_of_the_hinge(start, stop, expected):
    schedule = Hinge(start=start, stop=stop)
    assert [_share(schedule, progress) for progress in (0, 0.5, 0.9)] == pytest.approx(expected)


def test_fixed_is_always_the_target():
    assert [_share(Fixed(), progress) for progress in (0, 0.3, 1)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Linear(), [0, 0.25, 0.5, 0.75]),
        (Linear(stop=0.5), [0, 0.5, 1, 1]),
        (Linear(first=0.2), [0.2, 0.4, 0.6, 0.8]),
        (Linear(first=1.0, stop=0.1), [1, 1, 1, 1]),
        (Cosine(start=0, stop=1), [0, (1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2]),
        (Cosine(start=0.25, stop=0.75), [0, 0, 0.5, 1]),
        (Cosine(start=0.5, stop=0.5), [0, 0, 1, 1]),
    ],
)
def test_ramps_in_closed_form(schedule, expected):
    assert [_share(schedule, progress) for progress in (0, 0.25, 0.5, 0.75)] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Linear(), [0, 1 / 3, 2 / 3, 1]),
        (Linear(first=0.4), [0.4, 0.6, 0.8, 1]),
        (Hinge(start=0.25, stop=1.0), [0, 0, 0.5, 1]),
        (Hinge(start=0.75, stop=0.8), [0, 0, 0, 1]),
        (Hinge(start=0.8, stop=1.0), [0, 0, 0, 0]),
        (Hinge(start=0.0, stop=0.5), [0, 0.5, 1, 1]),
        (Cosine(start=0.25, stop=1.0), [0, 0, 0.5, 1]),
        (Automatic(latest=0.25), [0, 0, 0.5, 1]),
    ],
)
def test_a_ramp_that_begins_in_time_reaches_the_target_with_the_last_move(schedule, expected):
    """Four epochs: the last begins at 0.75."""
    found = [schedule.share(Moment(epoch / 4, epoch=epoch, last=0.75)) for epoch in range(4)]
    assert found == pytest.approx(expected, abs=1e-12)


@given(shares, shares, moments, moments)
def test_ramps_never_fall_and_stay_within_the_target(first, second, earlier, later):
    start, stop = sorted((first, second))
    earlier, later = sorted((earlier, later))
    ramps = [Hinge(start=start, stop=stop), Cosine(start=start, stop=stop), Linear(first=start, stop=max(stop, 1e-9))]
    for schedule in ramps:
        assert 0 <= _share(schedule, earlier) <= _share(schedule, later) <= 1


@given(shares, moments)
def test_the_cosine_is_below_the_hinge_in_the_first_half_and_above_in_the_second(start, progress):
    hinge, cosine = (_share(kind(start=start, stop=1.0), progress) for kind in (Hinge, Cosine))
    assert (cosine - hinge) * (hinge - 0.5) >= -1e-12


def _drawn(schedule: Random, epoch: int = 0, step: int = 0, ids=("a", "b"), seed: int = 0):
    return schedule.share(
        Moment(0.5, epoch=epoch, step=step, ids=example_keys(ids), stream=Stream.seeded(seed).fold("schedule"))
    )


def test_a_random_budget_is_drawn_anew_as_often_as_asked():
    by_epoch, by_step = Random(), Random(every="step")
    assert _drawn(by_epoch, step=0) == _drawn(by_epoch, step=1) != _drawn(by_epoch, epoch=1)
    assert _drawn(by_step, step=0) != _drawn(by_step, step=1)
    assert _drawn(by_epoch) == _drawn(by_epoch, ids=("c",))
    assert _drawn(by_epoch) != _drawn(by_epoch, seed=1)


def test_an_examples_own_budget_is_its_own_in_any_batch():
    schedule = Random(per_example=True)
    together = _drawn(schedule, ids=("a", "b", "c"))
    assert torch.equal(together[1:2], _drawn(schedule, ids=("b",)))
    assert len(set(together.tolist())) == 3
    assert not torch.equal(together, _drawn(schedule, epoch=1, ids=("a", "b", "c")))


def test_random_budgets_are_uniform_between_their_ends():
    keys = tuple(str(index) for index in range(4000))
    drawn = _drawn(Random(low=0.25, high=0.75, per_example=True), ids=keys)
    assert drawn.min() >= 0.25
    assert drawn.max() <= 0.75
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.01)  # the mean's own deviation is 0.0023
    assert float(drawn.std()) == pytest.approx(0.5 / math.sqrt(12), abs=0.005)
    assert Random(low=0.25, high=0.75, per_example=True).mean(Moment(0.1)) == 0.5
    assert Random().mean(Moment(0.1)) == Random().share(Moment(0.1))


@pytest.mark.parametrize(("start", "stop"), [(-0.1, 0.5), (0.8, 0.2), (0.5, 1.5), (float("nan"), 1)])
@pytest.mark.parametrize("kind", [Hinge, Cosine])
def test_an_impossible_ramp_is_refused(kind, start, stop):
    with pytest.raises(Misuse, match="0 <= start <= stop <= 1"):
        kind(start=start, stop=stop)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Linear(stop=0.0), r"stops at a share of the training in \(0, 1\]; got stop 0.0"),
        (lambda: Linear(first=1.1), "begins with a share of the target"),
        (lambda: Random(low=0.6, high=0.4), "0 <= low <= high <= 1"),
        (lambda: Random(high=float("nan")), "0 <= low <= high <= 1"),
    ],
)
def test_other_impossible_schedules_are_refused(make, words):
    with pytest.raises(Misuse, match=words):
        make()


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_rhythm_is_refused():
    with pytest.raises(Misuse, match="every 'epoch' or every 'step'; got 'week'"):
        Fixed(every="week")
