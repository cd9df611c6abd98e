"""Choosing scale, nonlinearity and alpha from the robust branch's margins on images that were held out for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from poise.core.misuse import Misuse
from poise.models.mixing.blend import Blend
from poise.models.mixing.sharpening import Sharpening

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
        kept: share of the attacked and right whose margin the standard branch cannot overturn.
        fixable: share of the clean and wrong that it can.
    """

    blend: Blend
    kept: float
    fixable: float


def calibrated_scale(held_out: HeldOut, keep: float = 0.985) -> Calibrated:
    """The scale of the robust logits, with alpha, by which most of its clean errors can be put right.

    See `calibrated_sharpening`; the map is z -> scale z.
    """
    scales = torch.logspace(-1.3, 1.0, 24, base=10.0).tolist()
    found = _best(held_out, keep, ((scale, lambda z, s=scale: s * z) for scale in scales))
    return Calibrated(replace(Blend.constant(found.alpha), scale_robust=found.choice), found.kept, found.fixable)


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
        Misuse: for a share outside (0, 1).
    """
    bare = _best(held_out, keep, [(None, lambda z: z)])
    grid = itertools.product(
        torch.logspace(*(torch.tensor(_SCALES).log10().tolist()), _POINTS).tolist(),
        torch.linspace(*_SHIFTS, _POINTS).tolist(),
        torch.linspace(*_POWERS, _POINTS).tolist(),
    )
    choices = (
        Sharpening(scale=scale, shift=shift, power=power, linear_alpha=bare.alpha) for scale, shift, power in grid
    )
    found = _best(held_out, keep, ((choice, choice) for choice in choices))
    return Calibrated(replace(Blend.constant(found.alpha), sharpening=found.choice), found.kept, found.fixable)


class _Found(NamedTuple):
    choice: object
    alpha: float
    kept: float
    fixable: float


def _best(held_out: HeldOut, keep: float, maps: Iterable[tuple[object, Callable[[Tensor], Tensor]]]) -> _Found:
    """The map under which most wrong clean predictions can be overturned; the first of equals."""
    if not 0 < keep < 1:
        raise Misuse(f"calibration keeps a share of the robust predictions, above 0 and below 1; got {keep}")
    best: _Found | None = None
    for choice, moved in maps:
        kept, lost = _margins(moved(held_out.kept.double())), _margins(moved(held_out.lost.double()))
        cutoff = float(kept.quantile(1 - keep))
        fixable = float((lost < cutoff).double().mean())
        if best is None or fixable > best.fixable:
            best = _Found(choice, 1 / (1 + cutoff), float((kept >= cutoff).double().mean()), fixable)
    assert best is not None  # noqa: S101 - no caller gives an empty grid
    return best


def _margins(logits: Tensor) -> Tensor:
    """Probability of the leading class minus that of the next."""
    top = logits.softmax(1).topk(2, dim=1).values
    return top[:, 0] - top[:, 1]
