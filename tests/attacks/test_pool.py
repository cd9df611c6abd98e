from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest
import torch
from torch import nn

from poise.attacks import APGD, FABT, Problem, Square, run_search
from poise.attacks.answers import Asking, ask_model
from poise.attacks.pgd_search import PGDSearch
from poise.attacks.pool import Item, Pool
from poise.attacks.room import Room, on_cpu, within
from poise.attacks.suites import passes, units
from poise.core.misuse import Misuse
from poise.core.norms import inside
from poise.core.streams import Stream
from poise.evaluation.clean import clean_pass
from tests.linear import Linear, batch
from tests.models_for_tests import linear_classifier, random_images

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


def test_every_example_is_fetched_once_an_item_where_the_slots_are_given():
    fetched = []

    def fetch(rows):
        fetched.extend(rows.tolist())
        return DATA.select(rows)

    with Pool(model=_network(), fetch=fetch, slots=5).open() as pool:
        deque(pool.run(SEARCHES[0], deque(_items("linf"))), maxlen=0)
    assert sorted(fetched) == list(range(23))


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


class _Unsure(nn.Module):
    """Says something else in some of its passes, counted from the first."""

    def __init__(self, inner, wrong):
        super().__init__()
        self.inner, self.wrong, self.passes = inner, wrong, -1

    def forward(self, images):
        self.passes += 1
        logits = self.inner(images)
        return logits.flip(1) if self.wrong(self.passes) else logits


def _told_right(radius):
    """A network, and items that it gets right."""
    model = _network()
    labels = model(DATA.images).argmax(1)
    budget = torch.full((23,), radius, dtype=torch.float64)
    return model, Problem(DATA.images, labels, budget, DATA.ids, labels * 0, labels * 0)


@pytest.mark.parametrize("through", [False, True])
def test_the_plain_driver_judges_a_random_model_by_its_mean_answer(through):
    """A fifth of the passes are wrong: one of them is enough for an attack that is judged by one."""
    search = SEARCHES[0]
    model, near = _told_right(1e-4)
    surrogate = _network() if through else None
    lucky, sober = (
        run_search(search, _Unsure(model, lambda at: at % 5 == 4), near, surrogate, count)[1] for count in (1, 20)
    )
    assert lucky.all()
    assert not sober.any()
    _, far = _told_right(0.9)
    assert run_search(search, _Unsure(model, lambda at: at % 5 == 4), far, surrogate, 20)[1].all()


def test_the_plain_driver_confirms_by_fresh_passes():
    model, near = _told_right(1e-4)
    assert not run_search(SEARCHES[0], _Unsure(model, lambda at: at < 20), near, passes=20)[1].any()
    assert run_search(SEARCHES[0], _Unsure(model, lambda at: at < 40), near, passes=20)[1].all()


class _Late(PGDSearch):
    """Asks for the image itself until its budget is spent, and for an adversarial one afterwards."""

    def ask(self, problem, state):
        return torch.where(state["done"].reshape(-1, 1, 1, 1), 1 - problem.images, problem.images)


def test_what_is_asked_beyond_the_budget_does_not_count():
    class Threshold(nn.Module):
        def forward(self, images):
            bright = images.flatten(1).mean(1, keepdim=True) - 0.5
            return torch.cat([bright, -bright], 1)

    data = batch(8, (2, 3, 4), 2)
    data = replace(data, labels=Threshold()(data.images).argmax(1))
    search = _Late(norm="linf", stream=STREAM, steps=3)
    items = [Item(row, 1.0) for row in range(8)]
    pool = Pool(model=Threshold().double(), fetch=data.select, slots=8, look_every=7)
    assert set(_run(pool, search, items).values()) == {None}
    problem = Problem(data.images, data.labels, torch.ones(8).double(), data.ids, data.labels, data.labels * 0)
    assert not run_search(search, Threshold().double(), problem)[1].any()


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
    """Runs out of memory on more than three rows at a time, in passes with gradient, without, or both."""

    def __init__(self, inner, kinds=(True, False)):
        super().__init__()
        self.inner, self.kinds, self.refused, self.rows = inner, kinds, 0, 0

    def forward(self, images):
        if len(images) > 3 and images.requires_grad in self.kinds:
            self.refused += 1
            raise torch.OutOfMemoryError("full")
        self.rows += len(images)
        return self.inner(images)


@pytest.mark.parametrize("kinds", [(False,), (True, False)])
@pytest.mark.parametrize("search", SEARCHES[:4], ids=lambda search: f"{search.name}-{search.norm}")
def test_out_of_memory_halves_the_slots_and_loses_nothing(search, kinds):
    """Whether only confirming does not fit, or proposing too; and no pass is made twice but the one that failed."""
    calm = _Counting(_network())
    reference = _run(_pool(calm, slots=23), search, _items(search.norm))
    cramped = _Cramped(_network(), kinds)
    found = _run(_pool(cramped, slots=23), search, _items(search.norm))
    assert found.keys() == reference.keys()
    assert {row for row, image in found.items() if image is None} == {
        row for row, image in reference.items() if image is None
    }
    assert 0 < cramped.refused <= 4
    assert cramped.rows <= calm.rows + 4 * 23


def test_out_of_memory_while_items_join_puts_them_back():
    search, refused = SEARCHES[0], []

    def fetch(rows):
        if len(rows) > 2:
            refused.append(len(rows))
            raise torch.OutOfMemoryError("full")
        return DATA.select(rows)

    reference = _run(_pool(_network(), slots=16), search, _items("linf"))
    found = _run(Pool(model=_network(), fetch=fetch, slots=16), search, _items("linf"))
    assert refused == [16, 8, 4]
    assert {row: image is None for row, image in found.items()} == {
        row: image is None for row, image in reference.items()
    }


def test_what_fits_not_even_alone_is_an_error():
    class Full(nn.Module):
        def forward(self, images):
            raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        _run(_pool(Full(), slots=4), SEARCHES[0], _items("linf"))
    pool = _pool(Full(), slots=4)
    with pool.open(), pytest.raises(torch.OutOfMemoryError):
        pool.logits(DATA.images)


def test_logits_come_in_pieces_that_fit():
    cramped = _Cramped(_network())
    pool = _pool(cramped, slots=16)
    with pool.open():
        torch.testing.assert_close(pool.logits(DATA.images), cramped.inner(DATA.images))
    assert (cramped.refused, pool.at_once) == (3, 2)


def test_memory_of_the_host_runs_out_in_words_alone_and_is_halved_likewise():
    class Crowded(_Cramped):
        def forward(self, images):
            try:
                return super().forward(images)
            except torch.OutOfMemoryError:
                raise RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory") from None

    crowded = Crowded(_network())
    pool = _pool(crowded, slots=16)
    with pool.open():
        assert torch.equal(pool.logits(DATA.images).argmax(1), crowded.inner(DATA.images).argmax(1))
    assert pool.at_once == 2


def test_slots_are_chosen_before_the_first_pass_over_all_images_and_halving_leaves_the_choice_open():
    asked = []

    class Recording(nn.Module):
        def forward(self, images):
            asked.append(len(images))
            return images.flatten(1)[:, :3]

    images = random_images(linear_classifier(3, (3, 224, 224)), 30)
    pool = Pool(model=Recording(), fetch=lambda rows: None)
    clean_pass(pool, images, 2)
    assert (max(asked), pool.at_once) == (10, 10)
    room = Room(None)
    room.halve()
    assert (room.slots, room.chosen) == (64, False)
    room.choose(nn.Identity(), torch.rand(1, 3, 224, 224))
    assert (room.slots, room.chosen) == (10, True)


def test_the_number_of_slots_is_chosen():
    pool = _pool(_network())
    with pool.open():
        for _ in pool.run(SEARCHES[0], deque(_items("linf"))):
            pass
    assert pool.at_once == 128
    assert [on_cpu(pixels) for pixels in (1, 3 * 64 * 64, 3 * 128 * 128, 3 * 224 * 224, 3 * 1024**2)] == [
        128,
        128,
        32,
        10,
        8,
    ]
    assert [within(free, 1000) for free in (500, 10_000, 100_000, 10**9)] == [1, 8, 64, 2048]


class _Random(nn.Module):
    """Logits 1 and -1; two calls in five, one after the other, say the opposite, in every row."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        sign = -1.0 if self.calls % 5 in {3, 4} else 1.0
        return sign * torch.tensor([1.0, -1.0], dtype=images.dtype).expand(len(images), 2) + 0 * images.sum()


def test_one_lucky_pass_of_a_random_model_does_not_count():
    items = [Item(row, 0.1) for row in range(23)]
    right = replace(DATA, labels=torch.zeros_like(DATA.labels))
    search = APGD(norm="linf", stream=STREAM, steps=6)
    lucky = Pool(model=_Random(), fetch=right.select, slots=23)
    assert all(image is not None for image in _run(lucky, search, items).values()), "the plant does not work"
    careful = Pool(model=_Random(), fetch=right.select, slots=23, passes=20)
    assert set(_run(careful, search, items).values()) == {None}
    wrong = replace(DATA, labels=torch.ones_like(DATA.labels))
    broken = Pool(model=_Random(), fetch=wrong.select, slots=23, passes=20)
    assert all(image is not None for image in _run(broken, search, items).values())


def test_passes_are_averaged():
    """Gradients and losses over passes; predictions by the mean softmax, not by the mean of the logits."""

    class Alternating(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, images):
            self.calls += 1
            slope = images.flatten(1).sum(1, keepdim=True)
            return torch.cat([slope * self.calls, -slope], 1)

    images = DATA.images[:4]
    work = Problem(images, DATA.labels[:4] * 0, torch.ones(4).double(), DATA.ids[:4], *([DATA.labels[:4] * 0] * 2))
    search = Square(norm="linf", stream=STREAM)
    answer = ask_model(search, Alternating(), work, images, gradient=True, asking=Asking(passes=2))
    torch.testing.assert_close(answer.gradient, torch.full_like(images, -2.5))
    total = images.flatten(1).sum(1)
    torch.testing.assert_close(answer.loss, -2.5 * total)
    chances = (torch.sigmoid(2 * total) + torch.sigmoid(3 * total)) / 2
    torch.testing.assert_close(answer.logits.softmax(1)[:, 0], chances)


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


def test_plus_and_rand_have_their_published_units():
    plus = units("autoattack-plus", "linf", 10, STREAM)
    names = [unit.search.name for unit in plus]
    assert {name: names.count(name) for name in names} == {
        "apgd-ce": 5,
        "apgd-dlr": 5,
        "fab": 5,
        "apgd-t": 9,
        "fab-t": 9,
        "square": 1,
    }
    assert [unit.restart for unit in plus if unit.search.name == "fab"] == [0, 1, 2, 3, 4]
    assert len({id(unit.search) for unit in plus}) == 6
    rand = units("autoattack-rand", "linf", 10, STREAM)
    assert [unit.search.name for unit in rand] == ["apgd-ce", "apgd-dlr"]
    assert (passes("autoattack-rand"), passes("autoattack-plus")) == (20, 1)


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
