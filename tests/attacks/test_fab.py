from __future__ import annotations

import pytest
import torch

from poise.attacks.fab import FAB, FABT
from poise.core.batch import Batch
from poise.core.misuse import Misuse
from poise.core.norms import length
from poise.core.threat import NORMS
from tests.attacks.searches import (
    SHAPES,
    STREAM,
    Curved,
    check_slots_are_independent,
    fooled,
    problem,
    ranked_targets,
    shortest,
    solved,
    trajectory,
)
from tests.linear import Linear, batch

norms = pytest.mark.parametrize("norm", NORMS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@norms
def test_alone_finds_what_is_one_percent_above_the_exact_minimum_and_nothing_below(norm, shape, classes):
    model, data = solved(classes, shape)
    radius = shortest(model, data, norm)
    search = FABT(norm=norm, stream=STREAM)
    assert fooled(search, model, data, 1.01 * radius).all()
    assert not fooled(search, model, data, 0.99 * radius).any()


@pytest.mark.parametrize(("classes", "enough"), [(2, 1.01), (4, 1.2), (10, 1.2)])
@norms
def test_untargeted_finds_nothing_below_the_exact_minimum_and_everything_above(norm, classes, enough):
    """With several classes it may walk to one whose boundary is nearest only where there is no box."""
    model, data = solved(classes, (1, 5, 4))
    radius = shortest(model, data, norm)
    search = FAB(norm=norm, stream=STREAM)
    assert fooled(search, model, data, enough * radius).all()
    assert fooled(search, model, data, 1.01 * radius).sum() >= 10
    assert not fooled(search, model, data, 0.99 * radius).any()


@norms
def test_untargeted_walks_as_targeted_does_at_the_class_whose_boundary_is_nearest(norm):
    """On a linear model that class is known: the one with the least lead over the dual length of the difference."""
    model, data = solved(6, (2, 3), count=64)
    weight, logits = model.weight.detach(), model(data.images).detach()
    order = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    away = (logits.gather(1, data.labels[:, None]) - logits) / (weight[data.labels][:, None] - weight).norm(
        order, dim=2
    )
    nearest = away.scatter(1, data.labels[:, None], torch.inf).argmin(1)
    assert not torch.equal(nearest, ranked_targets(model, data)[:, 0])
    free, aimed = (
        trajectory(search, model, problem(data, 0.1, nearest), 2)[1]
        for search in (FAB(norm=norm, stream=STREAM), FABT(norm=norm, stream=STREAM))
    )
    torch.testing.assert_close(free, aimed)


@norms
def test_one_image_alone_is_fooled(norm):
    model, data = solved(4, (1, 5, 4), count=1)
    assert fooled(FABT(norm=norm, stream=STREAM), model, data, 1.01 * shortest(model, data, norm)).all()


@norms
def test_closes_in_on_the_exact_minimum_whatever_the_radius(norm):
    """The radius is a thousandth, so nothing ends the search; its closest success is one of nearly minimal length."""
    model, data = solved(2, (3, 4, 4))
    search = FABT(norm=norm, stream=STREAM)
    asked = trajectory(search, model, problem(data, 1e-3, 1 - data.labels), search.queries)
    lengths = torch.stack([length(points - data.images, norm) for points in asked])
    wrong = torch.stack([model(points).argmax(1) != data.labels for points in asked])
    closest = lengths.masked_fill(~wrong, torch.inf).amin(0)
    torch.testing.assert_close(closest, shortest(model, data, norm), rtol=1e-2, atol=0)


def test_the_first_two_queries_are_the_image_and_the_overstepped_projection():
    model, data = solved(2, (6,))
    slope = model.weight.detach()[1 - data.labels] - model.weight.detach()[data.labels]
    asked = trajectory(FABT(norm="linf", stream=STREAM), model, problem(data, 0.1, 1 - data.labels), 3)
    assert torch.equal(asked[0], data.images)
    need = shortest(model, data, "linf")
    expected = (data.images + 1.05 * (slope.sign() * need[:, None]).clamp(-data.images, 1 - data.images)).clamp(0, 1)
    torch.testing.assert_close(asked[1], expected)
    back = data.images + 0.9 * (expected - data.images)
    torch.testing.assert_close(asked[2], back)  # the overstepped projection is misclassified: a step back


def test_an_iteration_is_a_query_with_gradient_and_one_without_after_which_it_steps_back_from_successes():
    search, data = FABT(norm="l2", stream=STREAM, steps=7), solved(2, (6,))[1]
    for bias, steps_back in ((1e6, False), (0.0, True)):
        model, data = solved(2, (6,), count=4)
        data = Batch(data.images, torch.zeros(4).long(), data.ids)
        with torch.no_grad():
            model.bias.copy_(torch.tensor([bias, 0.0] if bias else [-1e-3, 1e3]))
        asked = trajectory(search, model, problem(data, 0.1, 1 - data.labels), search.queries)
        for arrived, onward in zip(asked[1::2], asked[2::2], strict=False):
            expected = data.images + 0.9 * (arrived - data.images) if steps_back else arrived
            torch.testing.assert_close(onward, expected)
    assert (search.queries, search.rhythm) == (14, (True, False))


@norms
def test_restarts_begin_at_half_the_radius(norm):
    data = Batch(torch.full((20, 30), 0.5, dtype=torch.float64), torch.zeros(20).long(), torch.arange(20))
    search = FABT(norm=norm, stream=STREAM)
    first, second, third = (search.begin(problem(data, 0.3, restart=restart))["points"] for restart in (0, 1, 2))
    assert torch.equal(first, data.images)
    assert not torch.equal(second, third)
    torch.testing.assert_close(length(second - data.images, norm), torch.full((20,), 0.15, dtype=torch.float64))


@norms
def test_slots_are_independent(norm):
    model, data = Curved(5, (2, 4, 3)), batch(8, (2, 4, 3), 5)
    work = problem(data, torch.linspace(0, 1, 8, dtype=torch.float64), (data.labels + 1) % 5, restart=1)
    check_slots_are_independent(FABT(norm=norm, stream=STREAM, steps=15), model, work, 30)
    check_slots_are_independent(FAB(norm=norm, stream=STREAM, steps=4), model, work, 8)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
@norms
def test_flat_and_steep_models_give_finite_points_in_the_box(norm, scale):
    data, model = batch(6, (3, 4), 5, dtype=torch.float32), Linear(5, (3, 4), dtype=torch.float32)
    with torch.no_grad():
        model.weight.mul_(scale)
        model.bias.copy_(torch.arange(5.0))
    work = problem(data, torch.tensor([0, 0.1] * 3), (data.labels + 1) % 5, restart=1)
    asked = trajectory(FABT(norm=norm, stream=STREAM), model, work, 60)
    assert ((asked >= 0) & (asked <= 1)).all()


def test_global_randomness_is_left_alone_and_the_stream_decides():
    model, data = solved(4, (3, 4))
    work, state = problem(data, 0.3, ranked_targets(model, data)[:, 0], restart=1), torch.get_rng_state()
    first = trajectory(FABT(norm="l2", stream=STREAM), model, work, 5)
    assert torch.equal(first, trajectory(FABT(norm="l2", stream=STREAM), model, work, 5))
    assert not torch.equal(first, trajectory(FABT(norm="l2", stream=STREAM.fold("other")), model, work, 5))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_profiles_and_pools_read():
    plain = FAB(norm="l1", stream=STREAM)
    assert (plain.name, plain.queries, plain.targeted, plain.rhythm) == ("fab", 200, False, (True, False))
    search = FABT(norm="l1", stream=STREAM)
    assert (search.name, search.queries, search.targeted, search.rhythm) == ("fab-t", 200, True, (True, False))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "at least 1 step; got 0"),
        ({"alpha_max": 0.0}, "alpha_max in"),
        ({"eta": 0.9}, "eta of at least 1"),
        ({"beta": 1.0}, "beta in"),
    ],
)
def test_impossible_settings_are_refused_when_made(options, words):
    with pytest.raises(Misuse, match=words):
        FABT(norm="l2", stream=STREAM, **options)
