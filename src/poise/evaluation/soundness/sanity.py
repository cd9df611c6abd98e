"""Attacks run again where logic says how they must end: at an erasing budget, with more steps, with more budget."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from poise.attacks import PGD
from poise.attacks.attack import radii
from poise.core.batch import Batch
from poise.core.losses import misclassified
from poise.core.memory import piecewise
from poise.core.norms import diameter, inside
from poise.evaluation.curve import share
from poise.evaluation.soundness.examined import Examined
from poise.evaluation.soundness.finding import Finding
from poise.evaluation.soundness.retrial import SHORT, RetrialCheck
from poise.evaluation.soundness.verdicts import listed

BUDGETS = (0.25, 0.5, 1.0)
"""Shares of the largest epsilon that are attacked independently of one another."""
CHANCE_FALLS = 1
"""Examples by which a larger budget may break fewer, as short attacks miss one now and then."""


class Vanishing(RetrialCheck):
    """Robustness that does not vanish at a budget that erases the image.

    Within half the range per pixel (linf 0.5, l2 0.5 sqrt(d), l1 0.5 d) every image can become the same plain grey, so
    no classifier can be right about more than one class; an attack that fails there is broken, or its gradients are
    (unbounded attacks must reach chance: Carlini et al. 2019, Athalye et al. 2018). APGD on cross-entropy with 20 steps
    attacks examples that are classified right; it blocks when those that hold are more than chance, 1/K, with the lower
    end of the 95 % interval.

    Limits: a model that always says the same blocks although no attack could succeed; it should. Cost: 21 forward and
    backward passes of up to 64 images.
    """

    name = "vanishing"
    meaning = "robustness stays above chance at a budget that erases the image: the attacks do not work"

    def retry(self, given: Examined, rows: Int[np.ndarray, " m"], batch: Batch) -> Finding:
        """See `RetrialCheck.retry`."""
        epsilon = _erasing(given, batch)
        held = len(rows) - int(given.falls(batch, epsilon, self.name, steps=SHORT).sum())
        chance = 1 / len(given.profile.header.classes)
        return self.finding(
            "block" if share(held, len(rows)).low > chance else "pass",
            f"{held} of {len(rows)} examples hold at {given.norm} {epsilon:.3g}, which can erase them; "
            f"chance is {chance:.1%}",
        )


class SingleStep(RetrialCheck):
    """One step that breaks more than many.

    An iterated attack starts with all that a single step knows; where it does worse, gradients mislead it (Athalye et
    al. 2018, Carlini et al. 2019). One step of full length from the image (FGSM, Goodfellow et al. 2015) is set against
    20 steps of APGD on the same examples at the largest epsilon; it blocks when the single step breaks more, and lists
    those that it alone broke.

    Limits: the counts of a sample. Cost: 22 forward and backward passes and 1 forward pass of up to 64 images.
    """

    name = "single-step"
    meaning = "a single gradient step breaks more than twenty: gradients mislead the attacks"

    def retry(self, given: Examined, rows: Int[np.ndarray, " m"], batch: Batch) -> Finding:
        """See `RetrialCheck.retry`."""
        once = _single_step(given, batch)
        often = given.falls(batch, given.epsilon, self.name, steps=SHORT)
        alone = np.zeros(len(given.profile), dtype=bool)
        alone[rows[(once & ~often).cpu().numpy()]] = True
        worse = int(once.sum()) > int(often.sum())
        return self.finding(
            "block" if worse else "pass",
            f"at {given.budget} one step breaks {int(once.sum())} of {len(rows)} examples and {SHORT} steps break "
            f"{int(often.sum())}" + (listed(given.profile.ids, alone) if worse else ""),
        )


class MoreBudget(RetrialCheck):
    """A larger budget that breaks fewer.

    Every adversarial image of a small ball lies in the larger ones, so attacks that do worse there deserve no trust
    (Carlini et al. 2019, sanity tests). Verdicts of a profile are carried upwards and cannot show it; 20 steps of APGD
    at a quarter, half and all of the largest epsilon, each on its own, can. It blocks when a count falls by over 1.

    Limits: the counts of a sample. Cost: 63 forward and backward passes of up to 64 images.
    """

    name = "more-budget"
    meaning = "independent attacks break fewer examples at a larger budget: the attacks do not work"

    def retry(self, given: Examined, rows: Int[np.ndarray, " m"], batch: Batch) -> Finding:
        """See `RetrialCheck.retry`."""
        counts = [
            int(given.falls(batch, part * given.epsilon, f"{self.name} {part}", steps=SHORT).sum()) for part in BUDGETS
        ]
        parts = ", ".join(f"{count} at {part:g}" for part, count in zip(BUDGETS, counts, strict=True))
        return self.finding(
            "block" if any(low > high + CHANCE_FALLS for low, high in pairwise(counts)) else "pass",
            f"of {len(rows)} examples fall, by share of {given.budget}: {parts}",
        )


def _erasing(given: Examined, batch: Batch) -> float:
    """The smallest budget with which any image can be made plain grey."""
    return 0.5 * diameter(given.norm, batch.images[0].numel())


def _single_step(given: Examined, batch: Batch) -> Bool[Tensor, " n"]:
    """Which examples one step of full length fools."""
    attack, stream = PGD(steps=1, step_size=1.0, random_start=False), given.stream("single step")

    def some(rows: slice) -> Tensor:
        return attack.perturb(given.model, batch.select(rows), given.epsilon, given.norm, stream)

    points = torch.cat(piecewise(some, len(batch), given.at_once))
    wrong = misclassified(given.answer(points), batch.labels)
    return torch.logical_and(wrong, inside(points, batch.images, radii(given.epsilon, batch.images), given.norm))
