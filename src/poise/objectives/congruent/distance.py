"""How far a network's logits are from a reference's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from poise.core.losses import Labels, Logits, PerExample, kl_divergence, logit_distance
from poise.core.misuse import Misuse


@dataclass(frozen=True, kw_only=True)
class Distance(ABC):
    """What congruent objectives lower between a network and a reference: at least 0, and 0 where they agree."""

    @abstractmethod
    def __call__(self, logits: Logits, reference: Logits, labels: Labels) -> PerExample:
        """The distance of each example, differentiable in `logits`.

        Args:
            logits: of the network in training.
            reference: of the frozen network, on the same images.
            labels: true classes.
        """


@dataclass(frozen=True, kw_only=True)
class Squared(Distance):
    """Half the mean squared difference of the logits, the published distance of RCAT (FD-LM of arXiv 2011.09161)."""

    def __call__(self, logits: Logits, reference: Logits, labels: Labels) -> PerExample:  # noqa: ARG002
        """See `Distance.__call__`."""
        return logit_distance(logits, reference)


@dataclass(frozen=True, kw_only=True)
class KL(Distance):
    """KL(softmax(reference / T) || softmax(logits / T)) times T squared (FD-KL of arXiv 2011.09161), in nats.

    The factor keeps the gradient's size from depending on T, as in distillation and in the code published beside the
    paper; its formula has none. As T grows this becomes `Squared` of the logits with their means taken out.

    Args:
        temperature: T, positive; the paper's is 100.
    """

    temperature: float = 100.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise Misuse(f"the temperature must be a positive number; got {self.temperature}")

    def __call__(self, logits: Logits, reference: Logits, labels: Labels) -> PerExample:  # noqa: ARG002
        """See `Distance.__call__`."""
        return self.temperature**2 * kl_divergence(logits / self.temperature, reference / self.temperature)


@dataclass(frozen=True, kw_only=True)
class Inhibition(Distance):
    """Logit-difference inhibition: the mean of max(|difference| - margin, 0) ** power over classes (arXiv 2205.06265).

    Args:
        margin: difference of a logit that costs nothing, at least 0; 0.5 in the paper for a single reference.
        power: exponent, at least 1; 2 in the paper.
        top: count only this many classes, those of the reference's highest logits; None counts all.
        wrong_only: leave the true class out, and count `top` among the others.
    """

    margin: float = 0.5
    power: float = 2.0
    top: int | None = None
    wrong_only: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise Misuse(f"the margin of a logit difference must be at least 0; got {self.margin}")
        if not (math.isfinite(self.power) and self.power >= 1):
            raise Misuse(f"the power of a logit difference must be at least 1; got {self.power}")
        if self.top is not None and self.top < 1:
            raise Misuse(f"top must name at least 1 class; got {self.top}")

    def __call__(self, logits: Logits, reference: Logits, labels: Labels) -> PerExample:
        """See `Distance.__call__`."""
        excess = ((logits - reference).abs() - self.margin).clamp(min=0).pow(self.power)
        counted = logits.shape[1] - self.wrong_only
        ranked = reference.scatter(1, labels[:, None], -torch.inf) if self.wrong_only else reference
        classes = ranked.topk(min(self.top or counted, counted), dim=1).indices
        return excess.gather(1, classes).mean(1)
