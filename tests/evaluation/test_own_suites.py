from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from poise.attacks import APGD, Search
from poise.attacks.pgd_search import PGDSearch
from poise.attacks.suites import Unit, longest, units
from poise.core.losses import margin
from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.data import InMemory
from poise.evaluation import Examination, examine
from poise.models import Blueprint, Classifier
from tests.models_for_tests import linear_classifier, random_images

HERE = "python:tests.evaluation.test_own_suites"
EPSILON = 0.1


@dataclass(frozen=True, kw_only=True)
class Moved(Search):
    """Asks for the image itself and, once, for the image moved by `length` budgets in its first value."""

    length: float
    rhythm = (False,)
    name = "moved"
    queries = 2

    def begin(self, problem):
        return {"query": torch.zeros_like(problem.labels), "done": torch.zeros_like(problem.labels, dtype=torch.bool)}

    def ask(self, problem, state):
        points = problem.images.clone()
        points[:, 0, 0, 0] += self.length * problem.radius * (state["query"] == 1)
        return points

    def loss(self, problem, logits):
        return -margin(logits, problem.labels)

    def tell(self, problem, state, points, answer):
        return {"query": state["query"] + 1, "done": state["query"] >= 1}


class Trap(nn.Module):
    """Says class 0 wherever the first value is below 0.5 + EPSILON / 2, and 1 above: no gradient leads there."""

    def forward(self, images):
        sprung = (images[:, 0, 0, 0] > 0.5 + EPSILON / 2).to(images.dtype)
        return torch.stack([1 - sprung, sprung], 1) + 0 * images.flatten(1).sum(1, keepdim=True)


def gradients(norm, classes, stream):
    return units("fast", norm, classes, stream)


def with_trap(norm, classes, stream):
    return [*units("fast", norm, classes, stream), Moved(norm=norm, stream=stream, length=1.0)]


def beyond_the_ball(norm, classes, stream):
    return [Moved(norm=norm, stream=stream, length=1.5)]


def beyond_the_box(norm, classes, stream):
    return [Moved(norm=norm, stream=stream, length=1e9)]


def nowhere(norm, classes, stream):
    return [Moved(norm=norm, stream=stream, length=torch.nan)]


def long(norm, classes, stream):
    return (PGDSearch(norm=norm, stream=stream, steps=7), APGD(norm=norm, stream=stream, steps=13))


def none(norm, classes, stream):
    return []


def number(norm, classes, stream):
    return 3


def numbers(norm, classes, stream):
    return [3]


def of_another_norm(norm, classes, stream):
    return [PGDSearch(norm="l2", stream=stream)]


def at_no_class(norm, classes, stream):
    return [Unit(PGDSearch(norm=norm, stream=stream), rank=1)]


def through_something(norm, classes, stream):
    return [Unit(PGDSearch(norm=norm, stream=stream), through="robust")]


def greedy(norm, classes, stream, budget):
    return []


def _examined(classifier, images, name, **options):
    examination = Examination(threat=Threat(norm="linf", epsilon=EPSILON), points=(), suite=f"{HERE}:{name}")
    return examine(classifier, images, examination, model_address="made", **options)


@pytest.fixture
def trapped():
    blueprint = Blueprint(address="python:tests", classes=("a", "b"), shape=(1, 3, 3))
    ids, labels = tuple(map(str, range(5))), torch.zeros(5, dtype=torch.int64)
    return Classifier(Trap(), blueprint), InMemory("made", ("a", "b"), ids, labels, torch.full((5, 1, 3, 3), 0.5))


def test_an_attack_of_ones_own_finds_what_poises_do_not(trapped):
    alone = _examined(*trapped, "gradients")
    assert alone.broken_by == ("",) * 5
    found = _examined(*trapped, "with_trap")
    assert found.broken_by == ("moved",) * 5
    assert found.header.suite == f"{HERE}:with_trap"
    assert np.array_equal(found.epsilons, [0, EPSILON])


@pytest.mark.parametrize("name", ["beyond_the_ball", "beyond_the_box", "nowhere"])
def test_what_lies_outside_ball_or_box_breaks_nothing(trapped, name):
    assert _examined(*trapped, name).broken_by == ("",) * 5


def test_a_suite_of_poises_put_together_again_gives_the_same_verdicts():
    classifier = linear_classifier(3, (2, 3, 3))
    images = random_images(classifier, 20)
    threat = Threat(norm="linf", epsilon=0.05)
    own, named = (
        examine(classifier, images, Examination(threat=threat, suite=suite), model_address="made")
        for suite in ("fast", f"{HERE}:gradients")
    )
    assert np.array_equal(own.broken_from, named.broken_from)
    assert own.broken_by == named.broken_by


def test_what_the_checks_take_for_its_length_is_that_of_its_own_searches():
    assert longest(f"{HERE}:long", "linf", 10) == 13
    assert longest(f"{HERE}:nowhere", "linf", 10) == 100
    assert (longest("autoattack", "l1", 10), longest("fast", "l2", 2)) == (100, 10)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("beyond_a_ball", "has no callable 'beyond_a_ball'; did you mean 'beyond_the_ball'"),
        ("greedy", "cannot be called with .*: missing a required argument: 'budget'"),
        ("number", "must return searches or units; it returned int"),
        ("numbers", "must return searches or units; among them was int"),
        ("none", "returned no search"),
        ("of_another_norm", "was asked for linf; its pgd is in l2"),
        ("at_no_class", "ranks of targets are 0 to 0 with 2 classes; got 1"),
        ("through_something", "leave 'robust' out"),
    ],
)
def test_a_function_that_gives_no_suite_is_refused(trapped, name, words):
    with pytest.raises(Misuse, match=words):
        _examined(*trapped, name)


def test_an_interrupted_profile_goes_on_with_the_same_text_alone(trapped, tmp_path, monkeypatch):
    classifier, images = trapped
    path = tmp_path / "p.parquet"

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _examined(classifier, images, "with_trap", journal=path, watch=stop)
    text = _examined(classifier, images, "with_trap").header.versions["suite"]
    assert len(text) == 32
    with monkeypatch.context() as patch:
        patch.setattr("poise.evaluation.judge.edition", lambda suite: "another text")
        with pytest.raises(Misuse, match="begun with another versions"):
            _examined(classifier, images, "with_trap", journal=path)
    assert _examined(classifier, images, "with_trap", journal=path).broken_by == ("moved",) * 5
