"""Losses of a classifier's logits, one number per example; what attacks raise and training lowers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_TINY = 1e-12

Logits = Float[Tensor, "n classes"]
Labels = Int[Tensor, " n"]
PerExample = Float[Tensor, " n"]


def cross_entropy(logits: Logits, labels: Labels, smoothing: float = 0.0) -> PerExample:
    """Cross-entropy of each example, in nats.

    Args:
        logits: outputs.
        labels: true classes.
        smoothing: share of the target's weight that is spread evenly over all classes, the true one included.
    """
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def margin(logits: Logits, labels: Labels) -> PerExample:
    """Logit of the label minus the highest other logit: above 0 where the prediction is right, 0 at a tie."""
    right = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return right - others.amax(dim=1)


def misclassified(logits: Logits, labels: Labels) -> Bool[Tensor, " n"]:
    """Which predictions are wrong: a tie is won by the class that comes first, and a row that holds NaN is wrong."""
    return (logits.argmax(1) != labels) | logits.isnan().any(1)


def dlr(logits: Logits, labels: Labels) -> PerExample:
    """Difference-of-logits ratio: minus the margin over the gap from first to third logit (Croce & Hein 2020, eq. 6).

    Above 0 where the prediction is wrong, 0 at a tie; unchanged when the logits are shifted or scaled.

    Raises:
        ValueError: for fewer than three classes, where it is not defined.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"the DLR loss needs at least 3 classes; got {logits.shape[1]}: use the margin")
    ranked = logits.topk(3, dim=1).values
    return -margin(logits, labels) / (ranked[:, 0] - ranked[:, 2] + _TINY)


def targeted_dlr(logits: Logits, labels: Labels, targets: Labels) -> PerExample:
    """Targeted difference-of-logits ratio: rises as the target overtakes the label (Croce & Hein 2020, eq. 7).

    Raises:
        ValueError: for fewer than four classes, where it is not defined.
    """
    if logits.shape[1] < 4:
        raise ValueError(f"the targeted DLR loss needs at least 4 classes; got {logits.shape[1]}: use the margin")
    ranked = logits.topk(4, dim=1).values
    gap = logits.gather(1, labels[:, None])[:, 0] - logits.gather(1, targets[:, None])[:, 0]
    return -gap / (ranked[:, 0] - 0.5 * (ranked[:, 2] + ranked[:, 3]) + _TINY)


def target_lead(logits: Logits, labels: Labels, targets: Labels) -> PerExample:
    """Logit of the target minus logit of the label: positive exactly where the target has overtaken the label."""
    rows = torch.arange(len(labels), device=labels.device)
    return logits[rows, targets] - logits[rows, labels]


def kl_divergence(logits: Logits, reference: Logits) -> PerExample:
    """KL(softmax(reference) || softmax(logits)) of each example, in nats."""
    return F.kl_div(logits.log_softmax(1), reference.log_softmax(1), reduction="none", log_target=True).sum(1)


def logit_distance(logits: Logits, reference: Logits) -> PerExample:
    """Half the mean squared difference of the logits (focal distillation; Yan et al. 2021)."""
    return 0.5 * (logits - reference).square().mean(1)
