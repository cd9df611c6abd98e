"""A single gradient step from a random start: the cheapest attack that training can run on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from poise.attacks.attack import Attack, Loss
from poise.attacks.pgd import PGD
from poise.core.batch import Batch
from poise.core.losses import cross_entropy
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.core.threat import Norm


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """Single-step adversarial training's attack (Wong et al. 2020), the one that RCAT trains with (arXiv 2402.17390).

    The gradient is taken at a uniform point of the ball, clipped to the box; the step, in units of epsilon and thus in
    proportion to it, starts from that point, and its end is projected exactly onto ball and box. In l2 and l1 the step
    goes where `PGD`'s does. Training on it can overfit to it within a few steps, and then nothing else is withstood:
    the objective `guarded` looks out for that.

    Args:
        step_size: length of the step in units of epsilon; the papers' 1.25.
        sparsity: l1 only: share of the pixels that the step moves, in (0, 1].
        model_mode: state of the model while attacked: "eval" or "train".
    """

    step_size: float = 1.25
    sparsity: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise Misuse(f"FGSM's step size must be positive, in units of epsilon; got {self.step_size}")
        if not 0 < self.sparsity <= 1:
            raise Misuse(f"FGSM's sparsity is a share of the pixels in (0, 1]; got {self.sparsity}")

    def perturb(
        self,
        model: nn.Module,
        batch: Batch,
        epsilon: float | Float[Tensor, " n"],
        norm: Norm,
        stream: Stream,
        loss: Loss = cross_entropy,
    ) -> Float[Tensor, "n *shape"]:
        """See `Attack.perturb`."""
        single = PGD(steps=1, step_size=self.step_size, sparsity=self.sparsity, model_mode=self.model_mode)
        return single.perturb(model, batch, epsilon, norm, stream, loss)
