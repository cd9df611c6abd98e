"""Two profiles of the same images, joined by example id."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from poise.core.misuse import Misuse, shortened
from poise.core.threat import Epsilon
from poise.evaluation.flips.truth import Rows
from poise.evaluation.profile import Profile
from poise.evaluation.soundness.certified import checked
from poise.evaluation.soundness.finding import blocked
from poise.evaluation.soundness.verdicts import LISTED

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two profiles with the same examples in the same rows and the same grid; made by `join`.

    Args:
        old: the model in use.
        new: the model that would replace it.
        only_old: grid points that the new profile lacks, ascending.
        only_new: grid points that the old profile lacks, ascending.
        notes: what a reader must know of the join, in plain sentences.
    """

    old: Profile
    new: Profile
    only_old: tuple[float, ...] = ()
    only_new: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.old)

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The common grid."""
        return self.old.epsilons

    @property
    def left_out(self) -> tuple[float, ...]:
        """Grid points that only one of the two profiles had, ascending."""
        return tuple(sorted((*self.only_old, *self.only_new)))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        known = self.old.header.classes or self.new.header.classes
        return known or tuple(str(label) for label in range(int(self.old.labels.max()) + 1))

    def rows_of(self, label: int) -> Rows:
        """The rows of a class."""
        return np.flatnonzero(self.old.labels == label)


def join(old: Profile, new: Profile) -> Pair:
    """Put two profiles beside each other, example by example; the order of their rows does not matter.

    Where the grids differ, the common points are kept. What a profile does not say of itself (one read from CSV may
    leave out attacks and digest) is taken on trust, and the pair's notes say so.

    Raises:
        Misuse: for ids that are doubled, missing or foreign, and for other labels, classes, images, norm or attacks;
            the first ones are named.
    """
    for name, profile in (("old", old), ("new", new)):
        _check_ids(name, profile)
    _check_same_ids(old, new)
    _check_headers(old, new)
    row_of = {identity: row for row, identity in enumerate(new.ids)}
    new = _rearranged(new, np.array([row_of[identity] for identity in old.ids], dtype=np.int64))
    differing = np.flatnonzero(old.labels != new.labels).tolist()
    if differing:
        raise Misuse(f"old and new give {_named([old.ids[row] for row in differing])} different labels")
    places = {point: place(point, new.epsilons) for point in old.epsilons}
    common = {point: at for point, at in places.items() if at is not None}
    only_old = tuple(point for point, at in places.items() if at is None)
    only_new = tuple(point for at, point in enumerate(new.epsilons) if at not in common.values())
    old = _restricted(old, tuple(common), [old.epsilons.index(point) for point in common])
    new = _restricted(new, tuple(common), list(common.values()))
    notes = (*_left_out("new", only_old), *_left_out("old", only_new), *_notes(old, new))
    return Pair(old=old, new=new, only_old=only_old, only_new=only_new, notes=notes)


def place(epsilon: float, grid: Sequence[float]) -> int | None:
    """The index of an epsilon on a grid, whatever rounding it went through; None where it is not on it."""
    return next((at for at, point in enumerate(grid) if math.isclose(point, epsilon, rel_tol=_ROUNDING)), None)


def spelled(epsilon: float) -> str:
    """An epsilon as people write it: 8/255, 0.075; what rounding left over at its end is cut."""
    exact = str(Epsilon(epsilon))
    return exact if "/" in exact else min(exact, f"{epsilon:.6g}", key=len)


def check_sound(pair: Pair) -> None:
    """Refuse a pair that soundness checks object to.

    Raises:
        Misuse: naming the checks that nobody overrode.
    """
    for name, profile in (("old", pair.old), ("new", pair.new)):
        if objections := blocked(profile.findings):
            raise Misuse(
                f"soundness checks object to the {name} profile: "
                f"{'; '.join(f'{found.check}: {found.evidence}' for found in objections)} "
                f"(poise profile --allow {','.join(found.check for found in objections)} overrides them)"
            )


def _check_ids(name: str, profile: Profile) -> None:
    if not len(profile):
        raise Misuse(f"the {name} profile is empty; there is nothing to compare")
    if doubled := [identity for identity, count in Counter(profile.ids).items() if count > 1]:
        raise Misuse(f"the {name} profile holds {_named(doubled)} more than once; ids must be unique")


def _check_same_ids(old: Profile, new: Profile) -> None:
    known, found = set(old.ids), set(new.ids)
    missing = [identity for identity in old.ids if identity not in found]
    foreign = [identity for identity in new.ids if identity not in known]
    clauses = [
        f"{_named(ids)} {'is' if len(ids) == 1 else 'are'} only in {where}"
        for ids, where in ((missing, "old"), (foreign, "new"))
        if ids
    ]
    if clauses:
        raise Misuse(f"the profiles are of different images: {'; '.join(clauses)}; profile both models on the same")


def _check_headers(old: Profile, new: Profile) -> None:
    aspects = (
        ("norm", "norm"),
        ("classes", "classes"),
        ("data", "images, by their digest"),
        ("suite", "attack suite"),
    )
    for field, meaning in aspects:
        first, second = getattr(old.header, field), getattr(new.header, field)
        if first and second and first != second:
            raise Misuse(
                f"old and new differ in {meaning}: {shortened(first)} and {shortened(second)}; "
                "only profiles made under the same conditions can be compared"
            )


def _rearranged(profile: Profile, rows: Int[np.ndarray, " n"]) -> Profile:
    return replace(
        profile,
        ids=tuple(profile.ids[row] for row in rows.tolist()),
        labels=profile.labels[rows],
        predictions=profile.predictions[rows],
        margins=profile.margins[rows],
        robust_to=profile.robust_to[rows],
        broken_from=profile.broken_from[rows],
        broken_by=tuple(profile.broken_by[row] for row in rows.tolist()),
    )


def _restricted(profile: Profile, epsilons: tuple[float, ...], kept: Sequence[int]) -> Profile:
    """The profile on some of its grid points, under these epsilons; brackets keep their meaning."""
    if epsilons == profile.epsilons:
        return profile
    return replace(
        profile,
        header=replace(profile.header, epsilons=epsilons),
        robust_to=np.searchsorted(kept, profile.robust_to, side="right") - 1,
        broken_from=np.searchsorted(kept, profile.broken_from, side="left"),
    )


def _left_out(name: str, points: Sequence[float]) -> list[str]:
    if not points:
        return []
    listed = ", ".join(map(spelled, points))
    return [f"Compared on the common points of the grid; left out, as the {name} profile lacks them: {listed}."]


def _notes(old: Profile, new: Profile) -> tuple[str, ...]:
    notes = []
    if old.header.model and old.header.model == new.header.model:
        notes.append("Old and new are the same model: what differs between them is attack noise.")
    for name, profile in (("old", old), ("new", new)):
        unknown = [
            word for field, word in (("data", "images"), ("suite", "attacks")) if not getattr(profile.header, field)
        ]
        if unknown:
            notes.append(f"The {name} profile does not say which {' and '.join(unknown)} it was made with.")
        if profile.header.split not in {"", "test"}:
            notes.append(f"The {name} profile is of {profile.header.split} images, not of test images.")
        if profile.partial:
            notes.append(f"The {name} profile is a part: {len(profile)} of {profile.header.whole} images.")
        if overridden := [found.check for found in profile.findings if found.overridden]:
            notes.append(f"Objections to the {name} profile were overridden when it was made: {', '.join(overridden)}.")
        if not checked(profile):
            notes.append(f"No soundness check has looked at the {name} profile.")
        if profile.unsettled:
            notes.append(
                f"{profile.unsettled} of {len(profile)} examples of the {name} profile lack a verdict at some epsilon; "
                "where that matters, counts stand as ranges."
            )
    return tuple(notes)


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
    return f"{', '.join(map(repr, ids[:LISTED]))}{more}"
