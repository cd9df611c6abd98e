"""From a classifier and images to a certificate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from poise.core.batch import Batch
from poise.core.misuse import Misuse, check_choice
from poise.core.norms import diameter, refuse_outside
from poise.core.progress import Watch, unwatched
from poise.core.threat import NORMS, Norm
from poise.data import ImageSet, batches
from poise.evaluation.certificates.capture import captured
from poise.evaluation.certificates.certificate import Certificate, Method, converted
from poise.evaluation.certificates.deterministic import Bounded
from poise.evaluation.certificates.journal import OutcomeJournal
from poise.evaluation.certificates.mixture import Core, core_of
from poise.evaluation.certificates.radii import needed_margin
from poise.evaluation.certificates.sampling import Outcome, Sampling, sampled
from poise.models import Classifier, Smoothed

_WAVE = 8
"""Examples that are sampled together; an interruption loses the samples of so many."""


@dataclass(frozen=True, kw_only=True)
class Certification:
    """How a classifier is certified.

    Args:
        method: smoothing for a smoothed classifier; lipschitz or local for others.
        norm: norm in which radii are stated. Smoothing proves l2 balls; balls of other norms that lie inside are given.
        largest: radii beyond this are of no interest to `local`, which alone searches for them.
        sampling: samples and confidence of `smoothing`.
        batch_size: images at a time of the other methods.
    """

    method: Method
    norm: Norm = "l2"
    largest: float | None = None
    sampling: Sampling = field(default_factory=Sampling)
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_choice("method", self.method, get_args(Method))
        check_choice("norm", self.norm, NORMS)
        if self.batch_size < 1:
            raise Misuse(f"batch_size must be at least 1; got {self.batch_size}")
        if self.largest is not None and not self.largest > 0:
            raise Misuse(f"largest is a radius above 0, or None; got {self.largest}")
        if self.largest is not None and self.method != "local":
            raise Misuse(
                f"largest ends the search for radii of the method local; {self.method} does not search, leave it out"
            )


def certify(
    classifier: Classifier,
    images: ImageSet,
    certification: Certification,
    *,
    journal: Path | None = None,
    watch: Watch = unwatched,
) -> Certificate:
    """A radius for every image within which the classifier is proven to keep its prediction, and to be right.

    A mixture is certified through its robust branch, with the least weight that its alpha can have; where that is below
    one half nothing is proven. The classifier is left as it was found.

    Without sampling, the proof is about the network's function in exact arithmetic, evaluated in float64. With
    sampling, it is about the exact average over the noise of the network as it computes.

    Args:
        classifier: a network, a smoothed one, or a mixture, on the device to work on.
        images: what is certified.
        certification: method, norm and its options.
        journal: where outcomes of sampling are kept, to be taken up again after an interruption.
        watch: told of progress.

    Raises:
        Misuse: for images of other classes or outside [0, 1], a method that does not fit the classifier, a network with
            a layer that has no rule or, where bounds are carried through it, in half precision, and a journal of
            another certification.
    """
    if tuple(images.classes) != classifier.classes:
        raise Misuse(
            f"the model tells {len(classifier.classes)} classes apart, {images.address} has {len(images.classes)} or "
            "calls them otherwise; they must be the same"
        )
    core = core_of(classifier)
    smoothed = smoothing_of(core, certification.method)
    if smoothed is None:
        return _by_bounds(core, images, certification, watch)
    kept = OutcomeJournal(journal, _header(classifier, images, certification)) if journal else None
    return _by_sampling(core, smoothed, images, certification, kept, watch)


def default_method(classifier: Classifier) -> Method:
    """Smoothing where the branch that carries the certificate is smoothed, else local bounds."""
    return "local" if core_of(classifier).smoothed is None else "smoothing"


def smoothing_of(core: Core, method: Method) -> Smoothed | None:
    """The smoothing to sample, or None where bounds are to be carried through a network.

    Raises:
        Misuse: where the method does not fit.
    """
    what = "the mixture's robust branch" if core.mixed else "the classifier"
    if (method == "smoothing") != (core.smoothed is not None):
        raise Misuse(
            f"{what} is not smoothed, so there is nothing to sample; smooth it with --sigma, or use --method local"
            if method == "smoothing"
            else f"{what} is smoothed, which only --method smoothing can certify"
        )
    if core.smoothed is not None and core.scale != 1:
        raise Misuse(
            f"the mixture scales the logits of its smoothed branch by {core.scale:g}, which is no average any more; "
            "give the scale to the smoothing instead, which applies it before averaging"
        )
    return core.smoothed


def _by_bounds(core: Core, images: ImageSet, certification: Certification, watch: Watch) -> Certificate:
    norm, local = certification.norm, certification.method == "local"
    if needed_margin(core.alpha) == math.inf:
        return Certificate(method=certification.method, norm=norm, radii=np.zeros(len(images)), facts=_mixing(core))
    if core.robust.dtype.itemsize < torch.float32.itemsize:
        raise Misuse(
            f"bounds are proven of a network in exact arithmetic, and one in {core.robust.dtype} is far from it: open "
            "it in float32"
        )
    bounded = Bounded(captured(core.robust), norm, core.alpha, core.scale)
    widest = diameter(norm, math.prod(images.shape))
    found: list[np.ndarray] = []
    for batch in batches(images, batch_size=certification.batch_size, device=core.robust.device):
        done = sum(part.shape[1] for part in found)
        refuse_outside(batch.images, images.ids[done : done + len(batch)])
        steps = bounded.radii(batch.images.double(), local=local, largest=min(certification.largest or widest, widest))
        right = (steps.classes == batch.labels).double()
        radii = torch.stack([steps.probabilities, steps.margins, steps.local]) * right
        found.append(radii.cpu().numpy())
        watch(sum(part.shape[1] for part in found) / len(images), {})
    by_step = np.concatenate(found, axis=1)
    means = dict(zip(("probabilities", "margins", "local"), by_step.mean(1).tolist(), strict=True))
    wanted = [*(["probabilities"] if core.mixed else []), "margins", *(["local"] if local else [])]
    facts = {f"mean radius by {name}": float(f"{means[name]:.4g}") for name in wanted}
    return Certificate(method=certification.method, norm=norm, radii=by_step[2], facts=_mixing(core) | facts)


def _by_sampling(
    core: Core,
    smoothed: Smoothed,
    images: ImageSet,
    certification: Certification,
    journal: OutcomeJournal | None,
    watch: Watch,
) -> Certificate:
    sampling, found = certification.sampling, dict(journal.replay()) if journal else {}
    if journal:
        journal.open()
    proven = core.alpha if needed_margin(core.alpha) < math.inf else 0.0
    waiting = [row for row in range(len(images)) if row not in found]
    for outcomes in _waves(smoothed, images, waiting if proven else [], sampling, proven):
        found |= {outcome.row: outcome for outcome in outcomes}
        if journal:
            journal.write(outcomes)
        watch(len(found) / len(images), {"certified": f"{sum(each.radius > 0 for each in found.values())}"})
    labels, radii = images.labels.tolist(), np.zeros(len(images))
    for row, outcome in found.items():
        radii[row] = outcome.radius if outcome.prediction == labels[row] else 0.0
    facts = {
        "sigma": smoothed.sigma,
        "vote": smoothed.vote,
        "samples": sampling.samples,
        "samples drawn": sum(outcome.total for outcome in found.values()),
        "abstentions": sum(outcome.radius == 0 for outcome in found.values()),
        "seed": sampling.seed,
    }
    return Certificate(
        method="smoothing",
        norm=certification.norm,
        radii=converted(radii, "l2", certification.norm, math.prod(images.shape)),
        confidence=sampling.confidence,
        facts=_mixing(core) | facts,
    )


def _waves(
    smoothed: Smoothed, images: ImageSet, rows: list[int], sampling: Sampling, alpha: float
) -> Iterator[list[Outcome]]:
    device = smoothed.inner.device
    for start in range(0, len(rows), _WAVE):
        chosen = torch.tensor(rows[start : start + _WAVE])
        batch = Batch(images.images(chosen), images.labels[chosen], images.keys[chosen]).to(device)
        refuse_outside(batch.images, [images.ids[row] for row in chosen.tolist()])
        outcomes = sampled(smoothed, batch, sampling, alpha)
        yield [Outcome(int(chosen[each.row]), each.prediction, each.radius, each.total) for each in outcomes]


def _mixing(core: Core) -> dict[str, Any]:
    return {"alpha": core.alpha, "scale": core.scale} if core.mixed else {}


def _header(classifier: Classifier, images: ImageSet, certification: Certification) -> dict[str, Any]:
    sampling = certification.sampling
    names = ("samples", "selection", "confidence", "enough", "seed")
    return {"model": classifier.digest(), "data": images.digest()} | {name: getattr(sampling, name) for name in names}
