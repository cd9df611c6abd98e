"""The promise of a bound: a figure that breaks its limit passes with a probability of at most one minus confidence.

Each case draws 10,000 sets of test images from a population that breaks the limit by next to nothing, the hardest case,
and counts how often the limit passes. Doubts depend on counts alone, so each count is judged once.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from poise.evaluation.flips import Count, join
from poise.evaluation.gate import Gate, Limit, Share, judge
from poise.evaluation.gate.difference import Walk
from poise.evaluation.gate.mean import doubt_of_mean
from tests.evaluation.flips.tables import checked, settled

DRAWS = 10_000
BEYOND = 1e-9


def _most(level):
    """What chance allows: 10,000 tosses at the promised rate exceed this with probability 1e-4."""
    return binom.ppf(1 - 1e-4, DRAWS, level) / DRAWS


@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize(("limit", "total"), [(0.005, 1000), (0.02, 340), (0.1, 50), (0.3, 2000)])
def test_shares(limit, total, level):
    counts = np.random.default_rng(1).binomial(total, limit + BEYOND, DRAWS)

    @cache
    def passes(count):
        return Share(Count(count, count, total)).doubt(limit, "at_most") <= level

    assert np.mean([passes(count) for count in counts.tolist()]) <= _most(level)


@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize(
    ("change", "differing", "total"),
    [
        (-0.005, 0.05, 1000),
        (0.0, 0.02, 300),
        (-0.02, 0.02, 200),
        (-0.01, 0.012, 500),
        (0.01, 0.2, 400),
        (-0.1, 0.9, 60),
        (0.0, 0.5, 30),
    ],
)
def test_changes_of_accuracies(change, differing, total, level):
    lost = (differing - change) / 2
    law = [differing - lost, lost, 1 - differing]
    draws = np.random.default_rng(2).multinomial(total, law, DRAWS)

    @cache
    def passes(gained, lost):
        return Walk(gained, lost, total, level / 10).doubt(change) <= level

    assert np.mean([passes(*each) for each in draws[:, :2].tolist()]) <= _most(level)


@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize(
    ("values", "weights", "total"),
    [
        ([-1, 0, 1], [0.03, 0.94, 0.03], 300),
        ([-1, 0], [0.01, 0.99], 300),
        ([-0.75, -0.25, 0, 0.125], [0.05, 0.05, 0.6, 0.3], 340),
        ([0.01, 0, -1], [0.9, 0.09, 0.01], 100),
    ],
)
def test_changes_of_expected_robustness(values, weights, total, level):
    """Rare large losses are the case in which Student's t breaks its promise."""
    drawn = np.random.default_rng(3).choice((np.array(values) + 1) / 2, p=weights, size=(DRAWS, total))
    limit = float((np.dot(values, weights) + 1) / 2) + BEYOND
    assert np.mean(doubt_of_mean(drawn, limit, level) <= level) <= _most(level)


def test_students_t_would_break_the_promise():
    """Why a bounded variable gets a bound of its own: here t passes three times as often as promised."""
    drawn = np.random.default_rng(3).choice([-1.0, 0.0], p=[0.01, 0.99], size=(DRAWS, 100))
    half = 1.66 * drawn.std(axis=1, ddof=1) / 10
    assert np.mean(drawn.mean(axis=1) - half > -0.01) > 0.15


@pytest.mark.parametrize("joint", ["none", "bonferroni", "holm"])
def test_a_gate_of_three_limits(joint):
    """Two limits are broken by next to nothing and one is kept, on independent classes.

    Joint, any broken limit passes in at most 5 % of draws. Each by itself, that is 5 % twice, and the gate as a whole,
    to which both must lend themselves, passes far less often.
    """
    limits = tuple(
        Limit(figure="clean_flips", side="at_most", value=limit, of=name)
        for name, limit in (("cat", 0.0452), ("dog", 0.0452), ("eel", 0.2))
    )
    gate, rng = Gate(limits=limits, joint=joint), np.random.default_rng(4)
    counts = rng.binomial(200, [0.0452 + BEYOND, 0.0452 + BEYOND, 0.02], size=(DRAWS, 3))
    doubts = [[Share(Count(k, k, 200)).doubt(limit.value, "at_most") for k in range(201)] for limit in limits]
    passed = _passed(gate, np.stack([np.array(each)[counts[:, at]] for at, each in enumerate(doubts)], axis=1))
    wrongly = passed[:, :2].any(axis=1).mean()
    assert wrongly <= _most(0.05 if joint != "none" else 0.0975)
    assert passed.all(axis=1).mean() <= _most(0.05)
    assert (wrongly > _most(0.05)) == (joint == "none")
    for row in range(5):
        assert [verdict.outcome == "passed" for verdict in _judged(gate, counts[row])] == passed[row].tolist()


def _passed(gate, doubts):
    """Which limits pass, written down anew for many draws at once."""
    alpha, ranked = 1 - gate.confidence, np.sort(doubts, axis=1)
    if gate.joint == "none":
        return doubts <= alpha
    if gate.joint == "bonferroni":
        return doubts <= alpha / 3
    held = np.cumprod(ranked <= alpha / np.array([3, 2, 1]), axis=1).sum(axis=1)
    return doubts.argsort(axis=1).argsort(axis=1) < held[:, None]


def _judged(gate, counts):
    labels = np.repeat([0, 1, 2], 200)
    lost = np.concatenate([np.arange(200) < count for count in counts])
    old = settled(np.ones(600, dtype=np.int64), labels=labels, grid=(0.0,))
    new = settled(np.where(lost, 0, 1), labels=labels, grid=(0.0,))
    return judge(gate, join(checked(old), checked(new))).verdicts
