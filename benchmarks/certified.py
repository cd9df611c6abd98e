"""Attacks on certified examples of several models, each example within its own radius and attacked once a certificate.

A certificate is counted once: what it is of is the model, the method, the norm and the image. Radii by bounds are
attacked in float64. Those by sampling are about the exact vote: they are attacked through soft votes, and an example
counts as broken where a vote of fresh noise at the image that was found goes to another class.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poise.attacks.apgd import APGD
from poise.attacks.driver import run_search
from poise.attacks.search import Problem, Search
from poise.commands.finetune import finetune
from poise.core.streams import Stream
from poise.core.threat import Norm, Threat
from poise.data import ImageSet, open_data
from poise.evaluation.certificates.certificate import Method
from poise.evaluation.certificates.certification import Certification, certify
from poise.evaluation.certificates.sampling import Sampling
from poise.models import Classifier, Smoothed, open_model, smooth
from poise.models.mixing import Blend, MixedClassifier
from poise.objectives import Standard
from poise.schedules import Fixed
from poise.training import Training

_SIGMA = 0.25
_VOTES = 1024
_FRESH = 8192


class Dense(nn.Sequential):
    """Two dense layers: so cheap that thousands of its certificates can be made and attacked."""

    def __init__(self, num_classes: int, width: int = 32) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes))


@dataclass(frozen=True)
class Subject:
    """A model with the proofs that are tried on it.

    Args:
        name: what results call it.
        model: the classifier.
        methods: methods of certification.
        norms: norms of the radii.
        images: what is certified, one set after the other.
        through: where gradients come from that the model has not.
    """

    name: str
    model: Classifier
    methods: tuple[Method, ...]
    norms: tuple[Norm, ...]
    images: Sequence[ImageSet]
    through: nn.Module | None = None


@dataclass(frozen=True)
class Tried:
    """What became of the certificates of one model by one method in one norm.

    Args:
        name: model, method and norm.
        images: how many images were to be certified.
        certified: how many were; each was attacked once.
        broken: how many attacks succeeded.
        radius: mean radius of the certified.
    """

    name: str
    images: int
    certified: int
    broken: int
    radius: float

    def __str__(self) -> str:
        return f"{self.name:38} {self.broken} of {self.certified:5} broken, mean radius {self.radius:.3g}"


def trained(address: str, folder: Path, epochs: int, epsilon: float = 0.2, **options: Any) -> Classifier:
    """A network trained on digits, under linf attacks of this epsilon where the objective is not another."""
    finetune(
        address,
        "digits",
        threat=Threat(epsilon=epsilon),
        schedule=Fixed(),
        augmentation="none",
        validate_on=0,
        trackers=(),
        training=Training(epochs=epochs, batch_size=64, learning_rate=2e-3),
        out=folder,
        **options,
    )
    known, weights = open_data("digits").test, folder / "model.safetensors"
    return open_model(address, classes=tuple(known.classes), shape=known.shape, weights=str(weights)).eval()


def digit_subjects(small: Classifier, folder: Path, sets: Sequence[ImageSet], *, quick: bool) -> Iterator[Subject]:
    """Plain, 1-Lipschitz, mixed and smoothed networks, and mixtures of smoothed ones and of mixtures.

    Args:
        small: the convolutional network.
        folder: for the runs of the others.
        sets: the images, of which costly proofs take the first ones.
        quick: a tenth of the work.
    """
    epochs = 3 if quick else 10
    accurate = trained("python:benchmarks.certified:Dense", folder / "accurate", epochs, objective=Standard())
    robust = trained("python:benchmarks.certified:Dense", folder / "dense", epochs, epsilon=0.05)
    steep = trained("lipschitz", folder / "lipschitz", 2 if quick else 5, objective=Standard())
    mixed = MixedClassifier.of(accurate, robust, Blend(alpha_low=0.9, alpha_high=0.9, scale_robust=8.0)).eval()
    noisy = smooth(robust, sigma=_SIGMA, samples=_VOTES, seed=7)
    soft = smooth(robust, sigma=_SIGMA, samples=64, vote="soft", seed=8)
    every: tuple[Norm, ...] = ("linf", "l2", "l1")
    bounds: tuple[Method, ...] = ("lipschitz", "local")
    many = [each.select(torch.arange(min(len(each), 200 if quick else len(each)))) for each in sets]
    share = 5 if quick else 1
    some, few, others = (
        [each.select(torch.arange(first // share, last // share)) for each in sets[:1]]
        for first, last in ((0, 200), (0, 50), (50, 200))
    )
    yield Subject("dense", robust, bounds, every, many)
    yield Subject("accurate dense", accurate, bounds, ("linf", "l2"), many)
    yield Subject("mixture", mixed, bounds, ("linf", "l2"), many)
    yield Subject("mixture of a mixture", MixedClassifier.of(accurate, mixed, 0.9).eval(), bounds, ("l2",), many)
    for name, model in (("convolutional", small), ("1-Lipschitz", steep)):
        yield Subject(f"{name}, few", model, bounds, ("linf", "l2"), few)
        yield Subject(f"{name}, others", model, ("lipschitz",), ("linf", "l2"), others)
    yield Subject("smoothed", noisy, ("smoothing",), ("l2",), some, soft)
    both = MixedClassifier.of(accurate, noisy, 0.8).eval()
    yield Subject(
        "mixture of a smoothed", both, ("smoothing",), ("l2",), some, MixedClassifier.of(accurate, soft, 0.8).eval()
    )


def attacked(subject: Subject, *, steps: int) -> Iterator[Tried]:
    """Certify and attack: a result for each method and norm."""
    for method in subject.methods:
        for norm in subject.norms:
            options = Certification(method=method, norm=norm, sampling=Sampling(samples=1_000, confidence=0.9999))
            radii, broken = [], 0
            for images in subject.images:
                found = certify(subject.model, images, options).radii
                rows = torch.from_numpy(np.flatnonzero(found > 0))
                broken += _broken(subject, images, rows, torch.from_numpy(found)[rows], norm, steps)
                radii.append(found[found > 0])
            every = np.concatenate(radii)
            count = sum(len(images) for images in subject.images)
            mean = float(every.mean()) if len(every) else 0.0
            yield Tried(f"{subject.name}, {method}, {norm}", count, len(every), broken, mean)


def _broken(subject: Subject, images: ImageSet, rows: Tensor, radii: Tensor, norm: Norm, steps: int) -> int:
    """How many images APGD breaks: untargeted, and at the three most likely wrong classes."""
    if not len(rows):
        return 0
    sampled = subject.through is not None
    model = subject.model if sampled else copy.deepcopy(subject.model).double()
    labels, pixels = images.labels[rows], images.images(rows).to(model.dtype)
    with torch.no_grad():
        wrong = model(pixels).scatter(1, labels[:, None], -torch.inf).topk(3, dim=1).indices
    stream, found = Stream.seeded(0), torch.zeros(len(rows), dtype=torch.bool)
    untargeted: Search = APGD(norm=norm, stream=stream, steps=steps)
    aimed: Search = APGD(norm=norm, stream=stream, loss_kind="targeted-dlr", steps=steps)
    for search, rank in ((untargeted, 0), (aimed, 0), (aimed, 1), (aimed, 2)):
        nothing = torch.zeros_like(labels)
        problem = Problem(pixels, labels, radii.to(model.dtype), images.keys[rows], wrong[:, rank], nothing)
        points, fooled = run_search(search, model, problem, subject.through)
        found |= _by_fresh_noise(subject.model, points, labels, fooled) if sampled else fooled
    return int(found.sum())


@torch.no_grad()
def _by_fresh_noise(model: Classifier, points: Tensor, labels: Tensor, fooled: Tensor) -> Tensor:
    """Which points are told as another class than their label with many noise patterns that the attack has not seen."""
    again = copy.deepcopy(model)
    smoothing = (again.robust if isinstance(again, MixedClassifier) else again).network
    if not isinstance(smoothing, Smoothed):
        raise TypeError(f"fresh noise is for smoothed networks, not for {type(smoothing).__name__}")
    smoothing.samples, smoothing.seed = _FRESH, 9
    found = fooled.clone()
    if fooled.any():
        found[fooled] = again(points[fooled]).argmax(1) != labels[fooled]
    return found
