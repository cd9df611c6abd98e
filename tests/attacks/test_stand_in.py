from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import nn

from poise.attacks import APGD, Square
from poise.attacks.folding import folded
from poise.attacks.pool import Item, Pool
from poise.attacks.room import Room
from poise.attacks.stand_in import Padded, StandIns
from poise.core.streams import Stream
from poise.models.resnet import ResNet18
from poise.models.small import SmallNetwork
from tests.linear import batch

STREAM = Stream.seeded(0)


def _trained(model):
    """Batch norms with statistics and weights of their own; in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def _norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(("make", "shape"), [(SmallNetwork, (3, 8, 8)), (ResNet18, (3, 8, 8))])
def test_every_batch_norm_behind_a_convolution_is_folded_and_logits_and_gradients_stay(make, shape):
    model = _trained(make(4, 3)).double()
    images = torch.rand(5, *shape, dtype=torch.float64, requires_grad=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = folded(model, images[:2].detach())
    assert _norms(model) > 0 == _norms(made)
    torch.testing.assert_close(made(images), model(images), rtol=1e-9, atol=1e-9)
    slopes = [torch.autograd.grad(each(images)[:, 0].sum(), images)[0] for each in (model, made)]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-8, atol=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in (*model.modules(), *made.modules()))


class _Odd(nn.Module):
    """A convolution and a batch norm between which something happens that folding would lose."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.convolution, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, images):
        features = self.convolution(images)
        if self.way == "read twice":
            return (self.norm(features) + features).flatten(1)
        if self.way == "changed in place":
            return self.norm(features.relu_()).flatten(1)
        if self.way == "called twice":
            return (self.norm(features) + self.norm(self.convolution(images.flip(1)))).flatten(1)
        if self.way == "random":
            return self.norm(features).flatten(1) + torch.rand(())
        return self.norm(features.relu()).flatten(1)


@pytest.mark.parametrize("way", ["read twice", "changed in place", "called twice", "random", "apart"])
def test_what_cannot_be_folded_stands_for_itself(way):
    model = _trained(_Odd(way))
    with torch.no_grad():
        assert folded(model, torch.rand(3, 2, 4, 4)) is model


def test_a_model_that_cannot_be_copied_stands_for_itself():
    model = _trained(SmallNetwork(3, 1))
    model.__deepcopy__ = lambda memo: 1 / 0
    assert folded(model, torch.rand(2, 1, 8, 8)) is model


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
    model = _trained(SmallNetwork(4, 3))
    data = batch(9, (3, 6, 6), 4, dtype=torch.float32)
    with torch.no_grad():
        labels = model(data.images).argmax(1)
    right = type(data)(data.images, labels, data.ids)
    pool = Pool(model=model, fetch=right.select, slots=4, compile=True)
    items = [Item(row, 1e-4) for row in range(9)]
    with pool.open():
        outcomes = [o for part in pool.run(APGD(norm="linf", stream=STREAM, steps=3), deque(items)) for o in part]
    assert [options for _, options in made] == [{"dynamic": False}]
    assert _norms(made[0][0]) == 0
    assert {outcome.image for outcome in outcomes} == {None}


@pytest.mark.parametrize(
    "search", [APGD(norm="linf", stream=STREAM, steps=8), Square(norm="linf", stream=STREAM, steps=20)]
)
def test_folding_changes_no_verdict_in_float64(search):
    torch.manual_seed(0)
    model, data = _trained(SmallNetwork(4, 3)).double(), batch(12, (3, 6, 6), 4)
    found = []
    for fold in (True, False):
        pool = Pool(model=model, fetch=data.select, slots=5, fold=fold)
        items = deque(Item(row, 0.02) for row in range(12))
        with pool.open():
            found.append({o.item.row: o.image is None for part in pool.run(search, items) for o in part})
    assert found[0] == found[1]
    assert 0 < sum(found[0].values()) < 12


def test_stand_ins_are_made_once_and_forgotten():
    model, images = _trained(SmallNetwork(3, 1)), torch.rand(2, 1, 8, 8)
    stand_ins = StandIns(Room(8))
    first = stand_ins.of(model, images)
    assert first is not model
    assert stand_ins.of(model, images) is first
    stand_ins.forget()
    assert stand_ins.of(model, images) is not first
    assert StandIns(Room(8), fold=False).of(model, images) is model
