"""A finished examination that can be tried again on a few of its examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from poise.attacks.answers import mean_prediction
from poise.attacks.apgd import APGD, LossKind
from poise.attacks.driver import run_search
from poise.attacks.search import Problem, Search
from poise.attacks.suites import passes
from poise.core.batch import Batch, device_of
from poise.core.memory import piecewise
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.core.threat import Norm, Threat
from poise.data import ImageSet
from poise.evaluation.profile import Profile
from poise.evaluation.soundness.probing import logits, outputs_of

SAMPLE = 64
"""Examples that a check attacks anew."""
STEPS = 100
"""Steps of the examination's APGD; AutoAttack's figure."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A profile, with the model and the images that it was made of.

    Args:
        profile: the finished profile.
        model: the classifier, on the device to work on.
        images: the images of the profile, in the same order.
        sample: examples that a check attacks at most, at least 1.
        at_once: examples that the model sees at a time at most, at least 1; None for the whole sample. Where memory
            does not suffice they are fewer.
        steps: steps that gradient attacks took in the examination, at least 1.

    Raises:
        Misuse: for images other than the profile's, and for a sample, at_once or steps below 1.
    """

    profile: Profile
    model: nn.Module
    images: ImageSet
    sample: int = SAMPLE
    at_once: int | None = None
    steps: int = STEPS

    def __post_init__(self) -> None:
        if self.images.ids != self.profile.ids:
            raise Misuse(
                f"a profile of {len(self.profile)} images is checked on the same images in the same order; "
                f"{self.images.address} has {len(self.images)} with other ids"
            )
        for name in ("sample", "at_once", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise Misuse(f"{name} must be at least 1; got {value}")

    @property
    def norm(self) -> Norm:
        """The profile's norm."""
        return self.profile.header.norm

    @property
    def epsilon(self) -> float:
        """The profile's largest epsilon."""
        return self.profile.epsilons[-1]

    @property
    def budget(self) -> str:
        """The profile's threat, for a sentence."""
        return str(Threat(norm=self.norm, epsilon=self.epsilon))

    @property
    def passes(self) -> int:
        """Forward passes that the profile's suite averages over, by which retrials judge too."""
        return passes(self.profile.header.suite)

    def stream(self, purpose: str) -> Stream:
        """Randomness for one purpose, from the profile's seed and independent of its attacks."""
        return Stream.seeded(self.profile.header.seed).fold("soundness", purpose)

    def right(self) -> Bool[np.ndarray, " n"]:
        """Whose clean image is classified right."""
        return self.profile.robust()[:, 0]

    def held(self) -> Bool[np.ndarray, " n"]:
        """Who withstood every attack at the largest epsilon."""
        return self.profile.robust()[:, -1]

    def rows(self, among: Bool[np.ndarray, " n"], purpose: str) -> Int[np.ndarray, " m"]:
        """A random sample of the rows where the mask is true, ascending; all of them if they are few."""
        candidates = np.flatnonzero(among)
        order = self.stream(purpose).permutation(len(candidates)).numpy()
        return np.sort(candidates[order[: self.sample]])

    def batch(self, rows: Int[np.ndarray, " m"]) -> Batch:
        """The examples at these rows, on the model's device; in float64 where the model is."""
        chosen, images = torch.from_numpy(rows), self.images
        weights = (*self.model.parameters(), *self.model.buffers())
        weight = next((weight for weight in weights if weight.is_floating_point()), torch.zeros(()))
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        found = Batch(images.images(chosen).to(dtype), images.labels[chosen], images.keys[chosen])
        return found.to(device_of(self.model))

    def answers(self, images: Float[Tensor, "n *shape"]) -> list[Float[Tensor, "n classes"]]:
        """What the model says of images in each of the suite's passes."""
        return [logits(self.model, images, self.at_once) for _ in range(self.passes)]

    def answer(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """What the model says of images, in the mean of the suite's passes."""
        return mean_prediction(self.answers(images))

    def falls(self, batch: Batch, epsilon: float, purpose: str, *, steps: int, loss: LossKind = "ce") -> Tensor:
        """Which examples a fresh run of APGD fools (`attacked`); bool, one per example."""
        return self.attacked(batch, epsilon, purpose, steps=steps, loss=loss)[1]

    def attacked(
        self,
        batch: Batch,
        epsilon: float,
        purpose: str,
        *,
        steps: int,
        loss: LossKind = "ce",
        model_of: Callable[[Int[Tensor, " m"]], nn.Module] | None = None,
    ) -> tuple[Float[Tensor, "n *shape"], Bool[Tensor, " n"]]:
        """What a fresh run of APGD makes of examples, on the model or through a surrogate, and which it fools.

        A model whose output is random is asked and judged as in the examination: by the mean over the suite's passes.

        Args:
            batch: the examples.
            epsilon: their budget.
            purpose: what its randomness is for.
            steps: of the attack.
            loss: that it climbs.
            model_of: gives the model for some rows of the batch, where that is not the examined one.
        """
        search = APGD(norm=self.norm, stream=self.stream(purpose), loss_kind=loss, steps=steps)
        points, fallen = batch.images.clone(), torch.zeros_like(batch.labels, dtype=torch.bool)
        for through in (None, *outputs_of(self.model).values()):
            left = (~fallen).nonzero()[:, 0]
            if len(left):
                points[left], fallen[left] = self._searched(search, batch, left, epsilon, through, model_of)
        return points, fallen

    def _searched(
        self,
        search: Search,
        batch: Batch,
        rows: Tensor,
        epsilon: float,
        through: nn.Module | None,
        model_of: Callable[[Tensor], nn.Module] | None,
    ) -> tuple[Tensor, Tensor]:
        """What a search makes of some rows of a batch (`run_search`), as many at a time as memory holds."""

        def some(part: slice) -> tuple[Tensor, Tensor]:
            model = model_of(rows[part]) if model_of else self.model
            return run_search(search, model, Problem.of(batch.select(rows[part]), epsilon), through, self.passes)

        points, fallen = zip(*piecewise(some, len(rows), self.at_once), strict=True)
        return torch.cat(points), torch.cat(fallen)
