from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.core.norms import diameter, inside, length, per_example, project, random_move, random_point, steepest
from poise.core.streams import Stream
from poise.core.threat import NORMS

norms = pytest.mark.parametrize("norm", NORMS)
SHAPES = [(5,), (1, 4, 3), (3, 2, 2), (1,)]


def _problem(seed: int, shape: tuple[int, ...], spread: float = 2.0, count: int = 6):
    generator = torch.Generator().manual_seed(seed)
    origin = torch.rand(count, *shape, generator=generator, dtype=torch.float64)
    origin[0] = origin[0].round()  # a corner of the box
    points = origin + spread * torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    points[1] = origin[1]
    radius = torch.rand(count, generator=generator, dtype=torch.float64) * 1.5
    radius[2] = 0
    return points, origin, radius


def test_length_on_known_vectors():
    vectors = torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]])
    assert length(vectors, "linf").tolist() == [4, 0]
    assert length(vectors, "l2").tolist() == [5, 0]
    assert length(vectors, "l1").tolist() == [7, 0]


@norms
@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), spread=st.sampled_from([0.01, 0.5, 5.0]))
def test_projection_is_the_nearest_point(norm, seed, shape, spread):
    """p is nearest to y in a convex set exactly when (y - p).(z - p) <= 0 for every z of the set."""
    points, origin, radius = _problem(seed, shape, spread)
    nearest = project(points, origin, radius, norm)
    assert inside(nearest, origin, radius, norm, tolerance=1e-9).all()
    stream = Stream.seeded(seed)
    candidates = [origin, *_extreme_points(origin, radius, norm)]
    candidates += [random_point(origin, radius, norm, stream.fold(i), torch.arange(len(origin))) for i in range(20)]
    for candidate in candidates:
        assert (((points - nearest) * (candidate - nearest)).flatten(1).sum(1) <= 1e-9).all()


def _extreme_points(origin, radius, norm):
    """Feasible points far out: steps of full length along axes and signs, clipped to the box."""
    for index in range(origin[0].numel()):
        for sign in (-1, 1):
            axis = torch.zeros_like(origin).flatten(1)
            axis[:, index] = sign
            yield (origin + per_example(radius, origin) * axis.view_as(origin)).clamp(0, 1)
    if norm == "linf":
        for sign in (-1, 1):
            yield (origin + sign * per_example(radius, origin)).clamp(0, 1)


@norms
def test_projection_leaves_feasible_points_alone(norm):
    _, origin, radius = _problem(3, (3, 2, 2))
    feasible = random_point(origin, radius, norm, Stream.seeded(1), torch.arange(len(origin)))
    torch.testing.assert_close(project(feasible, origin, radius, norm), feasible, rtol=0, atol=1e-12)


@norms
def test_projection_to_radius_zero_returns_the_origin_exactly(norm):
    points, origin, _ = _problem(4, (3, 4))
    assert torch.equal(project(points, origin, torch.zeros(len(origin), dtype=torch.float64), norm), origin)


@norms
def test_float32_projection_of_a_large_image_stays_in_the_ball(norm):
    origin = torch.rand(4, 3, 64, 64)
    points = origin + torch.randn_like(origin)
    radius = torch.tensor([8 / 255, 0.5, 3.0, 12.0])
    assert inside(project(points, origin, radius, norm), origin, radius, norm).all()


@norms
def test_projection_of_points_of_any_scale_is_that_in_double_precision(norm):
    origin, scales = torch.rand(6, 3, 16, 16), torch.tensor([1e-30, 1e-4, 1.0, 1e3, 1e18, 1e30])
    points, radius = origin + per_example(scales, origin) * torch.randn_like(origin), torch.full((6,), 0.5)
    exact = project(points.double(), origin.double(), radius.double(), norm)
    torch.testing.assert_close(project(points, origin, radius, norm).double(), exact, rtol=0, atol=1e-6)


@norms
@pytest.mark.parametrize("spread", [0.01, 0.5, 5.0])
def test_where_waiting_is_dear_projections_are_the_same(norm, spread, monkeypatch):
    points, origin, radius = _problem(7, (3, 8, 8), spread)
    waited = project(points, origin, radius, norm)
    monkeypatch.setattr("poise.core.saturation.on_host", lambda _: False)
    torch.testing.assert_close(project(points, origin, radius, norm), waited, rtol=0, atol=1e-12)


@norms
def test_random_points_fill_the_ball(norm):
    """The share of a uniform sample that lies within half the radius is 2^-d."""
    count, dimension = 20_000, 3
    origin = torch.full((count, dimension), 0.5, dtype=torch.float64)
    radius = torch.full((count,), 0.4, dtype=torch.float64)
    lengths = length(random_point(origin, radius, norm, Stream.seeded(0), torch.arange(count)) - origin, norm)
    assert (lengths <= 0.4 + 1e-12).all()
    share = (lengths <= 0.2).double().mean().item()
    assert share == pytest.approx(2**-dimension, abs=4 * math.sqrt(0.11 / count))


@norms
def test_random_points_do_not_depend_on_the_batch(norm):
    origin, radius, ids = torch.rand(8, 2, 3), torch.rand(8), torch.arange(8) * 7
    together = random_point(origin, radius, norm, Stream.seeded(5), ids)
    alone = torch.cat(
        [random_point(origin[i : i + 1], radius[i : i + 1], norm, Stream.seeded(5), ids[i : i + 1]) for i in range(8)]
    )
    assert torch.equal(together, alone)


@norms
def test_random_moves_are_as_long_as_their_radii_and_the_same_in_any_batch(norm):
    images, radius, ids = torch.rand(5, 2, 3, 3), torch.tensor([0.0, 0.1, 0.5, 1.0, 3.0]), torch.arange(5)
    attempt, stream = torch.tensor([0, 0, 1, 1, 2]), Stream.seeded(0)
    moves = random_move(images, radius, norm, stream, ids, attempt)
    torch.testing.assert_close(length(moves, norm), radius)
    some = torch.tensor([3, 1])
    alone = random_move(images[some], radius[some], norm, stream, ids[some], attempt[some])
    assert torch.equal(alone, moves[some])
    assert not torch.equal(random_move(images, radius, norm, stream, ids, attempt + 1), moves)


@norms
def test_the_diameter_is_the_distance_of_opposite_corners(norm):
    assert diameter(norm, 48) == pytest.approx(float(length(torch.ones(1, 3, 4, 4), norm)))


@norms
def test_steepest_direction_has_unit_length_and_reaches_the_dual_norm(norm):
    gradient = torch.randn(5, 3, 4, dtype=torch.float64)
    direction = steepest(gradient, norm)
    dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
    torch.testing.assert_close(length(direction, norm), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), length(gradient, dual))


@norms
def test_steepest_direction_of_a_flat_loss_is_zero(norm):
    assert not steepest(torch.zeros(2, 3), norm).any()


def test_inside_sees_the_box_and_the_ball():
    origin = torch.tensor([[0.5], [0.5], [0.95]])
    points = torch.tensor([[0.6], [0.7], [1.01]])
    assert inside(points, origin, torch.full((3,), 0.1), "linf").tolist() == [True, False, False]


def test_what_was_projected_onto_a_large_l1_ball_is_inside():
    torch.manual_seed(0)
    origin, radius = torch.rand(4, 3, 224, 224), torch.full((4,), 2000.0)
    points = project(origin + torch.randn_like(origin), origin, radius, "l1")
    assert inside(points, origin, radius, "l1").all()
