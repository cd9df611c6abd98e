"""Mixtures whose alpha, or whose gate's bounds, are inputs beside the images: what other runtimes are given."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from poise.core.misuse import Misuse
from poise.models.mixing.logspace import log_mean, log_probabilities
from poise.models.mixing.mixed import MixedClassifier
from poise.models.mixing.mixture import Mixture
from poise.models.mixing.neighbours import SlopeGate

Weights = Float64[Tensor, " n"]
"""A number in [0, 1] for each image. In float64, as 1 - alpha decides where alpha is near 1."""


class Adjustable(nn.Module):
    """A mixture under alphas that each call brings along.

    Args:
        mixture: what is mixed; its own alpha, or bounds, is left out of account.
    """

    inputs: tuple[str, ...]
    """Names of the inputs behind the images, each a `Weights`."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def mean(
        self, standard: Float[Tensor, "n classes"], robust: Float[Tensor, "n classes"], rest: Weights, alpha: Weights
    ) -> Float[Tensor, "n classes"]:
        """Log-probabilities of the mixture from the branches' logits, 1 - alpha and alpha."""
        first = self.mixture.standard_vote(standard)
        if self.mixture.blend.sharpening is not None:  # at alpha 0 the standard branch answers by itself
            own = log_probabilities(self.mixture.blend.scale_standard * standard.double())
            first = torch.where((alpha == 0)[:, None], own, first)
        return log_mean(first, self.mixture.robust_vote(robust), rest.log(), alpha.log()).to(standard.dtype)


class AlphaInput(Adjustable):
    """A mixture without a gate: images and an alpha for each in, log-probabilities out."""

    inputs = ("alpha",)

    def forward(self, images: Float[Tensor, "n *shape"], alpha: Weights) -> Float[Tensor, "n classes"]:
        """What `MixedClassifier.at` gives at each image's alpha; both branches run at any alpha."""
        standard, robust, _ = self.mixture.seen(images)
        return self.mean(standard, robust, 1 - alpha, alpha)


class BoundsInput(Adjustable):
    """A mixture with a gate: images and bounds of alpha for each in, log-probabilities out."""

    inputs = ("alpha_low", "alpha_high")

    def forward(
        self, images: Float[Tensor, "n *shape"], alpha_low: Weights, alpha_high: Weights
    ) -> Float[Tensor, "n classes"]:
        """What `MixedClassifier.within` gives at each image's bounds; where both are equal, `MixedClassifier.at`."""
        standard, robust, raw = self.mixture.seen(images)
        assert raw is not None  # noqa: S101 - there is a gate
        width, wide = alpha_high - alpha_low, raw.double()
        rest, alpha = (1 - alpha_high) + width * (-wide).sigmoid(), alpha_low + width * wide.sigmoid()
        return self.mean(standard, robust, rest, alpha)


def adjustable(classifier: MixedClassifier) -> Adjustable:
    """The mixture with alpha as an input, or with the bounds of alpha where a gate chooses it; weights are shared.

    Raises:
        Misuse: for a gate that follows the slope of the standard branch.
    """
    if isinstance(classifier.gate, SlopeGate):
        raise Misuse("this mixture's gate differentiates the standard branch at every image; no other runtime can")
    return AlphaInput(classifier.network) if classifier.gate is None else BoundsInput(classifier.network)


def settings(classifier: MixedClassifier) -> Iterator[tuple[tuple[float, ...], MixedClassifier]]:
    """Values of the inputs of `adjustable`, its own ones first, each with the mixture that it stands for there."""
    low, high = classifier.alpha_low, classifier.alpha_high
    if classifier.gate is None:
        for alpha in dict.fromkeys((low, 0.0, 0.5, 1.0)):
            yield (alpha,), classifier.at(alpha)
        return
    yield (low, high), classifier
    yield (0.0, 1.0), classifier.within(0.0, 1.0)
    for alpha in (0.0, 0.5, 1.0):
        yield (alpha, alpha), classifier.at(alpha)
