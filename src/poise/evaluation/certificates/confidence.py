"""Bounds on a mean in [0, 1] from a sample, which hold with a stated probability whatever the distribution.

Votes are counts of successes, for which Clopper & Pearson's interval is exact. Means of probabilities are no counts;
for them two inequalities for bounded variables are computed at half the error each, and the tighter counts:
Chernoff-Hoeffding in its Kullback-Leibler form (Hoeffding 1963, theorem 1) and the empirical Bernstein bound (Maurer &
Pontil 2009, theorem 4), which gains where probabilities hardly vary. Every bound here is one-sided.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import special

from poise.core.misuse import Misuse

Values = Float[np.ndarray, "*shape"]

_HALVINGS = 60
_OUTWARD = 1e-12
"""What rounding in float64 may take from a bound, with room to spare."""


def vote_lower(count: Values, total: Values, error: Values) -> Values:
    """Lower bound of a probability, `count` of `total` independent trials having succeeded (Clopper & Pearson 1934).

    Args:
        count: successes.
        total: trials, at least 1.
        error: probability that the bound lies above the truth, at most; in (0, 1).
    """
    _check(error)
    inner = special.betaincinv(np.maximum(count, 1), total - count + 1, error)
    return np.where(count > 0, _down(inner), 0.0)


def vote_upper(count: Values, total: Values, error: Values) -> Values:
    """Upper bound of a probability; the counterpart of `vote_lower`."""
    return 1 - vote_lower(total - count, total, error)


def mean_lower(sums: Values, squares: Values, total: Values, error: Values) -> Values:
    """Lower bound of the mean of a variable in [0, 1], from independent draws.

    Args:
        sums: sum of the draws.
        squares: sum of their squares.
        total: how many, at least 2.
        error: probability that the bound lies above the truth, at most; in (0, 1).
    """
    _check(error)
    mean = np.clip(sums / total, 0, 1)
    divergence = _kullback_leibler_lower(mean, np.log(2 / error) / total)
    variance = np.clip((squares - sums * mean) / (total - 1), 0, None)
    logarithm = np.log(4 / error)
    bernstein = mean - np.sqrt(2 * variance * logarithm / total) - 7 * logarithm / (3 * (total - 1))
    return _down(np.maximum(divergence, bernstein))


def mean_upper(sums: Values, squares: Values, total: Values, error: Values) -> Values:
    """Upper bound of the mean of a variable in [0, 1]; the counterpart of `mean_lower`."""
    return 1 - mean_lower(total - sums, total - 2 * sums + squares, total, error)


def _kullback_leibler_lower(mean: Values, budget: Values) -> Values:
    """The smallest q <= mean with KL(mean || q) <= budget, by halving; the end that is returned lies outside."""
    low, high = np.zeros_like(mean), mean.copy()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        outside = special.rel_entr(mean, middle) + special.rel_entr(1 - mean, 1 - middle) > budget
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    return low


def _down(bound: Values) -> Values:
    return np.clip(bound - _OUTWARD, 0, 1)


def _check(error: Values) -> None:
    if np.any(np.asarray(error) <= 0) or np.any(np.asarray(error) >= 1):
        raise Misuse(f"the error of a bound must lie strictly between 0 and 1; got {error}")
