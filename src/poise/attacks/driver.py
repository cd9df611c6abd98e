"""Running one search on one batch, from the first point to the last; the pool does the same for sets of any size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from poise.attacks.rows import choose
from poise.attacks.search import Answer, Problem, Search
from poise.core.losses import misclassified
from poise.core.modes import Precision, evaluating, frozen, precision
from poise.core.norms import inside
from poise.core.threat import Norm

_ROUNDS_BETWEEN_LOOKS = 8


def run_search(
    search: Search, model: nn.Module, problem: Problem, through: nn.Module | None = None
) -> tuple[Float[Tensor, "n *shape"], Bool[Tensor, " n"]]:
    """Let a search run until every row is fooled or its budget is spent, and return what it found.

    The model is in eval mode and its weights are frozen meanwhile; afterwards everything is as before. The device is
    waited for once every eight rounds, to see whether all rows are settled.

    Args:
        search: the attack.
        model: maps images in [0, 1] to logits.
        problem: one row per example.
        through: a surrogate that the search asks in the model's place; the model still decides what is adversarial.

    Returns:
        points: of each row the first that is misclassified inside ball and box; where there is none, the one of
            highest `Search.loss` inside both, and the image itself where the search never was inside.
        found: whether the row was fooled.
    """
    record = _Record.fresh(problem, search.norm)
    asked = model if through is None else through
    with torch.no_grad(), evaluating(model), frozen(model), evaluating(asked), frozen(asked):
        state = search.begin(problem)
        for round_ in range(search.queries):
            points = search.ask(problem, state)
            answer = evaluate(search, asked, problem, points)
            said = answer.logits if through is None else model(points)
            record = record.updated(points, said, answer.loss)
            state = search.tell(problem, state, points, answer)
            if round_ % _ROUNDS_BETWEEN_LOOKS == 0 and bool((state["done"] | record.found).all()):
                break
    return record.points, record.found


def evaluate(
    search: Search,
    model: nn.Module,
    problem: Problem,
    points: Float[Tensor, "n *shape"],
    *,
    proposing: Precision = "fp32",
    passes: int = 1,
) -> Answer:
    """What a search wants to know about points: a forward pass, and a backward pass to the points if it asks for it.

    Losses and gradients have the points' dtype, whatever precision the model answers in; weights' `.grad` are not
    touched.

    Args:
        search: the attack.
        model: maps images in [0, 1] to logits.
        problem: one row per point.
        points: where to evaluate.
        proposing: precision of the forward passes.
        passes: forward passes whose answers are averaged, for models whose output is random (EOT).
    """
    with torch.set_grad_enabled(search.needs_gradient):
        leaf = points.detach().requires_grad_(search.needs_gradient)
        with precision(proposing, points.device):
            outputs = [model(leaf).to(leaf.dtype) for _ in range(passes)]
        loss = torch.stack([search.loss(problem, logits) for logits in outputs]).mean(0)
        gradient = _slope(loss, leaf) if search.needs_gradient else None
    logits = torch.stack([logits.detach() for logits in outputs]).mean(0)
    return Answer(logits, loss.detach(), gradient)


def _slope(loss: Tensor, points: Tensor) -> Tensor:
    """The gradient by the points; zero where the loss does not depend on them at all."""
    if not loss.requires_grad:
        return torch.zeros_like(points)
    return torch.autograd.grad(loss.sum(), points, allow_unused=True, materialize_grads=True)[0]


@dataclass(frozen=True)
class _Record:
    """The first success of each row, or until then its best point inside ball and box."""

    problem: Problem
    norm: Norm
    points: Tensor
    loss: Tensor
    found: Tensor

    @classmethod
    def fresh(cls, problem: Problem, norm: Norm) -> _Record:
        nothing = torch.full_like(problem.radius, -torch.inf)
        return cls(problem, norm, problem.images, nothing, torch.zeros_like(nothing, dtype=torch.bool))

    def updated(self, points: Tensor, logits: Tensor, loss: Tensor) -> _Record:
        allowed = inside(points, self.problem.images, self.problem.radius, self.norm)
        fooled = allowed & misclassified(logits, self.problem.labels)
        take = ~self.found & (fooled | (allowed & (loss > self.loss)))
        return _Record(
            self.problem,
            self.norm,
            choose(take, points, self.points),
            torch.where(take, loss, self.loss),
            self.found | fooled,
        )
