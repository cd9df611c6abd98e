"""How Auto-PGD moves in l1: sparse steps whose sparsity follows the best point's, in balls that tighten."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from poise.attacks.rows import choose
from poise.attacks.search import Problem, State
from poise.core.norms import per_example, project
from poise.core.streams import Stream

_BALLS = (3.0, 2.0, 1.0)
_SPARSER = 0.95
_REDUCTION = 1.5
_SMALLEST_STEP = 0.1


class _Plan(NamedTuple):
    """What happens at each query; one entry more than there are queries, so that the next can be looked up."""

    ball: Float[Tensor, " queries_and_one"]
    opens: Bool[Tensor, " queries_and_one"]
    checks: Bool[Tensor, " queries_and_one"]


def phases(steps: int) -> tuple[int, ...]:
    """How many steps are taken in the balls of three, two and one radius: 30%, 30% and the rest.

    With very few steps the first two balls yield to the last.
    """
    early = min(-(-3 * steps // 10), (steps - 1) // 2)
    return early, early, steps - 2 * early


@cache
def _plan(steps: int, device: torch.device) -> _Plan:
    ball: list[float] = []
    opens: list[bool] = []
    checks: list[bool] = []
    for scale, taken in zip(_BALLS, phases(steps), strict=True):
        if not taken:
            continue
        window = max(int(0.04 * taken), 1)
        ball += [scale] * (taken + 1)
        opens += [True] + [False] * taken
        checks += [False] + [step % window == 0 for step in range(1, taken + 1)]
    return _Plan(
        torch.tensor([*ball, ball[-1]], device=device),
        torch.tensor([*opens, False], device=device),
        torch.tensor([*checks, False], device=device),
    )


@dataclass(frozen=True)
class SparseAscent:
    """The moves of Croce & Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers".

    A step goes along the signs of the gradient's largest entries and is projected exactly onto ball and box. Their
    number is the best point's count of changed pixels over 1.5. Where that count has fallen by more than a twentieth
    the step is set back to the radius and the search to its best point; elsewhere the step is divided by 1.5, down to
    a tenth of the radius. This is done in balls of three, two and one radius, each begun from the projection of the
    best point of the one before, with its own count of best loss; points outside the radius are for the search only.

    Differences from the official code: none in the moves; with fewer than five steps, the phases are shorter than
    its rounding gives, which would leave none for the last.

    Args:
        steps: gradient steps over all three balls.
    """

    steps: int

    @property
    def queries(self) -> int:
        """Every step, and the start of each ball."""
        return self.steps + sum(taken > 0 for taken in phases(self.steps))

    def start(self, problem: Problem, stream: Stream, attempt: Int[Tensor, " n"]) -> Float[Tensor, "n *shape"]:
        """Standard normal noise of every pixel, projected onto the first ball and the box."""
        shape, dtype = tuple(problem.images.shape[1:]), problem.images.dtype
        noise = stream.normal(problem.ids, shape, step=attempt, dtype=dtype)
        first = _plan(self.steps, noise.device).ball[0].to(dtype)
        return project(problem.images + noise, problem.images, first * problem.radius, "l1")

    def begin(self, points: Float[Tensor, "n *shape"], radius: Float[Tensor, " n"]) -> State:  # noqa: ARG002
        """State that only these moves need; it is filled when a ball's start is answered."""
        return {"step": torch.zeros_like(radius), "changed": torch.zeros_like(radius), "aim": torch.zeros_like(radius)}

    def advance(self, problem: Problem, state: State, loss: Tensor, gradient: Tensor) -> State:  # noqa: ARG002
        """The next points: onwards from those just answered or from the best, or the start of the next ball."""
        plan, query = _plan(self.steps, gradient.device), state["query"].clamp(max=self.queries - 1)
        opens, turns = plan.opens[query], plan.opens[query + 1]
        judged = opens | plan.checks[query]
        step, changed, sparser = self._judge(problem, state, plan, query)
        aim = torch.where(judged, changed / (_REDUCTION * math.prod(gradient.shape[1:])), state["aim"])
        back = plan.checks[query] & sparser
        here = choose(back, state["best"], state["points"])
        signs = _largest_signs(choose(back, state["best_gradient"], gradient), aim)
        ahead = choose(turns, state["best"], here + per_example(step, here) * signs)
        radius = plan.ball[query + 1].to(problem.radius.dtype) * problem.radius
        return {
            "points": project(ahead, problem.images, radius, "l1"),
            "best_loss": torch.where(turns, -torch.inf, state["best_loss"]),
            "step": step,
            "changed": torch.where(judged, changed, state["changed"]),
            "aim": aim,
        }

    @staticmethod
    def _judge(problem: Problem, state: State, plan: _Plan, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The step from here on, the best point's number of changed pixels, and whether that has clearly fallen."""
        changed = (state["best"] != problem.images).flatten(1).sum(1).to(problem.radius.dtype)
        sparser = changed < _SPARSER * state["changed"]
        full = plan.ball[query].to(problem.radius.dtype) * problem.radius
        shorter = (state["step"] / _REDUCTION).maximum(_SMALLEST_STEP * full)
        checked = torch.where(plan.checks[query], torch.where(sparser, full, shorter), state["step"])
        return torch.where(plan.opens[query], full, checked), changed, sparser


def _largest_signs(slope: Float[Tensor, "n *shape"], share: Float[Tensor, " n"]) -> Float[Tensor, "n *shape"]:
    """Signs of each example's largest entries, a share of all and at least one, scaled to unit l1 length."""
    size = slope.flatten(1).abs()
    count = size.shape[1]
    rank = ((1 - share) * count).long().clamp(0, count - 1)
    least = size.sort(dim=1).values.gather(1, rank[:, None])
    signs = torch.where(size >= least, slope.flatten(1).sign(), 0)
    return (signs / signs.abs().sum(1, keepdim=True).clamp(min=1)).view_as(slope)
