"""Auto-PGD of a few steps, as training runs on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from poise.attacks.apgd import APGD
from poise.attacks.attack import Attack, Loss, followed, idle
from poise.attacks.pgd import attackable
from poise.attacks.rows import choose
from poise.attacks.search import Answer, Problem, State
from poise.attacks.slopes import differentiated, finite, forward
from poise.core.batch import Batch
from poise.core.losses import cross_entropy
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.core.threat import Norm


@dataclass(frozen=True, kw_only=True)
class AutoPGD(Attack):
    """Auto-PGD on the loss in training, APGD-7 in arXiv 2509.23325: the point of highest loss that it visits.

    Recipes and the command line call it apgd.

    The moves are those of the evaluation's `APGD`: in linf and l2 a first step of twice epsilon, halved where it stops
    paying, so it follows a schedule by itself. Unlike there, an example that is fooled is attacked further, as training
    wants its highest loss, and any loss can be raised. k steps cost k gradients and one forward pass; in l1 two
    gradients more, one for each wider radius that the search tightens from, and `PGD` is as strong at that cost.

    Args:
        steps: gradient steps, at least 1.
        random_start: start from a random point of the ball's surface; the code of the paper's predecessor starts from
            the image itself, and the paper does not say. In l1 the start is always random, as its distance from the
            image tells how many pixels the first steps move.
        steps_follow: take fewer steps while a schedule holds epsilon below its target, in proportion, rounded up.
        model_mode: state of the model while attacked: "eval" or "train".
    """

    kind: ClassVar[str] = "apgd"

    steps: int = 7
    random_start: bool = True
    steps_follow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise Misuse(f"AutoPGD needs at least 1 step; got {self.steps}")

    def at(self, share: float) -> AutoPGD:
        """See `Attack.at`."""
        return replace(self, steps=followed(self.steps, share), steps_follow=False) if self.steps_follow else self

    def perturb(
        self,
        model: nn.Module,
        batch: Batch,
        epsilon: float | Float[Tensor, " n"],
        norm: Norm,
        stream: Stream,
        loss: Loss = cross_entropy,
    ) -> Float[Tensor, "n *shape"]:
        """See `Attack.perturb`."""
        if idle(batch, epsilon):
            return batch.images
        search = APGD(norm=norm, stream=stream, steps=self.steps)
        problem = Problem.of(batch, epsilon)
        with attackable(model, self.model_mode == "train"):
            state = self._begin(search, problem)
            for _ in range(search.queries - 1):
                answer = _answer(model, state["points"], batch.labels, loss, sloped=True)
                state = search.tell(problem, state, state["points"], answer)
            last = _answer(model, state["points"], batch.labels, loss, sloped=False)
            return choose(last.loss > state["best_loss"], state["points"], state["best"])

    def _begin(self, search: APGD, problem: Problem) -> State:
        state = search.begin(problem)
        if self.random_start or search.norm == "l1":
            return state
        return state | {key: problem.images for key in ("points", "best", "previous") if key in state}


def _answer(model: nn.Module, points: Tensor, labels: Tensor, loss: Loss, *, sloped: bool) -> Answer:
    """What the model says at points, with the loss's gradient there where it is needed."""
    leaf, logits = forward(model, points, sloped=sloped)
    if not sloped:
        return Answer(logits, loss(logits, labels), None)
    found, gradient = differentiated(lambda seen: loss(seen, labels), logits, leaf)
    return Answer(logits.detach(), found, finite(gradient))
