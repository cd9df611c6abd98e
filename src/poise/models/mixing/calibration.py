"""Choosing scale, nonlinearity and alpha from the robust branch's margins on images that were held out for it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from poise.core.misuse import Misuse
from poise.models.mixing.blend import Blend
from poise.models.mixing.sharpening import Sharpening, refuse_few_classes

_POINTS = 8
_SCALES = (0.05, 5.0)
_SHIFTS = (-1.1, 0.0)
_POWERS = (1.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What the robust branch says of validation images; test images have no place here.

    Args:
        kept: logits at attacked images, as bad as the attack could make them, where the branch is still right.
        lost: logits at clean images where the branch is wrong.

    Raises:
        Misuse: where either is empty.
    """

    kept: Float[Tensor, "m classes"]
    lost: Float[Tensor, "k classes"]

    def __post_init__(self) -> None:
        if not len(self.kept) or not len(self.lost):
            raise Misuse(
                "calibration sets the robust branch's confidence under attack, where right, against that on clean "
                f"images, where wrong; of the held-out images {len(self.kept)} are the first and {len(self.lost)} the "
                "second kind: give more images (validate_on), or choose alpha yourself"
            )

    @classmethod
    def of(
        cls,
        clean: Float[Tensor, "n classes"],
        wrong: Bool[Tensor, " n"],
        attacked: Float[Tensor, "n classes"],
        fooled: Bool[Tensor, " n"],
    ) -> HeldOut:
        """From logits at clean and attacked images, in any order each."""
        return cls(kept=attacked[~fooled], lost=clean[wrong])


class Calibrated(NamedTuple):
    """A choice and what it does to the held-out images.

    Args:
        blend: constant alpha, with a scale or a sharpening.
        kept: share of the attacked and right that stay right whatever the standard branch votes for.
        fixable: share of the clean and wrong whose margin the standard branch can overturn, if not always for the
            true class.
    """

    blend: Blend
    kept: float
    fixable: float


def calibrated_scale(held_out: HeldOut, keep: float = 0.985) -> Calibrated:
    """The scale of the robust logits, with alpha, by which most of its clean errors can be put right.

    See `calibrated_sharpening`; the map is z -> scale z, of 24 scales from 0.05 to 10. Of equals the one nearest to 1
    is taken: where there are few mistakes to put right, many scales serve, and the extreme ones are no better.
    """
    scales = sorted(torch.logspace(math.log10(0.05), 1, 24).tolist(), key=lambda scale: abs(math.log(scale)))
    return _best([_at_cutoff(held_out, keep, Blend(scale_robust=scale)) for scale in scales])


def calibrated_sharpening(held_out: HeldOut, keep: float = 0.985) -> Calibrated:
    """The sharpening, with alpha, by which most clean errors of the robust branch can be put right.

    The standard branch's vote alone overturns a margin below (1 - alpha) / alpha. That cutoff is set where a share
    `keep` of the robust branch's right predictions under attack lie above it; among 8 x 8 x 8 sharpenings the one is
    taken under which the fewest of its wrong clean predictions do (arXiv 2402.02263, its official search and ranges for
    CIFAR-10). Unlike there, where the first test images serve, the images must be held out.

    Args:
        held_out: logits on validation images.
        keep: share in (0, 1).

    Raises:
        Misuse: for a share outside (0, 1), and for fewer than 3 classes.
    """
    refuse_few_classes(held_out.kept.shape[1])
    bare = _at_cutoff(held_out, keep, Blend()).blend.alpha_low
    grid = itertools.product(
        torch.logspace(math.log10(_SCALES[0]), math.log10(_SCALES[1]), _POINTS).tolist(),
        torch.linspace(*_SHIFTS, _POINTS).tolist(),
        torch.linspace(*_POWERS, _POINTS).tolist(),
    )
    blends = (
        Blend(sharpening=Sharpening(scale=scale, shift=shift, power=power, linear_alpha=bare))
        for scale, shift, power in grid
    )
    return _best([_at_cutoff(held_out, keep, blend) for blend in blends])


def _at_cutoff(held_out: HeldOut, keep: float, blend: Blend) -> Calibrated:
    """The blend at the alpha whose cutoff leaves a share `keep` of the right predictions under attack above it."""
    if not 0 < keep < 1:
        raise Misuse(f"calibration keeps a share of the robust predictions, above 0 and below 1; got {keep}")
    kept, lost = _leads(blend, held_out.kept), _margins(blend, held_out.lost)
    cutoff = max(float(kept.quantile(1 - keep)), 0.0)  # below 0 the nonlinearity itself puts another class first
    alpha = 1 / (1 + cutoff)
    chosen = replace(blend, alpha_low=alpha, alpha_high=alpha)
    return Calibrated(chosen, float((kept >= cutoff).double().mean()), float((lost < cutoff).double().mean()))


def _best(found: list[Calibrated]) -> Calibrated:
    """The choice that lets most clean mistakes be overturned; the first of equals.

    At alpha 1 none can be, and the branch's votes may not even be its own: the last resort, and then what keeps most.
    """
    return max(found, key=lambda choice: (choice.fixable, 2.0 if choice.blend.alpha_low < 1 else choice.kept))


def _leads(blend: Blend, logits: Tensor) -> Tensor:
    """Probability of the robust branch's own choice minus that of the strongest other class, as they enter the mixture.

    Below 0 where a nonlinearity, which may fall before it rises, makes another class of it.
    """
    chosen, vote = logits.argmax(1, keepdim=True), blend.robust_logits(logits).softmax(1)
    return vote.gather(1, chosen)[:, 0] - vote.scatter(1, chosen, -torch.inf).amax(1)


def _margins(blend: Blend, logits: Tensor) -> Tensor:
    """Probability of the robust branch's leading class minus that of the next, as they enter the mixture."""
    top = blend.robust_logits(logits).softmax(1).topk(2, dim=1).values
    return top[:, 0] - top[:, 1]
