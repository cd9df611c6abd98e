"""The old model's adversarial images, shown to the new model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from poise.attacks.answers import decided
from poise.attacks.suites import passes
from poise.core.losses import misclassified
from poise.core.misuse import Misuse
from poise.core.modes import evaluating
from poise.core.norms import inside
from poise.core.threat import BOX
from poise.data import ImageSet
from poise.evaluation.curve import Estimate, share
from poise.evaluation.profile import Profile
from poise.models import Classifier


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What the new model makes of images that were made against the old one.

    Args:
        ids: the examples that an adversarial image was kept of.
        fooled: whether the new model is wrong on it.
        within: index of the smallest grid point whose ball holds it; the grid's length for none.
        overlooked: ids that the new profile calls robust at an epsilon within which such an image fools the new
            model: its own attacks were too weak on them, and the profile is too kind there.
    """

    ids: tuple[str, ...]
    fooled: Bool[np.ndarray, " m"]
    within: Int[np.ndarray, " m"]
    overlooked: tuple[str, ...]

    @classmethod
    def joined(cls, parts: Sequence[Replay]) -> Replay:
        """Replays of one model on different examples, at least one of them, as one."""
        return cls(
            ids=tuple(chain.from_iterable(part.ids for part in parts)),
            fooled=np.concatenate([part.fooled for part in parts]),
            within=np.concatenate([part.within for part in parts]),
            overlooked=tuple(chain.from_iterable(part.overlooked for part in parts)),
        )

    @property
    def transferred(self) -> Estimate:
        """The share of the images that fool the new model too, with its exact interval."""
        return share(int(self.fooled.sum()), len(self.ids))


@torch.no_grad()
def replay(
    classifier: Classifier,
    profile: Profile,
    images: ImageSet,
    ids: Sequence[str],
    adversarials: Float[Tensor, "m *shape"],
    batch_size: int = 128,
) -> Replay:
    """Show a model adversarial images that were made against another.

    Args:
        classifier: the new model, on the device to work on; left as it was found.
        profile: the new model's verdicts; its norm and grid measure the perturbations.
        images: the clean images.
        ids: which example each adversarial image was made from.
        adversarials: the kept images, in [0, 1].
        batch_size: images in work at a time.

    Raises:
        Misuse: for ids that images or profile do not have, ids given twice, and images of another shape or range.
    """
    rows, verdicts = _rows(images.ids, ids), _rows(profile.ids, ids)
    if tuple(adversarials.shape) != (len(ids), *images.shape):
        raise Misuse(
            f"adversarial images must be {len(ids)} of shape {images.shape}, one for each id; got {adversarials.shape}"
        )
    if not bool(((adversarials >= BOX[0]) & (adversarials <= BOX[1])).all()):
        raise Misuse("adversarial images must lie in [0, 1]")
    fooled, within = [], []
    with evaluating(classifier):
        for first in range(0, len(ids), batch_size):
            part = slice(first, first + batch_size)
            moved = adversarials[part].to(classifier.device, classifier.dtype)
            clean = images.images(rows[part]).to(moved)
            said = decided(classifier, moved, passes(profile.header.suite))
            fooled.append(misclassified(said, images.labels[rows[part]].to(classifier.device)).cpu())
            within.append(_smallest_ball(moved, clean, profile).cpu())
    wrong, ball = torch.cat(fooled).numpy(), torch.cat(within).numpy()
    overlooked = wrong & (ball <= profile.robust_to[verdicts.numpy()])
    return Replay(
        ids=tuple(ids),
        fooled=wrong,
        within=ball,
        overlooked=tuple(identity for identity, here in zip(ids, overlooked, strict=True) if here),
    )


def _rows(known: Sequence[str], wanted: Sequence[str]) -> Int[Tensor, " m"]:
    place = {identity: row for row, identity in enumerate(known)}
    strange = [identity for identity in wanted if identity not in place]
    if strange or len(set(wanted)) < len(wanted) or not wanted:
        wrong = f"{strange[0]!r} is unknown" if strange else "an id stands twice" if wanted else "there are none"
        raise Misuse(f"adversarial images belong to examples of the profile, one to each: {wrong}")
    return torch.tensor([place[identity] for identity in wanted], dtype=torch.int64)


def _smallest_ball(moved: Float[Tensor, "m *shape"], clean: Float[Tensor, "m *shape"], profile: Profile) -> Tensor:
    """The index of the smallest grid point whose ball around the clean image holds the moved one."""
    radii = [torch.full((len(moved),), epsilon, device=moved.device) for epsilon in profile.epsilons]
    outside = [~inside(moved, clean, radius, profile.header.norm) for radius in radii]
    return torch.stack(outside).sum(dim=0)
