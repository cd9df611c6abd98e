"""Randomised smoothing as a classifier: what a network says on average of an image under Gaussian noise.

The certificate of a smoothed classifier (Cohen, Rosenfeld & Kolter 2019) is about the exact average over the noise; its
votes or mean probabilities are bounded with fresh noise by `poise.evaluation.certificates`. As a module it answers
with an average over a fixed set of noise patterns, the same for all images, so that it is deterministic, can be
attacked and keeps the contract. Near the boundary the two may differ, the less so the more patterns there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from poise.core.misuse import Misuse, check_choice
from poise.core.streams import Stream
from poise.models.blueprint import Blueprint, Option
from poise.models.classifier import Classifier, classifier_around

Vote = Literal["soft", "hard"]
VOTES: tuple[Vote, ...] = get_args(Vote)

ADDRESS = "smoothed"

_COPIES = 512
_NEVER = 1e-30
"""Share of the votes, as the logarithm sees it, of a class that got none."""


class Smoothed(nn.Module):
    """The logarithm of a classifier's mean vote or mean probability under Gaussian noise.

    Args:
        inner: the classifier that sees the noisy images; noise may take them beyond [0, 1].
        sigma: standard deviation of the noise, above 0, in units of the image range.
        samples: noise patterns that `forward` averages over, at least 1.
        vote: soft (mean of the probabilities) or hard (share of the votes, as Cohen et al.; it has no gradient).
        scale: what logits are multiplied by before the softmax of a soft vote, above 0.
        seed: decides the noise patterns.

    Raises:
        Misuse: for values outside what is said above.
    """

    face: ClassVar[type[Classifier]]

    def __init__(
        self, inner: Classifier, *, sigma: float, samples: int, vote: Vote, scale: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        for name, value in (("sigma", sigma), ("scale", scale)):
            if not (math.isfinite(value) and value > 0):
                raise Misuse(f"{name} of a smoothed classifier must be a number above 0; got {value}")
        if samples < 1:
            raise Misuse(f"a smoothed classifier needs at least 1 sample; got {samples}")
        check_choice("vote", vote, VOTES)
        self.inner, self.sigma, self.samples, self.vote, self.scale, self.seed = (
            inner,
            float(sigma),
            samples,
            vote,
            float(scale),
            seed,
        )

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logarithms of mean votes; where every copy voted, their softmax are the means themselves.

        A copy whose logits are no numbers votes for nobody, and an image for which no copy votes gets NaN.
        Differentiable in the images for soft votes. Without gradients at most about 512 noisy copies are in memory, or
        one of each image where there are more images.
        """
        return self.averaged(images, self.vote)

    def averaged(
        self, images: Float[Tensor, "n *shape"], vote: Vote, through: nn.Module | None = None
    ) -> Float[Tensor, "n classes"]:
        """What `forward` says, over the same noise, with another vote or another network.

        Args:
            images: values in [0, 1].
            vote: what is averaged.
            through: gives logits in the inner classifier's place.
        """
        stream = Stream.seeded(self.seed).fold("smoothed")
        each = max(1, _COPIES // max(1, len(images)))
        parts = [
            self._summed(images, gaussian(stream, some, tuple(images.shape[1:])), vote, through)
            for some in torch.split(torch.arange(self.samples, device=images.device), each)
        ]
        if vote == "soft":
            means = torch.stack(parts).logsumexp(0) - math.log(self.samples)
            return means.masked_fill((means == -torch.inf).all(1, keepdim=True), torch.nan)
        means = torch.stack(parts).sum(0) / self.samples
        return means.clamp(min=_NEVER).log().masked_fill((means == 0).all(1, keepdim=True), torch.nan)

    def _summed(self, images: Tensor, noise: Tensor, vote: Vote, through: nn.Module | None) -> Tensor:
        """What some noise patterns contribute: sums of votes, or logarithms of sums of probabilities."""
        noisy = images[:, None] + self.sigma * noise.to(images.dtype)[None]
        shares = self.shares(noisy.flatten(0, 1), through, vote).reshape(len(images), len(noise), -1)
        return shares.logsumexp(1) if vote == "soft" else shares.sum(1)

    def shares(
        self, noisy: Float[Tensor, "n *shape"], through: nn.Module | None = None, vote: Vote | None = None
    ) -> Float[Tensor, "n classes"]:
        """What each noisy image contributes: log-probabilities for soft votes, a 1 for its class for hard ones.

        One that the network says nothing of, as a logit is NaN or, for soft votes, infinite, contributes to no class: a
        vote or a probability of 0 for each.

        Args:
            noisy: images with their noise.
            through: gives logits in the inner classifier's place.
            vote: soft or hard; by default the smoothing's own.
        """
        logits: Tensor = (through or self.inner)(noisy)
        if (vote or self.vote) == "soft":
            scaled = self.scale * logits
            silent = ~scaled.logsumexp(1, keepdim=True).isfinite()
            return scaled.masked_fill(silent, 0).log_softmax(1).masked_fill(silent, -torch.inf)
        chosen = functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
        return chosen.masked_fill(logits.isnan().any(1, keepdim=True), 0)


class SoftVotes(nn.Module):
    """The soft vote of a smoothing, over the noise of its own: differentiable, whatever the smoothing's vote.

    Args:
        smoothed: the smoothing to imitate.
        through: gives logits in the inner classifier's place.
    """

    def __init__(self, smoothed: Smoothed, through: nn.Module) -> None:
        super().__init__()
        self.smoothed, self.through = smoothed, through

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits to attack: logarithms of mean probabilities."""
        return self.smoothed.averaged(images, "soft", self.through)


class SmoothedClassifier(Classifier):
    """A classifier smoothed by Gaussian noise.

    Args:
        network: the smoothing.
        blueprint: of the kind that `smooth` makes.
        notes: what a person should know.
    """

    network: Smoothed

    def surrogates(self) -> Mapping[str, nn.Module]:
        """See `Classifier.surrogates`: soft votes through the inner classifier and through all that it offers.

        soft: where votes are hard, which have no gradient. "inner NAME": through the inner classifier's surrogate NAME,
        as when a mixture is smoothed.
        """
        inner = self.network.inner
        soft = {"soft": inner} if self.network.vote == "hard" else {}
        offered = soft | {f"inner {name}": module for name, module in inner.surrogates().items()}
        return {name: SoftVotes(self.network, module) for name, module in offered.items()}


Smoothed.face = SmoothedClassifier


def gaussian(
    stream: Stream, ids: Int[Tensor, " n"], shape: tuple[int, ...], step: int | Int[Tensor, " n"] = 0
) -> Float[Tensor, "n *shape"]:
    """Standard normal float32 values, a pair from each 64-bit word (Box & Muller 1958): half the words of `normal`.

    Args:
        stream: source.
        ids: integer keys of the examples; the result lies on their device.
        shape: shape of one example's values.
        step: counter, one for all or one each.
    """
    count = math.prod(shape)
    words = stream.words(ids, (count + 1) // 2, step)
    first = ((words >> 32) & 0xFFFFFFFF).float().add_(0.5).mul_(2.0**-32)
    second = (words & 0xFFFFFFFF).float().mul_(2 * math.pi * 2.0**-32)
    length = first.log_().mul_(-2).sqrt_()
    pairs = torch.cat([length * second.cos(), length * second.sin()], dim=1)
    return pairs[:, :count].reshape(-1, *shape)


def smooth(
    inner: Classifier, *, sigma: float, samples: int = 64, vote: Vote = "hard", scale: float = 1.0, seed: int = 0
) -> SmoothedClassifier:
    """A classifier smoothed by Gaussian noise; it can be saved, attacked, mixed and certified like any other.

    Args:
        inner: what is smoothed; its module is shared, not copied.
        sigma: standard deviation of the noise, in units of the image range.
        samples: noise patterns of a prediction.
        vote: soft or hard; certificates bound the same kind.
        scale: what logits are multiplied by before the softmax of a soft vote.
        seed: decides the noise patterns of predictions.

    Raises:
        Misuse: for values that `Smoothed` refuses, and for a classifier that is smoothed already.
    """
    if isinstance(inner.network, Smoothed):
        raise Misuse(f"the classifier is smoothed already, with sigma {inner.network.sigma}")
    network = Smoothed(inner, sigma=sigma, samples=samples, vote=vote, scale=scale, seed=seed)
    options: dict[str, Option] = {
        "sigma": network.sigma,
        "samples": samples,
        "vote": str(vote),
        "scale": network.scale,
        "seed": seed,
    }
    blueprint = Blueprint(
        address=ADDRESS,
        classes=inner.classes,
        shape=inner.blueprint.shape,
        options=options,
        parts={"inner": inner.blueprint},
    )
    return SmoothedClassifier(network, blueprint, (*inner.notes, f"smoothed with sigma {network.sigma:g}"))


def rebuild_smoothed(blueprint: Blueprint, rebuild: Callable[[Blueprint], nn.Module]) -> Smoothed:
    """The network of a smoothed classifier, its weights still to come.

    Args:
        blueprint: as `smooth` makes it.
        rebuild: makes the bare network of the inner classifier's blueprint.

    Raises:
        Misuse: for a blueprint without an inner classifier, and for options that are no smoothing's.
    """
    if set(blueprint.parts) != {"inner"}:
        raise Misuse(f"a smoothed classifier has one inner one; found {', '.join(blueprint.parts) or 'none'}")
    inner = blueprint.parts["inner"]
    try:
        return Smoothed(classifier_around(rebuild(inner), inner), **blueprint.options)  # type: ignore[arg-type]
    except TypeError as error:
        raise Misuse(f"not the blueprint of a smoothed classifier: {error}") from None
