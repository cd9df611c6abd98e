"""Adversarial examples that are known to exist because they were put there."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from poise.attacks.answers import mean_prediction
from poise.attacks.rows import choose
from poise.core.batch import Batch
from poise.evaluation.soundness.examined import Examined
from poise.evaluation.soundness.finding import Finding
from poise.evaluation.soundness.probing import neighbours
from poise.evaluation.soundness.retrial import SHORT, RetrialCheck

POINTS = 50
"""Random points of each ball among which the planted example is the best."""
OVERTAKING = 0.01
"""By which part of the way that the best point came its class leads there after planting."""
MISSED_SHARE = 0.1
"""Share of planted examples that the attack may miss."""
NOISE = 3.0
"""Standard errors by which a point must bring the class nearer, where outputs are random."""

_HALVINGS = 30


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
    on any model, and examples where no random point brings the class nearer are left out. Of a model whose output is
    random the mean softmax counts, the best point is measured by fresh passes, as it was chosen for its luck too, and
    examples where it gains no more than three standard errors are left out; where that is all, it is noted.

    Limits: random points come less far than attacks do, so this is the easiest of tests; it finds masked gradients and
    no subtle weakness. Cost: 52 forward passes, 21 forward and backward passes of up to 64 images, and as many more
    forward and backward passes through each surrogate.
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
            if given.passes > 1:
                return self.finding("note", f"noise hides what random points do to the logits of {len(batch)} examples")
            return self.finding("warn", f"no random point moves the logits of any of {len(batch)} examples")
        chosen = batch.select(possible)
        found = given.attacked(
            chosen,
            given.epsilon,
            self.name,
            steps=SHORT,
            model_of=lambda rows: PlantedModel(given.model, offsets[possible[rows]]),
        )[1]
        missed = len(found) - int(found.sum())
        return self.finding(
            "warn" if missed > MISSED_SHARE * len(found) else "pass",
            f"the attack misses {missed} of {len(found)} examples for which an adversarial image was planted",
        )


def _plant(given: Examined, batch: Batch) -> tuple[Float[Tensor, "n classes"], Int[Tensor, " m"]]:
    """Offsets that make the best of the random points adversarial, and the examples for which there is one."""
    clean = given.answers(batch.images)
    mean, label = mean_prediction(clean), batch.labels[:, None]
    rival = mean.scatter(1, label, -torch.inf).argmax(1, keepdim=True)
    best, highest = batch.images, _lead(mean, rival, label)
    for index in range(POINTS):
        points = neighbours(batch, given.epsilon, given.norm, given.stream("planting").fold(index))
        lead = _lead(given.answer(points), rival, label)
        nearer = lead > highest
        best, highest = choose(nearer, points, best), torch.where(nearer, lead, highest)
    reached = given.answers(best)
    here, there = (_levelling(answers, rival, label) for answers in (clean, reached))
    bonus = there + OVERTAKING * (here - there)
    chance = NOISE * (_variance(clean, rival, label) + _variance(reached, rival, label)).sqrt()
    return torch.zeros_like(clean[0]).scatter(1, rival, bonus[:, None]), (here - there > chance).nonzero()[:, 0]


def _lead(logits: Float[Tensor, "n classes"], rival: Int[Tensor, "n 1"], label: Int[Tensor, "n 1"]) -> Tensor:
    """How far the rival's logit stands above the label's."""
    return (logits.gather(1, rival) - logits.gather(1, label))[:, 0]


def _variance(
    answers: list[Float[Tensor, "n classes"]], rival: Int[Tensor, "n 1"], label: Int[Tensor, "n 1"]
) -> Float[Tensor, " n"]:
    """The squared standard error of the mean lead over passes; zero of a single one."""
    leads = torch.stack([_lead(logits, rival, label) for logits in answers])
    return leads.var(0, correction=min(len(leads) - 1, 1)) / len(leads)


def _levelling(
    answers: list[Float[Tensor, "n classes"]], rival: Int[Tensor, "n 1"], label: Int[Tensor, "n 1"]
) -> Float[Tensor, " n"]:
    """The bonus with which the rival draws level with the label in the mean softmax over passes.

    It lies between those of the single passes and is found by halving, as every pass is normalised anew.
    """
    behind = torch.stack([-_lead(logits, rival, label) for logits in answers])
    low, high = behind.amin(0), behind.amax(0)
    for _ in range(_HALVINGS if len(answers) > 1 else 0):
        middle = (low + high) / 2
        ahead = _lead(mean_prediction([each.scatter_add(1, rival, middle[:, None]) for each in answers]), rival, label)
        low, high = torch.where(ahead < 0, middle, low), torch.where(ahead < 0, high, middle)
    return high
