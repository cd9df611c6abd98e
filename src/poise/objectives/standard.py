"""Cross-entropy on clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from poise.core.losses import Labels, Logits, misclassified
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
    return {"loss": step.cross_entropy(logits).mean(), "accuracy": accuracy(logits, step.batch.labels)}


def accuracy(logits: Logits, labels: Labels) -> torch.Tensor:
    """The share of right predictions; a row that holds NaN predicts nothing."""
    return (~misclassified(logits.detach(), labels)).to(logits.dtype).mean()


def full(logits: Logits) -> Logits:
    """Logits in single precision at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def terms_of_both(loss: torch.Tensor, clean: Logits, moved: Logits, divergence: torch.Tensor, labels: Labels) -> Terms:
    """Terms of an objective that sets attacked images against clean ones.

    Args:
        loss: what is lowered.
        clean: outputs on the images as they are.
        moved: outputs on the attacked ones, which "accuracy" is on.
        divergence: how far the attack moved the prediction.
        labels: true classes.
    """
    return {
        "loss": loss,
        "accuracy": accuracy(moved, labels),
        "clean": accuracy(clean, labels),
        "divergence": divergence.detach(),
    }


def unmoved(terms: Terms) -> Terms:
    """Terms of a step without attack, named as in `terms_of_both`."""
    return {**terms, "clean": terms["accuracy"], "divergence": torch.zeros_like(terms["accuracy"])}
