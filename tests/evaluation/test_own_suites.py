from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from poise.attacks import APGD, Search
from poise.attacks.guest import Guest
from poise.attacks.pgd_search import PGDSearch
from poise.attacks.pool import Item, Pool
from poise.attacks.suites import Unit, check_suite, is_of, longest, signed, units
from poise.core.batch import Batch
from poise.core.losses import margin
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.data import InMemory
from poise.evaluation import Examination, examine
from poise.evaluation.joining import join_profiles
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


def before_all(norm, classes, stream):
    return [Unit(PGDSearch(norm=norm, stream=stream), restart=-1)]


def of_a_class(norm, classes, stream):
    unit = Unit(PGDSearch(norm=norm, stream=stream))
    object.__setattr__(unit, "search", PGDSearch)
    return [unit]


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
    assert found.header.suite == signed(f"{HERE}:with_trap", "linf", 2)
    assert re.fullmatch(f"{HERE}:with_trap@[0-9a-f]{{8}}", found.header.suite)
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
        ("at_no_class", "ranks of targets are 0 to 0 with these classes; got 1"),
        ("before_all", "restarts are numbered from 0; got -1"),
        ("of_a_class", "must return searches or units; among them was ABCMeta"),
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
    with monkeypatch.context() as patch:
        patch.setattr("poise.attacks.suites.text_around", lambda thing: "another text")
        with pytest.raises(Misuse, match="begun with another suite"):
            _examined(classifier, images, "with_trap", journal=path)
    assert _examined(classifier, images, "with_trap", journal=path).broken_by == ("moved",) * 5


@dataclass(frozen=True, kw_only=True)
class Meddling(Moved):
    """Changes what it is given, so that every point looks permitted and every image misread."""

    length: float = 1.5

    def ask(self, problem, state):
        points = super().ask(problem, state)
        problem.images.copy_(points)
        problem.radius.mul_(100)
        problem.labels.fill_(1)
        return points

    def tell(self, problem, state, points, answer):
        told = super().tell(problem, state, points, answer)
        points.fill_(1)
        return told


@dataclass(frozen=True, kw_only=True)
class Endless(Moved):
    """Never says that it is done."""

    length: float = 0.0

    def tell(self, problem, state, points, answer):
        return super().tell(problem, state, points, answer) | {"done": torch.zeros_like(state["done"])}


@dataclass(frozen=True, kw_only=True)
class Approaching(Moved):
    """Asks beyond the ball, then at its rim, then at the image."""

    length: float = 1.5
    queries = 4

    def ask(self, problem, state):
        points = problem.images.clone()
        lengths = torch.tensor([1.5, 1.0, 0.0, 0.0])[state["query"].clamp(max=3)]
        points[:, 0, 0, 0] += lengths * problem.radius
        return points

    def tell(self, problem, state, points, answer):
        return {"query": state["query"] + 1, "done": state["query"] >= 3}


def meddling(norm, classes, stream):
    return [Meddling(norm=norm, stream=stream)]


def endless(norm, classes, stream):
    return [Endless(norm=norm, stream=stream)]


def approaching(norm, classes, stream):
    return [Approaching(norm=norm, stream=stream)]


def as_said(norm, classes, stream):
    return [Moved(norm=norm, stream=stream, length=float(os.environ.get("LENGTH", "1")))]


made = partial(as_said)


@pytest.mark.parametrize("name", ["meddling", "endless"])
def test_neither_meddling_nor_going_on_for_ever_makes_a_verdict(trapped, name):
    assert _examined(*trapped, name).broken_by == ("",) * 5


@pytest.mark.parametrize("look_every", [1, 4])
def test_a_success_counts_although_a_point_outside_came_first(trapped, look_every):
    classifier, images = trapped
    (unit,) = units(f"{HERE}:approaching", "linf", 2, Stream.seeded(0))

    def fetch(rows):
        return Batch(images.images(rows), images.labels[rows], images.keys[rows])

    pool = Pool(model=classifier, fetch=fetch, slots=5, look_every=look_every)
    with pool.open():
        ended = [one for some in pool.run(unit.search, deque(Item(row, EPSILON) for row in range(5))) for one in some]
    assert [one.image is not None for one in ended] == [True] * 5


def test_a_search_is_the_same_guest_at_all_its_targets_and_poises_own_are_none():
    def both(norm, classes, stream):
        moved = Moved(norm=norm, stream=stream, length=1.0)
        return [Unit(moved), Unit(moved, rank=1), *units("fast", norm, classes, stream)]

    globals()["both"] = both
    first, second, own = units(f"{HERE}:both", "linf", 3, Stream.seeded(0))
    assert first.search is second.search
    assert isinstance(first.search, Guest)
    assert type(own.search) is APGD


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": ""}, "name must be a line"),
        ({"name": 7}, "name must be a line"),
        ({"name": None}, "name must be a line"),
        ({"name": "two\nlines"}, "name must be a line"),
        ({"name": "clean"}, "not 'clean'"),
        ({"name": "moved through robust"}, "not 'clean' or '... through ...'"),
        ({"queries": 0}, "queries must be a whole number of at least 1; got 0"),
        ({"queries": None}, "queries must be"),
        ({"queries": True}, "queries must be"),
        ({"rhythm": ()}, "rhythm must be a tuple"),
        ({"rhythm": True}, "rhythm must be a tuple"),
        ({"rhythm": (1,)}, "rhythm must be a tuple"),
        ({"begin": lambda self, problem: None}, "begin must return a dictionary of tensors with 'done'"),
        ({"begin": lambda self, problem: {"done": 0}}, "begin gave a int as 'done'"),
        ({"begin": lambda self, problem: {"done": problem.labels}}, "as 'done'; it must be bool"),
        ({"begin": lambda self, problem: {"done": problem.labels > 0, "x": torch.zeros(1)}}, "as 'x'; it must be"),
        ({"tell": lambda self, problem, state, points, answer: None}, "tell must return a dictionary"),
        ({"ask": lambda self, problem, state: problem.images[:1]}, "ask gave points that are"),
        ({"ask": lambda self, problem, state: problem.images.double()}, "float64 of shape"),
        ({"ask": lambda self, problem, state: problem.images.numpy()}, "points that are a ndarray"),
        ({"loss": lambda self, problem, logits: logits}, "loss gave losses that are"),
    ],
)
def test_a_search_that_breaks_a_promise_is_named_before_any_work(trapped, monkeypatch, wrong, words):
    kind = type("Wrong", (Moved,), {"length": 1.0, **wrong})

    def broken(norm, classes, stream):
        return [kind(norm=norm, stream=stream, length=1.0)]

    monkeypatch.setitem(globals(), "broken", broken)
    monkeypatch.setattr("poise.evaluation.judge.clean_pass", lambda *_: pytest.fail("work was done"))
    with pytest.raises(Misuse, match=re.escape(words)):
        _examined(*trapped, "broken")


def test_what_a_profile_calls_a_suite_tells_its_versions_apart(monkeypatch):
    name = f"{HERE}:as_said"
    plain = signed(name, "linf", 2)
    assert signed(name, "linf", 2) == plain
    assert signed(f"{HERE}:made", "linf", 2).partition("@")[2] == plain.partition("@")[2], "a partial is its function"
    assert signed("fast", "linf", 2) == "fast"
    with monkeypatch.context() as patch:
        patch.setenv("LENGTH", "2")
        assert signed(name, "linf", 2) != plain, "other settings"
    with monkeypatch.context() as patch:
        patch.setattr("poise.attacks.suites.text_around", lambda thing: "another text")
        assert signed(name, "linf", 2) != plain, "another text"
    assert is_of(plain, name)
    assert is_of(plain, plain)
    assert not is_of(plain, f"{name}@00000000")
    assert not is_of(plain, f"{HERE}:as_sai")
    assert not is_of("fast", "fas")


def test_parts_by_two_versions_of_a_suite_are_not_joined(trapped, monkeypatch):
    classifier, images = trapped
    parts = {}
    for name, rows, length in (("first", [0, 1], "1"), ("second", [2, 3, 4], "2")):
        monkeypatch.setenv("LENGTH", length)
        parts[name] = _examined(classifier, images.select(torch.tensor(rows)), "as_said", whole=images)
    with pytest.raises(Misuse, match="they differ in suite"):
        join_profiles(parts)
    monkeypatch.setenv("LENGTH", "1")
    parts["second"] = _examined(classifier, images.select(torch.tensor([2, 3, 4])), "as_said", whole=images)
    assert len(join_profiles(parts)) == 5


@pytest.mark.parametrize(
    "suite", [as_said, None, "mine:suite", "mine.suite", "python:./mine.py:suite", "python:.mine:x"]
)
def test_what_is_no_suite_is_refused_and_the_form_is_told(suite):
    with pytest.raises(Misuse, match=re.escape("python:PACKAGE.MODULE:NAME")):
        check_suite(suite)


def test_a_search_that_cannot_be_repeated_is_refused():
    class Odd(Moved):
        def __init__(self, strength):
            super().__init__(norm="linf", stream=Stream.seeded(0), length=strength)

    with pytest.raises(Misuse, match="Odd must be a dataclass"):
        Guest.of(Odd(1.0))
