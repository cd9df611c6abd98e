"""Schedules that hear of validation, on made-up validations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.core.misuse import Misuse
from poise.schedules import Adaptive, Automatic, Moment, Schedule

accuracies = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)


def _shares(schedule: Schedule, heard: Sequence[tuple[float, float]]) -> list[float]:
    """The share of every epoch, where the epochs before it measured these clean and robust accuracies."""
    memory, shares = schedule.begin(), []
    for epoch, (clean, robust) in enumerate(heard):
        shares.append(schedule.share(Moment(epoch / len(heard), epoch=epoch, memory=memory)))
        end = Moment((epoch + 1) / len(heard), epoch=epoch + 1, memory=memory)
        memory = schedule.heard(end, {"clean": clean, "robust": 0.0, "robust_now": robust, "learned": 1.0})
    return shares


def test_automatic_starts_when_five_epochs_gain_no_more_than_the_tolerance_and_ramps_to_the_end():
    clean = [0.1, 0.4, 0.6, 0.61, 0.62, 0.62, 0.61, 0.615, *[0.7] * 12]
    shares = _shares(Automatic(latest=0.9), [(each, 0.0) for each in clean])
    assert shares[:8] == [0] * 8  # 0.6 after the third epoch is the best; the five without improvement end with the 8th
    assert shares[8:] == pytest.approx([(epoch - 8) / 12 for epoch in range(8, 20)])


def test_automatic_compares_with_the_best_and_not_with_the_epoch_before():
    creeping = [0.5 + 0.01 * epoch for epoch in range(20)]
    assert max(_shares(Automatic(patience=3, latest=0.9), [(each, 0.0) for each in creeping])[:19]) == 0
    falling = [0.5, 0.3, 0.4, *[0.45] * 7]
    assert _shares(Automatic(patience=2), [(each, 0.0) for each in falling])[3:5] == pytest.approx([0, 1 / 7])


def test_automatic_does_not_wait_for_ever():
    improving = [(0.05 * epoch, 0.0) for epoch in range(20)]
    assert _shares(Automatic(latest=0.5), improving) == pytest.approx([max(0, epoch - 10) / 10 for epoch in range(20)])


@given(accuracies)
def test_automatic_never_falls_and_stays_within_the_target(heard):
    shares = _shares(Automatic(patience=2), heard)
    assert all(0 <= before <= after <= 1 for before, after in pairwise(shares))


def test_adaptive_waits_while_clean_accuracy_climbs_and_then_arrives_on_time():
    """Ten epochs; three gain a lot, the fourth little, so the fifth moves; from there everything is fine."""
    heard = [(0.2, 0.2), (0.5, 0.5), (0.8, 0.8), (0.81, 0.81), *[(0.8, 0.7)] * 6]
    shares = _shares(Adaptive(latest=0.5, stop=0.8, move=0.3), heard)
    assert shares == pytest.approx([0, 0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1])


def test_adaptive_does_not_wait_for_ever_at_epsilon_zero():
    """Clean accuracy grows to the last: in 12 epochs the first three are spared, and the target is reached in time."""
    growing = [(0.3 + 0.03 * epoch, 0.3 + 0.03 * epoch) for epoch in range(12)]
    shares = _shares(Adaptive(), growing)
    assert shares[:4] == pytest.approx([0, 0, 0, 1 / 7])
    assert shares[9:] == [1, 1, 1]


def test_adaptive_leaves_a_network_in_peace_that_has_learned_nothing():
    memory, schedule = Adaptive().begin(), Adaptive()
    for epoch, learned in enumerate([0.0] * 8 + [1.0] * 2):
        moment = Moment((epoch + 1) / 20, epoch=epoch + 1, memory=memory)
        memory = schedule.heard(moment, {"clean": 0.42, "robust_now": 0.42, "learned": learned})
        assert (memory["share"] > 0) == (epoch >= 8)


def test_adaptive_that_went_down_to_zero_waits_for_its_accuracy_and_then_goes_on():
    heard = [(0.8, 0.8), (0.8, 0.8), (0.5, 0.4), (0.55, 0.55), (0.7, 0.7), (0.75, 0.5), (0.75, 0.5), (0.75, 0.5)]
    shares = _shares(Adaptive(stop=1.0, move=0.1), heard)
    assert shares == pytest.approx([0, 0, 0.1, 0, 0, 0.1, 0.2, 0.3])


def test_adaptive_holds_until_robust_accuracy_catches_up_or_stands_still():
    start = [(0.8, 0.8), (0.8, 0.8)]
    climbing = [*start, (0.8, 0.1), (0.8, 0.2), (0.8, 0.3), (0.8, 0.4), (0.8, 0.4), (0.8, 0.4)]
    shares = _shares(Adaptive(stop=1.0, move=0.1), climbing)
    assert shares == pytest.approx([0, 0, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3])  # half of clean is robust after the sixth
    standing = [*start, (0.8, 0.1), (0.8, 0.11), (0.8, 0.1), (0.8, 0.1)]
    assert _shares(Adaptive(stop=1.0, move=0.1), standing) == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2])


def test_adaptive_lowers_where_clean_accuracy_falls_too_far_below_its_best():
    heard = [(0.8, 0.8), (0.8, 0.8), (0.75, 0.6), (0.63, 0.5), (0.7, 0.6), (0.7, 0.6), (0.7, 0.6)]
    shares = _shares(Adaptive(stop=1.0, move=0.1, margin=0.2), heard)
    assert shares == pytest.approx([0, 0, 0.1, 0.2, 0.1, 0.2, 0.3])  # 0.63 is less than 0.8 * 0.8


def test_adaptive_does_not_raise_epsilon_while_robust_accuracy_breaks_down():
    """Where the first attacked epochs stood at half and the rest collapses; where nothing was ever withstood."""
    collapsing = [(0.8, 0.8), (0.8, 0.8), (0.8, 0.3), (0.8, 0.2), (0.8, 0.1), (0.8, 0.0), (0.8, 0.0), (0.8, 0.5)]
    shares = _shares(Adaptive(stop=1.0, move=0.2), collapsing)
    first = shares[2]
    assert shares == pytest.approx([0, 0, first, first, first, first, first, 0])
    hopeless = [(0.8, 0.8), (0.8, 0.8), *[(0.8, 0.0)] * 20]
    assert max(_shares(Adaptive(move=0.1), hopeless)) <= 0.1


def test_adaptive_that_went_down_again_arrives_at_zero_exactly():
    falling = [(0.8, 0.8), *[(0.8, 0.7)] * 4, *[(0.1, 0.1)] * 6]
    shares = _shares(Adaptive(stop=0.1, move=0.1), falling)
    assert max(shares) > 0.25
    assert shares[-1] == 0


def test_adaptive_ends_below_the_target_where_the_network_cannot_take_it():
    heard = [(0.8, 0.8), (0.8, 0.8), *[(0.5, 0.4)] * 18]
    assert max(_shares(Adaptive(), heard)) == pytest.approx(1 / 14)


def test_adaptive_that_is_late_moves_no_further_than_it_may():
    heard = [*[(0.04 * epoch, 0.04 * epoch) for epoch in range(16)], *[(0.6, 0.6)] * 4]
    shares = _shares(Adaptive(latest=0.9, move=0.25), heard)
    assert shares[-3:] == pytest.approx([0.25, 0.5, 0.75])


@given(accuracies)
def test_adaptive_stays_within_the_target_and_moves_no_further_than_it_may(heard):
    shares = _shares(Adaptive(move=0.3), heard)
    assert all(0 <= share <= 1 for share in shares)
    assert all(abs(after - before) <= 0.3 + 1e-12 for before, after in pairwise(shares))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Automatic(patience=0), "patience is counted in epochs, at least 1; got 0"),
        (lambda: Automatic(tolerance=-0.1), "tolerance is a gain"),
        (lambda: Automatic(latest=1.0), "latest is a share of the training"),
        (lambda: Adaptive(every="step"), "moves every 'epoch', after validation"),
        (lambda: Adaptive(margin=0.0), "margin of an adaptive schedule"),
        (lambda: Adaptive(stop=1.2), "stop of an adaptive schedule"),
        (lambda: Adaptive(latest=1.0), r"latest of an adaptive schedule must be in \[0, 1\)"),
        (lambda: Adaptive(kept=float("nan")), "kept of an adaptive schedule"),
    ],
)
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(Misuse, match=words):
        make()
