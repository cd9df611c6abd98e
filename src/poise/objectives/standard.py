"""Cross-entropy on clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from poise.core.losses import Logits
from poise.objectives.objective import Objective, Step, Terms


@dataclass(frozen=True, kw_only=True)
class Standard(Objective):
    """Ordinary training: cross-entropy on the images as they are, whatever the schedule says."""

    smooths: ClassVar[bool] = True

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; also "accuracy" on the batch."""
        return classification_terms(full(step.model(step.batch.images)), step)


def classification_terms(logits: Logits, step: Step) -> dict[str, torch.Tensor]:
    """Mean cross-entropy as "loss", and the share of right predictions as "accuracy"."""
    right = (logits.detach().argmax(1) == step.batch.labels).to(logits.dtype).mean()
    return {"loss": step.cross_entropy(logits).mean(), "accuracy": right}


def full(logits: Logits) -> Logits:
    """Logits in single precision at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def unmoved(terms: Terms) -> Terms:
    """Terms of a step without attack, as an objective names them that sets attacked images against clean ones."""
    return {**terms, "clean": terms["accuracy"], "divergence": torch.zeros_like(terms["accuracy"])}
