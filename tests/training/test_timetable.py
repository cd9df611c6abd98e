from __future__ import annotations

import pytest
import torch

from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.schedules import Adaptive, Fixed, Hinge, Random
from poise.training import Training
from poise.training.timetable import Timetable

IDS = torch.arange(5)


def _timetable(schedule, **options):
    training = Training(**{"epochs": 4, "batch_size": 5, "learning_rate": 0.5} | options)
    stream = Stream.seeded(0)
    return Timetable(schedule=schedule, threat=Threat(epsilon=0.2), options=training, images=23, stream=stream)


def test_every_image_is_an_example_of_one_step():
    found = _timetable(Fixed())
    assert [found.examples(number) for number in range(found.batches)] == [5, 5, 5, 5, 3]


def test_progress_runs_from_nothing_to_all_in_equal_steps():
    found = _timetable(Fixed())
    steps = [found.progress(epoch, number) for epoch in range(4) for number in range(found.batches)]
    assert steps == pytest.approx([step / 20 for step in range(20)])
    assert found.progress(4, 0) == 1


def test_the_learning_rate_rises_to_its_peak_and_falls():
    found = _timetable(Fixed(), warmup=0.25)
    rates = [found.learning_rate(epoch, number) for epoch in range(4) for number in range(5)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.5)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_epsilon_is_the_schedules_share_of_the_threats():
    found = _timetable(Hinge(start=0.25, stop=0.5, every="step"))
    assert found.epsilon(0, 4, None) == 0
    assert found.epsilon(1, 2, None) == pytest.approx(0.2 * (7 / 20 - 0.25) / 0.25)
    assert found.epsilon(3, 0, None) == 0.2
    assert found.share(3, 0, None, IDS) == 1


def test_shares_of_examples_belong_to_their_ids():
    found = _timetable(Random(per_example=True))
    first = found.share(1, 2, None, IDS)
    assert first.shape == IDS.shape
    assert torch.equal(found.share(1, 2, None, IDS.flip(0)), first.flip(0))
    assert found.epsilon(1, 2, None) == pytest.approx(0.1)


def test_what_a_schedule_heard_is_its_memory():
    found = _timetable(Adaptive())
    begun = found.remembered(None)
    assert found.remembered({"share": 0.5}) == {"share": 0.5}
    heard = found.heard(0, begun, {"clean": 0.9, "robust_now": 0.9, "learned": 1.0})
    assert heard.keys() == begun.keys()
    assert heard != begun
    with pytest.raises(Misuse, match="the schedule Adaptive needs robust_now, learned of the validation"):
        found.heard(0, begun, {"clean": 0.9})
