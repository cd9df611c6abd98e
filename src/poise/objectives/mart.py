"""Adversarial training that looks hardest at what the network gets wrong without an attack: MART."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from poise.attacks import PGD, Attack, idle
from poise.core.losses import Labels, Logits, PerExample, kl_divergence
from poise.core.misuse import Misuse
from poise.objectives.adversarial import attacked
from poise.objectives.objective import Objective, Step, Terms
from poise.objectives.standard import Standard, full, terms_of_both, unmoved


@dataclass(frozen=True, kw_only=True)
class MART(Objective):
    """Boosted cross-entropy on attacked images and a weighted divergence (Wang et al. 2020, ICLR).

    The mean over the batch of

        -log p_y(x') - log(1 - max over k != y of p_k(x')) + beta * KL(p(x) || p(x')) * (1 - p_y(x)).

    Gradients flow through every factor, as in the official code. Differences: logarithms are taken of the logits and
    without its additions of 1e-4, 1e-7 and 1e-12; the attack starts uniformly in the ball, not within a thousandth of
    the image; at epsilon 0 this is ordinary training.

    Args:
        beta: weight of the divergence, at least 0; 5 in the official training scripts, 6 in the function they call.
        attack: how the images are attacked, raising cross-entropy.
    """

    smooths: ClassVar[bool] = True

    beta: float = 5.0
    attack: Attack = PGD()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise Misuse(f"beta of MART must be a number of at least 0; got {self.beta}")

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; "accuracy" is on the attacked images, "clean" on the others."""
        if idle(step.batch, step.epsilon):
            return unmoved(Standard().terms(step))
        images, labels = attacked(self.attack, step), step.batch.labels
        clean, moved = full(step.model(step.batch.images)), full(step.model(images))
        boosted = (step.cross_entropy(moved) - log_of_others(moved, labels)).mean()
        doubt = -torch.expm1(clean.log_softmax(1).gather(1, labels[:, None])[:, 0])
        divergence = (kl_divergence(moved, clean) * doubt).mean()
        return terms_of_both(boosted + self.beta * divergence, clean, moved, divergence, labels)


def log_of_others(logits: Logits, labels: Labels) -> PerExample:
    """Logarithm of 1 - max over k != label of p_k: of what is left to all classes but the likeliest wrong one."""
    rival = logits.detach().scatter(1, labels[:, None], -torch.inf).argmax(1, keepdim=True)
    return logits.scatter(1, rival, -torch.inf).logsumexp(1) - logits.logsumexp(1)
