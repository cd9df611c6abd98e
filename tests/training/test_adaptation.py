"""What is said of made-up histories; real ones stand in tests/commands/test_diagnosis.py."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from poise.schedules import Adaptive, Automatic, Cosine, Fixed, Hinge, Random
from poise.training import Setting, adaptation, foreseen

TEN = Setting(classes=10, epochs=10, target=0.1)
HUNDRED = replace(TEN, classes=100)


def _rows(clean, robust=None, epsilon=None, **others):
    count = len(clean)
    columns = {
        "epoch": range(count),
        "validation/clean": clean,
        "validation/robust": robust or [each / 2 for each in clean],
        "epsilon": epsilon or [0.1] * count,
        "train/accuracy": [0.5] * count,
        **{name.replace("_", "/", 1): values for name, values in others.items()},
    }
    return [{name: values[index] for name, values in columns.items()} for index in range(count)]


def _kinds(rows, setting=TEN) -> list[str]:
    return [remark.kind for remark in adaptation(rows, setting).remarks]


@pytest.mark.parametrize(
    ("classes", "threshold"), [(257, 0.05), (100, 0.05), (40, 0.05), (20, 0.1), (10, 0.2), (3, 2 / 3), (2, 0.75)]
)
def test_the_threshold_is_five_percent_or_twice_chance(classes, threshold):
    assert replace(TEN, classes=classes).threshold == pytest.approx(threshold)


def test_the_delay_is_the_first_epoch_above_the_threshold_counted_from_one():
    rows = _rows([0.01, 0.05, 0.051, 0.02, 0.4])
    assert adaptation(rows, HUNDRED).delay == 3
    assert adaptation(rows, TEN).delay == 5
    assert adaptation(rows[:4], TEN).delay is None


def test_figures_are_those_of_the_last_epoch_and_the_gap_is_to_standard_fine_tuning():
    found = adaptation(_rows([0.3, 0.6], [0.1, 0.2]), replace(TEN, standard=0.9))
    assert (found.clean, found.robust) == (0.6, 0.2)
    assert found.gap == pytest.approx(0.3)
    assert adaptation(_rows([0.3]), TEN).gap is None


def test_a_history_without_validation_says_nothing():
    found = adaptation([{"epoch": 0, "epsilon": 0.1, "train/accuracy": 0.1}], TEN)
    assert (found.delay, found.clean, found.robust, found.remarks) == (None, None, None, ())
    assert adaptation([], TEN).clean is None


def test_a_good_transfer_draws_no_remark():
    assert _kinds(_rows([0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7])) == []


def test_staying_at_chance_is_said_after_a_fifth_of_the_training():
    rows = _rows([0.1, 0.12, 0.11])
    assert _kinds(rows[:1]) == []
    assert _kinds(rows[:2]) == ["at-chance"]
    assert _kinds(rows[:3], replace(TEN, epochs=20)) == []
    assert _kinds([*rows, {**rows[0], "epoch": 3, "validation/clean": 0.25}]) == []


def test_a_network_that_stayed_at_chance_without_attacks_does_so_because_of_none():
    ramped = adaptation(_rows([0.1] * 5, epsilon=[0.0, 0.0, 0.0, 0.05, 0.1]), TEN).remarks[0].text
    assert "No attack is to blame" in ramped


@pytest.mark.parametrize(
    ("schedule", "gentler", "sooner"),
    [
        (Fixed(), "Begin without attacks (schedule hinge or automatic)", "Train longer, or aim at"),
        (Hinge(), "Begin without attacks for longer (schedule.start)", "Reach the target earlier (schedule.stop)"),
        (Adaptive(), "(schedule.margin)", "(schedule.latest, schedule.stop, schedule.move)"),
    ],
)
def test_advice_names_only_what_the_schedule_has(schedule, gentler, sooner):
    setting = replace(TEN, schedule=schedule, standard=0.99)
    remarks = {remark.kind: remark.text for remark in adaptation(_rows([0.8] * 10, [0.0] * 10), setting).remarks}
    assert gentler in remarks["suboptimal-transfer"]
    assert sooner in remarks["not-robust"]


def test_what_to_try_at_chance_depends_on_whether_there_was_an_attack():
    attacked, spared = (
        adaptation(_rows([0.1, 0.1], epsilon=[epsilon] * 2), TEN).remarks[0].text for epsilon in (0.1, 0.0)
    )
    assert "schedule hinge or automatic" in attacked
    assert "after 2 of 10 epochs clean validation accuracy is 10.0 %" in attacked
    assert "No attack is to blame" in spared
    ordinary = adaptation(_rows([0.1, 0.1]), replace(TEN, robust=False)).remarks
    assert "No attack is to blame" in ordinary[0].text


def test_losing_what_was_learned_is_a_collapse():
    rows = _rows([0.5, 0.6, 0.15], epsilon=[0.0, 0.0, 0.1])
    assert _kinds(rows) == ["collapse"]
    assert "60.0 % after epoch 2 at epsilon 0 and is 15.0 % at 0.1" in adaptation(rows, TEN).remarks[0].text
    assert "Let epsilon grow more slowly" in adaptation(rows, TEN).remarks[0].text
    assert _kinds(_rows([0.5, 0.6, 0.3])) == []


def test_a_collapse_without_attacks_is_not_blamed_on_epsilon():
    text = adaptation(_rows([0.5, 0.6, 0.15]), replace(TEN, robust=False)).remarks[0].text
    assert "60.0 % after epoch 2 and is 15.0 %: what was learned is lost. Lower the learning rate" in text
    assert "epsilon" not in text


def test_what_dips_below_the_threshold_nearer_to_its_best_than_to_chance_has_not_collapsed():
    five = replace(TEN, classes=5)
    assert _kinds(_rows([0.3, 0.45, 0.38]), five) == []
    assert _kinds(_rows([0.3, 0.45, 0.32]), five) == ["collapse"]


def test_robust_accuracy_that_breaks_down_under_an_attack_that_is_withstood_is_overfitting():
    rows = _rows([0.6, 0.6, 0.7], [0.3, 0.4, 0.02], train_accuracy=[0.4, 0.5, 0.9])
    assert _kinds(rows) == ["catastrophic-overfitting"]
    assert "2.0 %, after 40.0 % in epoch 2" in adaptation(rows, TEN).remarks[0].text
    falling = _rows([0.6, 0.6, 0.7], [0.3, 0.4, 0.02], train_accuracy=[0.4, 0.5, 0.3])
    assert _kinds(falling) == []
    spared = _rows([0.6, 0.6, 0.7], [0.3, 0.4, 0.02], [0.1, 0.1, 0.0], train_accuracy=[0.4, 0.5, 0.9])
    assert _kinds(spared) == []


def test_a_network_that_has_not_learned_the_task_overfits_to_no_attack():
    """One that says the same class to everything withstands all attacks; the fall from there is no loss."""
    rows = _rows([0.1, 0.16, 0.8], [0.1, 0.16, 0.02], train_accuracy=[0.1, 0.2, 0.77])
    assert _kinds(rows) == []


def test_robust_accuracy_that_falls_while_training_images_are_known_by_heart_is_robust_overfitting():
    rows = _rows([0.6, 0.7, 0.7], [0.36, 0.41, 0.34], train_accuracy=[0.4, 0.5, 0.7])
    assert _kinds(rows) == ["robust-overfitting"]
    text = adaptation(rows, TEN).remarks[0].text
    assert "was 41.0 % after epoch 2 and is 34.0 %, that of training images under the training's attack 70.0 %" in text
    assert "--keep best" in text
    spared = _rows([0.6, 0.7, 0.7], [0.36, 0.41, 0.34], [0.1, 0.1, 0.05], train_accuracy=[0.4, 0.5, 0.7])
    for others in (
        _rows([0.6, 0.7, 0.7], [0.36, 0.41, 0.37], train_accuracy=[0.4, 0.5, 0.7]),  # chance
        _rows([0.6, 0.7, 0.7], [0.36, 0.41, 0.34], train_accuracy=[0.4, 0.5, 0.5]),  # worse on all images
        spared,  # on training images the epsilon was another
    ):
        assert _kinds(others) == []
    assert _kinds(rows, replace(TEN, robust=False)) == _kinds(rows, replace(TEN, keep="best")) == []


def test_figures_are_those_of_the_weights_that_were_kept():
    rows, best = _rows([0.4, 0.9, 0.8], [0.1, 0.4, 0.2]), replace(TEN, keep="best", epochs=3, standard=0.95)
    found = adaptation(rows, best)
    assert (found.kept, found.clean, found.robust, found.remarks) == (2, 0.9, 0.4, ())
    assert found.gap == pytest.approx(0.05)
    last = adaptation(rows, replace(best, keep="last"))
    assert (last.kept, last.clean, last.robust) == (3, 0.8, 0.2)
    assert [remark.kind for remark in last.remarks] == ["suboptimal-transfer"]


def test_robustness_that_never_came_under_an_attack_that_is_withstood_is_overfitting():
    rows = _rows([0.6, 0.7, 0.8], [0.02, 0.01, 0.0], train_accuracy=[0.9, 0.95, 0.97])
    (remark,) = adaptation(rows, replace(TEN, epochs=3)).remarks
    assert remark.kind == "catastrophic-overfitting"
    assert "or on its training images alone" in remark.text


def test_a_network_that_knows_its_training_images_is_not_called_unable_to_learn():
    text = adaptation(_rows([0.1, 0.16], train_accuracy=[0.6, 0.79]), TEN).remarks[0].text
    assert "79.0 % right, so that averages of its batch norms may lag behind" in text
    assert "no attack is to blame" not in text.lower()


def test_what_needs_no_validation_is_said_without():
    guard = {"train_collapsed": [0, 1], "train_collapse_own": [0, 0.9], "train_collapse_judged": [0, 0.1]}
    rows = [{name: value for name, value in row.items() if "validation" not in name} for row in _rows([0, 0], **guard)]
    assert _kinds(rows) == ["catastrophic-overfitting"]
    short = [row | {"epsilon": 0.05, "train/collapsed": 0} for row in rows]
    assert _kinds(short, replace(TEN, epochs=2, schedule=Adaptive())) == ["short-of-target"]


def test_what_a_guard_noticed_is_passed_on():
    guard = {
        "train_collapsed": [0, 0.5, 1],
        "train_collapse_own": [0, 0.4, 0.8],
        "train_collapse_judged": [0, 0.05, 0.1],
    }
    watched = adaptation(_rows([0.5] * 3, train_compared=[0.1] * 3, **guard), TEN).remarks
    assert [remark.kind for remark in watched] == ["catastrophic-overfitting"]
    assert "by epoch 2" in watched[0].text
    assert "80.0 % and 10.0 %" in watched[0].text, "what the comparison found, and not its mean over the epoch"
    assert "--objective.switch" in watched[0].text
    seldom = adaptation(_rows([0.5] * 3, train_compared=[0.1, 0.1, 0.0], **guard), TEN).remarks
    assert "--objective.switch" in seldom[0].text  # an epoch without a comparison is no switch
    for compared in (0.1, 0.0):
        rows = _rows([0.5] * 3, train_compared=[0.1, 0.1, compared], **guard)
        assert "goes on with the judge's attack" in adaptation(rows, replace(TEN, switches=True)).remarks[0].text


@pytest.mark.parametrize(
    ("schedule", "epochs", "reach"),
    [
        (Hinge(), 1, 0.0),
        (Hinge(start=0.5, stop=1.0), 2, 0.1),
        (Hinge(start=0.9, stop=0.9), 2, 0.0),
        (Cosine(), 1, 0.0),
        (Automatic(), 1, 0.0),
        (Adaptive(), 1, 0.0),
    ],
    ids=repr,
)
def test_a_target_that_so_few_epochs_cannot_reach_is_told_before_the_first(schedule, epochs, reach):
    remark = foreseen(replace(TEN, schedule=schedule, epochs=epochs))
    if reach == TEN.target:
        assert remark is None
    else:
        assert remark.text.startswith(f"the training will end at epsilon {reach:g}, short of its target 0.1. ")


def test_what_cannot_be_known_or_is_not_wanted_is_not_foreseen():
    for schedule in (Fixed(), Random(), Hinge(every="step")):
        assert foreseen(replace(TEN, schedule=schedule, epochs=1)) is None
    for schedule in (Automatic(), Adaptive()):
        assert foreseen(replace(TEN, schedule=schedule, epochs=2)) is None
    assert foreseen(replace(TEN, schedule=Hinge(), epochs=1, robust=False)) is None


def test_chance_is_the_largest_class_where_one_stands_out():
    assert replace(TEN, largest=0.09).threshold == TEN.threshold
    uneven = replace(TEN, largest=0.83)
    assert uneven.threshold == pytest.approx(0.915)
    assert adaptation(_rows([0.83, 0.9]), uneven).delay is None
    assert adaptation(_rows([0.83, 0.93]), uneven).delay == 2
    assert replace(TEN, largest=0.3).threshold == pytest.approx(0.6)


def test_a_task_learned_without_robustness_is_said_at_the_end():
    rows = _rows([0.8] * 10, [0.0] * 10)
    assert _kinds(rows) == ["not-robust"]
    assert _kinds(rows[:9]) == []
    assert _kinds(rows, replace(TEN, robust=False)) == []


def test_a_schedule_that_did_not_arrive_is_said_at_the_end():
    rows = _rows([0.8] * 10, epsilon=[0.01 * epoch for epoch in range(10)])
    assert _kinds(rows, replace(TEN, schedule=Adaptive())) == ["short-of-target"]
    assert "ended at epsilon 0.09, short of its target 0.1" in (
        adaptation(rows, replace(TEN, schedule=Adaptive())).remarks[0].text
    )
    assert _kinds(rows, replace(TEN, schedule=Random())) == []
    assert _kinds(_rows([0.8] * 10), replace(TEN, schedule=Adaptive())) == []


def test_a_large_gap_to_standard_fine_tuning_is_suboptimal_transfer():
    rows = _rows([0.7] * 10)
    assert _kinds(rows, replace(TEN, standard=0.81)) == ["suboptimal-transfer"]
    assert "11.0 points below the 81.0 %" in adaptation(rows, replace(TEN, standard=0.81)).remarks[0].text
    assert _kinds(rows, replace(TEN, standard=0.79)) == []


def test_the_record_is_json():
    found = adaptation(_rows([0.1, 0.1]), TEN)
    again = json.loads(json.dumps(found.record()))
    assert again["delay"] is None
    assert again["remarks"][0]["kind"] == "at-chance"


def test_rows_that_are_no_numbers_are_passed_over():
    rows = [{"epoch": 0, "epsilon": 0.1, "validation/clean": float("nan")}, *_rows([0.9])]
    assert adaptation(rows, TEN).clean == 0.9
