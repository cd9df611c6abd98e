"""Radii without sampling: how far logit gaps can be carried before the prediction might change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from poise.core.threat import Norm
from poise.evaluation.certificates.capture import Network
from poise.evaluation.certificates.lipschitz import gap_constants, local_bounds, value_constants
from poise.evaluation.certificates.radii import lipschitz_radius, needed_margin, others, softmax_constant, worst_lead

Radii = Float64[Tensor, " n"]
Gaps = Float64[Tensor, "n others"]

_DOUBLINGS, _HALVINGS, _EXACT = 12, 4, 60
_SLACK = 1e-9
"""What logits may be off by in float64, as a share of the largest."""
_INSIDE = 1 - 1e-9
"""Radii are of closed balls, in which nothing ties."""


@dataclass(frozen=True)
class Steps:
    """Radii by three arguments, each of which proves at least as much as the one before.

    Args:
        classes: the predictions that the radii are about.
        probabilities: Lipschitz constants of the probabilities (methods 3.6 b); for a single network those of the gaps.
        margins: logit gaps carried by their constants, and the mixture judged at the far end.
        local: the same with constants of each image's own ball; equal to `margins` where they were not asked for.
    """

    classes: Int[Tensor, " n"]
    probabilities: Radii
    margins: Radii
    local: Radii


class Bounded:
    """A network with its constants, ready to give radii for any images.

    Args:
        network: the captured branch.
        norm: norm of the radii.
        alpha: least weight of the branch; 1 where nothing is mixed.
        scale: what its logits are multiplied by before the softmax.
    """

    def __init__(self, network: Network, norm: Norm, alpha: float = 1.0, scale: float = 1.0) -> None:
        self.network, self.norm, self.alpha, self.scale = network, norm, alpha, scale
        self.values = value_constants(network, norm)
        self.gaps = gap_constants(network, self.values)

    @torch.no_grad()
    def radii(self, images: Float64[Tensor, "n *shape"], *, local: bool, largest: float) -> Steps:
        """Radii of closed balls around images within which the prediction cannot change; 0 where nothing is proven.

        Args:
            images: values in [0, 1].
            local: whether to bound each image's own ball too.
            largest: radii beyond this are not searched for by `local`.

        Raises:
            Misuse: where the network gives other logits than the classifier that it was captured of.
        """
        logits = self.network.confirmed(images)
        classes = logits.argmax(1)
        gaps = others(logits.gather(1, classes[:, None]) - logits, classes)
        slack = _SLACK * (1 + logits.abs().amax(1))
        constants = others(self.gaps[classes], classes)
        whole = torch.where(self._holds(gaps - slack[:, None]), ((gaps - slack[:, None]) / constants).amin(1), 0.0)

        def holds(radii: Radii, steepness: Gaps) -> Bool[Tensor, " n"]:
            return self._holds(gaps - slack[:, None] - steepness * radii[:, None])

        def within(radii: Radii) -> Radii:
            """The part of these radii that bounds of the balls with these radii prove."""
            found = local_bounds(self.network, images, classes, radii, self.norm, self.values)
            part = _halved(lambda tried: holds(tried, found.steepest), torch.zeros_like(radii), radii)
            everywhere = holds(radii, found.steepest) | self._holds(found.least - slack[:, None])
            return torch.where(everywhere, radii, part)

        margins = _halved(lambda tried: holds(tried, constants), torch.zeros_like(whole), whole) * _INSIDE
        scores = self._scores(logits, classes).clamp(max=margins) if self.alpha < 1 else margins
        return Steps(classes, scores, margins, _grown(within, margins, largest) * _INSIDE if local else margins)

    def _holds(self, gaps: Float64[Tensor, "n others"]) -> Bool[Tensor, " n"]:
        """Whether the prediction is sure where logit gaps are at least these."""
        if self.alpha == 1:
            return gaps.amin(1) > 0
        return worst_lead(gaps, self.scale) > needed_margin(self.alpha) + _SLACK

    def _scores(self, logits: Float64[Tensor, "n classes"], classes: Int[Tensor, " n"]) -> Radii:
        constants = softmax_constant(self.scale) * self.gaps.amax(1)
        return lipschitz_radius((self.scale * logits).softmax(1), classes, constants, self.alpha) * _INSIDE


def _halved(proven: Callable[[Radii], Bool[Tensor, " n"]], low: Radii, high: Radii) -> Radii:
    """The largest proven radius that halving finds between one that is proven and one that may not be."""
    for _ in range(_EXACT):
        middle = (low + high) / 2
        holds = proven(middle)
        low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
    return low


def _grown(within: Callable[[Radii], Radii], start: Radii, largest: float) -> Radii:
    """Radii at least as large as proven ones: of balls that double while they are proven whole, then of some between.

    Bounds of a ball also prove smaller ones, so every try counts, and nothing is assumed of the radii between.
    """
    best, high = start, (2 * start).clamp(max=largest)
    growing = (start > 0) & (start < largest)
    for _ in range(_DOUBLINGS):
        if not bool(growing.any()):
            break
        best = torch.where(growing, best.maximum(within(high)), best)
        growing = growing & (best >= high) & (high < largest)
        high = torch.where(growing, (2 * high).clamp(max=largest), high)
    for _ in range(_HALVINGS):
        middle = (best + high.maximum(best)) / 2
        found = within(middle)
        best, high = best.maximum(found), torch.where(found < middle, middle, high)
    return torch.where(start > 0, best, 0.0)
