"""Which trials of a search are stopped."""

from __future__ import annotations

from poise.commands.searching.stopping import Course, behind


def _course(*values: float, epsilon: float = 0.1) -> Course:
    return Course(dict(enumerate(values)), dict.fromkeys(range(len(values)), epsilon))


def test_a_trial_whose_best_is_below_the_middle_of_four_at_the_same_epoch_is_behind():
    rivals = [_course(0.5, 0.2), _course(0.5, 0.4), _course(0.5, 0.6), _course(0.5, 0.8)]
    assert behind(_course(0.3, 0.4), 1, rivals)
    assert not behind(_course(0.5, 0.4), 1, rivals)  # the middle itself, an epoch earlier
    assert not behind(_course(0.3, 0.4), 1, rivals[1:])
    assert not behind(_course(0.3, 0.4, 0.4), 2, rivals)  # nobody has come so far


def test_only_epochs_at_the_same_epsilon_are_compared():
    rivals = [_course(0.5, 0.5)] * 4
    assert behind(_course(0.4, 0.4), 1, rivals)
    assert not behind(_course(0.4, 0.4, epsilon=0.05), 1, rivals)
    assert not behind(_course(0.4, 0.4, epsilon=0.0), 1, [_course(0.5, 0.5, epsilon=0.0)] * 4)
    assert behind(Course({0: 0.9, 1: 0.4}, {0: 0.0, 1: 0.1}), 1, rivals)  # its best was at another epsilon
    assert not behind(_course(0.4), 0, [Course({0: 0.5}, {})] * 4)
