"""How benchmarks say how sure a figure is: over images of the same networks, over seeds, over repetitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from poise.evaluation import Profile

PerImage = Callable[[Profile], Float[np.ndarray, " n"]]
"""A figure of each image of a profile."""
_DRAWS = 10_000


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def clean(profile: Profile) -> Float[np.ndarray, " n"]:
    """1 for each image that is classified rightly."""
    return profile.robust()[:, 0].astype(np.float64)


def robust(profile: Profile) -> Float[np.ndarray, " n"]:
    """1 for each image that withstands the attacks at the largest epsilon."""
    return profile.robust()[:, -1].astype(np.float64)


def mean(values: Sequence[float] | Float[np.ndarray, " n"]) -> Interval:
    """The mean of independent values, with the interval of Student's t; from -inf to inf for a single one."""
    value, count = float(np.mean(values)), len(values)
    if count == 1:
        return Interval(value, -np.inf, np.inf)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Interval(value, value - half, value + half)


def difference(ones: Sequence[Profile], others: Sequence[Profile], figure: PerImage) -> Interval:
    """By how much a figure's mean over images is higher for some networks than for others.

    The interval is about each image's difference, averaged over the pairs: it speaks of these networks and of other
    images.

    Args:
        ones: profiles of networks, such as those of several seeds.
        others: as many of other networks.
        figure: of each image.
    """
    check_same_images([*ones, *others])
    return mean(np.mean([figure(one) - figure(other) for one, other in zip(ones, others, strict=True)], axis=0))


def resampled(
    profiles: Sequence[Profile], figure: Callable[[Float[np.ndarray, " profiles"]], float], of: PerImage
) -> Interval:
    """A figure of several means over the same images, with a bootstrap interval over images (percentiles, seed 0).

    Args:
        profiles: of the same images.
        figure: of the mean of each profile, in their order.
        of: what is averaged.
    """
    check_same_images(profiles)
    values = np.array([of(each) for each in profiles])
    draws = np.random.default_rng(0).multinomial(values.shape[1], np.full(values.shape[1], 1 / values.shape[1]), _DRAWS)
    found = np.array([figure(means) for means in draws @ values.T / values.shape[1]])
    return Interval(figure(values.mean(1)), *(float(each) for each in np.quantile(found, (0.025, 0.975))))


def check_same_images(profiles: Sequence[Profile]) -> None:
    """Refuse to pair profiles of different images."""
    if len({each.ids for each in profiles}) > 1:
        raise ValueError("profiles of different images cannot be paired")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(values), "median": median(values), "max": max(values)}


def cut(naive: float, mine: float) -> float:
    """By which share flips are fewer than those of the naive swap; where that has none, 1 for none and -1 for some."""
    return 1 - mine / naive if naive else float(mine == 0) - float(mine > 0)


def shown(estimate: Sequence[float]) -> str:
    """An estimate with its interval, in %."""
    value, low, high = (100 * each for each in estimate)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"
