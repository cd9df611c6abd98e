from __future__ import annotations

import pytest
from hypothesis import given

from poise.core.misuse import Misuse
from poise.evaluation import share
from poise.evaluation.flips import flips, join, noise_floors
from tests.evaluation.flips.tables import SETTLED, built, settled, tables


@given(tables(SETTLED))
def test_the_floor_is_the_flips_of_a_model_against_itself(table):
    profiles = built(table)
    first, again = profiles
    other = settled([2] * len(first), labels=first.labels, model="n" * 32)
    again = type(again)(**vars(again) | {"header": settled([1], seed=5).header})
    (floor,) = noise_floors(join(first, other), again)
    assert (floor.of, floor.seeds) == ("old", (0, 5))
    assert floor.flips == flips(join(first, again))
    for point in range(4):
        changed = sum(
            bool(a > point) != bool(b > point) for a, b in zip(first.broken_from, again.broken_from, strict=True)
        )
        exact = share(changed, len(first))
        assert floor.changed(point).certain == changed
        assert floor.rate(point) == pytest.approx((exact.value / 2, exact.low / 2, exact.high / 2))


def test_a_floor_belongs_to_the_model_that_it_was_measured_on():
    old, new = settled([1, 2]), settled([2, 2], model="n" * 32)
    pair = join(old, new)
    assert [floor.of for floor in noise_floors(pair, settled([1, 1], seed=1, model="n" * 32))] == ["new"]
    assert [floor.of for floor in noise_floors(join(old, old), settled([1, 1], seed=1))] == ["old", "new"]
    with pytest.raises(Misuse, match="is of neither model"):
        noise_floors(pair, settled([1, 1], seed=1, model="x" * 32))
    with pytest.raises(Misuse, match="have seed 0, which shows no noise"):
        noise_floors(pair, settled([1, 1]))
    with pytest.raises(Misuse, match="lacks points of the grid"):
        noise_floors(pair, settled([1, 1], seed=1, grid=(0.0, 0.1)))
