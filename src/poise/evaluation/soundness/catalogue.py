"""All soundness checks, and how they are run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import nn

from poise.core.batch import Batch
from poise.core.misuse import Misuse, suggestion
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.data import ImageSet
from poise.evaluation.profile import Profile
from poise.evaluation.soundness.adaptive import Adaptive
from poise.evaluation.soundness.certified import CertifiedBroken
from poise.evaluation.soundness.check import Check, ProfileCheck, Subject
from poise.evaluation.soundness.convergence import Convergence
from poise.evaluation.soundness.examined import SAMPLE, STEPS, Examined
from poise.evaluation.soundness.finding import Finding
from poise.evaluation.soundness.gradients import GradientGraph, GradientNoise, ZeroGradients
from poise.evaluation.soundness.inner_optimisation import OptimisationInInference
from poise.evaluation.soundness.outputs import FewClasses, InputRange, Probabilities
from poise.evaluation.soundness.planting import Planted
from poise.evaluation.soundness.probing import no_gradient, outputs_of, undisturbed
from poise.evaluation.soundness.retrial import RetrialCheck
from poise.evaluation.soundness.sanity import MoreBudget, SingleStep, Vanishing
from poise.evaluation.soundness.stability import BatchDependence, RandomisedOutput, TrainMode
from poise.evaluation.soundness.verdicts import BlackBox, Monotone

MODEL_CHECKS: tuple[Check[Subject], ...] = (
    InputRange(),
    TrainMode(),
    BatchDependence(),
    RandomisedOutput(),
    Probabilities(),
    FewClasses(),
    GradientGraph(),
    ZeroGradients(),
    GradientNoise(),
    OptimisationInInference(),
)
"""Checks of a model before any attack."""

PROFILE_CHECKS: tuple[ProfileCheck, ...] = (Monotone(), BlackBox(), CertifiedBroken())
"""Checks that are arithmetic on a finished profile."""

COMPLETENESS_CHECKS: tuple[Check[Examined], ...] = (Adaptive(),)
"""Checks that set a finished profile beside what its model offers."""

RETRIAL_CHECKS: tuple[RetrialCheck, ...] = (Vanishing(), SingleStep(), MoreBudget(), Convergence(), Planted())
"""Checks that attack a sample of a finished profile again."""

_ALL: tuple[Check[Any], ...] = (*MODEL_CHECKS, *PROFILE_CHECKS, *COMPLETENESS_CHECKS, *RETRIAL_CHECKS)

CHECKS: Mapping[str, str] = MappingProxyType({check.name: check.meaning for check in _ALL})
"""The name of every check, and what its finding means in one line."""


def inspect_model(classifier: nn.Module, batch: Batch, threat: Threat, stream: Stream) -> tuple[Finding, ...]:
    """What can be said about a model before it is attacked: one finding a check, in the order of `MODEL_CHECKS`.

    Takes 51 forward passes, 9 of them of one image, and 5 backward passes. The classifier's modes, buffers and
    gradients and PyTorch's random state are left as they were.

    Args:
        classifier: maps images in [0, 1] to logits.
        batch: a few dozen labelled images on its device, at least 1.
        threat: what the attacker may do.
        stream: randomness of the probes.

    Raises:
        Misuse: for an empty batch.
    """
    if not len(batch):
        raise Misuse("soundness checks need at least one image to probe the model on; got none")
    subject = Subject(classifier, batch, threat, stream)
    return tuple(check.inspect(subject) for check in MODEL_CHECKS)


def inspect_profile(
    profile: Profile,
    classifier: nn.Module,
    images: ImageSet,
    *,
    sample: int = SAMPLE,
    steps: int = STEPS,
    at_once: int | None = None,
) -> tuple[Finding, ...]:
    """What can be said about a finished profile: one finding a check, arithmetic first, then attacks on a sample.

    Norm, largest epsilon and seed are the profile's. At 100 steps it takes up to 530 forward and backward passes and 53
    forward passes of the sample, most of them for `convergence`, and of a profile whose suite averages over passes as
    many times that, at most twice. A model without gradients is not attacked again, which
    is noted. The classifier's modes, buffers and gradients and PyTorch's random state are left as they were.

    Args:
        profile: finished verdicts.
        classifier: the model that they are about, on the device to work on.
        images: the images that they are about, in the same order.
        sample: examples that a check attacks at most.
        steps: steps that gradient attacks took for the profile; `convergence` doubles them.
        at_once: examples that the model sees at a time at most; None for the whole sample, where memory suffices.

    Raises:
        Misuse: for images other than the profile's, and for a sample, steps or at_once below 1.
    """
    examined = Examined(profile=profile, model=classifier, images=images, sample=sample, steps=steps, at_once=at_once)
    arithmetic = tuple(check.inspect(profile) for check in PROFILE_CHECKS)
    arithmetic += tuple(check.inspect(examined) for check in COMPLETENESS_CHECKS)
    if not _differentiable(examined):
        unseen = "not attacked again, as the model gives no gradient: see gradient-graph"
        return arithmetic + tuple(check.finding("note", unseen) for check in RETRIAL_CHECKS)
    return arithmetic + tuple(check.inspect(examined) for check in RETRIAL_CHECKS)


def overrule(findings: Iterable[Finding], allowed: Sequence[str]) -> tuple[Finding, ...]:
    """The same findings, with those of the named checks marked as overridden where they block.

    Args:
        findings: what was found.
        allowed: names of checks; one that did not block changes nothing.

    Raises:
        Misuse: for a name that no check has.
    """
    for name in allowed:
        if name not in CHECKS:
            raise Misuse(f"there is no soundness check {name!r} to override; {suggestion(name, CHECKS)}")
    return tuple(
        replace(finding, overridden=True) if finding.status == "block" and finding.check in allowed else finding
        for finding in findings
    )


def missing_checks(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Names of the checks that have not looked, or not at every part, in the order of `CHECKS`."""
    looked = {finding.check for finding in findings if finding.everywhere}
    return tuple(name for name in CHECKS if name not in looked)


def _differentiable(examined: Examined) -> bool:
    """Whether attacks can take gradients of the model or of a surrogate that it offers, tried on one image."""
    one = examined.batch(examined.rows(examined.right() | ~examined.right(), "gradient")[:1])
    with undisturbed(examined.model, examined.stream("gradient")):
        outputs = (examined.model, *outputs_of(examined.model).values())
        return any(no_gradient(output, one) is None for output in outputs)
