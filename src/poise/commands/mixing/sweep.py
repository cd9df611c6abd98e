"""Measuring many mixtures of the same two branches: clean accuracy from one pass, robust accuracy by attacking each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from poise.attacks import APGD, Problem, run_search
from poise.commands.telling.terminal import watching
from poise.core.losses import misclassified
from poise.core.modes import evaluating
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.data import ImageSet, batches
from poise.evaluation import (
    Estimate,
    Examination,
    Suite,
    accuracy_curve,
    examine,
    read_profile,
    remove_journals,
    share,
    write_profile,
)
from poise.evaluation.frontier import Alphas, Point
from poise.models import Classifier
from poise.models.mixing import Blend, MixedClassifier, shown_alpha
from poise.models.mixing.calibration import HeldOut

ALPHA_STEPS = 20
"""Of the attack under which alphas are looked at (`alphas_of`)."""
MARGIN_STEPS = 50
"""Of each of the two attacks under which margins are looked at (`held_out`)."""
_BATCH = 128
_BINS = 20
_DIGITS = 12
"""Of a digest in the name of a file."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Validation images and how mixtures are attacked on them.

    Args:
        images: validation images, never test images.
        threat: the attacker; only its epsilon is tried.
        suite: the attacks.
        seed: decides everything random.
        folder: where the profile of every mixture is kept; one that is there already is not made again.
    """

    images: ImageSet
    threat: Threat
    suite: Suite
    seed: int
    folder: Path

    def points(self, mixed: MixedClassifier, blends: Sequence[Blend], beside: Sequence[Blend] = ()) -> Iterator[Point]:
        """Every blend of a mixture, measured.

        Clean accuracies come from one pass through both branches; each blend is attacked by itself, through all its
        surrogates. Names say alpha, and the robust branch's scale where these and those beside them differ in it.
        """
        clean, names = clean_accuracies(mixed, blends, self.images), _names([*beside, *blends])[len(beside) :]
        for blend, name, accuracy in zip(blends, names, clean, strict=True):
            found = self.measured(mixed.blended(blend), name)
            yield replace(found, alpha_low=blend.alpha_low, alpha_high=blend.alpha_high, clean=accuracy)

    def measured(self, classifier: Classifier, name: str) -> Point:
        """A classifier by itself; its profile is kept under the name up to a comma and the classifier's digest."""
        stem = name.partition(",")[0].replace(" ", "-")
        path = self.folder / f"{stem}-{classifier.digest()[:_DIGITS]}.parquet"
        examination = Examination(threat=self.threat, suite=self.suite, points=(), seed=self.seed)
        if not path.is_file():
            with watching(f"attacking {name}") as watch:
                profile = examine(
                    classifier,
                    self.images,
                    examination,
                    model_address=name,
                    split="validation",
                    journal=path,
                    watch=watch,
                )
            write_profile(profile, path)
            remove_journals(path)
        curve = accuracy_curve(read_profile(path))
        return Point(name=name, alpha_low=1.0, alpha_high=1.0, clean=curve.clean, robust=curve.robust)


def _names(blends: Sequence[Blend]) -> list[str]:
    scales = [blend.scale_robust if blend.sharpening is None else blend.sharpening.scale for blend in blends]
    said = len(set(scales)) > 1
    return [
        f"alpha {shown_alpha(blend.alpha_low)}"
        + (f" to {shown_alpha(blend.alpha_high)}" if blend.alpha_high > blend.alpha_low else "")
        + (f", scale {scale:.4g}" if said else "")
        for blend, scale in zip(blends, scales, strict=True)
    ]


@torch.no_grad()
def clean_accuracies(mixed: MixedClassifier, blends: Sequence[Blend], images: ImageSet) -> list[Estimate]:
    """Accuracy of every blend, each image having passed each branch once."""
    right = torch.zeros(len(blends), dtype=torch.int64)
    with evaluating(mixed):
        for batch in batches(images, batch_size=_BATCH, device=mixed.device):
            seen = mixed.network.seen(batch.images)
            for index, blend in enumerate(blends):
                network = mixed.blended(blend).network
                right[index] += (~misclassified(network.of_outputs(*seen), batch.labels)).sum().cpu()
    return [share(int(count), len(images)) for count in right]


def alphas_of(mixed: MixedClassifier, sweep: Sweep) -> Alphas:
    """What a gate does on validation images, clean and under APGD on the whole mixture."""
    search = APGD(norm=sweep.threat.norm, stream=Stream.seeded(sweep.seed).fold("alphas"), steps=ALPHA_STEPS)
    counts = torch.zeros(2, _BINS)
    with evaluating(mixed):
        for batch in batches(sweep.images, batch_size=_BATCH, device=mixed.device):
            problem = Problem.of(batch, float(sweep.threat.epsilon))
            for row, images in enumerate((batch.images, run_search(search, mixed, problem)[0])):
                with torch.no_grad():
                    given = mixed.alpha(images).float().cpu()
                counts[row] += given.histc(_BINS, mixed.alpha_low, mixed.alpha_high)
    clean, attacked = (tuple(int(count) for count in row) for row in counts)
    return Alphas(low=mixed.alpha_low, high=mixed.alpha_high, clean=clean, attacked=attacked)


def held_out(robust: Classifier, images: ImageSet, threat: Threat, seed: int) -> HeldOut:
    """What calibration wants to know of a robust branch: its logits, clean and under APGD with targets.

    Cross-entropy first, then the likeliest wrong class, on what withstood; where both failed, the worse image counts.

    Args:
        robust: the branch.
        images: validation images.
        threat: the attacker.
        seed: decides the attack's random starts.
    """
    stream = Stream.seeded(seed).fold("calibration")
    plain = APGD(norm=threat.norm, stream=stream, steps=MARGIN_STEPS)
    targeted = APGD(norm=threat.norm, stream=stream, steps=MARGIN_STEPS, loss_kind="targeted-dlr")
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    with evaluating(robust):
        for batch in batches(images, batch_size=_BATCH, device=robust.device):
            with torch.no_grad():
                clean = robust(batch.images)
            rival = clean.scatter(1, batch.labels[:, None], -torch.inf).argmax(1)
            problem = Problem.of(batch, float(threat.epsilon), rival)
            worst = [run_search(search, robust, problem) for search in (plain, targeted)]
            with torch.no_grad():
                said = torch.stack([robust(points) for points, _ in worst])
            fooled = torch.stack([found for _, found in worst]).any(0)
            lead = said.softmax(2).topk(2, dim=2).values
            least = (lead[..., 0] - lead[..., 1]).argmin(0)
            attacked = said[least, torch.arange(len(least), device=least.device)]
            parts.append((clean, misclassified(clean, batch.labels), attacked, fooled))
    return HeldOut.of(*(torch.cat([part[index] for part in parts]).cpu() for index in range(4)))
