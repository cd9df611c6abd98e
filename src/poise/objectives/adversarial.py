"""Cross-entropy on attacked images."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from inspect import unwrap
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from poise.attacks import PGD, Attack, Loss
from poise.core.losses import cross_entropy
from poise.objectives.objective import Objective, Step, Terms
from poise.objectives.standard import classification_terms, full


@dataclass(frozen=True, kw_only=True)
class Adversarial(Objective):
    """Adversarial training (Madry et al. 2018): cross-entropy on attacked images only, the loss of arXiv 2509.23325.

    At epsilon 0 the attack is skipped and this is ordinary training.

    Args:
        attack: how the images are attacked; the paper trains with APGD-7.
    """

    smooths: ClassVar[bool] = True

    attack: Attack = PGD()

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; "accuracy" is on the attacked images."""
        return classification_terms(full(step.model(attacked(self.attack, step))), step)


def attacked(attack: Attack, step: Step, loss: Loss = cross_entropy) -> Float[Tensor, "n *shape"]:
    """The step's images, attacked on the network in training as the schedule's share asks, or found before.

    Args:
        attack: how.
        step: images, network and budget.
        loss: what the attack raises; images that were found with another are not taken for its own.
    """
    known, key = step.found if step.found is not None else {}, (attack, raised(loss))
    if key not in known:
        now, target = attack.at(step.share), step.target(attack)
        known[key] = now.perturb(target, step.batch, step.epsilon, step.norm, step.stream, loss)
    return known[key]


def raised(loss: Loss) -> Hashable:
    """What stands for a loss among `Step.found`: its code, as a loss may be made anew whenever it is asked for."""
    return getattr(unwrap(loss), "__code__", loss)
