"""A comparison whose figures are known by counting."""

from __future__ import annotations

from poise.core.threat import Epsilon
from poise.evaluation.comparison import Comparison
from poise.evaluation.flips import join, noise_floors
from poise.evaluation.gate import Gate, Limit, judge, unjudged
from tests.evaluation.flips.tables import checked, settled

OLD = [4] * 60 + [2] * 20 + [0] * 20
NEW = [4] * 50 + [1] * 10 + [0] * 5 + [3] * 15 + [4] * 10 + [0] * 10
LABELS = [0] * 50 + [1] * 50
GATE = Gate(
    limits=(
        Limit(figure="clean_flips", side="at_most", value=0.2),
        Limit(figure="robust_flips", side="at_most", value=0.05, at=Epsilon(0.1)),
        Limit(figure="robust_flips", side="at_most", value=0.12, at=Epsilon(0.3)),
    )
)


def comparison(gate=GATE, *, noise=True, names=("old", "new"), ids=None, **changes) -> Comparison:
    old = settled(OLD, labels=LABELS, ids=ids, **changes)
    new = settled(NEW, labels=LABELS, ids=ids, model="n" * 32, model_address="run:b", **changes)
    again = settled([3, 3, *OLD[2:]], labels=LABELS, ids=ids, seed=1, **changes)
    pair = join(checked(old), checked(new))
    return Comparison(
        old=names[0],
        new=names[1],
        pair=pair,
        noise=noise_floors(pair, again) if noise else (),
        judgement=judge(gate, pair) if gate else None,
    )


def impossible() -> Comparison:
    why = "the profiles are of different images: 'a' is only in old"
    return Comparison(old="old", new="new", pair=None, judgement=unjudged(GATE, why), obstacle=why)
