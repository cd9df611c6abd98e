"""From a classifier, images and a threat to a profile."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from poise.attacks import PGD, Attack
from poise.core.batch import Batch
from poise.core.losses import margin
from poise.core.misuse import Misuse, suggestion
from poise.core.modes import evaluating
from poise.core.norms import inside
from poise.core.progress import Watch, unwatched
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.data import ImageSet, batches
from poise.evaluation.grid import epsilon_grid
from poise.evaluation.profile import Header, Profile
from poise.models import Classifier

Suite = Literal["pgd", "fast"]

SUITES: dict[str, Attack] = {"pgd": PGD(steps=40, step_size=0.2), "fast": PGD(steps=10, step_size=0.25)}
"""pgd: 40 steps. fast: 10 steps, for validation during training; both flatter a model more than AutoAttack would."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """How a classifier is examined.

    Args:
        threat: what the attacker may do; its epsilon is the largest of the grid.
        suite: which attacks: pgd, or fast for validation during training.
        points: epsilons at which verdicts are given, in place of the default grid.
        seed: decides everything random.
        batch_size: examples per forward pass; it changes the speed and not the verdicts.
    """

    threat: Threat
    suite: Suite = "pgd"
    points: tuple[float, ...] | None = None
    seed: int = 0
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.suite not in get_args(Suite):
            raise Misuse(f"unknown suite {self.suite!r}; {suggestion(str(self.suite), get_args(Suite))}")
        if self.batch_size < 1:
            raise Misuse(f"batch_size must be at least 1; got {self.batch_size}")
        epsilon_grid(self.threat, self.points)


def examine(
    classifier: Classifier,
    images: ImageSet,
    examination: Examination,
    *,
    model_address: str,
    watch: Watch = unwatched,
) -> Profile:
    """Verdicts on every image at every grid point: each epsilon is attacked on those that all smaller ones left.

    An example counts as broken when the plain classifier, in eval mode and full precision, is wrong on an image that
    lies inside ball and box. The classifier is left as it was found.

    Args:
        classifier: the model, on the device to work on.
        images: what it is judged on.
        examination: threat, attacks and grid.
        model_address: how the profile names the model.
        watch: told of progress after every batch.
    """
    if tuple(images.classes) != classifier.classes:
        raise Misuse(
            f"the model tells {len(classifier.classes)} classes apart ({', '.join(classifier.classes[:3])}, ...), "
            f"{images.address} has {len(images.classes)} ({', '.join(images.classes[:3])}, ...); they must be the same"
        )
    grid = epsilon_grid(examination.threat, examination.points)
    device = next(classifier.parameters()).device
    rows: list[dict[str, np.ndarray]] = []
    with evaluating(classifier):
        for batch in batches(images, batch_size=examination.batch_size, device=device):
            rows.append(_judge(classifier, batch, grid, examination))
            done = sum(len(row["labels"]) for row in rows)
            watch(done / len(images), {"broken": f"{sum((row['broken'] < len(grid)).sum() for row in rows)}/{done}"})
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    name = examination.suite
    return Profile(
        header=_header(classifier, images, examination, grid, model_address),
        ids=images.ids,
        labels=columns["labels"],
        predictions=columns["predictions"],
        margins=columns["margins"],
        robust_to=columns["broken"] - 1,
        broken_from=columns["broken"],
        broken_by=tuple("clean" if at == 0 else name if at < len(grid) else "" for at in columns["broken"]),
    )


def _judge(
    classifier: Classifier, batch: Batch, grid: tuple[float, ...], examination: Examination
) -> dict[str, np.ndarray]:
    """Clean predictions and the first grid index at which each example of the batch is broken."""
    with torch.no_grad():
        logits = classifier(batch.images)
    broken = torch.full_like(batch.labels, len(grid))
    broken[logits.argmax(1) != batch.labels] = 0
    stream = Stream.seeded(examination.seed).fold("evaluation", examination.suite)
    for index, epsilon in enumerate(grid[1:], 1):
        alive = (broken == len(grid)).nonzero()[:, 0]
        survivors = batch.select(alive)
        attacked = SUITES[examination.suite].perturb(
            classifier, survivors, epsilon, examination.threat.norm, stream.fold(index)
        )
        broken[alive[_fooled(classifier, survivors, attacked, epsilon, examination.threat)]] = index
    found = {
        "labels": batch.labels,
        "predictions": logits.argmax(1),
        "margins": margin(logits.double(), batch.labels),
        "broken": broken,
    }
    return {name: tensor.cpu().numpy() for name, tensor in found.items()}


def _fooled(
    classifier: Classifier, batch: Batch, attacked: Float[Tensor, "n *shape"], epsilon: float, threat: Threat
) -> Bool[Tensor, " n"]:
    """Which attacked images are adversarial: misclassified by the plain classifier, inside ball and box."""
    if not len(batch):
        return torch.zeros(0, dtype=torch.bool, device=batch.labels.device)
    with torch.no_grad():
        wrong: Tensor = classifier(attacked).argmax(1) != batch.labels
    radius = torch.full((len(batch),), epsilon, dtype=attacked.dtype, device=attacked.device)
    return wrong & inside(attacked, batch.images, radius, threat.norm)


def _header(
    classifier: Classifier, images: ImageSet, examination: Examination, grid: tuple[float, ...], address: str
) -> Header:
    return Header(
        norm=examination.threat.norm,
        epsilons=grid,
        suite=examination.suite,
        seed=examination.seed,
        model=classifier.digest(),
        model_address=address,
        data=images.digest(),
        data_address=images.address,
        classes=tuple(images.classes),
        versions={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("poise", "torch", "timm")},
        },
    )
