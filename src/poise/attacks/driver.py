"""Running one search on one batch, from the first point to the last; the pool does the same for sets of any size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from poise.attacks.answers import Asking, adversarial, ask_model, decided
from poise.attacks.rows import choose
from poise.attacks.search import Problem, Search
from poise.core.losses import misclassified
from poise.core.modes import evaluating, exact, frozen
from poise.core.norms import inside

_ROUNDS_BETWEEN_LOOKS = 8


def run_search(
    search: Search, model: nn.Module, problem: Problem, through: nn.Module | None = None, passes: int = 1
) -> tuple[Float[Tensor, "n *shape"], Bool[Tensor, " n"]]:
    """Let a search run until every row is fooled or its budget is spent, and return what it found.

    The model is in eval mode, its weights are frozen and all passes are in full precision meanwhile; afterwards
    everything is as before. The device is
    waited for once every eight rounds, to see whether all rows are settled, and in every round
    where answers are averaged.

    Args:
        search: the attack.
        model: maps images in [0, 1] to logits.
        problem: one row per example.
        through: a surrogate that the search asks in the model's place; the model still decides what is adversarial.
        passes: forward passes whose answers are averaged, for models whose output is random (EOT); a row of such a
            model is fooled once the mean softmax of as many fresh passes is wrong too.

    Returns:
        points: of each row the first that is misclassified inside ball and box; where there is none, the one of
            highest `Search.loss` inside both, and the image itself where the search never was inside.
        found: whether the row was fooled.
    """
    record = _Record.fresh(problem)
    asked = model if through is None else through
    with (
        torch.no_grad(),
        exact(problem.images.device),
        evaluating(model),
        frozen(model),
        evaluating(asked),
        frozen(asked),
    ):
        state = search.begin(problem)
        for round_ in range(search.queries):
            points = search.ask(problem, state)
            gradient = search.rhythm[round_ % len(search.rhythm)]
            answer = ask_model(search, asked, problem, points, gradient=gradient, asking=Asking(passes=passes))
            said = answer.logits if through is None else decided(model, points, passes)
            allowed = inside(points, problem.images, problem.radius, search.norm) & ~state["done"]
            fooled = allowed & misclassified(said, problem.labels) & ~record.found
            if passes > 1 and bool(fooled.any()):
                fooled &= adversarial(search, model, problem, points, passes)
            record = record.updated(points, answer.loss, allowed, fooled)
            state = search.tell(problem, state, points, answer)
            if round_ % _ROUNDS_BETWEEN_LOOKS == 0 and bool((state["done"] | record.found).all()):
                break
    return record.points, record.found


@dataclass(frozen=True)
class _Record:
    """The first success of each row, or until then its best point inside ball and box."""

    points: Tensor
    loss: Tensor
    found: Tensor

    @classmethod
    def fresh(cls, problem: Problem) -> _Record:
        nothing = torch.full_like(problem.radius, -torch.inf)
        return cls(problem.images, nothing, torch.zeros_like(nothing, dtype=torch.bool))

    def updated(self, points: Tensor, loss: Tensor, allowed: Tensor, fooled: Tensor) -> _Record:
        take = ~self.found & (fooled | (allowed & (loss > self.loss)))
        return _Record(choose(take, points, self.points), torch.where(take, loss, self.loss), self.found | fooled)
