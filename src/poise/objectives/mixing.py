"""Teaching a gate to tell attacked images from clean ones, so that each gets the branch that deserves its trust."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from poise.attacks import PGD
from poise.attacks.attack import Loss
from poise.core.batch import Batch
from poise.core.losses import cross_entropy, target_lead
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.objectives.objective import Objective, State, Step, Terms
from poise.objectives.standard import accuracy

_TARGETED = 0.5
"""Share of the attacks that aim at a class."""


@dataclass(frozen=True, kw_only=True)
class Mixing(Objective):
    """The loss of a mixing network (arXiv 2301.12554): which images are attacked, and are they classified right?

    Every step sees its images twice, clean and attacked on the mixture as a whole. With s = 0 for a clean image, whose
    class the standard branch knows better, and s = 1 for an attacked one, an image's loss is
    gate BCE(raw gate, s) + class CE + both BCE CE; clean images count `clean_weight` times.

    Attacks vary so that the gate does not learn one of them by heart: the budget of each image is the step's times a
    number from U(0.4, 1.1); each step has another count of PGD steps, from 1 to twice `steps`; half the images are
    attacked on cross-entropy, half towards a random wrong class; and each attack also pushes the raw gate down with a
    weight from U(0, 0.4).

    Differences from the source: PGD alone; one attack an image, not ten; wrong classes uniformly instead of the second
    to tenth of the ranking; the mixture has the same bounds of alpha in attacks and in the loss.

    Args:
        gate: weight of the gate's own loss.
        classes: weight of the mixture's cross-entropy.
        both: weight of their product.
        clean_weight: how much more a clean image counts than an attacked one.
        steps: PGD steps in the middle of the range, at least 1.
        push: largest share of an attack's loss that drives the gate, in [0, 1).
    """

    shardable: ClassVar[bool] = False

    gate: float = 1.0
    classes: float = 0.5
    both: float = 0.1
    clean_weight: float = 2.0
    steps: int = 10
    push: float = 0.4

    def __post_init__(self) -> None:
        for name in ("gate", "classes", "both", "clean_weight"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise Misuse(f"{name} is a weight of at least 0; got {getattr(self, name)}")
        if self.gate + self.classes + self.both <= 0:
            raise Misuse("a gate learns from at least one of gate, classes and both; all are 0")
        if self.steps < 1 or not 0 <= self.push < 1:
            raise Misuse(f"steps must be at least 1 and push in [0, 1); got {self.steps} and {self.push}")

    def begin(self, model: nn.Module) -> State:
        """Nothing to remember.

        Raises:
            Misuse: for a model without a gate, before any step.
        """
        if getattr(model, "gate", None) is None:
            raise Misuse("this objective trains the gate of a mixed model, and this model has none: see poise mix")
        return {}

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; also "gate", the gate's loss, "told", the share it tells apart, and "accuracy"."""
        attacked = self._attacked(step)
        labels = step.batch.labels.repeat(2)
        under_attack = torch.arange(2, device=labels.device).repeat_interleave(len(step.batch))
        output = step.model(torch.cat([step.batch.images, attacked]), with_gate=True).float()
        logits, raw = output[:, :-1], output[:, -1]
        telling = functional.binary_cross_entropy_with_logits(raw, under_attack.float(), reduction="none")
        classifying = cross_entropy(logits, labels)
        weight = torch.where(under_attack == 0, self.clean_weight, 1.0)
        each = self.gate * telling + self.classes * classifying + self.both * telling * classifying
        return {
            "loss": (weight * each).mean(),
            "gate": telling.mean().detach(),
            "told": ((raw > 0) == (under_attack == 1)).float().mean(),
            "accuracy": accuracy(logits, labels),
        }

    def _attacked(self, step: Step) -> Float[Tensor, "n *shape"]:
        batch, stream = step.batch, step.stream.fold("gate")
        steps = 1 + int(stream.permutation(2 * self.steps)[0])
        epsilon = step.epsilon * (0.4 + 0.7 * stream.fold("budget").uniform(batch.ids))
        attack = PGD(steps=steps, step_size=min(1.0, 2.5 / steps))
        model = _WithGate(step.model)
        return attack.perturb(model, batch, epsilon, step.norm, stream, self._loss(batch, stream))

    def _loss(self, batch: Batch, stream: Stream) -> Loss:
        """What the attack raises: each image's own mean of a loss of the classes and one of the gate."""
        towards = stream.fold("kind").uniform(batch.ids) < _TARGETED
        push = self.push * stream.fold("push").uniform(batch.ids)
        draw = stream.fold("target").uniform(batch.ids)

        def loss(output: Tensor, labels: Tensor) -> Tensor:
            logits, raw = output[:, :-1], output[:, -1]
            others = logits.shape[1] - 1
            targets = (labels + 1 + (draw * others).long().clamp(max=others - 1)) % logits.shape[1]
            base = torch.where(towards, target_lead(logits, labels, targets), cross_entropy(logits, labels))
            return (1 - push) * base + push * functional.softplus(-raw)

        return loss


class _WithGate(nn.Module):
    """A mixed model that gives its raw gate as one more column."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n columns"]:
        output: Tensor = self.model(images, with_gate=True)
        return output
