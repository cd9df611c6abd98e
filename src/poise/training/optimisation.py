"""The optimiser, its parameter groups, and the learning rate at every step."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from poise.models import Classifier
from poise.training.options import Training
from poise.training.sharding import is_shared
from poise.training.transfer.layers import layer_shares


def make_optimizer(classifier: Classifier, options: Training, layer_decay: float = 1.0) -> torch.optim.Optimizer:
    """The optimiser over all parameters that ask for gradients, each with its peak learning rate ("peak" in its group).

    The head has a rate of its own, and layers have shares of it. Vectors and scalars (biases, norms) and what the
    network itself names in `no_weight_decay` (positions, class tokens) are exempt from weight decay. Steps are fused:
    each reads every weight once, and not once for every operation.

    Args:
        classifier: the network.
        options: rates, weight decay and kind of optimiser.
        layer_decay: see `Transfer`.
    """
    head = {id(parameter) for parameter in classifier.head_parameters()}
    exempt = _exempt(classifier.network)
    shares = layer_shares(classifier.network, layer_decay, exempt)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in classifier.network.named_parameters():
        if parameter.requires_grad:
            rate = options.head_learning_rate if id(parameter) in head else None
            peak = (rate or options.learning_rate) * shares.get(parameter, 1.0)
            decay = 0.0 if parameter.ndim <= 1 or name in exempt else options.weight_decay
            groups.setdefault((peak, decay), []).append(parameter)
    made: list[dict[str, Any]] = [
        {"params": members, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay), members in groups.items()
    ]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(made, fused=True)
    rate, momentum = options.learning_rate, options.momentum
    members = [member for group in made for member in group["params"]]
    fused = not any(map(is_shared, members))  # for those PyTorch has no such step yet
    optimizer = torch.optim.SGD(made, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=fused)
    if momentum > 0:
        for member in members:  # a fused step wants all of them or none, and some weights may rest at first
            optimizer.state[member]["momentum_buffer"] = torch.zeros_like(member)
    return optimizer


def _exempt(network: nn.Module) -> Collection[str]:
    """Names of parameters that the network itself wants without weight decay."""
    told = getattr(network, "no_weight_decay", None)
    return set(told()) if callable(told) else set()


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
