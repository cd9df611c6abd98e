from __future__ import annotations

import pytest
import torch
from scipy.optimize import linprog, minimize

from poise.attacks.hyperplane import moves_onto_hyperplane
from poise.core.norms import length
from poise.core.threat import NORMS

norms = pytest.mark.parametrize("norm", NORMS)


def _cases(count=40, size=6):
    generator = torch.Generator().manual_seed(3)
    points, slope, share = torch.rand(3, count, size, generator=generator, dtype=torch.float64)
    slope, share = 4 * slope - 2, 2 * share[:, 0] - 1
    points[:8, :3], slope[4:12, 2:4] = points[:8, :3].round(), 0  # some at the box's sides, some without slope
    room = torch.where(slope * share.sign()[:, None] > 0, 1 - points, points)
    return points, slope, share * (slope.abs() * room).sum(1)


def _brute_force(point, slope, rise, norm):
    """The shortest length, by a linear program or a general solver."""
    size, low, high = len(point), -point, 1 - point
    if norm == "l2":
        on_plane = {"type": "eq", "fun": lambda move: slope @ move - rise, "jac": lambda _: slope}
        solution = minimize(
            lambda move: move @ move,
            (low + high) / 2,
            jac=lambda move: 2 * move,
            bounds=list(zip(low, high, strict=True)),
            constraints=[on_plane],
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return solution.fun**0.5
    bounds = [*zip(low, high, strict=True), *[(0, None)] * (size if norm == "l1" else 1)]
    import numpy as np

    sizes = np.eye(size) if norm == "l1" else np.ones((size, 1))
    above = np.block([[np.eye(size), -sizes], [-np.eye(size), -sizes]])
    cost, plane = np.r_[np.zeros(size), np.ones(sizes.shape[1])], np.r_[slope, np.zeros(sizes.shape[1])]
    return linprog(cost, above, np.zeros(2 * size), plane[None], [rise], bounds).fun


@norms
def test_moves_are_as_short_as_a_general_solver_finds(norm):
    points, slope, rise = _cases()
    moves = moves_onto_hyperplane(points, slope, rise, norm)
    torch.testing.assert_close((moves * slope).sum(1), rise, rtol=0, atol=1e-12)
    assert ((points + moves >= 0) & (points + moves <= 1)).all()
    expected = [_brute_force(*(row.numpy() for row in case), norm) for case in zip(points, slope, rise, strict=True)]
    torch.testing.assert_close(length(moves, norm), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-6)


@norms
def test_a_plane_out_of_reach_gives_the_corner_that_rises_most(norm):
    points, slope = torch.tensor([[0.2, 0.6, 0.5]] * 2), torch.tensor([[1.0, -2.0, 0.0]] * 2)
    moves = moves_onto_hyperplane(points, slope, torch.tensor([9.0, -9.0]), norm)
    torch.testing.assert_close(points + moves, torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]))


@norms
def test_nothing_moves_where_nothing_has_to_or_can(norm):
    points = torch.tensor([[0.0, 1.0], [0.3, 0.4], [0.0, 1.0]])
    slope = torch.tensor([[-1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])  # against the box; no rise asked for; flat
    moves = moves_onto_hyperplane(points, slope, torch.tensor([1.0, 0.0, 1.0]), norm)
    assert torch.equal(moves, torch.zeros(3, 2))


@norms
def test_slopes_of_any_scale_are_handled(norm):
    points = torch.rand(5, 50)
    slope = torch.randn(5, 50) * torch.tensor([1e-30, 1e-10, 1.0, 1e10, 1e30])[:, None]
    rise = 0.01 * slope.abs().sum(1)
    moves = moves_onto_hyperplane(points, slope, rise, norm)
    torch.testing.assert_close(
        (moves.double() * slope.double()).sum(1) / rise.double(), torch.ones(5).double(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_where_waiting_is_dear_sorting_finds_the_same(norm, monkeypatch):
    points, slope = torch.rand(2, 40, 300, dtype=torch.float64)
    points, slope = points.round(decimals=1), (8 * slope - 4).pow(3)  # many meet the box at the same time
    rise = torch.logspace(-6, 1, 40, dtype=torch.float64) * slope.abs().sum(1) / 4
    waited = moves_onto_hyperplane(points, slope, rise, norm)
    monkeypatch.setattr("poise.core.saturation.on_host", lambda _: False)
    torch.testing.assert_close(moves_onto_hyperplane(points, slope, rise, norm), waited, rtol=1e-12, atol=1e-14)


@norms
def test_slopes_that_are_no_numbers_come_to_an_end(norm):
    slope = torch.tensor([[1.0, torch.nan], [torch.inf, 1.0]])
    moves = moves_onto_hyperplane(torch.full((2, 2), 0.5), slope, torch.ones(2), norm)
    assert (moves.isnan() | (moves.abs() <= 0.5)).all()


def test_images_keep_their_shape_and_dtype():
    moves = moves_onto_hyperplane(torch.rand(2, 3, 4, 5), torch.randn(2, 3, 4, 5), torch.ones(2), "l2")
    assert moves.shape == (2, 3, 4, 5)
    assert moves.dtype == torch.float32
