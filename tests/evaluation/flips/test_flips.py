from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from poise.evaluation.flips import Count, changes, flips, flips_by_class, join, rate
from tests.evaluation.flips.tables import GRID, NAMES, SETTLED, built, completions, settled, tables

STATEMENTS = {
    "stays_right": lambda old, new, at: old[at] and new[at],
    "stays_wrong": lambda old, new, at: not old[at] and not new[at],
    "gained": lambda old, new, at: not old[at] and new[at],
    "lost": lambda old, new, at: old[at] and not new[at],
    "joint": lambda old, new, at: (old[0] and not new[0]) and (old[at] and not new[at]),
    "union": lambda old, new, at: (old[0] and not new[0]) or (old[at] and not new[at]),
    "old_right": lambda old, _, at: old[at],
    "new_right": lambda _, new, at: new[at],
}


def _counted(old, new, statement, at, rows):
    """How many rows have it in every completion of their open verdicts, and in any."""
    certain = possible = 0
    for row in rows:
        said = [statement(*both, at) for both in itertools.product(completions(old, row), completions(new, row))]
        certain, possible = certain + all(said), possible + any(said)
    return Count(certain, possible, len(rows))


@given(tables())
def test_every_count_is_that_of_brute_force_over_all_completions(table):
    profiles = built(table)
    pair = join(*profiles)
    for at, found in enumerate(flips(pair)):
        for name, statement in STATEMENTS.items():
            assert getattr(found, name) == _counted(*profiles, statement, at, range(len(pair))), name


@given(tables())
def test_classes_are_counted_by_themselves(table):
    profiles = built(table)
    found = flips_by_class(join(*profiles))
    labels = profiles[0].labels
    assert list(found) == [name for label, name in enumerate(NAMES) if label in labels]
    for name, per_point in found.items():
        rows = np.flatnonzero(labels == NAMES.index(name))
        assert [each.lost for each in per_point] == [
            _counted(*profiles, STATEMENTS["lost"], at, rows) for at in range(len(GRID))
        ]


@given(tables())
def test_union_is_clean_plus_robust_minus_joint(table):
    profiles = built(table)
    found = flips(join(*profiles))
    for each in found:
        for bound in ("certain", "possible"):
            clean, robust, joint, union = (
                getattr(count, bound) for count in (found[0].lost, each.lost, each.joint, each.union)
            )
            assert union == clean + robust - joint


@given(tables())
def test_the_four_outcomes_are_all_there_is(table):
    profiles = built(table)
    for each in flips(join(*profiles)):
        certain, possible = (
            sum(getattr(getattr(each, name), bound) for name in ("stays_right", "stays_wrong", "gained", "lost"))
            for bound in ("certain", "possible")
        )
        assert certain <= len(profiles[0]) <= possible
        assert not each.settled or certain == possible == len(profiles[0])


@given(tables(), st.randoms(use_true_random=False))
def test_permuting_rows_changes_nothing(table, random):
    profiles = built(table)
    old, new = profiles
    shuffled = list(range(len(old)))
    random.shuffle(shuffled)
    rows = {name: np.array(shuffled) for name in ("labels", "predictions", "margins", "robust_to", "broken_from")}
    moved = type(new)(
        header=new.header,
        ids=tuple(new.ids[row] for row in shuffled),
        broken_by=tuple(new.broken_by[row] for row in shuffled),
        **{name: getattr(new, name)[order] for name, order in rows.items()},
    )
    assert flips(join(old, moved)) == flips(join(old, new))
    assert [change.id for change in changes(join(moved, old))] == [change.id for change in changes(join(new, old))]


@given(tables(SETTLED))
def test_trust_and_relative_rate_are_their_definitions(table):
    """methods.md 2.9: BTC = 1 - NFR / acc_old and NFR / ((1 - err_old) err_new)."""
    profiles = built(table)
    for found in flips(join(*profiles)):
        count = len(profiles[0])
        nfr, old, new = (each.certain / count for each in (found.lost, found.old_right, found.new_right))
        if old == 0:
            assert (found.trust, found.relative) == (None, None)
            continue
        assert found.trust.certain / found.trust.total == pytest.approx(1 - nfr / old)
        assert found.relative == (None if new == 1 else pytest.approx(nfr / (old * (1 - new))))


def test_the_published_relative_rate():
    """1.83 / (0.951 * 0.0485) = 39.68 (methods.md 2.9, the reproduction on CIFAR-10), in %."""
    old = settled([1] * 9510 + [0] * 490, grid=(0.0,))
    new = settled([0] * 183 + [1] * 9327 + [0] * 302 + [1] * 188, grid=(0.0,))
    assert flips(join(old, new))[0].relative == pytest.approx(0.3968, abs=5e-5)


@given(tables())
def test_mcnemars_p_value_is_the_largest_that_open_verdicts_allow(table):
    profiles = built(table)
    for found in flips(join(*profiles)):
        allowed = [
            binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
            for lost in range(found.lost.certain, found.lost.possible + 1)
            for gained in range(found.gained.certain, found.gained.possible + 1)
        ]
        assert found.mcnemar == pytest.approx(max(allowed))


def test_an_interval_of_a_range_holds_both_ends():
    assert rate(Count(3, 3, 20)).value == 0.15
    low, high = rate(Count(3, 3, 20)), rate(Count(7, 7, 20))
    assert rate(Count(3, 7, 20)) == (0.25, low.low, high.high)


@given(tables())
def test_changes_are_the_certain_flips_of_each_example(table):
    profiles = built(table)
    pair = join(*profiles)
    listed = {change.row: change for change in changes(pair)}
    for row in range(len(pair)):
        found = {}
        for kind in ("lost", "gained"):
            at = tuple(GRID[k] for k in range(4) if _counted(*profiles, STATEMENTS[kind], k, [row]).certain)
            found |= {kind: at} if at else {}
        assert len(found) <= 1
        assert ({listed[row].kind: listed[row].epsilons} if row in listed else {}) == found


def test_what_changed_is_said_of_each_example():
    old, new = settled([4, 2, 0]), settled([1, 2, 3])
    lost, gained = changes(join(old, new))
    assert (lost.id, lost.label, lost.kind, lost.epsilons) == ("image/0", "cat", "lost", GRID[1:])
    assert (lost.old.held_to, lost.old.broken_from, lost.old.broken_by) == (0.3, None, "")
    assert (lost.new.prediction, lost.new.held_to, lost.new.broken_from) == ("cat", 0.0, 0.1)
    assert (gained.id, gained.kind, gained.epsilons) == ("image/2", "gained", (0.0, 0.1, 0.2))
    assert (gained.old.prediction, gained.old.held_to, gained.old.broken_by) == ("cat", None, "clean")


def test_an_attack_beyond_the_common_grid_is_not_named():
    change = changes(join(settled([3]), settled([0, 4, 4][:1], grid=GRID[:3])))[0]
    assert (change.old.held_to, change.old.broken_from, change.old.broken_by) == (0.2, None, "")
