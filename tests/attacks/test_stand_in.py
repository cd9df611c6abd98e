from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import nn

from poise.attacks import APGD, Square, stand_in
from poise.attacks.pool import Item, Pool
from poise.attacks.room import Room
from poise.attacks.stand_in import Padded, StandIns
from poise.core.batch import Batch
from poise.core.streams import Stream
from poise.models.small import SmallNetwork
from tests.core.test_folding import norms, trained
from tests.linear import Linear, batch

STREAM = Stream.seeded(0)


def test_padded_models_see_few_sizes_and_answer_for_the_images_alone():
    sizes = []

    def seen(images):
        sizes.append(len(images))
        return images.flatten(1) * 2

    room = Room(48)
    model = Padded(seen, room)
    for count in range(1, 50):
        images = torch.rand(count, 3, requires_grad=True)
        logits = model(images)
        torch.testing.assert_close(logits, images * 2)
        assert torch.equal(torch.autograd.grad(logits.sum(), images)[0], torch.full_like(images, 2))
    assert set(sizes) == {3, 12, 48, 49}
    room.halve()
    assert len(model(torch.rand(20, 3))) == 20
    assert sizes[-1] == 24


def test_compiled_stand_ins_propose_and_the_plain_model_decides(monkeypatch):
    """Whatever the compiler makes of the model, here nonsense: what it proposes is looked at by the model itself."""
    made = []

    def nonsense(model, **options):
        made.append((model, options))
        return lambda images: -model(images)

    monkeypatch.setattr(torch, "compile", nonsense)
    torch.manual_seed(0)
    model = trained(SmallNetwork(4, 3))
    data = batch(9, (3, 6, 6), 4, dtype=torch.float32)
    with torch.no_grad():
        labels = model(data.images).argmax(1)
    right = type(data)(data.images, labels, data.ids)
    pool = Pool(model=model, fetch=right.select, slots=4, compile=True)
    items = [Item(row, 1e-4) for row in range(9)]
    with pool.open():
        outcomes = [o for part in pool.run(APGD(norm="linf", stream=STREAM, steps=3), deque(items)) for o in part]
    assert [options for _, options in made] == [{"dynamic": False}]
    assert norms(made[0][0]) == 0
    assert {outcome.image for outcome in outcomes} == {None}


class _Blind(nn.Module):
    """Says what the model says of the first images that it sees, and of all images ever after."""

    def __init__(self, model, images):
        super().__init__()
        with torch.no_grad():
            self.said = model(images).mean(0)

    def forward(self, images):
        return self.said + 0 * images.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("slots", [1, 5, 64])
def test_a_stand_in_that_sees_no_attack_decides_nothing(monkeypatch, slots):
    """What a blind copy cannot propose is found all the same: it is compared with the model, and let go."""
    model, data = Linear(4, (3, 6, 6)), batch(12, (3, 6, 6), 4)
    with torch.no_grad():
        data = Batch(data.images, model(data.images).argmax(1), data.ids)
    search, found, made = APGD(norm="linf", stream=STREAM, steps=8), [], []
    monkeypatch.setattr(stand_in, "folded", lambda *given: made.append(_Blind(*given)) or made[-1])
    for blind in (True, False):
        pool = Pool(model=model, fetch=data.select, slots=slots, fold=blind)
        with pool.open():
            outcomes = [o for part in pool.run(search, deque(Item(row, 0.1) for row in range(12))) for o in part]
        found.append({o.item.row: None if o.image is None else o.image.tolist() for o in outcomes})
    assert len(made) == 1
    assert found[0] == found[1]
    assert sum(image is not None for image in found[0].values()) > 6


def test_the_last_point_of_who_withstood_is_looked_at_by_the_model():
    """Low precision sees nothing; the last point is wrong to the model itself, and that counts."""

    class Dull(nn.Module):
        def forward(self, images):
            right = torch.tensor([[1.0, 0.0]]) + 0 * images.flatten(1).sum(1, keepdim=True)
            moved = (images - 0.5).abs().flatten(1).amax(1, keepdim=True) > 0.01
            return right if torch.is_autocast_enabled("cpu") else torch.where(moved, right.flip(1), right)

    data = Batch(torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    pool = Pool(model=Dull(), fetch=data.select, slots=2, proposing="bf16")
    search = Square(norm="linf", stream=STREAM, steps=4)
    with pool.open():
        outcomes = [o for part in pool.run(search, deque(Item(row, 0.1) for row in range(3))) for o in part]
    assert sorted(outcome.item.row for outcome in outcomes) == [0, 1, 2]
    assert all(outcome.image is not None for outcome in outcomes)


@pytest.mark.parametrize(
    "search", [APGD(norm="linf", stream=STREAM, steps=8), Square(norm="linf", stream=STREAM, steps=20)]
)
def test_folding_changes_no_verdict_in_float64(search):
    torch.manual_seed(0)
    model, data = trained(SmallNetwork(4, 3)).double(), batch(12, (3, 6, 6), 4)
    found = []
    for fold in (True, False):
        pool = Pool(model=model, fetch=data.select, slots=5, fold=fold)
        items = deque(Item(row, 0.02) for row in range(12))
        with pool.open():
            found.append({o.item.row: o.image is None for part in pool.run(search, items) for o in part})
    assert found[0] == found[1]
    assert 0 < sum(found[0].values()) < 12


def test_stand_ins_are_made_once_and_forgotten():
    model, images = trained(SmallNetwork(3, 1)), torch.rand(2, 1, 8, 8)
    stand_ins = StandIns(Room(8))
    first = stand_ins.of(model, images)
    assert first is not model
    assert stand_ins.of(model, images) is first
    stand_ins.forget()
    assert stand_ins.of(model, images) is not first
    assert StandIns(Room(8), fold=False).of(model, images) is model
