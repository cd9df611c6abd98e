"""How training proceeds, whatever it trains and on whatever data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

from poise.core.misuse import Misuse, check_choice
from poise.core.modes import Precision

Optimizer = Literal["adamw", "sgd"]
BatchNorm = Literal["local", "synced", "frozen"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Options of the training loop.

    Args:
        epochs: passes over the training images.
        batch_size: images of one step, over all processes together.
        optimizer: adamw, or sgd with Nesterov momentum.
        learning_rate: peak learning rate of the backbone.
        head_learning_rate: peak learning rate of the last layer; None means that of the backbone.
        weight_decay: decoupled (adamw) or added to the gradient (sgd); biases and norms are exempt.
        momentum: momentum of sgd.
        warmup: share of the training over which the learning rate rises linearly; then it falls as a cosine to 0.
        clip: largest l2 length of the gradient; None leaves it as it is.
        precision: fp32, bf16 or fp16 for forward passes; weights and updates stay fp32.
        channels_last: keep images and weights in the memory order that convolutions like in low precision.
        compile: let PyTorch compile the network; the first steps take a minute, later ones less than without.
        batch_norm: whose examples a batch-norm layer sees in training: "local", those of its process (running averages
            are those of all); "synced", those of all processes (GPUs only); "frozen", none, it keeps its statistics.
        micro_batch: the most images at a time in each process, gradients adding up to those of the batch; None for as
            many as memory holds, found by halving when it runs out. Objectives that are means over examples do not
            notice; local batch norm sees the smaller part, and losses that count examples in a batch count there.
        checkpoint_every: steps between checkpoints; None means one at the end of each epoch.
    """

    epochs: int = 30
    batch_size: int = 128
    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-3
    head_learning_rate: float | None = None
    weight_decay: float = 1e-4
    momentum: float = 0.9
    warmup: float = 0.05
    clip: float | None = 1.0
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    batch_norm: BatchNorm = "local"
    micro_batch: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        closed = {"optimizer": Optimizer, "precision": Precision, "batch_norm": BatchNorm}
        for name, kind in closed.items():
            check_choice(name, getattr(self, name), get_args(kind))
        for name in ("epochs", "batch_size", "checkpoint_every", "micro_batch"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise Misuse(f"{name} must be a whole number of at least 1; got {value}")
        for name in ("learning_rate", "head_learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and not (_finite(value) and value > 0):
                raise Misuse(f"{name} must be a positive number; got {value!r}")
        for name in ("weight_decay", "momentum", "warmup"):
            value = getattr(self, name)
            limit = 1.0 if name != "weight_decay" else math.inf
            if not (_finite(value) and 0 <= value <= limit):
                raise Misuse(f"{name} must be at least 0{'' if limit == math.inf else ' and at most 1'}; got {value}")


def _finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)
