"""Random tables of verdicts, and their flips counted one example at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from poise.evaluation import Finding, Profile
from poise.evaluation.soundness.catalogue import CHECKS
from tests.evaluation.profiles import header

GRID = (0.0, 0.1, 0.2, 0.3)
NAMES = ("cat", "dog", "eel")


def made(robust_to, broken_from, labels=None, grid=GRID, ids=None, **changes) -> Profile:
    """A profile with these brackets."""
    low, high = np.asarray(robust_to, dtype=np.int64), np.asarray(broken_from, dtype=np.int64)
    count = len(low)
    classes = np.arange(count) % 3 if labels is None else np.asarray(labels, dtype=np.int64)
    return Profile(
        header=header(grid, **{"classes": NAMES} | changes),
        ids=tuple(f"image/{row}" for row in range(count)) if ids is None else tuple(ids),
        labels=classes,
        predictions=np.where(high == 0, (classes + 1) % 3, classes),
        margins=np.where(high == 0, -1.0, 1.0),
        robust_to=low,
        broken_from=high,
        broken_by=tuple("clean" if at == 0 else "pgd" if at < len(grid) else "" for at in high),
    )


def settled(broken_from, **changes) -> Profile:
    """A profile without open verdicts."""
    return made(np.asarray(broken_from) - 1, broken_from, **changes)


def checked(profile, *found) -> Profile:
    """The profile with a finding of every soundness check, a pass where no other is given."""
    passing = {name: Finding(check=name, status="pass", evidence="as it should be") for name in CHECKS}
    return replace(profile, findings=tuple((passing | {each.check: each for each in found}).values()))


BRACKET = st.one_of(
    st.just((-1, 0)),
    st.tuples(st.integers(0, 3), st.integers(1, 4)).filter(lambda bracket: bracket[0] < bracket[1]),
)


SETTLED = st.integers(0, 4).map(lambda at: (at - 1, at))


def tables(brackets=BRACKET):
    """Rows of (old bracket, new bracket, label)."""
    return st.lists(st.tuples(brackets, brackets, st.integers(0, 2)), min_size=1, max_size=25)


def built(table) -> tuple[Profile, Profile]:
    """The two profiles that a table stands for."""
    old, new, labels = zip(*table, strict=True)
    return made(*zip(*old, strict=True), labels=labels), made(*zip(*new, strict=True), labels=labels)


def completions(profile, row):
    """All verdicts over the grid that an example's bracket allows."""
    low, high = int(profile.robust_to[row]), int(profile.broken_from[row])
    return [[point < first for point in range(len(profile.epsilons))] for first in range(low + 1, high + 1)]
