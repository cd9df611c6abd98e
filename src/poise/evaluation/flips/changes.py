"""Which examples flipped, and what changed about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from poise.evaluation.flips.pair import Pair
from poise.evaluation.flips.truth import Truth
from poise.evaluation.profile import Profile


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one model makes of an example.

    Args:
        prediction: the class it sees in the clean image.
        held_to: the largest epsilon at which it withstood every attack; None where even the clean image is wrong.
        broken_from: the smallest epsilon at which it is known to be fooled; None for none.
        broken_by: the attack that did it; "" for none.
    """

    prediction: str
    held_to: float | None
    broken_from: float | None
    broken_by: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """An example that flipped.

    Args:
        id: the example's id.
        row: its row in the pair.
        label: its class.
        kind: lost, where old is right and new wrong; gained, the other way round.
        epsilons: where that is so; 0 stands for the clean image.
        old: what the old model makes of it.
        new: what the new model makes of it.
    """

    id: str
    row: int
    label: str
    kind: Literal["lost", "gained"]
    epsilons: tuple[float, ...]
    old: Side
    new: Side


def changes(pair: Pair) -> tuple[Change, ...]:
    """Examples that certainly flipped at some epsilon: the lost, then the gained, each by falling number of epsilons.

    As verdicts are monotone in epsilon, what is lost at one epsilon is gained at no other.
    """
    old, new = Truth.of(pair.old), Truth.of(pair.new)
    lost, gained = (old & ~new).certain, (~old & new).certain
    width = np.where(lost.any(axis=1), lost.sum(axis=1), gained.sum(axis=1))
    flipped = np.flatnonzero(width).tolist()
    order = sorted(flipped, key=lambda row: (not lost[row].any(), -int(width[row]), pair.old.ids[row]))
    return tuple(_change(pair, row, lost[row], gained[row]) for row in order)


def _change(pair: Pair, row: int, lost: Bool[np.ndarray, " points"], gained: Bool[np.ndarray, " points"]) -> Change:
    return Change(
        id=pair.old.ids[row],
        row=row,
        label=_class(pair, int(pair.old.labels[row])),
        kind="lost" if lost.any() else "gained",
        epsilons=tuple(np.asarray(pair.epsilons)[lost | gained].tolist()),
        old=_side(pair, pair.old, row),
        new=_side(pair, pair.new, row),
    )


def _side(pair: Pair, profile: Profile, row: int) -> Side:
    held, broken = int(profile.robust_to[row]), int(profile.broken_from[row])
    fooled = broken < len(pair.epsilons)
    return Side(
        prediction=_class(pair, int(profile.predictions[row])),
        held_to=pair.epsilons[held] if held >= 0 else None,
        broken_from=pair.epsilons[broken] if fooled else None,
        broken_by=profile.broken_by[row] if fooled else "",
    )


def _class(pair: Pair, label: int) -> str:
    return pair.classes[label] if label < len(pair.classes) else str(label)
