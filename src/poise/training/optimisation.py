"""The optimiser, its parameter groups, and the learning rate at every step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from poise.models import Classifier
from poise.training.options import Training


def make_optimizer(classifier: Classifier, options: Training) -> torch.optim.Optimizer:
    """The optimiser over backbone and head, each with its own peak learning rate ("peak" in its group).

    Vectors and scalars (biases, norms) are exempt from weight decay, as is usual for fine-tuning.
    """
    head_rate = options.head_learning_rate or options.learning_rate
    groups = [
        *_groups(classifier.backbone_parameters(), options.learning_rate, options.weight_decay),
        *_groups(classifier.head_parameters(), head_rate, options.weight_decay),
    ]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum, nesterov=options.momentum > 0)


def _groups(parameters: Iterable[nn.Parameter], rate: float, decay: float) -> list[dict[str, Any]]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    split = {
        decay: [parameter for parameter in trained if parameter.ndim > 1],
        0.0: [parameter for parameter in trained if parameter.ndim <= 1 or decay == 0],
    }
    return [
        {"params": members, "lr": rate, "peak": rate, "weight_decay": amount}
        for amount, members in split.items()
        if members
    ]


def rate_share(step: int, total: int, warmup: float) -> float:
    """The learning rate at a step as a share of its peak: linear from near 0 over the warm-up, then a cosine to 0.

    Args:
        step: number of the step, from 0.
        total: steps of the whole training.
        warmup: share of the training that warms up, in [0, 1].
    """
    warm = warmup * total
    if step < warm:
        return min(1.0, (step + 1) / warm)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm)))


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give every group its peak learning rate times a share."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
