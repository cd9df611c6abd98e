"""How Auto-PGD moves in linf and l2: steps with momentum, halved at checkpoints where they stopped paying."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from poise.attacks.rows import choose
from poise.attacks.search import Problem, State
from poise.core.norms import per_example, project, random_move, steepest
from poise.core.streams import Stream
from poise.core.threat import BOX, Norm

_MOMENTUM = 0.75
_RISING_SHARE = 0.75


def checkpoints(steps: int) -> tuple[int, ...]:
    """The steps after which the step size is judged: the first after 22% of all, then in shrinking windows.

    Each window is 3% of all steps shorter than the last and at least 6% long (Croce & Hein 2020, section 3.2), in whole
    steps rounded down as in the official code: 22, 41, 57, 70, 80, 87, 93, 99 of 100.
    """
    window, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    reached: list[int] = []
    at = window
    while at <= steps:
        reached.append(at)
        window = max(window - less, least)
        at += window
    return tuple(reached)


@cache
def _windows(steps: int, device: torch.device) -> Int[Tensor, " queries"]:
    """Length of the window that ends with each query; 0 where none does, as at query 0, the start."""
    reached = checkpoints(steps)
    windows = torch.zeros(steps + 1, dtype=torch.int64)
    windows[list(reached)] = torch.tensor([0, *reached]).diff()
    return windows.to(device)


@dataclass(frozen=True)
class MomentumAscent:
    """The moves of Croce & Hein 2020, algorithm 1, with momentum 0.75 and a first step of twice the radius.

    At a checkpoint the step is halved, and the search returns to its best point, where at most three quarters of the
    window's steps raised the loss, or where the best loss stands still since a checkpoint that did not halve.

    Differences from the official code: the l2 projection onto ball and box is exact, not one clipped after the other;
    the first step's rise is counted against the start (there, against 0). As there and unlike the paper, a share of
    exactly three quarters halves, and the second condition waits for the second checkpoint.

    Args:
        norm: linf or l2.
        steps: gradient steps.
    """

    norm: Norm
    steps: int

    @property
    def queries(self) -> int:
        """The start and every step."""
        return self.steps + 1

    def start(self, problem: Problem, stream: Stream, attempt: Int[Tensor, " n"]) -> Float[Tensor, "n *shape"]:
        """A random point of the ball's surface (`random_move`), clipped to the box."""
        moves = random_move(problem.images, problem.radius, self.norm, stream, problem.ids, attempt)
        return (problem.images + moves).clamp(*BOX)

    def begin(self, points: Float[Tensor, "n *shape"], radius: Float[Tensor, " n"]) -> State:
        """State of these moves; "halved" begins as true, so standing still counts from the second checkpoint on."""
        nothing = torch.zeros_like(radius)
        return {
            "previous": points,
            "step": 2 * radius,
            "last_loss": nothing + torch.inf,
            "rises": nothing.long(),
            "best_loss_at_check": nothing,
            "halved": nothing == 0,
        }

    def advance(self, problem: Problem, state: State, loss: Tensor, gradient: Tensor) -> State:
        """The next points, from those just answered or, where the step was halved, from the best so far."""
        window = _windows(self.steps, loss.device)[state["query"].clamp(max=self.steps)]
        check, rises = window > 0, state["rises"] + (loss > state["last_loss"])
        still = ~state["halved"] & (state["best_loss_at_check"] >= state["best_loss"])
        halve = check & ((rises <= _RISING_SHARE * window) | still)
        step = torch.where(halve, state["step"] / 2, state["step"])
        here = choose(halve, state["best"], state["points"])
        slope = choose(halve, state["best_gradient"], gradient)
        return {
            "points": self._move(problem, here, slope, step, here - state["previous"], state["query"] == 0),
            "previous": here,
            "step": step,
            "last_loss": loss,
            "rises": torch.where(check, 0, rises),
            "best_loss_at_check": torch.where(check, state["best_loss"], state["best_loss_at_check"]),
            "halved": torch.where(check, halve, state["halved"]),
        }

    def _move(
        self, problem: Problem, here: Tensor, slope: Tensor, step: Tensor, inertia: Tensor, first: Tensor
    ) -> Tensor:
        """A projected gradient step, mixed with the last move and projected again; the first has no momentum."""
        uphill = here + per_example(step, here) * steepest(slope, self.norm)
        change = project(uphill, problem.images, problem.radius, self.norm) - here
        share = per_example(torch.where(first, 1.0, _MOMENTUM).to(here.dtype), here)
        return project(here + share * change + (1 - share) * inertia, problem.images, problem.radius, self.norm)
