"""The model card: what a person who did not train a model must know before using it, filled from its profile."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from poise.core.foreign import is_foreign
from poise.core.threat import Epsilon
from poise.evaluation import Profile, blocked, share
from poise.reporting.markdown import fenced, markdown_table, plain
from poise.reporting.origin import origin_facts
from poise.reporting.sentences import proven
from poise.reporting.subject import Subject
from poise.reporting.summary import percent

_FLATTERING = {"pgd", "fast"}
"""Suites that leave robust examples standing which stronger attacks break."""

_FEWEST_OF_A_CLASS = 10


def model_card(subject: Subject, uses: Iterable[str] = (), about: Iterable[str] = (), preparation: str = "") -> str:
    """A model card in Markdown.

    Whatever it says about accuracy is arithmetic on the subject's profile; without one it says that nothing is known.

    Args:
        subject: the model's run.
        uses: what the model is meant for, one sentence each; by default only what its classes say.
        about: what else must be known to use it, one sentence each.
        preparation: how images are brought to the size that it takes; by default nothing is said of it.
    """
    sections = {
        "Intended use": [*_use(subject.profile, uses, preparation), *(f"- {plain(each)}" for each in about)],
        "Threat model": _threat(subject.profile),
        "Measured": [markdown_table([subject]).strip(), *_proven(subject)],
        "Known limits": _limits(subject.profile),
        "Origin": _origin(subject),
    }
    parts = [f"# {plain(subject.name)}"]
    for title, lines in sections.items():
        parts += [f"## {title}", "\n".join(lines)] if lines else []
    return "\n\n".join(parts) + "\n"


def _use(profile: Profile | None, uses: Iterable[str], preparation: str) -> list[str]:
    said = [f"- {plain(use)}" for use in uses]
    if profile is not None:
        classes = profile.header.classes
        said.append(
            f"- Tells {len(classes)} classes apart: {plain(', '.join(classes))}. It has no answer for images of other "
            "things, and gives one nevertheless."
        )
    brought = f" They are brought to that size as in training: {preparation}." if preparation else ""
    return [
        *(said or ["- Not stated."]),
        (
            f"- Takes images with values in [0, 1], all of one size; normalisation is inside.{brought} Returns logits, "
            "not probabilities, and their confidence has not been calibrated."
        ),
    ]


def _threat(profile: Profile | None) -> list[str]:
    if profile is None or len(profile.epsilons) == 1:
        return ["The model has not been attacked: nothing is known about its robustness."]
    header = profile.header
    return [
        (
            f"An attacker who knows the model, its weights included, and may change every value of an image within an "
            f"{header.norm} ball of radius {Epsilon(header.epsilons[-1])}, in units of the image range. Figures say "
            "nothing about other changes: larger ones, other norms, patches, rotations, blur, weather, other cameras."
        )
    ]


def _proven(subject: Subject) -> list[str]:
    said = proven(subject)
    return [f"\n{plain(said)}"] if said else []


def _limits(profile: Profile | None) -> list[str]:
    if profile is None:
        return []
    lines = [
        (
            "Robust accuracy is the share of images that no attack of the suite broke. It is an upper bound: a "
            "stronger attack can only lower it."
        ),
        f"All figures are from {len(profile)} images of one source. On images from elsewhere they do not hold.",
    ]
    if profile.header.suite in _FLATTERING and len(profile.epsilons) > 1:
        lines.append(f"The suite {profile.header.suite} is weak; figures flatter the model. Use autoattack.")
    if is_foreign(profile.header.suite):
        lines.append(f"The suite {profile.header.suite} is not one of poise's; how strong it is, poise cannot tell.")
    if objections := blocked(profile.findings):
        names = ", ".join(finding.check for finding in objections)
        lines.append(f"The soundness checks object to these figures ({names}); they should not be relied on.")
    return [f"- {line}" for line in (*lines, *_worst_classes(profile))]


def _worst_classes(profile: Profile) -> list[str]:
    """The class with the lowest accuracy, without and with an attack, among classes with enough images to say so."""
    held, said = profile.robust(), []
    counts = np.bincount(profile.labels, minlength=len(profile.header.classes))
    known = np.flatnonzero(counts >= _FEWEST_OF_A_CLASS)
    if len(known) < 2:
        return []
    for point in sorted({0, len(profile.epsilons) - 1}):
        right = np.bincount(profile.labels, weights=held[:, point], minlength=len(counts)).astype(int)
        worst = min(known, key=lambda label: right[label] / counts[label])
        found = share(int(right[worst]), int(counts[worst]))
        place = f"at epsilon {Epsilon(profile.epsilons[point])}" if point else "without an attack"
        said.append(
            f"The weakest class {place} is {plain(profile.header.classes[worst])}: {percent(found.value)} % of "
            f"{counts[worst]} images [{percent(found.low)}, {percent(found.high)}]."
        )
    return said


def _origin(subject: Subject) -> list[str]:
    facts = {} if subject.profile is None else origin_facts(subject.profile)
    lines = [f"- {name}: {plain(fact)}" for name, fact in facts.items()]
    recipe = fenced(subject.recipe, "yaml")
    return [*lines, f"\n{recipe}"] if recipe else lines
