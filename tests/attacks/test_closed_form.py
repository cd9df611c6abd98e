"""The whole ensemble on linear models, where the smallest perturbation is known without any attack."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from poise.attacks import Square
from poise.attacks.pool import Item, Pool
from poise.attacks.suites import units
from poise.core.streams import Stream
from poise.core.threat import NORMS
from tests.linear import Linear, batch, smallest_radius


def _to_try(suite: str, norm: str, classes: int):
    """The units of a suite; of the larger one only those that the standard ensemble does not hold."""
    found = units(suite, norm, classes, Stream.seeded(0))
    known = {unit.search.name for unit in units("autoattack", norm, classes, Stream.seeded(0))}
    return found if suite == "autoattack" else [unit for unit in found if unit.search.name not in known]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("suite", "classes", "shape"),
    [
        ("autoattack", 2, (30,)),
        ("autoattack", 3, (1, 5, 4)),
        ("autoattack", 4, (3, 2, 7)),
        ("autoattack", 10, (3, 4, 4)),
        ("autoattack", 1000, (40,)),
        ("autoattack-plus", 2, (30,)),
        ("autoattack-plus", 4, (3, 2, 7)),
    ],
)
def test_none_below_its_exact_radius_is_broken_and_each_one_percent_above_is(norm, suite, classes, shape):
    model = Linear(classes, shape)
    count = 8 if classes < 1000 else 2  # each of so many classes costs a search of its own
    data = batch(count, shape, classes)
    ranked = model(data.images).detach().topk(min(10, classes), dim=1).indices
    data = replace(data, labels=ranked[:, 0])
    exact = [smallest_radius(model.weight, data.images[row], int(data.labels[row]), norm) for row in range(count)]
    assert all(np.isfinite(radius) for radius in exact)
    pool = Pool(model=model, fetch=data.select, slots=count)
    above = set(range(count))
    with pool.open():
        for unit in _to_try(suite, norm, classes):
            search = replace(unit.search, steps=200) if isinstance(unit.search, Square) else unit.search

            def outcomes(share, rows, search=search, unit=unit):
                items = [Item(r, share * exact[r], int(ranked[r, unit.rank + 1]), unit.restart) for r in rows]
                return [outcome for part in pool.run(search, deque(items)) for outcome in part]

            assert all(outcome.image is None for outcome in outcomes(0.99, range(count))), search.name
            above -= {outcome.item.row for outcome in outcomes(1.01, sorted(above)) if outcome.image is not None}
    assert not above
