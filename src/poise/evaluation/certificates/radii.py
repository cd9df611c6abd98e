"""Radii as arithmetic: what margins, Lipschitz constants and smoothed probabilities prove, alone and of a mixture.

Notation: h are the probabilities of the robust branch, c its most likely class, and the mixture is
f = log((1 - alpha) g + alpha h) for any probabilities g whatever. Everything works on float64 tensors, one row an
example. A radius of 0 says that nothing is proven. alpha = 1 is the robust branch alone.

Sources: Bai et al., "Improving the accuracy-robustness trade-off of classifiers via adaptive smoothing"
(arXiv 2301.12554); Cohen, Rosenfeld & Kolter 2019. Unlike the official notebook, constants are per class, the
smoothing radius takes confidence bounds, and the Lipschitz constant of a smoothed score is the tight one.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from poise.core.misuse import Misuse

Rows = Float[Tensor, "n classes"]
PerRow = Float[Tensor, " n"]

_MAJORITY = 0.5 + 2**-20
"""The least alpha at which something is proven: nearer to 1/2 a sure robust branch and a sure standard one tie in
float32."""


def needed_margin(alpha: float) -> float:
    """How far h_c must lead every other h_i for the mixture to follow it whatever g says: (1 - alpha) / alpha.

    Infinite for alpha up to 1/2, where g alone can decide, and so little above that rounding can.

    Args:
        alpha: weight of the robust branch, in [0, 1]; for a mixing network the lowest that it can give.
    """
    if not 0 <= alpha <= 1:
        raise Misuse(f"alpha is a weight in [0, 1]; got {alpha}")
    return (1 - alpha) / alpha if alpha >= _MAJORITY else math.inf


def lipschitz_radius(
    probabilities: Rows, classes: Int[Tensor, " n"], constants: Float[Tensor, " classes"], alpha: float = 1.0
) -> PerRow:
    """The radius that Lipschitz constants of the probabilities prove: min over i of the margin to spare over L_c + L_i.

        r(x) = min_{i != c} max(0, alpha (h_c(x) - h_i(x)) + alpha - 1) / (alpha (L_c + L_i))

    Args:
        probabilities: h(x).
        classes: c.
        constants: Lipschitz constant of each class' probability, in the norm that the radius is in.
        alpha: weight of the robust branch; up to 1/2 nothing is proven.

    Returns:
        Radii of open balls: at the radius itself f may tie.
    """
    margins = _leads(probabilities, classes) - needed_margin(alpha)
    reach = constants[classes][:, None] + constants[None, :]
    radii = torch.where(margins > 0, margins, 0.0) / reach
    return torch.where(margins > 0, radii, 0.0).amin(1)


def smoothing_radius(lower: PerRow, upper: Float[Tensor, "n others"], sigma: float, alpha: float = 1.0) -> PerRow:
    """The l2 radius that Gaussian smoothing proves.

        r(x) = sigma / 2 (Phi^-1(alpha h_c) - max_{i != c} Phi^-1(alpha h_i + 1 - alpha))

    alpha hbar_c and alpha hbar_i + 1 - alpha are functions into [0, 1], and sigma Phi^-1 of the Gaussian average of
    such a function is 1-Lipschitz. With alpha = 1 this is Cohen's radius.

    Args:
        lower: lower bounds of h_c, or h_c itself; in [0, 1].
        upper: upper bounds of the other classes, or their largest alone.
        sigma: standard deviation of the noise, above 0, in units of the image range.
        alpha: weight of the robust branch; below 1/2 nothing is proven.
    """
    if needed_margin(alpha) == math.inf:
        return torch.zeros_like(lower)
    rival = (alpha * upper + 1 - alpha).amax(1)
    radii = sigma / 2 * (torch.special.ndtri(alpha * lower) - torch.special.ndtri(rival.clamp(max=1)))
    # At a lower bound of 1 both terms are infinite where nobody else can have any share.
    return torch.where(alpha * lower > rival, radii, 0.0)


def worst_lead(gaps: Float[Tensor, "n others"], scale: float = 1.0) -> PerRow:
    """The least h_c - max_i h_i that is possible where logit gaps z_c - z_i are at least these.

    h is the softmax of scale * z. Each h_c - h_i = (1 - exp(-s g_i)) / (1 + sum_j exp(-s g_j)) rises with every gap
    as long as it is positive, so its least value is that of the least gaps. Carrying gaps over the ball and taking the
    softmax there proves more than carrying probabilities: where the softmax is flat, gaps may shrink at no cost.

    Args:
        gaps: lower bounds of the logit gaps to every other class.
        scale: what logits are multiplied by before the softmax, above 0.

    Returns:
        The lead where it is positive; a number of at most 0 where it is not.
    """
    shares = torch.exp(-scale * gaps)
    lead = -torch.expm1(-scale * gaps.amin(1)) / (1 + shares.sum(1))
    return torch.where(gaps.amin(1) > 0, lead, gaps.amin(1).clamp(max=0))


def softmax_constant(scale: float = 1.0) -> float:
    """By how much a softmax probability of scale * z can change per unit by which logit gaps change: scale / 4.

    |dh_i| = scale h_i |sum_j h_j (dz_i - dz_j)| <= scale h_i (1 - h_i) max_j |dz_i - dz_j|.
    """
    return scale / 4


def others(values: Shaped[Tensor, "n classes"], classes: Int[Tensor, " n"]) -> Shaped[Tensor, "n others"]:
    """The values of all classes but one, in their order."""
    keep = torch.ones_like(values, dtype=torch.bool).scatter_(1, classes[:, None], value=False)
    return values[keep].view(len(values), -1)


def _leads(values: Rows, classes: Int[Tensor, " n"]) -> Rows:
    """How far a class leads each class; infinite for itself."""
    own = values.gather(1, classes[:, None])
    return (own - values).scatter(1, classes[:, None], torch.inf)
