"""Adversarial examples that are known to exist because they were put there."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from poise.attacks.apgd import APGD
from poise.attacks.driver import run_search
from poise.core.batch import Batch
from poise.evaluation.soundness.examined import Examined, problem
from poise.evaluation.soundness.finding import Finding
from poise.evaluation.soundness.probing import logits, neighbours
from poise.evaluation.soundness.retrial import SHORT, RetrialCheck

POINTS = 50
"""Random points of each ball among which the planted example is the best."""
OVERTAKING = 0.01
"""By which part of the way that the best point came its class leads there after planting."""
MISSED_SHARE = 0.1
"""Share of planted examples that the attack may miss."""


class PlantedModel(nn.Module):
    """A model whose logits have an offset for each image of one batch.

    Args:
        model: maps images to logits.
        offsets: what is added, row by row; only batches of as many images can be asked.
    """

    def __init__(self, model: nn.Module, offsets: Float[Tensor, "n classes"]) -> None:
        super().__init__()
        self.model = model
        self.offsets = offsets

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """The model's logits with the offsets."""
        found: Tensor = self.model(images) + self.offsets
        return found


class Planted(RetrialCheck):
    """An attack that misses adversarial examples which exist for certain.

    After Zimmermann et al. 2022, "Increasing confidence in adversarial robustness evaluations": change the decision a
    little so that an adversarial example exists, and see whether the attack finds one; if it does not, its failure on
    the unchanged model means nothing. For each example that held, random points of the ball are searched for the one
    where the runner-up class comes nearest to the label, and that class gets just the bonus with which it wins there
    and not at the image. APGD on cross-entropy with 20 steps must then succeed; missing more than 10 % is warned of.

    Difference from the source: there a linear head on the features is fitted; here one logit gets a bonus, so it works
    on any model, and examples where no random point brings the class nearer are left out.

    Limits: random points come less far than attacks do, so this is the easiest of tests; it finds masked gradients and
    no subtle weakness. Cost: 51 forward passes, 21 forward and backward passes of up to 64 images.
    """

    name = "planted"
    meaning = "the attack misses adversarial examples that were planted: its failures mean nothing"

    def among(self, given: Examined) -> Bool[np.ndarray, " n"]:
        """See `RetrialCheck.among`."""
        return given.held()

    def retry(self, given: Examined, rows: Int[np.ndarray, " m"], batch: Batch) -> Finding:  # noqa: ARG002
        """See `RetrialCheck.retry`."""
        offsets, possible = _plant(given, batch)
        if not len(possible):
            return self.finding("warn", f"no random point moves the logits of any of {len(batch)} examples")
        search = APGD(norm=given.norm, stream=given.stream(self.name), steps=SHORT)
        planted = PlantedModel(given.model, offsets[possible])
        found = run_search(search, planted, problem(batch.select(possible), given.epsilon))[1]
        missed = len(found) - int(found.sum())
        return self.finding(
            "warn" if missed > MISSED_SHARE * len(found) else "pass",
            f"the attack misses {missed} of {len(found)} examples for which an adversarial image was planted",
        )


def _plant(given: Examined, batch: Batch) -> tuple[Float[Tensor, "n classes"], Int[Tensor, " m"]]:
    """Offsets that make the best of the random points adversarial, and the examples for which there is one."""
    clean = logits(given.model, batch.images)
    label = batch.labels[:, None]
    rival = clean.scatter(1, label, -torch.inf).argmax(1, keepdim=True)

    def lead(output: Tensor) -> Tensor:
        return (output.gather(1, rival) - output.gather(1, label))[:, 0]

    start = best = lead(clean)
    for index in range(POINTS):
        points = neighbours(batch, given.epsilon, given.norm, given.stream("planting").fold(index))
        best = torch.maximum(best, lead(logits(given.model, points)))
    gained = best - start
    bonus = OVERTAKING * gained - best
    return torch.zeros_like(clean).scatter(1, rival, bonus[:, None]), (gained > 0).nonzero()[:, 0]
