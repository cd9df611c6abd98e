"""A classifier made of two: the accurate one's and the robust one's probabilities, averaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from poise.core.misuse import Misuse
from poise.models.blueprint import Blueprint
from poise.models.classifier import Classifier
from poise.models.mixing.blend import Blend
from poise.models.mixing.branches import Seen, both, refuse_strangers
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
        mixed = self.mixed(standard, robust, raw).to(standard.dtype)
        return torch.cat([mixed, self._needed(raw)[:, None].to(mixed.dtype)], dim=1) if with_gate else mixed

    def of_outputs(
        self, standard: Float[Tensor, "n classes"], robust: Float[Tensor, "n classes"], raw: Float[Tensor, " n"] | None
    ) -> LogProbabilities:
        """What `forward` says of images whose outputs `seen` has given before; no branch runs."""
        if self._of_one_branch:
            return self._alone(robust if self.blend.alpha_low else standard)
        return self.mixed(standard, robust, raw).to(standard.dtype)

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
        sharpening = self.blend.sharpening
        moved = self.blend.scale_robust * logits.double() if sharpening is None else sharpening(logits)
        return log_probabilities(moved)

    @property
    def _of_one_branch(self) -> bool:
        """Whether one branch decides alone, at a constant alpha of 0 or 1; the other one then does not run."""
        return self.blend.alpha_low == self.blend.alpha_high and self.blend.alpha_low in {0.0, 1.0}

    def _alone(self, logits: Float[Tensor, "n classes"]) -> LogProbabilities:
        """The mixture at alpha 1 or 0, from the logits of the branch that decides."""
        if self.blend.alpha_low:
            return self.robust_vote(logits).to(logits.dtype)
        return log_probabilities(self.blend.scale_standard * logits.double()).to(logits.dtype)

    def _needed(self, raw: Tensor | None) -> Tensor:
        if raw is None:
            raise Misuse("this mixture has a constant alpha and no gate")
        return raw


class MixedClassifier(Classifier):
    """A classifier whose probabilities are (1 - alpha) softmax(s_g g) + alpha softmax(s_h h) of two classifiers g, h.

    arXiv 2301.12554 (adaptive smoothing) with a gate, arXiv 2311.15165 with a constant alpha, arXiv 2402.02263
    (MixedNUTS) with a sharpening. Its logits are the logarithms of these probabilities, computed from logarithms alone
    in float64, and never from a sum that could underflow. Gradients always flow through alpha, the gate included. At a
    constant alpha of 0 or 1 the other branch does not run.

    Args:
        network: the mixture.
        blueprint: of the kind that `of` makes.
        notes: what a person should know.
    """

    network: Mixture

    def __init__(self, network: nn.Module, blueprint: Blueprint, notes: tuple[str, ...] = ()) -> None:
        if not isinstance(network, Mixture):
            raise Misuse(f"a mixed classifier is made by MixedClassifier.of; got a {type(network).__name__}")
        super().__init__(network, blueprint, notes)

    @classmethod
    def of(
        cls, standard: Classifier, robust: Classifier, blend: Blend | float, gate: Gate | SlopeGate | None = None
    ) -> MixedClassifier:
        """Mix two classifiers; they become parts of the mixture and stay in eval mode.

        Args:
            standard: the accurate classifier.
            robust: the robust one, of the same classes in the same order; architecture and inner size may differ.
            blend: how they are mixed; a number is a constant alpha, the robust branch's weight.
            gate: chooses alpha within the blend's bounds.

        Raises:
            Misuse: for classifiers of other classes, image shapes, dtypes or devices than each other's, and for bounds
                of alpha without a gate.
        """
        blend = blend if isinstance(blend, Blend) else Blend.constant(float(blend))
        refuse_strangers(standard, robust)
        blueprint = Blueprint(
            address="mixed",
            classes=standard.classes,
            shape=standard.blueprint.shape,
            options=blend.options() | ({} if gate is None else gate.options()),
            parts={"standard": standard.blueprint, "robust": robust.blueprint},
        )
        gate = None if gate is None else gate.to(device=standard.device, dtype=standard.dtype)
        return cls(Mixture(standard, robust, blend, gate), blueprint)

    def at(self, alpha: float) -> MixedClassifier:
        """The same branches at a constant alpha, without the gate; weights are shared, not copied."""
        return self.blended(replace(self.blend, alpha_low=alpha, alpha_high=alpha), keep_gate=False)

    def within(self, low: float, high: float) -> MixedClassifier:
        """The same branches and gate with other bounds of alpha; weights are shared, not copied.

        Raises:
            Misuse: without a gate.
        """
        if self.gate is None:
            raise Misuse("this mixture has a constant alpha and no gate to keep within bounds; use at(alpha)")
        return self.blended(replace(self.blend, alpha_low=low, alpha_high=high))

    def blended(self, blend: Blend, *, keep_gate: bool = True) -> MixedClassifier:
        """The same branches under another blend; weights are shared, not copied."""
        return MixedClassifier.of(self.standard, self.robust, blend, self.gate if keep_gate else None)

    @property
    def standard(self) -> Classifier:
        """The accurate branch."""
        return self.network.standard

    @property
    def robust(self) -> Classifier:
        """The robust branch."""
        return self.network.robust

    @property
    def gate(self) -> Gate | SlopeGate | None:
        """The network that chooses alpha; None where it is constant."""
        return self.network.gate

    @property
    def blend(self) -> Blend:
        """How the branches are mixed."""
        return self.network.blend

    @property
    def scales(self) -> tuple[float, float]:
        """Factors of the standard and the robust branch's logits."""
        return self.blend.scale_standard, self.blend.scale_robust

    @property
    def alpha_low(self) -> float:
        """Lower bound of alpha, by construction."""
        return self.blend.alpha_low

    @property
    def alpha_high(self) -> float:
        """Upper bound of alpha, by construction; the lower one where alpha is constant."""
        return self.blend.alpha_high

    @property
    def sharpened(self) -> bool:
        """Whether a nonlinearity comes between the robust branch's logits and their softmax."""
        return self.blend.sharpening is not None

    def forward(self, images: Float[Tensor, "n *shape"], *, with_gate: bool = False) -> Float[Tensor, "n columns"]:
        """Log-probabilities, one row per image; differentiable in the images, through alpha too.

        Args:
            images: values in [0, 1].
            with_gate: add a last column, the raw gate.
        """
        logits: Tensor = self.network(images, with_gate=with_gate)
        return logits

    def prepared(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *inner"]:
        """The images as they are: each branch normalises and resizes for itself."""
        return images

    def measure_gate(self, images: Float[Tensor, "n *shape"]) -> None:
        """Let a fresh gate take the size of what it will read from some training images.

        Raises:
            Misuse: without a gate.
        """
        if not isinstance(self.gate, Gate):
            raise Misuse("this mixture has no gate that reads features")
        self.network.measure(images)

    def alpha(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, " n"]:
        """The robust branch's weight for each image; differentiable."""
        if self.gate is None:
            return torch.full((len(images),), self.alpha_low, dtype=self.dtype, device=images.device)
        raw = self.network.seen(images)[2]
        assert raw is not None  # noqa: S101 - there is a gate
        return log_weights(raw.double(), self.alpha_low, self.alpha_high)[1].exp().to(raw.dtype)

    def robust_probabilities(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """The robust branch's probabilities that enter the mixture: after scale and nonlinearity."""
        logits = self.robust(images)
        return self.network.robust_vote(logits).exp().to(logits.dtype)

    def surrogates(self) -> Mapping[str, nn.Module]:
        """See `Classifier.surrogates`: each branch, the raw gate, and the mixture without its nonlinearity."""
        from poise.models.mixing.surrogates import surrogates_of  # noqa: PLC0415 - it needs this module's classes

        return surrogates_of(self)


Mixture.face = MixedClassifier
