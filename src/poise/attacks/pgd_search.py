"""Projected gradient descent as a search: every point it visits counts, not only the last."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from poise.attacks.pgd import Ball
from poise.attacks.search import Answer, Problem, Search, State
from poise.core.losses import cross_entropy
from poise.core.misuse import Misuse
from poise.core.norms import random_point


@dataclass(frozen=True, kw_only=True)
class PGDSearch(Search):
    """Projected gradient ascent on cross-entropy (Madry et al. 2018), from a uniform point of the ball.

    Args:
        steps: gradient steps, at least 1.
        step_size: length of a step in units of the budget.
        sparsity: l1 only: share of the pixels that one step moves.
    """

    steps: int = 40
    step_size: float = 0.2
    sparsity: float = 0.05

    def __post_init__(self) -> None:
        if self.steps < 1 or self.step_size <= 0 or not 0 < self.sparsity <= 1:
            raise Misuse(
                "PGD needs at least 1 step, a positive step size and a sparsity in (0, 1]; "
                f"got {self.steps}, {self.step_size} and {self.sparsity}"
            )

    @property
    def name(self) -> str:
        """See `Search.name`."""
        return "pgd"

    @property
    def queries(self) -> int:
        """The start and every step."""
        return self.steps + 1

    def begin(self, problem: Problem) -> State:
        """A random start."""
        stream = self.stream.fold("pgd", "start")
        ids = stream.fold("restart").words(problem.ids, 1, problem.restart)[:, 0]
        return {
            "points": random_point(problem.images, problem.radius, self.norm, stream, ids),
            "query": torch.zeros_like(problem.labels),
            "done": torch.zeros_like(problem.labels, dtype=torch.bool),
        }

    def ask(self, problem: Problem, state: State) -> Float[Tensor, "n *shape"]:  # noqa: ARG002
        """See `Search.ask`."""
        return state["points"]

    def loss(self, problem: Problem, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """Cross-entropy."""
        return cross_entropy(logits, problem.labels)

    def tell(self, problem: Problem, state: State, points: Float[Tensor, "n *shape"], answer: Answer) -> State:
        """One step along the gradient, projected onto ball and box."""
        slope = answer.gradient
        assert slope is not None  # noqa: S101 - the rhythm asks for it
        ball = Ball(problem.images, problem.radius, self.norm)
        query = state["query"] + 1
        return {
            "points": ball.climbed(points, slope, self.step_size, self.sparsity),
            "query": query,
            "done": query >= self.queries,
        }
