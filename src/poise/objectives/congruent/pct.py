"""Imitate the old network, most where it is right: PCT on clean images, PCAT on attacked ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from poise.core.misuse import Misuse
from poise.objectives.congruent.attacking import Attacking
from poise.objectives.congruent.views import Congruent, Views
from poise.objectives.objective import Step, Terms


@dataclass(frozen=True, kw_only=True)
class PCT(Congruent):
    """Positive-congruent training (arXiv 2011.09161, focal distillation): the old network's function as a target.

    The loss is CE(z, y) + alpha * D(z, old) + beta * 1[old right] * D(z, old), each a mean over the batch, on clean
    images. With the default distance that is FD-LM.

    Args:
        alpha: weight of the old network's logits everywhere, at least 0.
        beta: weight of them where the old network is right, at least 0.
    """

    published: ClassVar[tuple[tuple[float, float], ...]] = ((1, 1), (1, 2), (1, 5), (1, 10))
    """Weights (alpha, beta) that arXiv 2402.17390 chooses from."""

    alpha: float = 1.0
    beta: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(math.isfinite(weight) and weight >= 0 for weight in (self.alpha, self.beta)):
            raise Misuse(
                f"{type(self).__name__} needs weights of at least 0; got alpha {self.alpha} and beta {self.beta}"
            )

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; "accuracy", "flips" and the unweighted "cross_entropy" and "distance_old"."""
        return self._focal(self.views(step, step.batch.images))

    def _focal(self, views: Views) -> Terms:
        apart, plain = self.apart(views, "old"), views.cross_entropy()
        focused = torch.where(views.right("old"), apart, 0).mean()
        loss = plain + self.alpha * apart.mean() + self.beta * focused
        return views.terms(loss, cross_entropy=plain, distance_old=apart.mean())


@dataclass(frozen=True, kw_only=True)
class PCAT(Attacking, PCT):
    """Positive-congruent adversarial training: the loss of `PCT` with every network on the attacked images.

    Args:
        attack: how the images are attacked, on the network in training.
        focus: share of a batch that the whole attack is spent on, in (0, 1]; see `Attacking`.
    """

    def terms(self, step: Step) -> Terms:
        """See `PCT.terms`."""
        return self._focal(self.views(step, self.attacked(step)))
