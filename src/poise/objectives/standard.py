"""Cross-entropy on clean images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from poise.core.losses import cross_entropy
from poise.objectives.objective import Objective, Step, Terms


@dataclass(frozen=True, kw_only=True)
class Standard(Objective):
    """Ordinary training: cross-entropy on the images as they are, whatever the schedule says."""

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; also "accuracy" on the batch."""
        return classification_terms(step.model(step.batch.images), step.batch.labels)


def classification_terms(logits: Float[Tensor, "n classes"], labels: Tensor) -> dict[str, Tensor]:
    """Mean cross-entropy as "loss", and the share of right predictions as "accuracy"."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    right = (wide.detach().argmax(1) == labels).to(wide.dtype).mean()
    return {"loss": cross_entropy(wide, labels).mean(), "accuracy": right}
