"""What every objective promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from poise.core.batch import Batch
from poise.core.streams import Stream
from poise.core.threat import Norm

Terms = Mapping[str, Tensor]
"""Named scalars of one step. "loss" is what training lowers; the others are logged beside it, detached."""


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """What one training step minimises."""

    @abstractmethod
    def terms(
        self,
        model: nn.Module,
        batch: Batch,
        epsilon: float | Float[Tensor, " n"],
        norm: Norm,
        stream: Stream,
    ) -> Terms:
        """The step's loss and its parts.

        Args:
            model: the network in training, in train mode.
            batch: labelled images.
            epsilon: current budget of the schedule, one for all or one each.
            norm: norm of the budget.
            stream: randomness of this step.

        Returns:
            At least "loss", a scalar that requires grad.
        """
