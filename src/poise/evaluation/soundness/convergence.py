"""Whether the attacks were done when they stopped."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from poise.attacks.apgd import LossKind
from poise.core.batch import Batch
from poise.core.losses import misclassified
from poise.evaluation.curve import share
from poise.evaluation.soundness.examined import Examined
from poise.evaluation.soundness.finding import Finding
from poise.evaluation.soundness.retrial import RetrialCheck
from poise.evaluation.soundness.verdicts import listed

CONVERGED = 1
"""Examples that may still fall to twice the steps."""
BLOCKED = 0.1
"""By how much robust accuracy may certainly be too high."""


class Convergence(RetrialCheck):
    """Examples that were called robust and fall to twice the steps.

    If doubling the steps changes the outcome, the attacks were stopped before they were done (Carlini et al. 2019; the
    incomplete optimisation of Pintor et al. 2022). Examples that held at the largest epsilon meet APGD on cross-entropy
    and, if they still hold, on DLR, each from a new start and with twice the steps. If more than one falls, it warns;
    where robust accuracy is certainly too high by more than 10 points, it blocks.
    Of a model whose output is random hundreds of points are tried for their luck; the one that was found must be wrong
    once more, by the mean over fresh passes.

    Limits: starts differ too, so it does not tell steps from restarts. Cost: up to 402 forward and backward passes of
    up to 64 images at 100 steps.
    """

    name = "convergence"
    meaning = "examples called robust fall to twice the steps: the attacks were stopped too early"

    def among(self, given: Examined) -> Bool[np.ndarray, " n"]:
        """See `RetrialCheck.among`."""
        return given.held()

    def retry(self, given: Examined, rows: Int[np.ndarray, " m"], batch: Batch) -> Finding:
        """See `RetrialCheck.retry`."""
        fallen = self._falls(given, batch, "ce")
        left = (~fallen).nonzero()[:, 0]
        if len(left):
            fallen[left] = self._falls(given, batch.select(left), "dlr")
        late = np.zeros(len(given.profile), dtype=bool)
        late[rows[fallen.cpu().numpy()]] = True
        count = int(late.sum())
        void = share(count, len(rows)).low * given.held().mean() > BLOCKED
        return self.finding(
            "block" if void else "warn" if count > CONVERGED else "pass",
            f"{count} of {len(rows)} examples that held at {given.budget} fall to {2 * given.steps} steps"
            + listed(given.profile.ids, late),
        )

    def _falls(self, given: Examined, batch: Batch, loss: LossKind) -> Bool[Tensor, " n"]:
        """Which examples fall, by points that stay wrong where one more look at a random model is taken."""
        points, fallen = given.attacked(batch, given.epsilon, self.name, steps=2 * given.steps, loss=loss)
        if given.passes > 1:
            fallen &= misclassified(given.answer(points), batch.labels)
        return fallen
