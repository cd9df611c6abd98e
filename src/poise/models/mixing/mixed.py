"""A classifier made of two: the accurate one's and the robust one's probabilities, averaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.core.misuse import Misuse
from poise.models.blueprint import Blueprint
from poise.models.classifier import Classifier
from poise.models.mixing.blend import Blend
from poise.models.mixing.branches import refuse_strangers
from poise.models.mixing.gate import Gate
from poise.models.mixing.logspace import log_weights
from poise.models.mixing.mixture import Mixture
from poise.models.mixing.neighbours import SlopeGate
from poise.models.mixing.sharpening import refuse_few_classes
from poise.models.mixing.surrogates import surrogates_of


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
            Misuse: for classifiers of other classes, image shapes, dtypes or devices than each other's, for bounds of
                alpha without a gate, and for a sharpening of fewer than 3 classes.
        """
        blend = blend if isinstance(blend, Blend) else Blend.constant(float(blend))
        refuse_strangers(standard, robust)
        if blend.sharpening is not None:
            refuse_few_classes(standard.num_classes)
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
        return surrogates_of(self.network)


Mixture.face = MixedClassifier
