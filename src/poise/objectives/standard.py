"""Cross-entropy on clean images."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from poise.core.batch import Batch
from poise.core.losses import cross_entropy
from poise.core.streams import Stream
from poise.core.threat import Norm
from poise.objectives.objective import Objective, Terms


@dataclass(frozen=True, kw_only=True)
class Standard(Objective):
    """Ordinary training: cross-entropy on the images as they are, whatever the schedule says."""

    def terms(
        self,
        model: nn.Module,
        batch: Batch,
        epsilon: float | Float[Tensor, " n"],  # noqa: ARG002 - clean images know no budget
        norm: Norm,  # noqa: ARG002
        stream: Stream,  # noqa: ARG002
    ) -> Terms:
        """See `Objective.terms`; also "accuracy" on the batch."""
        return classification_terms(model(batch.images), batch.labels)


def classification_terms(logits: Float[Tensor, "n classes"], labels: Tensor) -> dict[str, Tensor]:
    """Mean cross-entropy as "loss", and the share of right predictions as "accuracy"."""
    right = (logits.detach().argmax(1) == labels).float().mean()
    return {"loss": cross_entropy(logits.float(), labels).mean(), "accuracy": right}
