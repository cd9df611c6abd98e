"""Locally biased smoothing, the ancestor of mixed classifiers: k nearest neighbours, trusted where g is steep.

A historical baseline (Anderson & Sojoudi 2022, arXiv 2109.07165; generalised to many classes in arXiv 2301.12554): the
robust branch is a vote among training images, and its weight grows with the slope of the standard branch, which is
where small perturbations move that most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from poise.core.misuse import Misuse
from poise.core.norms import DUAL, length
from poise.core.threat import NORMS, Norm
from poise.models.blueprint import Blueprint, Option
from poise.models.classifier import Classifier


class NearestNeighbours(nn.Module):
    """The share of each class among the k training images nearest in l2, as logarithms.

    One vote is spread over all classes (Laplace), so that no logarithm is infinite.

    Args:
        images: training images.
        labels: their classes.
        classes: number of classes.
        k: neighbours that vote, from 1 to the number of training images.
    """

    face: ClassVar[type[Classifier]]
    images: Tensor
    labels: Tensor

    def __init__(self, images: Float[Tensor, "m *shape"], labels: Int[Tensor, " m"], classes: int, k: int = 5) -> None:
        super().__init__()
        if not 1 <= k <= len(images):
            raise Misuse(f"of {len(images)} training images from 1 to all can vote; got {k}")
        self.classes, self.k = classes, k
        self.register_buffer("images", images)
        self.register_buffer("labels", labels)

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Log-shares; piecewise constant, so their gradient by the images is zero."""
        nearest = self.distances(images).topk(self.k, dim=1, largest=False).indices
        votes = functional.one_hot(self.labels[nearest], self.classes).sum(1).to(self.images.dtype)
        return ((votes + 1 / self.classes) / (self.k + 1)).log() + 0 * images.flatten(1)[:, :1]

    def distances(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n m"]:
        """l2 distance of each image to each training image."""
        return torch.cdist(images.flatten(1), self.images.flatten(1))


class SoftNeighbours(nn.Module):
    """The same vote with weights exp(-d^2 / tau), tau twice the mean squared distance of the k nearest: differentiable.

    Args:
        neighbours: the vote to imitate.
    """

    def __init__(self, neighbours: NearestNeighbours) -> None:
        super().__init__()
        self.neighbours = neighbours

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits to attack."""
        squares = self.neighbours.distances(images).square()
        tau = 2 * squares.detach().topk(self.neighbours.k, dim=1, largest=False).values.mean(1, keepdim=True)
        weights = -squares / tau.clamp(min=1e-12)
        member = functional.one_hot(self.neighbours.labels, self.neighbours.classes).bool()
        return weights[:, :, None].masked_fill(~member, -1e4).logsumexp(1)


class NeighbourClassifier(Classifier):
    """A classifier by nearest neighbours.

    Args:
        network: the vote.
        blueprint: of the kind that `of` makes.
        notes: what a person should know.
    """

    network: NearestNeighbours

    @classmethod
    def of(
        cls, images: Float[Tensor, "m *shape"], labels: Int[Tensor, " m"], classes: Sequence[str], k: int = 5
    ) -> NeighbourClassifier:
        """Let training images vote; they become the classifier's buffers.

        Raises:
            Misuse: for fewer images than votes.
        """
        network = NearestNeighbours(images, labels, len(classes), k)
        shape, options = tuple(images.shape[1:]), {"k": k, "count": len(images)}
        return cls(network, Blueprint(address="neighbours", classes=tuple(classes), shape=shape, options=options))

    @property
    def dtype(self) -> torch.dtype:
        """See `Classifier.dtype`."""
        return self.network.images.dtype

    def surrogates(self) -> Mapping[str, nn.Module]:
        """A soft vote, as the hard one has no gradient."""
        return {"soft": SoftNeighbours(self.network)}


NearestNeighbours.face = NeighbourClassifier


def rebuild_neighbours(blueprint: Blueprint) -> NearestNeighbours:
    """The vote of a blueprint, its images still to come."""
    count, k = (int(str(blueprint.options[name])) for name in ("count", "k"))
    labels = torch.zeros(count, dtype=torch.int64)
    return NearestNeighbours(torch.zeros(count, *blueprint.shape), labels, len(blueprint.classes), k)


class SlopeGate(nn.Module):
    """Trusts the robust branch by alpha = aR / (1 + aR), with R the slope of the standard branch's margin.

    The raw gate is log(a R), so that the mixture (p + a R q) / (1 + a R) is that of locally biased smoothing. R is the
    dual norm of the gradient by the image: how fast the margin between the two leading classes can fall per unit of
    perturbation. The source treats two classes, where this margin is g itself.

    Args:
        strength: a, above 0.
        norm: norm in which perturbations are measured; the slope is measured in its dual.
    """

    def __init__(self, strength: float, norm: Norm = "linf") -> None:
        super().__init__()
        if not (math.isfinite(strength) and strength > 0) or norm not in NORMS:
            raise Misuse(f"a slope gate has a strength above 0 and one of the norms {NORMS}; got {strength}, {norm}")
        self.strength, self.norm = strength, norm

    def forward(
        self, standard: Classifier, images: Float[Tensor, "n *shape"]
    ) -> tuple[Float[Tensor, "n classes"], Float[Tensor, " n"]]:
        """The standard branch's logits and the raw gate, in one pass forward and one back; differentiable in images."""
        wanted = torch.is_grad_enabled() and images.requires_grad
        with torch.inference_mode(mode=False), torch.enable_grad():
            leaf = images if wanted else images.detach().clone().requires_grad_()
            logits = standard(leaf)
            top = logits.topk(2, dim=1).values
            slope = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), leaf, create_graph=wanted, retain_graph=wanted)[
                0
            ]
        size = length(slope, DUAL[self.norm]).clamp(min=torch.finfo(slope.dtype).tiny)
        raw = size.log() + math.log(self.strength)
        return (logits, raw) if wanted else (logits.detach(), raw.detach())

    def options(self) -> dict[str, Option]:
        """The gate as options of a blueprint."""
        return {"slope_strength": self.strength, "slope_norm": self.norm}

    @classmethod
    def of(cls, options: Mapping[str, Option]) -> SlopeGate | None:
        """Read what `options` gave; None where there is none."""
        if "slope_strength" not in options:
            return None
        norm: Norm = str(options["slope_norm"])  # type: ignore[assignment]
        return cls(float(str(options["slope_strength"])), norm)
