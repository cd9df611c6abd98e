"""The outputs through which a mixed classifier must be attacked besides its own.

A mixture can hide gradients without being robust: a confident branch saturates the softmax, a saturated gate stands
still, a nonlinearity is flat, a one-hot vote has no gradient at all. Whether an attack through one of these succeeded
is decided by the mixture itself, so nothing here has to be right, only helpful.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.core.modes import exact
from poise.core.streams import Stream
from poise.models.classifier import Classifier
from poise.models.mixing.logspace import log_mean, log_of
from poise.models.mixing.mixture import Mixture

_BARE_SHARE = 0.9
"""Part of the robust vote that has no nonlinearity in the smooth mixture; arXiv 2402.02263, official code."""

_PROBES = 16
"""Random images by which `Joint` tells how large a branch's logits are."""


def surrogates_of(mixture: Mixture) -> Mapping[str, nn.Module]:
    """Modules from images to logits, by name, the likeliest to succeed first.

    joint: see `Joint`. robust, standard: each branch alone, so that transfer from either counts. gate: see `RawGate`,
    where alpha is learned. linear: see `Linear`, where there is a nonlinearity. What the branches themselves offer
    follows under their names, as when a mixture is mixed again.
    """
    found: dict[str, nn.Module] = {
        "joint": Joint(mixture),
        "robust": mixture.robust,
        "standard": mixture.standard,
    }
    if mixture.gate is not None:
        found["gate"] = RawGate(mixture)
    if mixture.blend.sharpening is not None:
        found["linear"] = Linear(mixture)
    for role in ("robust", "standard"):
        inner = getattr(mixture, role).surrogates()
        found |= {f"{role} {name}": module for name, module in inner.items()}
    return found


class Joint(nn.Module):
    """Both branches' logits, brought to one size and added: an attack moves both at once, and nothing saturates.

    Where one branch is sure, the mixture's own gradient is the other's alone, and an attack on either branch leaves the
    other as it was. Sizes are standard deviations over the classes, on random images, so that they are the same for
    every image; a mixture is measured once. A branch without useful gradients speaks through what it offers in its
    place.

    Args:
        mixture: any.
    """

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.standard, self.robust = _outspoken(mixture.standard), _outspoken(mixture.robust)
        if mixture.sizes is None:
            probes = Stream.seeded(0).fold("joint").uniform(torch.arange(_PROBES), mixture.robust.blueprint.shape)
            probes = probes.to(mixture.robust.device, mixture.robust.dtype)
            mixture.sizes = _size(self.standard, probes), _size(self.robust, probes)
        self.sizes = mixture.sizes

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits to attack."""
        joint: Tensor = self.standard(images) / self.sizes[0] + self.robust(images) / self.sizes[1]
        return joint


@torch.no_grad()
def _size(branch: nn.Module, probes: Float[Tensor, "n *shape"]) -> float:
    """The mean standard deviation of a branch's logits over the classes; 1 where that is nothing to divide by."""
    with exact(probes.device):
        found = float(branch(probes).double().std(dim=1).mean())
    return found if math.isfinite(found) and found > 0 else 1.0


def _outspoken(branch: Classifier) -> nn.Module:
    """What a branch offers to an attack on both, or the branch itself."""
    offered = branch.surrogates()
    return next((offered[name] for name in ("joint", "soft") if name in offered), branch)


class RawGate(nn.Module):
    """The branches' log-probabilities mixed by alpha, whose gradient is that of the raw gate, before the sigmoid.

    The weighted mean of log-probabilities, (1 - alpha) log p + alpha log q, does not saturate where a branch is sure;
    the gate's slope is taken to be the sigmoid's largest everywhere, so an attack sees which way to push a gate that
    has long made up its mind.

    Args:
        mixture: one with a gate.
    """

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits to attack."""
        standard, robust, raw = self.mixture.seen(images)
        assert raw is not None  # noqa: S101 - such mixtures have a gate
        blend = self.mixture.blend
        low, high, scales = blend.alpha_low, blend.alpha_high, (blend.scale_standard, blend.scale_robust)
        alpha = low + (high - low) * (raw.detach().sigmoid() + (raw - raw.detach()) / 4)
        votes = [(scale * logits).log_softmax(1) for scale, logits in zip(scales, (standard, robust), strict=True)]
        return (1 - alpha)[:, None] * votes[0] + alpha[:, None] * votes[1]


class Linear(nn.Module):
    """A mixture without its nonlinearity, but for a tenth of the robust vote.

    The gradient of the adaptive AutoAttack of arXiv 2402.02263: (1 - a) softmax(g) + 0.9 a softmax(h) +
    0.1 a softmax(M(h)), with the alpha that the bare branch would have.

    Args:
        mixture: one with a sharpening.
    """

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits to attack."""
        sharpening = self.mixture.blend.sharpening
        assert sharpening is not None  # noqa: S101 - such mixtures have one
        standard, robust, _ = self.mixture.seen(images)
        bare = log_mean(
            robust.double().log_softmax(1),
            self.mixture.robust_vote(robust),
            log_of(_BARE_SHARE),
            log_of(1 - _BARE_SHARE),
        )
        alpha = sharpening.linear_alpha
        mixture = log_mean(standard.double().log_softmax(1), bare, log_of(1 - alpha), log_of(alpha))
        return mixture.to(torch.promote_types(standard.dtype, images.dtype))
