from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import nn

from poise.attacks import APGD, FABT, Problem, Square, run_search
from poise.attacks.pgd_search import PGDSearch
from poise.attacks.pool import Item, Pool
from poise.attacks.suites import units
from poise.core.misuse import Misuse
from poise.core.norms import inside
from poise.core.streams import Stream
from tests.linear import Linear, batch

STREAM = Stream.seeded(0)
SEARCHES = [
    APGD(norm="linf", stream=STREAM, steps=12),
    APGD(norm="l1", stream=STREAM, steps=12),
    FABT(norm="l2", stream=STREAM, steps=6),
    Square(norm="linf", stream=STREAM, steps=30),
    PGDSearch(norm="l2", stream=STREAM, steps=8),
]
RADIUS = {"linf": 0.05, "l2": 0.3, "l1": 1.0}


def _network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 4)).double()


DATA = batch(23, (2, 3, 4), 4)


def _pool(model, **options):
    return Pool(model=model, fetch=DATA.select, **options)


def _items(norm):
    return [Item(row, RADIUS[norm], target=(int(DATA.labels[row]) + 1) % 4, tag=row) for row in range(23)]


def _run(pool, search, items):
    with pool.open():
        return {o.item.row: o.image for outcomes in pool.run(search, deque(items)) for o in outcomes}


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: f"{search.name}-{search.norm}")
def test_outcomes_are_the_same_for_any_number_of_slots_and_any_order(search):
    model, items = _network(), _items(search.norm)
    reference = _run(_pool(model, slots=64), search, items)
    assert len(reference) == 23
    for slots, order in ((1, items), (7, items[::-1]), (7, items[5:] + items[:5])):
        found = _run(_pool(model, slots=slots, look_every=1 + slots % 3), search, order)
        assert found.keys() == reference.keys()
        for row, image in reference.items():
            assert (image is None) == (found[row] is None)
            if image is not None:
                torch.testing.assert_close(found[row], image, rtol=0, atol=1e-9)


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: f"{search.name}-{search.norm}")
def test_the_pool_finds_what_the_plain_driver_finds(search):
    model, items = _network(), _items(search.norm)
    targets = torch.tensor([item.target for item in items])
    radius = torch.full((23,), RADIUS[search.norm], dtype=torch.float64)
    problem = Problem(DATA.images, DATA.labels, radius, DATA.ids, targets, torch.zeros_like(targets))
    points, found = run_search(search, model, problem)
    pooled = _run(_pool(model, slots=5), search, items)
    assert [pooled[row] is not None for row in range(23)] == found.tolist()
    for row in found.nonzero()[:, 0].tolist():
        torch.testing.assert_close(pooled[row], points[row], rtol=0, atol=1e-9)


def test_every_image_is_adversarial_inside_ball_and_box():
    search = SEARCHES[0]
    model = _network()
    for row, image in _run(_pool(model, slots=6), search, _items("linf")).items():
        if image is not None:
            one = torch.tensor([row])
            assert model(image[None]).argmax(1) != DATA.labels[one]
            assert inside(image[None], DATA.images[one], torch.tensor([0.05], dtype=torch.float64), "linf")


class _Constant(nn.Module):
    """Says the same of every image, so that no gradient reaches it."""

    def forward(self, images):
        return torch.eye(4, dtype=images.dtype)[torch.zeros(len(images), dtype=torch.long)]


def test_a_model_that_ignores_its_images_survives_the_attack_without_an_error():
    right = [Item(row, 0.05) for row in range(23) if int(DATA.labels[row]) == 0]
    found = _run(_pool(_Constant(), slots=4), APGD(norm="linf", stream=STREAM, steps=4), right)
    assert len(found) == len(right) > 0
    assert set(found.values()) == {None}


class _Counting(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.rows = inner, 0

    def forward(self, images):
        self.rows += len(images)
        return self.inner(images)


def test_fooled_examples_cost_nothing_more():
    """Examples that fall at the first query take two passes each: the query and its confirmation."""
    model = _Counting(_network())
    items = [
        Item(row, 0.5) for row in range(23) if int(model.inner(DATA.images).argmax(1)[row]) != int(DATA.labels[row])
    ]
    found = _run(_pool(model, slots=4), APGD(norm="linf", stream=STREAM, steps=100), items)
    assert len(items) > 5
    assert model.rows <= 4 * len(items)
    assert all(image is not None for image in found.values())


class _Lying(nn.Module):
    """Right in full precision, wrong in low precision: what it proposes must not count."""

    def forward(self, images):
        logits = torch.zeros(len(images), 4, dtype=images.dtype) + images.flatten(1).sum(1, keepdim=True) * 0
        logits = logits + nn.functional.one_hot(DATA.labels[: len(images)], 4)
        return -logits if torch.is_autocast_enabled("cpu") else logits


def test_what_low_precision_proposes_counts_only_when_the_plain_model_agrees():
    items = [Item(row, 0.05) for row in range(23)]
    search = APGD(norm="linf", stream=STREAM, steps=4)
    found = _run(_pool(_Lying().double(), slots=23, proposing="bf16"), search, items)
    assert set(found.values()) == {None}


def test_items_may_be_added_while_outcomes_are_read():
    model, search = _network(), SEARCHES[0]
    waiting, rows = deque([Item(0, 0.05, tag=0)]), []
    with _pool(model, slots=3).open() as pool:
        for outcomes in pool.run(search, waiting):
            for outcome in outcomes:
                rows.append(outcome.item.row)
                if outcome.item.row < 5:
                    waiting.append(Item(outcome.item.row + 1, 0.05))
    assert rows == [0, 1, 2, 3, 4, 5]


class _Cramped(nn.Module):
    """Runs out of memory on more than three rows at a time."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.refused = inner, 0

    def forward(self, images):
        if len(images) > 3 and images.requires_grad:
            self.refused += 1
            raise torch.cuda.OutOfMemoryError("full")
        return self.inner(images)


def test_out_of_memory_halves_the_pass_and_loses_nothing():
    cramped, search = _Cramped(_network()), SEARCHES[0]
    found = _run(_pool(cramped, slots=16), search, _items("linf"))
    reference = _run(_pool(cramped.inner, slots=16), search, _items("linf"))
    assert cramped.refused > 0
    assert {row: image is None for row, image in found.items()} == {
        row: image is None for row, image in reference.items()
    }


def test_the_model_is_left_as_it_was():
    model = _network().train()
    model[1].bias.requires_grad_(False)
    before = torch.get_rng_state()
    _run(_pool(model, slots=4), SEARCHES[0], _items("linf"))
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("classes", "count"), [(10, 20), (1000, 20), (4, 8), (3, 6), (2, 4)])
def test_autoattack_has_its_published_units(classes, count):
    """One APGD-CE, APGD-T and FAB-T at min(9, K - 1) targets, one Square."""
    found = units("autoattack", "linf", classes, STREAM)
    assert len(found) == count
    assert [found[0].search.name, found[-1].search.name] == ["apgd-ce", "square"]
    assert found[-1].search.steps == 5000


def test_l1_has_five_restarts_and_five_targets():
    names = [unit.search.name for unit in units("autoattack", "l1", 10, STREAM)]
    assert [names.count(name) for name in ("apgd-ce", "apgd-t", "fab-t", "square")] == [5, 5, 9, 1]


@pytest.mark.usefixtures("unchecked")
def test_impossible_pools_and_suites_are_refused():
    with pytest.raises(Misuse, match="slots must be at least 1"):
        _pool(_network(), slots=0)
    with pytest.raises(Misuse, match="unknown suite 'autoatack'; did you mean 'autoattack'"):
        units("autoatack", "linf", 10, STREAM)
    assert Linear
