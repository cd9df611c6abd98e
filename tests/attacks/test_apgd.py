from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from poise.attacks.apgd import APGD
from poise.attacks.apgd_l1 import SparseAscent, _largest_signs, phases
from poise.attacks.apgd_momentum import MomentumAscent, checkpoints
from poise.attacks.driver import run_search
from poise.attacks.search import Answer
from poise.core.batch import Batch
from poise.core.losses import margin, target_lead
from poise.core.misuse import Misuse
from poise.core.norms import inside, length
from poise.core.streams import Stream
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
KINDS = ("ce", "dlr", "targeted-dlr")
BUDGET = {"linf": 0.1, "l2": 0.7, "l1": 2.5}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_targets_find_what_is_one_percent_above_the_exact_minimum_and_nothing_below(norm, shape, classes):
    model, data = solved(classes, shape)
    radius = shortest(model, data, norm)
    search = APGD(norm=norm, stream=STREAM, loss_kind="targeted-dlr")
    assert fooled(search, model, data, 1.01 * radius).all()
    assert not fooled(search, model, data, 0.99 * radius).any()


@pytest.mark.parametrize("kind", KINDS)
@norms
def test_two_classes_are_solved_alone_in_every_norm(norm, kind):
    model, data = solved(2, (3, 4, 4))
    radius = shortest(model, data, norm)
    search = APGD(norm=norm, stream=STREAM, loss_kind=kind)
    assert fooled(search, model, data, 1.01 * radius).all()
    assert not fooled(search, model, data, 0.99 * radius).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@norms
def test_a_tenth_above_the_minimum_most_examples_fall_to_every_loss(norm, classes, kind):
    """Untargeted losses of many classes need not lead to the nearest, and l1 steps are coarse: most, not all.

    With a radius one percent above the minimum, only targets in linf and l2, and two classes in l1, are sure to do it.
    """
    model, data = solved(classes, (3, 4, 4), count=24)
    radius = shortest(model, data, norm)
    search = APGD(norm=norm, stream=STREAM, loss_kind=kind)
    assert fooled(search, model, data, 1.1 * radius).float().mean() > 0.6
    assert not fooled(search, model, data, 0.99 * radius).any()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(100, (22, 41, 57, 70, 80, 87, 93, 99)), (10, (2, 3, 4, 5, 6, 7, 8, 9, 10)), (1, (1,)), (7, tuple(range(1, 8)))],
)
def test_checkpoints(steps, expected):
    assert checkpoints(steps) == expected


def _told(search, work, losses):
    """The states after each of a row of losses, with gradients that turn from step to step."""
    state, states = search.begin(work), []
    for step, loss in enumerate(losses):
        points = search.ask(work, state)
        gradient = torch.linspace(-1, 1, 5).double().roll(step)[None]
        state = search.tell(work, state, points, Answer(torch.zeros(1, 2), torch.tensor([loss]).double(), gradient))
        states.append(state)
    return states


def test_the_step_is_halved_by_either_condition_and_returns_to_the_best_point():
    """100 steps, checkpoints 22, 41, 57, 70: few rises; many rises; many rises without progress; progress again."""
    search = APGD(norm="linf", stream=STREAM)
    work = problem(batch(1, (5,), 2), 0.01)
    losses = [1.0]  # the start
    losses += [2.0, 1.5] * 11  # 11 rises of 22: halves, and returns to the point of loss 2
    losses += [3.0 + 0.01 * step for step in range(19)]  # 19 rises of 19: stays
    losses += [0.01 * step for step in range(16)]  # 15 rises of 16, but the best stands still: halves
    losses += [0.01 * step for step in range(13)]  # 12 of 13, and the last check halved: stays
    losses += [0.01 * step for step in range(10)]  # 9 of 10, standing still for another window: halves
    states = _told(search, work, losses)
    steps = [round(float(state["step"]) / 0.01, 6) for state in states]
    assert steps[:22] == [2] * 22
    assert steps[22:57] == [1] * 35
    assert steps[57:80] == [0.5] * 23
    assert steps[80] == 0.25
    assert torch.equal(states[22]["previous"], states[22]["best"])
    assert not torch.equal(states[41]["previous"], states[22]["best"])
    assert torch.equal(states[57]["previous"], states[57]["best"])
    assert float(states[-1]["best_loss"]) == pytest.approx(3.18)


def test_three_quarters_of_rises_still_halve():
    """The window of 16 steps ends at 57; 12 rises are its three quarters, 13 are more."""
    for rises, expected in ((12, 1.0), (13, 2.0)):
        start = [float(step) for step in range(42)]  # every step rises up to step 41
        window = [41 + step if step <= rises else 0.0 - step for step in range(1, 17)]
        states = _told(APGD(norm="linf", stream=STREAM), problem(batch(1, (5,), 2), 0.01), start + window)
        assert float(states[57]["step"]) / 0.01 == pytest.approx(expected)


def test_a_move_mixes_the_projected_step_with_the_last_one():
    images = torch.full((1, 2), 0.5, dtype=torch.float64)
    work = problem(Batch(images, torch.tensor([0]), torch.tensor([1])), 0.1)
    ascent = MomentumAscent("linf", 10)
    here, slope = images + torch.tensor([[0.02, 0.0]]), torch.tensor([[1.0, -1.0]]).double()
    step, inertia = torch.tensor([0.04]).double(), torch.tensor([[0.02, 0.01]]).double()
    first = ascent._move(work, here, slope, step, inertia, torch.tensor([True]))
    later = ascent._move(work, here, slope, step, inertia, torch.tensor([False]))
    torch.testing.assert_close(first - images, torch.tensor([[0.06, -0.04]]).double())
    torch.testing.assert_close(later - images, torch.tensor([[0.02 + 0.03 + 0.005, -0.03 + 0.0025]]).double())


def test_starts_touch_the_ball():
    data = Batch(torch.full((20, 30), 0.5, dtype=torch.float64), torch.zeros(20).long(), torch.arange(20))
    for norm in ("linf", "l2"):
        start = APGD(norm=norm, stream=STREAM).begin(problem(data, 0.1))["points"]
        torch.testing.assert_close(length(start - data.images, norm), torch.full((20,), 0.1, dtype=torch.float64))
    start = APGD(norm="l1", stream=STREAM).begin(problem(data, 0.5))["points"]
    torch.testing.assert_close(length(start - data.images, "l1"), torch.full((20,), 1.5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(100, (30, 30, 40)), (10, (3, 3, 4)), (7, (3, 3, 1)), (5, (2, 2, 1)), (2, (0, 0, 2)), (1, (0, 0, 1))],
)
def test_phases_of_l1(steps, expected):
    assert phases(steps) == expected
    assert SparseAscent(steps).queries == steps + sum(taken > 0 for taken in expected)


def test_l1_tightens_the_ball_and_each_ball_begins_at_the_projected_best():
    model, data = solved(3, (3, 4, 4))
    work = problem(data, 1.0)
    asked = trajectory(APGD(norm="l1", stream=STREAM, steps=10), model, work, 13)
    lengths = torch.stack([length(points - data.images, "l1") for points in asked])
    for part, ball in ((slice(0, 4), 3.0), (slice(4, 8), 2.0), (slice(8, 13), 1.0)):
        assert (lengths[part] <= ball + 1e-9).all()
        assert (lengths[part].amax(0) > ball - 0.01).all()


def test_l1_steps_follow_the_largest_entries_in_the_wanted_number():
    slope = torch.tensor([[3.0, -4.0, 1.0, 0.5], [3.0, -4.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    signs = _largest_signs(slope, torch.tensor([0.5, 0.0, 0.5]))
    torch.testing.assert_close(signs, torch.tensor([[0.5, -0.5, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 0]]))


@pytest.mark.parametrize("kind", KINDS)
@norms
def test_slots_are_independent(norm, kind):
    model, data = Curved(5, (2, 4, 3)), batch(8, (2, 4, 3), 5)
    work = problem(data, torch.linspace(0, 1, 8, dtype=torch.float64) * BUDGET[norm], (data.labels + 1) % 5)
    check_slots_are_independent(APGD(norm=norm, stream=STREAM, loss_kind=kind, steps=20), model, work, 24)


class _Scaled(nn.Module):
    def __init__(self, model, scale):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, images):
        return self.model(images) * self.scale


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
@pytest.mark.parametrize("kind", KINDS)
@norms
def test_flat_and_saturated_models_and_empty_balls_give_finite_points_inside(norm, kind, scale):
    data = batch(6, (3, 4), 5, dtype=torch.float32)
    model = _Scaled(Linear(5, (3, 4), dtype=torch.float32), scale)
    radius = torch.tensor([0, 0, 0, 1, 1, 1.0]) * BUDGET[norm]
    work = problem(data, radius, (data.labels + 1) % 5)
    search = APGD(norm=norm, stream=STREAM, loss_kind=kind, steps=20)
    asked = trajectory(search, model, work, search.queries)
    assert asked.isfinite().all()
    assert torch.equal(asked[:, :3], data.images[:3].expand(len(asked), -1, -1, -1))
    for points in asked:
        assert inside(points, data.images, radius * (3 if norm == "l1" else 1), norm).all()


def test_seeds_restarts_and_targets_decide_the_start_and_the_global_state_does_not():
    data, state = batch(4, (3, 4), 5), torch.get_rng_state()
    search = APGD(norm="l2", stream=STREAM, loss_kind="targeted-dlr")
    starts = [
        APGD(norm="l2", stream=Stream.seeded(1), loss_kind="targeted-dlr").begin(problem(data, 0.5))["points"],
        search.begin(problem(data, 0.5, data.labels))["points"],
        search.begin(problem(data, 0.5, (data.labels + 1) % 5))["points"],
        search.begin(problem(data, 0.5, data.labels, restart=1))["points"],
        APGD(norm="l2", stream=STREAM).begin(problem(data, 0.5))["points"],
    ]
    assert all(not torch.equal(one, other) for one in starts for other in starts if one is not other)
    assert torch.equal(starts[1], search.begin(problem(data, 0.5, data.labels))["points"])
    assert torch.equal(torch.get_rng_state(), state)
    untargeted = APGD(norm="l2", stream=STREAM)
    assert torch.equal(starts[4], untargeted.begin(problem(data, 0.5, data.labels))["points"])


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_fall_back_to_margins(classes):
    logits, labels = torch.randn(6, classes), torch.tensor([0, 1] * 3)
    work = problem(Batch(torch.rand(6, 4), labels, torch.arange(6)), 0.1, 1 - labels)
    targeted = APGD(norm="linf", stream=STREAM, loss_kind="targeted-dlr").loss(work, logits)
    torch.testing.assert_close(targeted, target_lead(logits, labels, 1 - labels))
    if classes == 2:
        untargeted = APGD(norm="linf", stream=STREAM, loss_kind="dlr").loss(work, logits)
        torch.testing.assert_close(untargeted, -margin(logits, labels))
        torch.testing.assert_close(untargeted, targeted)


@norms
def test_few_steps_already_pay(norm):
    """As in training: seven steps raise the loss more than one, and one more than none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, 5)).double()
    images = batch(64, (3, 4, 4), 5).images
    data = Batch(images, model(images).argmax(1), torch.arange(64))
    losses = []
    for steps in (1, 7, 50):
        points, _ = run_search(APGD(norm=norm, stream=STREAM, steps=steps), model, problem(data, 0.2 * BUDGET[norm]))
        losses.append(float(margin(model(points), data.labels).detach().mean()))
    assert losses[0] > losses[1] >= losses[2] - 1e-3


def test_what_profiles_and_pools_read():
    searches = [APGD(norm="linf", stream=STREAM, loss_kind=kind) for kind in KINDS]
    assert [search.name for search in searches] == ["apgd-ce", "apgd-dlr", "apgd-t"]
    assert [search.targeted for search in searches] == [False, False, True]
    assert [search.queries for search in searches] == [101] * 3
    assert APGD(norm="l1", stream=STREAM).queries == 103
    assert searches[0].rhythm == (True,)


def test_impossible_settings_are_refused_when_made():
    with pytest.raises(Misuse, match="at least 1 step; got 0"):
        APGD(norm="linf", stream=STREAM, steps=0)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_loss_is_refused():
    with pytest.raises(Misuse, match="unknown APGD loss 'drl'"):
        APGD(norm="linf", stream=STREAM, loss_kind="drl")


def test_the_driver_returns_the_first_success_or_the_best_point_and_leaves_no_trace():
    model, data = solved(3, (4, 3))
    model.train()
    radius = shortest(model, data, "l2") * torch.tensor([1.5, 0.5] * 6)
    search, before = APGD(norm="l2", stream=STREAM, loss_kind="targeted-dlr"), torch.get_rng_state()
    work = problem(data, radius, ranked_targets(model, data)[:, 0])
    points, found = run_search(search, model, work)
    assert found[1::2].sum() == 0
    assert found[::2].sum() >= 4
    assert torch.equal(model(points).argmax(1) != data.labels, found)
    assert inside(points, data.images, radius, "l2").all()
    asked = trajectory(search, model, work, search.queries)
    for row in range(len(data)):
        wrong = model(asked[:, row]).argmax(1) != data.labels[row]
        lead = search.loss(work.select(torch.full((len(asked),), row)), model(asked[:, row]))
        expected = int(wrong.int().argmax()) if found[row] else int(lead.argmax())
        assert torch.equal(points[row], asked[expected, row])
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert not points.requires_grad


def test_a_search_of_nothing_finds_nothing():
    data = batch(0, (3, 4), 2)
    for norm in NORMS:
        points, found = run_search(APGD(norm=norm, stream=STREAM), Linear(2, (3, 4)), problem(data, 0.1))
        assert points.shape == (0, 3, 4)
        assert found.shape == (0,)
    assert math.prod(points.shape) == 0
