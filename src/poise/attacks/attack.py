"""What every training attack promises."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.core.batch import Batch
from poise.core.losses import cross_entropy
from poise.core.misuse import Misuse
from poise.core.norms import inside
from poise.core.streams import Stream
from poise.core.threat import Norm, Threat

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps logits [n, classes] and labels [n] to one number per example, which the attack raises."""


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """A search, of fixed length, for the image of highest loss within each example's ball and the box [0, 1].

    Attacks leave no trace: the model's modes, gradient flags and `.grad`, the batch and every random state are
    afterwards as they were. Gradients are taken for the images only.

    Args:
        model_mode: state of the model while attacked: "eval" (default) or "train", where batch statistics are
            those of the attacked batch and running averages are nevertheless left alone; parts that rest in a training
            step, such as frozen batch norms, rest here too.
    """

    model_mode: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        if self.model_mode not in ("eval", "train"):
            raise Misuse(f"a model is attacked in 'eval' or 'train' mode; got {self.model_mode!r}")

    def at(self, share: float) -> Attack:  # noqa: ARG002
        """The attack as it is run at a share of the target epsilon, in [0, 1]; by default it is always the same."""
        return self

    @abstractmethod
    def perturb(
        self,
        model: nn.Module,
        batch: Batch,
        epsilon: float | Float[Tensor, " n"],
        norm: Norm,
        stream: Stream,
        loss: Loss = cross_entropy,
    ) -> Float[Tensor, "n *shape"]:
        """The attacked images: inside the ball of their example and the box, detached.

        Args:
            model: maps images in [0, 1] to logits.
            batch: the examples.
            epsilon: budget, one for all or one each; where it is 0 the image comes back as it is, and where all are 0
                the model is not called.
            norm: norm of the budget.
            stream: randomness, used under the batch's ids.
            loss: what to raise.
        """


def check_promise(attack: Attack, model: nn.Module, batch: Batch, threat: Threat) -> None:
    """Refuse an attack that does not answer as `Attack.perturb` promises.

    Args:
        attack: tried on the batch.
        model: attacked.
        batch: a few examples.
        threat: norm and budget.

    Raises:
        Misuse: if its images have another shape, carry gradients, are no numbers, or leave their ball or the box.
    """
    images = attack.perturb(model, batch, float(threat.epsilon), threat.norm, Stream.seeded(0))
    if images.shape != batch.images.shape:
        wrong = f"images of shape {tuple(images.shape)} for those of {tuple(batch.images.shape)}"
    elif images.requires_grad:
        wrong = "images that carry gradients; detach them"
    elif not inside(images, batch.images, radii(threat.epsilon, batch.images), threat.norm, tolerance=1e-4).all():
        wrong = f"images that are no numbers, or outside their ball ({threat}) or [0, 1]; project them"
    else:
        return
    kind = type(attack)
    raise Misuse(f"the attack {kind.__module__}.{kind.__qualname__} answers with {wrong}")


def idle(batch: Batch, epsilon: float | Float[Tensor, " n"]) -> bool:
    """Whether there is nothing to attack: no example, or no budget. A number tells without waiting for the device."""
    return not len(batch) or not (epsilon.any() if isinstance(epsilon, Tensor) else epsilon)


def followed(steps: int, share: float) -> int:
    """The part of an attack's steps that a share of the target epsilon gets, rounded up; at least 1."""
    return max(1, math.ceil(share * steps - 1e-9))


def radii(epsilon: float | Float[Tensor, " n"], images: Float[Tensor, "n *shape"]) -> Float[Tensor, " n"]:
    """The budget as one radius per example, with the images' dtype and device."""
    if isinstance(epsilon, Tensor):
        return epsilon.to(images)
    return torch.full((len(images),), float(epsilon), dtype=images.dtype, device=images.device)
