"""Weighted means of probabilities, computed on their logarithms, where nothing underflows."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

LogProbabilities = Float[Tensor, "n classes"]
LogWeight = float | Float[Tensor, " n"]
"""Logarithm of a weight, one for all or one each."""


def log_probabilities(logits: Float[Tensor, "n classes"]) -> LogProbabilities:
    """Log-softmax in float64 whose gradient is right where one class is all but certain.

    There 1 - p of the leading class is no longer a difference of two float64, so the usual backward pass gives that
    class a gradient of exactly zero, and the image a gradient that points elsewhere. The leading class is therefore
    written as -softplus(logsumexp of the others - its logit).

    Args:
        logits: finite, of any dtype.
    """
    wide = logits.double()
    leads = functional.one_hot(wide.argmax(1), wide.shape[1]).bool()
    others = wide.masked_fill(leads, -torch.inf).logsumexp(1, keepdim=True)
    return torch.where(leads, -functional.softplus(others - wide), wide - wide.logsumexp(1, keepdim=True))


def log_mean(first: LogProbabilities, second: LogProbabilities, rest: LogWeight, weight: LogWeight) -> LogProbabilities:
    """log((1 - alpha) p + alpha q) from the logarithms of all four; methods of arXiv 2301.12554, section 3.

    A logarithm of a sum of float32 probabilities, as in the official code, is -inf with a zero or undefined gradient
    wherever both underflow; this is finite wherever one of the two terms is, and so is its gradient.

    Args:
        first: log p; may hold -inf where it needs no gradient.
        second: log q.
        rest: log(1 - alpha).
        weight: log alpha.
    """
    terms = torch.stack([first + _column(rest), second + _column(weight)])
    return terms.logsumexp(0)


def log_weights(raw: Float[Tensor, " n"], low: float, high: float) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """log(1 - alpha) and log(alpha) of alpha = low + (high - low) sigmoid(raw), in this order.

    Exact where the sigmoid saturates: 1 - alpha is (1 - high) + (high - low) sigmoid(-raw), not a difference, and the
    gradient through either logarithm vanishes only where alpha itself stands still.

    Args:
        raw: any real values.
        low: smallest alpha, in [0, 1].
        high: largest alpha, in [low, 1].
    """
    width = log_of(high - low)

    def bounded(least: float, value: Tensor) -> Tensor:
        inner = functional.logsigmoid(value) + width
        return torch.stack([torch.full_like(inner, log_of(least)), inner]).logsumexp(0)

    return bounded(1 - high, -raw), bounded(low, raw)


def log_of(weight: float) -> float:
    """The logarithm of a weight in [0, 1]; -inf of 0."""
    return math.log(weight) if weight > 0 else -math.inf


def _column(weight: LogWeight) -> float | Tensor:
    return weight[:, None] if isinstance(weight, Tensor) else weight
