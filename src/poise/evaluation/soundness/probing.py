"""Looking at a model without leaving a trace: its logits, and its gradients by the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from poise.attacks.attack import Loss
from poise.core.batch import Batch
from poise.core.losses import cross_entropy
from poise.core.memory import out_of_memory, piecewise
from poise.core.misuse import first_line
from poise.core.modes import evaluating
from poise.core.norms import length, random_point
from poise.core.streams import Stream, global_seed
from poise.core.threat import Norm

_TINY = 1e-12


class NoGradient(Exception):  # noqa: N818 - it says what there is not
    """The logits do not depend on the images in a way that can be differentiated."""


@contextmanager
def undisturbed(model: nn.Module, stream: Stream) -> Iterator[None]:
    """The model in eval mode; afterwards its modes, buffers, `.grad` and PyTorch's random state are as before.

    Weights are not copied: a model that trains itself while it predicts is not put back. Nor are the generators of
    `random` and numpy.

    Args:
        model: what is looked at.
        stream: seeds the global generators meanwhile, for models that draw from them.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    with evaluating(model), global_seed(stream):
        try:
            yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)


def logits(
    model: nn.Module, images: Float[Tensor, "n *shape"], at_once: int | None = None
) -> Float[Tensor, "n classes"]:
    """What the model says, without a graph, of all images together where memory suffices.

    Args:
        model: maps images in [0, 1] to logits.
        images: at least one.
        at_once: the most images at a time.
    """
    with torch.no_grad():
        return torch.cat(piecewise(lambda rows: model(images[rows]), len(images), at_once))


def image_gradients(
    model: nn.Module, images: Float[Tensor, "n *shape"], labels: Int[Tensor, " n"], loss: Loss
) -> Float[Tensor, "n *shape"]:
    """The gradient of each example's loss by its own image, as PyTorch gives it.

    Attacks scale it on its way and mend what is not finite (`poise.attacks.slopes`); here such entries are a finding.

    Raises:
        NoGradient: where there is none to take, with PyTorch's reason.
    """
    return torch.cat(piecewise(lambda rows: _gradients(model, images[rows], labels[rows], loss), len(images)))


def _gradients(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    with torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        try:
            total = loss(model(leaf), labels).sum()
            found = torch.autograd.grad(total, leaf, allow_unused=True)[0]
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise NoGradient(first_line(error)) from error
    if found is None:
        raise NoGradient("the images are not part of the graph that leads to the logits")
    return found


def no_gradient(model: nn.Module, batch: Batch) -> str | None:
    """Why there is no gradient by a batch's images to take; None where there is one."""
    try:
        image_gradients(model, batch.images, batch.labels, cross_entropy)
    except NoGradient as error:
        return str(error)
    return None


def outputs_of(model: nn.Module) -> Mapping[str, nn.Module]:
    """What a model offers to be attacked through besides itself, by name; nothing for most."""
    offered: Mapping[str, nn.Module] = getattr(model, "surrogates", dict)()
    return offered


def relative_distance(first: Float[Tensor, "n classes"], second: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """How far two outputs for each image lie apart, in units of the longer; entries that are not finite count as 0."""
    first, second = (torch.where(output.isfinite(), output, 0) for output in (first, second))
    size = torch.maximum(length(first, "l2"), length(second, "l2"))
    return length(first - second, "l2") / size.clamp(min=_TINY)


def neighbours(batch: Batch, epsilon: float, norm: Norm, stream: Stream) -> Float[Tensor, "n *shape"]:
    """A random point of each example's ball."""
    radius = torch.full((len(batch),), epsilon, dtype=batch.images.dtype, device=batch.images.device)
    return random_point(batch.images, radius, norm, stream, batch.ids)
