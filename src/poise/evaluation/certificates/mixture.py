"""What certificates need to know of a mixture of classifiers: its robust branch and how far that one is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from poise.core.misuse import Misuse
from poise.models import Classifier
from poise.models.smoothed import Smoothed


@runtime_checkable
class Mixture(Protocol):
    """f = log((1 - alpha) softmax(s_g g) + alpha softmax(s_h h)), with alpha between bounds that hold by construction.

    Args:
        standard: g.
        robust: h.
        scales: s_g and s_h.
        alpha_low: least alpha that any image can have.
        alpha_high: greatest.
        sharpened: whether a nonlinearity comes between h and its softmax.
    """

    standard: Classifier
    robust: Classifier
    scales: tuple[float, float]
    alpha_low: float
    alpha_high: float
    sharpened: bool

    def robust_probabilities(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """softmax(s_h h)."""


@dataclass(frozen=True)
class Core:
    """The part of a classifier that a certificate is about.

    Args:
        robust: the branch whose robustness is bounded; the classifier itself where nothing is mixed.
        alpha: its least weight; 1 where nothing is mixed.
        scale: what its logits are multiplied by before the softmax.
        of_mixture: whether it is a branch of a mixture, at whatever weight.
    """

    robust: Classifier
    alpha: float = 1.0
    scale: float = 1.0
    of_mixture: bool = False

    @property
    def mixed(self) -> bool:
        """Whether a standard branch has a say."""
        return self.alpha < 1

    @property
    def smoothed(self) -> Smoothed | None:
        """The smoothing of the robust branch, if it is smoothed."""
        network = self.robust.network
        return network if isinstance(network, Smoothed) else None


def core_of(classifier: nn.Module) -> Core:
    """The branch to bound and its least weight.

    Where the robust branch is a mixture itself, its own robust branch is the one. The softmax of an inner mixture's
    logits, unscaled, are its probabilities (1 - b) g' + b h', so that the whole is

        (1 - a) g + a (1 - b) g' + a b h',

    a mixture of h' at the weight a b with some probabilities, namely a mean of g and g' at the weight 1 - a b. Weights
    lie in [0, 1], so the product of the least ones is the least, and what is proven of a mixture holds for it.

    Raises:
        Misuse: for a module that is neither a classifier nor a mixture, for a mixture with a nonlinearity, as bounds of
            the robust logits say nothing of what enters it, for one that scales the logits of another, which are no
            weighted mean then, and for a classifier that changes images before a mixture or a smoothing inside it sees
            them: radii of what is inside would not be radii of the whole.
    """
    for module in (classifier, getattr(classifier, "network", None)):
        if isinstance(module, Mixture):
            return _core_of_mixture(classifier, module)
    if not isinstance(classifier, Classifier):
        raise Misuse(f"a certificate needs a classifier or a mixture of two; got {type(classifier).__name__}")
    _check_images_untouched(classifier)
    return Core(classifier)


def _core_of_mixture(classifier: nn.Module, mixture: Mixture) -> Core:
    if mixture.sharpened:
        raise Misuse(
            "nothing is proven of a mixture with a nonlinearity: bounds of the robust branch's logits do not "
            "carry over to what is mixed; certify the mixture without it"
        )
    _check_images_untouched(classifier)
    inner, alpha, scale = core_of(mixture.robust), float(mixture.alpha_low), float(mixture.scales[1])
    if inner.of_mixture and scale != 1:
        raise Misuse(
            f"the mixture scales the logits of its robust branch, a mixture itself, by {scale:g}, after which they are "
            "no mean of its branches; mix it with a scale of 1, and give the scale to the inner mixture"
        )
    return Core(inner.robust, alpha * inner.alpha, inner.scale if inner.of_mixture else scale, of_mixture=True)


def _check_images_untouched(classifier: nn.Module) -> None:
    """Refuse to look through a classifier that normalises or resizes what it hands on to a mixture or a smoothing."""
    if not isinstance(classifier, Classifier) or not isinstance(classifier.network, Mixture | Smoothed):
        return
    blueprint = classifier.blueprint
    if any(blueprint.mean) or any(value != 1 for value in blueprint.std) or blueprint.size is not None:
        raise Misuse(
            f"a classifier around a {type(classifier.network).__name__} must hand images on as they are to be "
            f"certified; this one normalises or resizes them (mean {blueprint.mean}, std {blueprint.std}, size "
            f"{blueprint.size})"
        )
