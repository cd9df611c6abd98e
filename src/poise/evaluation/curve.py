"""Accuracy over epsilon and the numbers that summarise it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from poise.core.misuse import Misuse
from poise.evaluation.profile import Profile

CONFIDENCE = 0.95

_STEPS = 8


class Estimate(NamedTuple):
    """A share with its two-sided confidence interval, all in [0, 1]."""

    value: float
    low: float
    high: float


@lru_cache(maxsize=1 << 16)
def share(count: int, total: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share of examples with its exact (Clopper-Pearson) interval.

    Args:
        count: examples that have the property.
        total: examples in all, at least 1.
        confidence: probability with which intervals made so cover the truth, at least.
    """
    if not 0 <= count <= total or total < 1:
        raise Misuse(f"a share needs 0 <= count <= total and a total of at least 1; got {count} of {total}")
    tail = (1 - confidence) / 2
    low = special.betaincinv(count, total - count + 1, tail) if count else 0.0
    high = special.betainccinv(count + 1, total - count, tail) if count < total else 1.0
    return Estimate(count / total, float(low), float(high))


@dataclass(frozen=True)
class Curve:
    """Accuracy over epsilon.

    Args:
        epsilons: the grid, from 0 up.
        accuracy: share of examples that no attack broke at each grid point; the first is clean accuracy.
    """

    epsilons: tuple[float, ...]
    accuracy: tuple[Estimate, ...]

    @property
    def clean(self) -> Estimate:
        """Accuracy without an attack."""
        return self.accuracy[0]

    @property
    def robust(self) -> Estimate:
        """Accuracy at the largest epsilon."""
        return self.accuracy[-1]


def accuracy_curve(profile: Profile) -> Curve:
    """The accuracy-over-epsilon curve of a profile; it never rises, as verdicts are monotone."""
    held = profile.robust().sum(axis=0)
    return Curve(profile.epsilons, tuple(share(int(count), len(profile)) for count in held))


def expected_robustness(profile: Profile) -> Estimate:
    """Mean accuracy for an epsilon uniform on [0, largest], by the trapezoid rule (arXiv 2509.23325, methods 1.6).

    It is a mean over examples of a number in [0, 1], the part of the range that each withstands; the interval is that
    of Student's t for this mean, which is approximate, unlike those of accuracies.
    """
    parts = withstood(profile)
    value = float(parts.mean())
    if len(parts) < 2:
        return Estimate(value, 0.0, 1.0)
    half = special.stdtrit(len(parts) - 1, (1 + CONFIDENCE) / 2) * parts.std(ddof=1) / np.sqrt(len(parts))
    return Estimate(value, max(0.0, value - float(half)), min(1.0, value + float(half)))


def withstood(profile: Profile) -> Float[np.ndarray, " n"]:
    """The part of the epsilon range that each example withstands, by the trapezoid rule; in [0, 1]."""
    return part_of_range(profile.robust(), profile.epsilons)


def part_of_range(held: Bool[np.ndarray, "n points"], epsilons: tuple[float, ...]) -> Float[np.ndarray, " n"]:
    """The part of the epsilon range in which something holds, by the trapezoid rule; in [0, 1].

    Args:
        held: whether it does for each example at each grid point.
        epsilons: the grid, from 0 up; one that has no other point stands for the whole range.
    """
    if len(epsilons) == 1:
        return held[:, 0].astype(np.float64)
    return np.asarray(np.trapezoid(held.astype(np.float64), np.asarray(epsilons), axis=1) / epsilons[-1])


def certified_curve(profile: Profile) -> Curve:
    """Certified accuracy over radius: the share of examples proven right within each distance.

    It lies at or below the accuracy that attacks leave, at every epsilon of the profile's grid. Profiles that were not
    attacked get eight equal steps up to their largest radius. At 0 it is the share of examples with any radius at all.

    Raises:
        Misuse: for a profile without a certificate.
    """
    if profile.certificate is None:
        raise Misuse("this profile holds no certificate; make one with poise certify")
    radii = profile.certificate.radii
    grid = profile.epsilons if len(profile.epsilons) > 1 else _steps(float(radii.max(initial=0)))
    held = [int(((radii >= point) & (radii > 0)).sum()) for point in grid]
    return Curve(grid, tuple(share(count, len(profile)) for count in held))


def _steps(largest: float) -> tuple[float, ...]:
    return tuple(largest * step / _STEPS for step in range(_STEPS + 1)) if largest else (0.0,)
