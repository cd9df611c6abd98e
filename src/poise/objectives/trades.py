"""Cross-entropy on clean images and, as a regulariser, how far an attack moves the prediction: TRADES."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch

from poise.attacks import PGD, Attack, Loss, attackable, idle
from poise.core.losses import Logits, kl_divergence
from poise.core.misuse import Misuse
from poise.objectives.adversarial import attacked
from poise.objectives.objective import Objective, Step, Terms
from poise.objectives.standard import Standard, full, terms_of_both, unmoved


@dataclass(frozen=True, kw_only=True)
class TRADES(Objective):
    """CE(f(x), y) + beta * KL(p(x) || p(x')), each a mean over the batch (Zhang et al. 2019, arXiv 1901.08573).

    The attack raises the same divergence; labels play no part in it. As in the official code, gradients flow into the
    weights through both outputs, and clean and attacked images go through the network in turn, so that each has batch
    statistics of its own. Differences: the attack starts uniformly in the ball, not within a thousandth of the image;
    at epsilon 0 this is ordinary training.

    Args:
        beta: weight of the divergence, at least 0; 6 in the paper's main results, and 1 leaves more clean accuracy.
        attack: how the images are attacked, from a random start: at the image itself the divergence has no slope.
    """

    smooths: ClassVar[bool] = True

    beta: float = 6.0
    attack: Attack = PGD()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise Misuse(f"beta of TRADES must be a number of at least 0; got {self.beta}")
        if not getattr(self.attack, "random_start", True):
            raise Misuse("TRADES needs an attack with a random start: at the image itself its divergence has no slope")

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; "accuracy" is on the attacked images, "clean" on the others."""
        if idle(step.batch, step.epsilon):
            return unmoved(Standard().terms(step))
        images = attacked(self.attack, step, self._divergence(step))
        clean, moved = full(step.model(step.batch.images)), full(step.model(images))
        plain, divergence = step.cross_entropy(clean).mean(), kl_divergence(moved, clean).mean()
        return terms_of_both(plain + self.beta * divergence, clean, moved, divergence, step.batch.labels)

    def _divergence(self, step: Step) -> Loss:
        """What the attack raises: the divergence from the clean prediction of the network in the attack's mode."""

        @cache
        def clean() -> Logits:
            with torch.no_grad(), attackable(step.model, self.attack.model_mode == "train"):
                logits: Logits = step.model(step.batch.images)
            return logits

        return lambda logits, _: kl_divergence(logits, clean().to(logits.dtype))
