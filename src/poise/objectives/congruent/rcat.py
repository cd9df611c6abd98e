"""Robustness-congruent adversarial training: stay near the new network and the old one, each where it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from poise.core.losses import PerExample
from poise.core.misuse import Misuse, check_choice
from poise.objectives.congruent.attacking import Attacking
from poise.objectives.congruent.views import Views, mean_where
from poise.objectives.objective import Step, Terms

Normalisation = Literal["mask", "batch"]
Weigh = Literal["right", "swap-flips", "current-flips"]


@dataclass(frozen=True, kw_only=True)
class RCAT(Attacking):
    """RCAT (arXiv 2402.17390): cross-entropy, the new network and the old one as targets, all on the attacked images.

    With normalisation "mask", the default, which is the form of the published code, the loss is
    (1 - alpha - beta) * CE(z, y) + alpha * mean of D(z, new) where new is right + beta * mean of D(z, old) where old is
    right. With "batch", the form of that code before September 2024, in which its CIFAR-10 runs were made, D(z, new) is
    averaged over the whole batch, right or wrong, and the sum of D(z, old) is divided by the size of the batch.

    A mean over no image is 0. Under several processes each takes the means over its own images.

    Args:
        alpha: weight of the new network, at least 0.
        beta: weight of the old network, at least 0; alpha + beta is at most 1.
        attack: how the images are attacked, on the network in training.
        focus: share of a batch that the whole attack is spent on, in (0, 1]; see `Attacking`.
        normalisation: "mask" or "batch", as above.
        weigh: where the old network counts: "right", wherever it is right; "swap-flips", there only where the frozen
            new network is wrong (the published code's only_nf); "current-flips", there only where the network in
            training is wrong at this step.
    """

    roles: ClassVar[tuple[str, ...]] = ("old", "new")
    published: ClassVar[tuple[tuple[float, float], ...]] = ((0.75, 0.2), (0.7, 0.2), (0.5, 0.4), (0.3, 0.6))
    """Weights (alpha, beta) that the paper chooses from."""

    alpha: float = 0.5
    beta: float = 0.4
    normalisation: Normalisation = "mask"
    weigh: Weigh = "right"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.alpha >= 0 and self.beta >= 0 and self.alpha + self.beta <= 1):
            raise Misuse(
                f"RCAT needs weights of at least 0 that sum to at most 1; got alpha {self.alpha} and beta {self.beta}"
            )
        for name, allowed in (("normalisation", get_args(Normalisation)), ("weigh", get_args(Weigh))):
            check_choice(name, getattr(self, name), allowed)

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; "accuracy", "flips" and the unweighted "cross_entropy", "distance_new" and "_old"."""
        views = self.views(step, self.attacked(step))
        plain = views.cross_entropy()
        new, old = self._near_new(views), self._near_old(views)
        loss = (1 - self.alpha - self.beta) * plain + self.alpha * new + self.beta * old
        return views.terms(loss, cross_entropy=plain, distance_new=new, distance_old=old)

    def _near_new(self, views: Views) -> Tensor:
        apart = self.apart(views, "new")
        return mean_where(apart, views.right("new")) if self.normalisation == "mask" else apart.mean()

    def _near_old(self, views: Views) -> Tensor:
        apart, mask = self.apart(views, "old"), self._weighed(views)
        return mean_where(apart, mask) if self.normalisation == "mask" else _batch_mean(apart, mask)

    def _weighed(self, views: Views) -> Bool[Tensor, " n"]:
        if self.weigh == "current-flips":
            return views.lost()
        return views.right("old") & ~views.right("new") if self.weigh == "swap-flips" else views.right("old")


def _batch_mean(values: PerExample, mask: Bool[Tensor, " n"]) -> Tensor:
    return torch.where(mask, values, 0).mean()
