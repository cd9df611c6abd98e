"""Projected gradient descent, the attack that most robust training runs on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.attacks.attack import Attack, Loss, followed, idle, radii
from poise.attacks.slopes import differentiated, finite, forward
from poise.core.batch import Batch
from poise.core.losses import cross_entropy
from poise.core.misuse import Misuse
from poise.core.modes import evaluating, frozen
from poise.core.norms import length, per_example, project, random_point, steepest
from poise.core.streams import Stream
from poise.core.threat import BOX, Norm

_TRAVEL, _LONGEST = 2.5, 1.25
"""Of all steps together and of a single one, in units of epsilon: a single one is that of FGSM."""


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient descent (Madry et al. 2018) with exact projections onto ball and box together.

    The step scales with epsilon, so it follows a schedule by itself. In l1 the step goes along the largest entries of
    the gradient, as in SLIDE (Tramer & Boneh 2019), counted among the pixels that can still move (Croce & Hein 2021).

    Args:
        steps: gradient steps, at least 1; each costs one forward and one backward pass to the images.
        step_size: length of a step in units of epsilon; "auto" is 2.5 / steps, and 1.25 at most, so that few steps
            reach the border too.
        random_start: start from a uniform point of the ball instead of the image itself.
        sparsity: l1 only: share of the pixels that one step moves, in (0, 1].
        steps_follow: take fewer steps while a schedule holds epsilon below its target, in proportion, rounded up, and
            longer ones.
        model_mode: state of the model while attacked: "eval" or "train".
    """

    steps: int = 10
    step_size: float | Literal["auto"] = "auto"
    random_start: bool = True
    sparsity: float = 0.05
    steps_follow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise Misuse(f"PGD needs at least 1 step; got {self.steps}")
        if self.step_size != "auto" and not (math.isfinite(self.step_size) and self.step_size > 0):
            raise Misuse(f"PGD's step size must be positive, in units of epsilon; got {self.step_size}")
        if not 0 < self.sparsity <= 1:
            raise Misuse(f"PGD's sparsity is a share of the pixels in (0, 1]; got {self.sparsity}")

    @property
    def stride(self) -> float:
        """The length of a step, given or by default."""
        return min(_TRAVEL / self.steps, _LONGEST) if self.step_size == "auto" else self.step_size

    def at(self, share: float) -> PGD:
        """See `Attack.at`; fewer steps of a given size travel as far as all would, as long as they stay below 1.25."""
        if not self.steps_follow:
            return self
        fewer = replace(self, steps=followed(self.steps, share), steps_follow=False)
        if self.step_size == "auto":
            return fewer
        longer = min(self.step_size * self.steps / fewer.steps, _LONGEST)
        return replace(fewer, step_size=max(self.step_size, longer))

    def perturb(
        self,
        model: nn.Module,
        batch: Batch,
        epsilon: float | Float[Tensor, " n"],
        norm: Norm,
        stream: Stream,
        loss: Loss = cross_entropy,
    ) -> Float[Tensor, "n *shape"]:
        """See `Attack.perturb`."""
        images = batch.images
        if idle(batch, epsilon):
            return images
        radius = radii(epsilon, images)
        ball = Ball(images, radius, norm)
        points = random_point(images, radius, norm, stream, batch.ids) if self.random_start else images
        with attackable(model, self.model_mode == "train"):
            for _ in range(self.steps):
                slope = image_gradient(model, points, batch.labels, loss)
                points = ball.climbed(points, slope, self.stride, self.sparsity)
        return points


@dataclass(frozen=True)
class Ball:
    """The points that an attack may reach.

    Args:
        images: centres.
        radius: radii.
        norm: the ball's norm.
    """

    images: Float[Tensor, "n *shape"]
    radius: Float[Tensor, " n"]
    norm: Norm

    def climbed(
        self, points: Float[Tensor, "n *shape"], slope: Float[Tensor, "n *shape"], step_size: float, sparsity: float
    ) -> Float[Tensor, "n *shape"]:
        """One step of projected gradient ascent.

        Args:
            points: where each example stands.
            slope: the gradient there.
            step_size: length of the step in units of the radius.
            sparsity: l1 only: share of the pixels that move.
        """
        way = sparse_direction(slope, points, sparsity) if self.norm == "l1" else steepest(slope, self.norm)
        moved = points + per_example(step_size * self.radius, points) * way
        return project(moved, self.images, self.radius, self.norm)


def image_gradient(
    model: nn.Module, images: Float[Tensor, "n *shape"], labels: Tensor, loss: Loss
) -> Float[Tensor, "n *shape"]:
    """The gradient of each example's loss by its own image; parameters' `.grad` are not touched."""
    leaf, logits = forward(model, images, sloped=True)
    return finite(differentiated(lambda found: loss(found, labels), logits, leaf)[1])


def sparse_direction(
    slope: Float[Tensor, "n *shape"], points: Float[Tensor, "n *shape"], share: float
) -> Float[Tensor, "n *shape"]:
    """What the gradient's largest entries exceed the rest by, scaled to unit l1 length; a `share` of the pixels moves.

    Pixels that the box already stops do not count towards the share, but those among the largest keep their entry: the
    projection then gives them back what it takes from all, so the optimum of a linear loss stays where it is. What all
    entries have in common is left out because the projection would undo it.
    """
    size = slope.abs().flatten(1)
    blocked = ((slope > 0) & (points >= BOX[1]) | (slope < 0) & (points <= BOX[0])).flatten(1)
    count = math.ceil(share * size.shape[1])
    ranked = nn.functional.pad(size.masked_fill(blocked, 0).topk(min(count + 1, size.shape[1]), dim=1).values, (0, 1))
    rest = ranked[:, count : count + 1]
    sparse = (slope.flatten(1).sign() * (size - rest).clamp(min=0)).view_as(slope)
    return sparse / per_example(length(sparse, "l1"), slope).clamp(min=torch.finfo(slope.dtype).tiny)


@contextmanager
def attackable(model: nn.Module, training: bool) -> Iterator[None]:
    """The model in the mode asked for, without weight gradients, and with its buffers put back afterwards.

    A model that trains is attacked "in train mode" as it is, with those of its parts in eval mode that rest.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()} if training else {}
    mode = nullcontext() if training and model.training else evaluating(model, training=training)
    with mode, frozen(model):
        try:
            yield
        finally:
            for name, buffer in model.named_buffers():
                if name in buffers:
                    buffer.data.copy_(buffers[name])  # unseen by graphs that wait for their backward pass: the same
