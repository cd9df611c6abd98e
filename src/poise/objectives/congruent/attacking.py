"""Attacked images for congruent objectives, and where the steps of an attack are best spent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from poise.attacks import FGSM, PGD, Attack, attackable, idle
from poise.core.losses import cross_entropy, margin, misclassified
from poise.core.misuse import Misuse
from poise.objectives.adversarial import attacked, raised
from poise.objectives.congruent.views import Congruent
from poise.objectives.objective import Step


@dataclass(frozen=True, kw_only=True)
class Attacking(Congruent):
    """A congruent objective whose networks all look at attacked images.

    With `focus` below 1 every image is attacked by a single gradient step (`FGSM`), and then that share of the batch by
    the whole attack: those on which the old network is right after the single step before all others, and those first
    that lie closest to the boundary of the network in training, by the absolute margin of its logits. There a verdict
    can still turn either way, and only where the old network is right can anything be lost. A step of k gradients then
    costs 1 + focus * k of them, and a forward pass of two networks. Under several processes, and in a step that is
    taken in pieces, each chooses among its own images.

    Args:
        attack: how the images are attacked, on the network in training.
        focus: share of a batch that the whole attack is spent on, in (0, 1]; rounded up to whole images.
    """

    attack: Attack = PGD()
    focus: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.focus <= 1:
            raise Misuse(f"focus is a share of the batch in (0, 1]; got {self.focus}")

    def attacked(self, step: Step) -> Float[Tensor, "n *shape"]:
        """The step's images, attacked, or found before."""
        known, key = {} if step.found is None else step.found, (self.attack, raised(cross_entropy))
        if self.focus < 1 and key not in known and not idle(step.batch, step.epsilon):
            known[key] = self._focused(step)
        return attacked(self.attack, replace(step, found=known))

    def _focused(self, step: Step) -> Tensor:
        quick = attacked(FGSM(model_mode=self.attack.model_mode), replace(step, found=None))
        rows = self._undecided(step, quick)
        epsilon = step.epsilon[rows] if isinstance(step.epsilon, Tensor) else step.epsilon
        chosen = replace(step, batch=step.batch.select(rows), epsilon=epsilon, found=None)
        return quick.index_copy(0, rows, attacked(self.attack, chosen))

    @torch.no_grad()
    def _undecided(self, step: Step, images: Tensor) -> Int[Tensor, " m"]:
        """The rows on which the whole attack is worth its while, ascending."""
        labels = step.batch.labels
        with attackable(step.model, training=False):
            nearest = margin(step.model(images), labels).abs().argsort(stable=True)
        wrong = misclassified(step.references["old"](images), labels)[nearest]
        count = math.ceil(self.focus * len(labels))
        return nearest[wrong.to(torch.uint8).argsort(stable=True)[:count]].sort().values
