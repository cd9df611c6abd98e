"""Gradients by images, whatever precision the network computes in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.core.batch import on_host
from poise.core.norms import per_example

_MOST = 126
"""The largest exponent whose power of two, and its inverse, float32 holds in full."""

OfLogits = Callable[[Float[Tensor, "n classes"]], Float[Tensor, " n"]]
"""A loss, one number per row of logits."""


def forward(
    model: nn.Module, points: Float[Tensor, "n *shape"], *, sloped: bool
) -> tuple[Float[Tensor, "n *shape"], Float[Tensor, "n classes"]]:
    """A pass over points that are cut from what they were computed from.

    Args:
        model: maps images in [0, 1] to logits.
        points: where it is evaluated.
        sloped: whether the pass shall be differentiated.

    Returns:
        The points as the leaves of the graph, and the logits, in the points' dtype.
    """
    with torch.set_grad_enabled(sloped):
        leaf = points.detach().requires_grad_(sloped)
        logits = model(leaf).to(leaf.dtype)
        if logits.is_inference():  # of a model that predicts under inference mode
            logits = logits.clone()
    return leaf, logits


def differentiated(
    loss: OfLogits, logits: Float[Tensor, "n classes"], points: Float[Tensor, "n *shape"], *, again: bool = False
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n *shape"]]:
    """The loss of each row and its gradient by the row's point; zero where the loss does not depend on it at all.

    What flows back into the network is scaled, row by row, to a largest entry of about 1, and the gradient is scaled
    back. The powers of two that do it change no digit, but in fp16 the cross-entropy of a confident network would
    otherwise lose its gradient on the way: below 6e-8 there is only zero.

    Args:
        loss: of logits.
        logits: in the points' dtype, computed from points that require a gradient.
        points: where the logits were computed.
        again: whether the same pass will be differentiated once more.

    Returns:
        Loss and gradient, detached, in the points' dtype.
    """
    with torch.enable_grad():
        seed = logits.detach().requires_grad_()
        found = loss(seed)
        pull = _gradient(found.sum(), seed)
    if not logits.requires_grad:
        return found.detach(), torch.zeros_like(points)
    exponent = pull.abs().amax(1, keepdim=True).frexp().exponent.clamp(-_MOST, _MOST)
    power = torch.ones_like(exponent, dtype=pull.dtype)
    way = _gradient(logits, points, pull * power.ldexp(-exponent), again=again)
    return found.detach(), way * per_example(power.ldexp(exponent)[:, 0], points)


def finite(way: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
    """A gradient that no single pixel brings to a halt, as the slope of a square root at 0 would.

    An entry that is infinite becomes as large as the largest finite one of its row, one that is no number 0.
    """
    if on_host(way) and way.sum().isfinite():
        return way  # so that all of its terms are finite: to look is the cheapest there
    flat = way.flatten(1)
    largest = torch.where(flat.isfinite(), flat.abs(), 0).amax(1)
    bound = per_example(torch.where(largest > 0, largest, 1), way)
    return way.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).clamp(-bound, bound)


def _gradient(value: Tensor, by: Tensor, pull: Tensor | None = None, *, again: bool = False) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(by)
    found: tuple[Tensor, ...] = torch.autograd.grad(
        value, by, pull, retain_graph=again, allow_unused=True, materialize_grads=True
    )
    return found[0]
