"""The network inside a mixed classifier: two branches run once each, and their votes averaged on logarithms."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from poise.core.misuse import Misuse
from poise.models.classifier import Classifier
from poise.models.mixing.blend import Blend
from poise.models.mixing.branches import Seen, both
from poise.models.mixing.features import seen_by
from poise.models.mixing.gate import Gate
from poise.models.mixing.logspace import LogProbabilities, log_mean, log_of, log_probabilities, log_weights
from poise.models.mixing.neighbours import SlopeGate


class Mixture(nn.Module):
    """The network inside a `MixedClassifier`: two classifiers, the blend, and a gate where alpha depends on the image.

    The branches are always in eval mode, whatever the mixture is told: only the gate is ever trained.

    Args:
        standard: the accurate branch.
        robust: the robust branch.
        blend: alpha or its bounds, scales, nonlinearity.
        gate: chooses alpha between the bounds; None for the constant alpha of the blend.
    """

    face: ClassVar[type[Classifier]]
    """The class of the classifier around this network."""

    def __init__(
        self, standard: Classifier, robust: Classifier, blend: Blend, gate: Gate | SlopeGate | None = None
    ) -> None:
        super().__init__()
        if gate is None and blend.alpha_low != blend.alpha_high:
            raise Misuse(
                f"alpha from {blend.alpha_low} to {blend.alpha_high} needs a gate to choose it; without one give a "
                "single alpha"
            )
        if gate is not None and blend.alpha_low == blend.alpha_high:
            raise Misuse(f"a gate chooses alpha between two bounds; got {blend.alpha_low} for both")
        self.standard, self.robust = standard.eval(), robust.eval()
        self.blend, self.gate = blend, gate
        self.sizes: tuple[float, float] | None = None  # of both branches' logits, measured when they are asked for

    def train(self, mode: bool = True) -> Mixture:
        """The gate in this mode; the branches stay in eval mode."""
        super().train(mode)
        self.standard.eval()
        self.robust.eval()
        return self

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """No head: what turns features into logits are two networks, and neither is to be replaced."""
        return ()

    def forward(self, images: Float[Tensor, "n *shape"], *, with_gate: bool = False) -> Float[Tensor, "n columns"]:
        """Log-probabilities of the mixture; with a column more, the raw gate, on request."""
        if self._of_one_branch and not with_gate:
            return self._alone(self.robust(images) if self.blend.alpha_low else self.standard(images))
        standard, robust, raw = self.seen(images)
        mixed = _single(self.mixed(standard, robust, raw), standard)
        return torch.cat([mixed, self._needed(raw)[:, None].to(mixed.dtype)], dim=1) if with_gate else mixed

    def of_outputs(
        self, standard: Float[Tensor, "n classes"], robust: Float[Tensor, "n classes"], raw: Float[Tensor, " n"] | None
    ) -> LogProbabilities:
        """What `forward` says of images whose outputs `seen` has given before; no branch runs."""
        if self._of_one_branch:
            return self._alone(robust if self.blend.alpha_low else standard)
        return _single(self.mixed(standard, robust, raw), standard)

    @torch.no_grad()
    def measure(self, images: Float[Tensor, "n *shape"]) -> None:
        """See `MixedClassifier.measure_gate`."""
        assert isinstance(self.gate, Gate)  # noqa: S101 - `MixedClassifier` refuses where there is none
        plan = self.gate.plan
        standard = seen_by(self.standard, images, plan.standard_layers)
        robust = seen_by(self.robust, images, plan.robust_layers)
        self.gate.measure(standard.features, robust.features)

    def seen(self, images: Float[Tensor, "n *shape"]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits of the standard branch, of the robust branch, and the raw gate, each branch having run once."""

        def run(classifier: Classifier, layers: tuple[str, ...]) -> Seen:
            return seen_by(classifier, images, layers)

        if isinstance(self.gate, SlopeGate):
            logits, raw = self.gate(self.standard, images)
            return logits, self.robust(images), raw
        if self.gate is None:
            first, second = both(lambda _: run(self.standard, ()), lambda _: run(self.robust, ()), images)
            return first.logits, second.logits, None
        plan = self.gate.plan
        first, second = both(
            lambda _: run(self.standard, plan.standard_layers), lambda _: run(self.robust, plan.robust_layers), images
        )
        return first.logits, second.logits, self.gate(first.features, second.features)

    def mixed(
        self, standard: Float[Tensor, "n classes"], robust: Float[Tensor, "n classes"], raw: Float[Tensor, " n"] | None
    ) -> LogProbabilities:
        """Log-probabilities of the mixture from the branches' logits and the raw gate, in float64."""
        low, high = self.blend.alpha_low, self.blend.alpha_high
        rest, weight = (log_of(1 - low), log_of(low)) if raw is None else log_weights(raw.double(), low, high)
        return log_mean(self.standard_vote(standard), self.robust_vote(robust), rest, weight)

    def standard_vote(self, logits: Float[Tensor, "n classes"]) -> LogProbabilities:
        """Log-probabilities of the standard branch as they enter the mixture: one-hot beside a nonlinearity."""
        if self.blend.sharpening is None:
            return log_probabilities(self.blend.scale_standard * logits.double())
        chosen = functional.one_hot(logits.argmax(1), logits.shape[1])
        return torch.zeros_like(logits, dtype=torch.float64).masked_fill(chosen == 0, -torch.inf)

    def robust_vote(self, logits: Float[Tensor, "n classes"]) -> LogProbabilities:
        """Log-probabilities of the robust branch as they enter the mixture."""
        return log_probabilities(self.blend.robust_logits(logits))

    @property
    def _of_one_branch(self) -> bool:
        """Whether one branch decides alone, at a constant alpha of 0 or 1; the other one then does not run."""
        return self.blend.alpha_low == self.blend.alpha_high and self.blend.alpha_low in {0.0, 1.0}

    def _alone(self, logits: Float[Tensor, "n classes"]) -> LogProbabilities:
        """The mixture at alpha 1 or 0, from the logits of the branch that decides."""
        if self.blend.alpha_low:
            return _single(self.robust_vote(logits), logits)
        return _single(log_probabilities(self.blend.scale_standard * logits.double()), logits)

    def _needed(self, raw: Tensor | None) -> Tensor:
        if raw is None:
            raise Misuse("this mixture has a constant alpha and no gate")
        return raw


def _single(mixed: LogProbabilities, logits: Tensor) -> Tensor:
    """The mixture's output in the dtype of the logits it is made of, and in float32 at least: coarser ones tie."""
    return mixed.to(torch.promote_types(logits.dtype, torch.float32))
