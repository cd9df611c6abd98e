"""Training under Gaussian noise, which randomised smoothing wants of the network that it smooths."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor, nn

from poise.core.misuse import Misuse
from poise.objectives.objective import Objective, Step, Terms
from poise.objectives.standard import Standard
from poise.objectives.wrapper import Wrapper, innermost


@dataclass(frozen=True, kw_only=True)
class Noisy(Wrapper):
    """Another objective, on a network that sees all its images through Gaussian noise.

    Around `standard` this is how Cohen, Rosenfeld & Kolter 2019 train (arXiv 1902.02918); around an objective that
    attacks it is SmoothAdv with one noise pattern (Salman et al. 2019, arXiv 1906.04584): the noise of a step is drawn
    first, and the attack, which stays in its ball and the box, knows it. As in `poise.Smoothed`, noisy images may leave
    [0, 1]. Put it outside other wrappers, so that a guard sees through the noise as well.

    Args:
        objective: what a step minimises; one that compares with no other network, as those would see no noise.
        sigma: standard deviation of the noise, above 0, in units of the image range; that of the smoothing to come.
        sigma_follows: multiply sigma by the share of the target epsilon that a schedule has reached, so that the noise
            grows with the training; where examples have budgets of their own, it stays as it is.
    """

    objective: Objective = Standard()
    sigma: float = 0.25
    sigma_follows: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise Misuse(
                f"sigma of noisy training must be a number above 0, in units of the image range; got {self.sigma}"
            )
        if self.objective.roles:
            raise Misuse(
                f"{type(innermost(self.objective)).__name__} compares with networks that would see no noise; put noisy "
                "around standard, adversarial, trades, mart"
            )

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; accuracies are those under noise."""
        sigma = self.sigma * (step.share if self.sigma_follows else 1.0)
        images = step.batch.images
        stream = step.stream.fold("noise")
        noise = sigma * stream.normal(step.batch.ids, tuple(images.shape[1:]), dtype=images.dtype)
        quick = step.shadow
        return super().terms(
            replace(
                step,
                model=_Through(noise, step.model),
                unshifted=None if step.unshifted is None else _Through(noise, step.unshifted),
                shadow=None if quick is None else lambda: _Through(noise, quick()),
            )
        )


class _Through(nn.Module):
    """A network that sees images through noise, each through its own."""

    def __init__(self, noise: Float[Tensor, "n *shape"], network: nn.Module) -> None:
        super().__init__()
        self.network, self.noise = network, noise
        self.training = network.training

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        logits: Tensor = self.network(images + self.noise)
        return logits
