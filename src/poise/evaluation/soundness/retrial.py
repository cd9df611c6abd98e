"""Attacks run again on a few examples, under conditions whose outcome is known if attacks and gradients are sound."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from jaxtyping import Bool, Int

from poise.core.batch import Batch
from poise.evaluation.soundness.check import Check
from poise.evaluation.soundness.examined import Examined
from poise.evaluation.soundness.finding import Finding
from poise.evaluation.soundness.probing import undisturbed

SHORT = 20
"""Steps of a short run of APGD."""


class RetrialCheck(Check[Examined]):
    """A check that attacks a sample of a finished examination once more."""

    def inspect(self, given: Examined) -> Finding:
        """See `Check.inspect`."""
        rows = given.rows(self.among(given), self.name)
        if not len(rows) or not given.epsilon:
            return self.finding("note", f"nothing to test on: {len(rows)} suitable examples at {given.budget}")
        with undisturbed(given.model, given.stream(self.name)):
            return self.retry(given, rows, given.batch(rows))

    def among(self, given: Examined) -> Bool[np.ndarray, " n"]:
        """The examples that the sample is drawn from: by default those whose clean image is right."""
        return given.right()

    @abstractmethod
    def retry(self, given: Examined, rows: Int[np.ndarray, " m"], batch: Batch) -> Finding:
        """Attack the sample; whatever this disturbs is put back by `inspect`."""
