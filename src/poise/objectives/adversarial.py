"""Cross-entropy on attacked images."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from poise.attacks import PGD, Attack
from poise.core.batch import Batch
from poise.core.modes import unwrapped
from poise.core.streams import Stream
from poise.core.threat import Norm
from poise.objectives.objective import Objective, Terms
from poise.objectives.standard import classification_terms


@dataclass(frozen=True, kw_only=True)
class Adversarial(Objective):
    """Adversarial training (Madry et al. 2018): cross-entropy on attacked images only, the loss of arXiv 2509.23325.

    At epsilon 0 the attack is skipped and this is ordinary training.

    Args:
        attack: how the images are attacked; the paper trains with APGD-7.
    """

    attack: Attack = PGD()

    def terms(
        self,
        model: nn.Module,
        batch: Batch,
        epsilon: float | Float[Tensor, " n"],
        norm: Norm,
        stream: Stream,
    ) -> Terms:
        """See `Objective.terms`; "accuracy" is on the attacked images."""
        attacked = self.attack.perturb(unwrapped(model), batch, epsilon, norm, stream)
        return classification_terms(model(attacked), batch.labels)
