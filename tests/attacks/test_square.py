from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.attacks.driver import run_search
from poise.attacks.itinerary import draw, mask_and_signs, planned, window_share
from poise.attacks.proposals import moved_mass, tile_count
from poise.attacks.square import Square
from poise.attacks.windows import Windows, as_grid, window_sides
from poise.core.batch import Batch
from poise.core.losses import margin
from poise.core.misuse import Misuse
from poise.core.norms import inside, length
from poise.core.threat import NORMS
from tests.attacks.searches import (
    SHAPES,
    STREAM,
    Curved,
    check_slots_are_independent,
    fooled,
    problem,
    shortest,
    solved,
    trajectory,
)
from tests.linear import Linear, batch

norms = pytest.mark.parametrize("norm", NORMS)
BUDGET = {"linf": 0.1, "l2": 0.7, "l1": 2.5}
ANY_SHAPE = [(1, 8, 8), (3, 4, 9), (3, 11, 2), (2, 7), (12,), (2, 3, 4, 5), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_two_classes_are_solved_in_linf_and_nothing_is_found_below_the_minimum(shape):
    model, data = solved(2, shape)
    radius = shortest(model, data, "linf")
    search = Square(norm="linf", stream=STREAM, steps=1000)
    assert fooled(search, model, data, 1.01 * radius).all()
    assert not fooled(search, model, data, 0.99 * radius).any()


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9)])
def test_in_l2_and_l1_it_needs_a_larger_budget_but_most_examples_fall(norm, shape):
    """Windows of at least 3 pixels suit images, not linear models with white noise for weights."""
    model, data = solved(3, shape)
    radius = shortest(model, data, norm)
    search = Square(norm=norm, stream=STREAM, steps=500)
    assert fooled(search, model, data, 3 * radius).float().mean() > 0.8
    assert not fooled(search, model, data, 0.99 * radius).any()


def test_windows_of_long_signals_are_where_they_should_be():
    """Positions beyond 32,767 do not fit into 16 bits."""
    ids, grid = torch.arange(50), (1, 40_000, 1)
    plan = draw(STREAM.fold("long"), ids, torch.zeros(50, dtype=torch.int64), torch.tensor([[32_000, 1]]), grid)
    mask, _ = mask_and_signs(planned(plan, torch.ones(50, dtype=torch.int64)), grid)
    assert (mask.flatten(1).sum(1) == 32_000).all()


@pytest.mark.parametrize("shape", ANY_SHAPE)
@norms
def test_every_query_is_inside_ball_and_box_and_the_loss_never_falls(norm, shape):
    model, data = Linear(4, shape), batch(6, shape, 4)
    radius = torch.linspace(0, 1, 6, dtype=torch.float64) * BUDGET[norm]
    work, search = problem(data, radius), Square(norm=norm, stream=STREAM, steps=200)
    asked = trajectory(search, model, work, 201)
    assert all(inside(points, data.images, radius, norm).all() for points in asked)
    losses = torch.stack([search.loss(work, model(points)) for points in asked])
    points, _ = run_search(search, model, work)
    safe = (losses <= 0).all(0)
    torch.testing.assert_close(search.loss(work, model(points))[safe], losses.amax(0)[safe])
    assert (losses.amax(0)[1:] > losses[0, 1:]).float().mean() > 0.5 or shape == (1, 1, 1)
    assert torch.equal(asked[:, 0], data.images[:1].expand(201, *shape))


def test_only_changes_that_help_are_kept():
    model, data = solved(4, (2, 5, 5))
    work, search = problem(data, 0.05), Square(norm="linf", stream=STREAM, steps=60)
    asked = trajectory(search, model, work, 61)
    loss = torch.stack([-margin(model(points), data.labels) for points in asked])
    for step in range(1, 61):
        best = asked[loss[:step].argmax(0), torch.arange(len(data))]
        outside = (asked[step] != best).flatten(1).float().mean(1)
        share = window_share(step - 1, 60, 0.8)
        assert (outside <= max(round((share * 25) ** 0.5), 1) ** 2 / 25 + 1e-6).all()


@pytest.mark.parametrize(
    ("step", "steps", "expected"),
    [
        (0, 10000, 1),
        (10, 10000, 1),
        (11, 10000, 2),
        (50, 10000, 2),
        (51, 10000, 4),
        (8001, 10000, 512),
        (5, 5000, 1),
        (6, 5000, 2),
        (4999, 5000, 512),
        (4999, 10000, 128),
    ],
)
def test_the_published_schedule(step, steps, expected):
    assert window_share(step, steps, 0.8) == 0.8 / expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0.8, 32, 32), (29, 29)),
        ((0.8, 4, 100), (4, 80)),
        ((0.8, 100, 4), (80, 4)),
        ((0.0001, 32, 32), (1, 1)),
        ((0.5, 1, 30), (1, 15)),
        ((0.0001, 32, 32, 3), (3, 3)),
        ((1.0, 2, 2, 3), (2, 2)),
    ],
)
def test_window_sides(arguments, expected):
    assert window_sides(*arguments) == expected


def test_odd_windows():
    assert window_sides(0.25, 32, 32, 3, odd=True) == (17, 17)
    assert window_sides(1.0, 32, 32, 3, odd=True) == (32, 32)


def test_shapes_are_read_as_grids():
    shapes = [(), (7,), (3, 7), (3, 4, 7), (3, 2, 4, 7)]
    assert [as_grid(shape) for shape in shapes] == [(1, 1, 1), (1, 1, 7), (3, 1, 7), (3, 4, 7), (3, 8, 7)]


def _windows(top, left, tall, wide, height, width):
    return Windows(*(torch.tensor(values) for values in (top, left, tall, wide)), height, width)


def test_masks_hold_the_window_and_nothing_else():
    mask = _windows([0, 2], [1, 3], [2, 1], [2, 2], 3, 5).mask
    expected = torch.zeros(2, 1, 3, 5, dtype=torch.bool)
    expected[0, 0, 0:2, 1:3] = True
    expected[1, 0, 2:3, 3:5] = True
    assert torch.equal(mask, expected)


def _drawn_bump(rows, columns, power):
    """The bump of the paper, drawn square by square."""
    canvas = torch.zeros(rows, columns, dtype=torch.float64)
    for ring in range(max(rows, columns) // 2 + 1):
        top, left = rows // 2 - ring, columns // 2 - ring
        canvas[max(top, 0) : top + 2 * ring + 1, max(left, 0) : left + 2 * ring + 1] += 1 / (ring + 1) ** power
    return canvas


@pytest.mark.parametrize(("norm", "power", "order"), [("l2", 2, 2), ("l1", 4, 1)])
@pytest.mark.parametrize(("tall", "wide"), [(3, 3), (7, 7), (5, 8), (1, 6), (1, 1)])
def test_bumps_are_those_of_the_paper(norm, power, order, tall, wide):
    for turned in (False, True):
        window = _windows([2], [1], [tall], [wide], 10, 11)
        bumps = window.bumps(torch.tensor([turned]), norm)[0, 0]
        rows, columns = (wide, tall) if turned else (tall, wide)
        upper, lower = _drawn_bump(rows // 2, columns, power), _drawn_bump(rows - rows // 2, columns, power)
        parts = [upper / upper.norm(order) if len(upper) else upper, -lower / lower.norm(order)]
        drawn = torch.cat(parts) / torch.cat(parts).norm(order)
        expected = torch.zeros(10, 11, dtype=torch.float64)
        expected[2 : 2 + tall, 1 : 1 + wide] = drawn.t() if turned else drawn
        torch.testing.assert_close(bumps, expected)


def test_a_change_puts_each_channel_of_a_window_at_an_end_of_its_ball():
    data = batch(64, (2, 6, 5), 3)
    work, search = problem(data, 0.1), Square(norm="linf", stream=STREAM, steps=4, p_init=0.3)
    state = search.begin(work)
    points, answer = _answered(search, work, state)
    best = state["best"]
    changed = search.ask(work, search.tell(work, state, points, answer))
    side = round((0.3 * 30) ** 0.5)
    ends = (data.images - 0.1).clamp(min=0), (data.images + 0.1).clamp(max=1)
    wide, tall = torch.zeros(64), torch.zeros(64)
    for row in range(64):
        touched = (changed[row] != best[row]).nonzero()
        assert len(touched)
        assert all(int(spread) < side for spread in (touched.amax(0) - touched.amin(0))[1:])
        tall[row], wide[row] = (touched.amax(0) - touched.amin(0))[1:] + 1
        for channel in set(touched[:, 0].tolist()):
            spots = touched[touched[:, 0] == channel]
            at_ends = [(changed[row] == end[row])[tuple(spots.t())].all() for end in ends]
            assert any(at_ends)
    assert tall.max() == wide.max() == side


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_mass_moves_from_one_window_to_the_other_and_the_budget_is_used(norm):
    images, radius = torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    best = images + torch.linspace(-0.01, 0.02, 36, dtype=torch.float64).view(1, 1, 6, 6)
    window, source = _windows([0], [0], [3], [3], 6, 6), _windows([3], [3], [3], [3], 6, 6)
    signs, turned = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.tensor([False])
    changed = moved_mass(images, radius, best, window, source, turned, signs, norm) - images
    assert torch.equal(changed[..., 3:, 3:], torch.zeros(1, 1, 3, 3, dtype=torch.float64))
    torch.testing.assert_close(length(changed, norm), radius)
    if norm == "l2":
        kept = (best - images)[..., :3, 3:]
        torch.testing.assert_close(
            changed[..., :3, 3:] / kept, torch.full_like(kept, float(0.4 / _total(best, images)))
        )


def _total(best, images):
    """The length before scaling: what was spent, and what the budget had left, which the window takes."""
    spent = length(best - images, "l2")
    return (spent.square() + (0.16 - spent.square()).clamp(min=0)).sqrt()


@pytest.mark.parametrize(("height", "width", "expected"), [(32, 32, (6, 5, 5)), (8, 8, (1, 8, 8)), (3, 20, (1, 3, 20))])
def test_starts_are_tiled(height, width, expected):
    assert tile_count(height, width) == expected


def test_starts_differ_by_example_and_use_the_whole_ball():
    data = Batch(torch.full((5, 3, 12, 10), 0.5, dtype=torch.float64), torch.zeros(5).long(), torch.arange(5))
    for norm in NORMS:
        start = Square(norm=norm, stream=STREAM).begin(problem(data, BUDGET[norm]))["best"]
        torch.testing.assert_close(length(start - data.images, norm), torch.full((5,), BUDGET[norm]).double())
        assert not torch.equal(start[0], start[1])
    stripes = Square(norm="linf", stream=STREAM).begin(problem(data, 0.1))["best"]
    torch.testing.assert_close(stripes, stripes[:, :, :1].expand_as(stripes))


def test_windows_reach_every_pixel_and_every_corner():
    data = Batch(torch.full((4000, 1, 5, 7), 0.5, dtype=torch.float64), torch.zeros(4000).long(), torch.arange(4000))
    search, work = Square(norm="linf", stream=STREAM, steps=10, p_init=0.03), problem(data, 0.1)
    state = search.begin(work)
    state = search.tell(work, state, *_answered(search, work, state))
    touched = (search.ask(work, state) != state["best"]).float().mean(0)[0]
    assert (touched > 0).all()
    assert touched.max() < 3 * touched.min()


def _answered(search, work, state):
    from poise.attacks.search import Answer

    points = search.ask(work, state)
    return points, Answer(torch.zeros(len(points), 2), torch.zeros(len(points), dtype=torch.float64), None)


@pytest.mark.parametrize("shape", [(2, 5, 4), (9,)])
@norms
def test_slots_are_independent(norm, shape):
    model, data = Curved(5, shape), batch(8, shape, 5)
    work = problem(data, torch.linspace(0, 1, 8, dtype=torch.float64) * BUDGET[norm])
    check_slots_are_independent(Square(norm=norm, stream=STREAM, steps=40), model, work, 44)


@norms
def test_flat_models_move_nothing_after_the_start(norm):
    data, model = batch(4, (3, 6, 6), 5, dtype=torch.float32), Linear(5, (3, 6, 6), dtype=torch.float32)
    nn.init.zeros_(model.weight)
    work, search = problem(data, torch.tensor([0, 0.1, 0.2, 0.3])), Square(norm=norm, stream=STREAM, steps=30)
    asked = trajectory(search, model, work, 31)
    assert asked.isfinite().all()
    start = search.begin(work)["best"]
    assert torch.equal(start, asked[0])
    state = search.begin(work)
    for points in asked:
        assert not state["done"].any()
        state = search.tell(work, state, points, _answered(search, work, state)[1])
    assert torch.equal(state["best"], start)
    assert state["done"].all()


def test_global_randomness_is_left_alone_and_stream_and_restart_decide():
    model, data = solved(4, (3, 4, 4))
    state = torch.get_rng_state()
    runs = [
        trajectory(Square(norm="l2", stream=stream), model, problem(data, 0.3, restart=restart), 5)
        for stream, restart in ((STREAM, 0), (STREAM, 0), (STREAM, 1), (STREAM.fold("other"), 0))
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0], runs[3])
    assert torch.equal(torch.get_rng_state(), state)


def test_what_profiles_and_pools_read():
    search = Square(norm="l1", stream=STREAM)
    assert (search.name, search.queries, search.targeted, search.rhythm) == ("square", 5001, False, (False,))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"steps": 0}, "at least 1 step"), ({"span": 0}, "span of at least 1"), ({"p_init": 1.2}, "p_init is a share")],
)
def test_impossible_settings_are_refused_when_made(options, words):
    with pytest.raises(Misuse, match=words):
        Square(norm="l2", stream=STREAM, **options)


@pytest.mark.parametrize("norm", NORMS)
def test_the_order_of_memory_does_not_matter(norm):
    data = batch(3, (2, 4, 3, 5), 4)
    turned = Batch(data.images.permute(0, 4, 3, 2, 1).contiguous().permute(0, 4, 3, 2, 1), data.labels, data.ids)
    assert not turned.images.is_contiguous()
    search, model = Square(norm=norm, stream=STREAM, steps=4), Linear(4, (2, 4, 3, 5))
    first, second = (run_search(search, model, problem(each, 0.1))[0] for each in (data, turned))
    assert torch.equal(first, second)
