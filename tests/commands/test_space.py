from __future__ import annotations

import pytest
import yaml

from poise.commands.parsing import options_of
from poise.commands.searching.goals import Bound, figure_points, figures_of, read_bound
from poise.commands.searching.space import (
    Listed,
    Span,
    filled,
    fit_for,
    samples_of,
    space_of,
    suggested,
    with_default_space,
)
from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.evaluation import expected_robustness
from tests.evaluation.profiles import profile

TREE = yaml.safe_load(
    """
    model: small
    threat: {epsilon: 8/255}
    schedule: {kind: hinge, start: {from: 0, to: 0.5}}
    training: {learning_rate: {from: 1e-5, to: 1e-1, log: true}, batch_size: {from: 16, to: 64}}
    objective: {kind: adversarial, attack: {kind: pgd, steps: {among: [5, 10]}}}
    """
)


def test_ranges_stand_in_a_recipe_in_place_of_values():
    assert space_of(TREE) == {
        "schedule.start": Span(0, 0.5),
        "training.learning_rate": Span(1e-5, 1e-1, log=True),
        "training.batch_size": Span(16, 64),
        "objective.attack.steps": Listed((5, 10)),
    }
    assert space_of(TREE)["training.batch_size"].whole
    assert not space_of(TREE)["schedule.start"].whole


def test_whole_ends_mean_whole_numbers_only_where_the_option_does():
    tree = {
        "schedule": {"kind": "hinge", "start": 0, "stop": {"from": 0, "to": 1}},
        "objective": {"kind": "trades", "beta": {"from": 1, "to": 6, "log": True}},
        "training": {"batch_size": {"from": 16, "to": 64}, "clip": {"from": 1, "to": 4}},
        "threat": {"epsilon": {"from": 0, "to": 1}},
    }
    space = space_of(tree)
    found = fit_for(space, options_of("finetune", filled(tree, {**samples_of(space)[0], "model": "small"})))
    assert {path: kind.whole for path, kind in found.items()} == {
        "schedule.stop": False,
        "objective.beta": False,
        "training.batch_size": True,
        "training.clip": False,
        "threat.epsilon": False,
    }
    assert found["objective.beta"] == Span(1.0, 6.0, log=True)


def test_values_take_the_place_of_ranges_and_the_recipe_is_left_as_it_was():
    chosen = filled(TREE, {"schedule.start": 0.2, "objective.attack.steps": 5, "out": "here"})
    assert chosen["schedule"] == {"kind": "hinge", "start": 0.2}
    assert chosen["objective"] == {"kind": "adversarial", "attack": {"kind": "pgd", "steps": 5}}
    assert chosen["out"] == "here"
    assert isinstance(TREE["schedule"]["start"], dict)
    assert filled({"schedule": "hinge"}, {"schedule.start": 0.1}) == {"schedule": {"kind": "hinge", "start": 0.1}}


def test_without_ranges_the_usual_ones_are_searched():
    names = {"training.learning_rate", "training.weight_decay", "schedule.start", "schedule.stop"}
    assert set(space_of(with_default_space({"model": "small"}))) == names
    assert with_default_space({"model": "small"})["schedule"]["kind"] == "hinge"
    fixed = {name for name in names if name.startswith("training")}
    assert set(space_of(with_default_space({"schedule": "fixed"}))) == fixed
    assert set(space_of(with_default_space({"schedule": "Hinge"}))) == names
    assert with_default_space(TREE) == TREE


def test_suggestions_are_asked_for_by_kind():
    asked = []

    def number(path, low, high, *, log):
        asked.append((path, low, high, log))
        return high

    def among(path, values):
        asked.append((path, values))
        return values[-1]

    found = suggested(space_of(TREE), number, number, among)
    assert found["objective.attack.steps"] == 10
    assert asked == [
        ("schedule.start", 0, 0.5, False),
        ("training.learning_rate", 1e-5, 1e-1, True),
        ("training.batch_size", 16, 64, False),
        ("objective.attack.steps", (5, 10)),
    ]


def test_samples_hold_every_end_and_every_listed_value_the_low_ends_first():
    space = {"a": Span(0, 1), "b": Listed((5, 3, 4)), "c": Listed(("x",))}
    assert samples_of(space) == [{"a": 0, "b": 5, "c": "x"}, {"a": 1, "b": 3, "c": "x"}, {"a": 0, "b": 4, "c": "x"}]
    assert samples_of({}) == [{}]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"from": 1}, "a: the ends of a range are numbers; got None"),
        ({"from": "x", "to": 2}, "a: the ends of a range are numbers; got 'x'"),
        ({"from": True, "to": 2}, "the ends of a range are numbers; got True"),
        ({"from": 3, "to": 2}, "a: a range needs from <= to; got 3 and 2"),
        ({"from": 0, "to": 2, "log": True}, "a range needs from <= to and from > 0; got 0 and 2"),
        ({"from": 0, "to": 2, "lgo": True}, "did you mean 'log'"),
        ({"among": []}, "among needs a list of at least one plain value"),
        ({"among": [[1]]}, "among needs a list of at least one plain value"),
    ],
)
def test_what_is_no_range_is_refused_by_name(value, words):
    with pytest.raises(Misuse, match=words):
        space_of({"a": value})


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("clean >= 0.8", Bound("clean", True, 0.8)),
        ("robust@2/255<=50%", Bound("robust@2/255", False, 0.5)),
    ],
)
def test_bounds_are_read_as_people_write_them(text, bound):
    assert read_bound(text) == bound
    assert read_bound(str(bound)) == bound


def test_how_far_a_model_is_from_keeping_a_bound():
    assert read_bound("clean >= 0.8").excess({"clean": 0.7}) == pytest.approx(0.1)
    assert read_bound("clean <= 0.8").excess({"clean": 0.7}) == pytest.approx(-0.1)


@pytest.mark.parametrize("text", ["clean", "clean > 0.8", "clean >= 80", "clean >= x%", ">= 0.8"])
def test_what_is_no_bound_is_refused(text):
    with pytest.raises(Misuse, match="bound"):
        read_bound(text)


def test_a_model_is_judged_where_the_figures_need_it():
    threat = Threat(epsilon="4/255")
    assert figure_points(("clean", "robust"), threat) == ()
    assert figure_points(("robust@1/255", "clean"), threat) == (1 / 255,)
    assert len(figure_points(("expected", "robust@1/255"), threat)) == 5
    for name in ("robust@4/255", "robust@9/255", "rbust", "clean@1/255"):
        with pytest.raises(Misuse):
            figure_points((name,), threat)


def test_figures_are_those_of_the_profile():
    made = profile([0, 1, 2, 3, 3])
    found = figures_of(made, ("expected",))
    assert found["expected"] == expected_robustness(made).value
    assert found["clean"] == made.robust()[:, 0].mean()
    assert found["robust"] == made.robust()[:, -1].mean()
