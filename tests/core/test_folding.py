"""Shadows: the same function, faster, wherever the weights go."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional

from poise.core.folding import EstrangedError, Settled, Shadow, folded, settled
from poise.models.resnet import ResNet18
from poise.models.small import SmallNetwork


def trained(model):
    """Batch norms with statistics and weights of their own; in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(("make", "shape"), [(SmallNetwork, (3, 8, 8)), (ResNet18, (3, 8, 8))])
def test_every_batch_norm_behind_a_convolution_is_folded_and_logits_and_gradients_stay(make, shape):
    model = trained(make(4, 3)).double()
    images = torch.rand(5, *shape, dtype=torch.float64, requires_grad=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = folded(model, images[:2].detach())
    assert norms(model) > 0 == norms(made)
    torch.testing.assert_close(made(images), model(images), rtol=1e-9, atol=1e-9)
    slopes = [torch.autograd.grad(each(images)[:, 0].sum(), images)[0] for each in (model, made)]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-8, atol=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in (*model.modules(), *made.modules()))


def _branches(model, features):
    return features.flatten(1) if features.max() > _NEVER else 0


def _reads_the_weight(model, features):
    return functional.conv2d(torch.ones(1, 2, 3, 3), model.convolution.weight).sub(_NEVER).relu().sum()


_NEVER = 100
_BESIDE = {
    "nothing": lambda model, features: 0,
    "read twice": lambda model, features: features.flatten(1),
    "random": lambda model, features: torch.rand(()),
    "rests": lambda model, features: (features - _NEVER).relu().flatten(1),
    "compares": lambda model, features: (features > _NEVER).flatten(1),
    "detaches": lambda model, features: (features.detach() - _NEVER).relu().flatten(1),
    "views": lambda model, features: (features.flatten(1)[:, :1] - _NEVER).relu(),
    "joins": lambda model, features: (torch.cat([features, features]).amax() - _NEVER).relu(),
    "branches": _branches,
    "reads the weight": _reads_the_weight,
}
"""What is added to the norm's output. Most read the convolution too, and do nothing on images like those of tests."""


class _Odd(nn.Module):
    """A convolution and a batch norm between which something happens that folding would lose."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.convolution, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, images):
        features = self.convolution(images)
        if self.way == "changed in place":
            return self.norm(features.relu_()).flatten(1)
        if self.way == "called twice":
            return (self.norm(features) + self.norm(self.convolution(images.flip(1)))).flatten(1)
        if self.way in _BESIDE:
            return self.norm(features).flatten(1) + _BESIDE[self.way](self, features)
        return self.norm(features.relu()).flatten(1)


@pytest.mark.parametrize("way", ["changed in place", "called twice", "apart", *list(_BESIDE)[1:]])
def test_what_cannot_be_folded_stands_for_itself(way):
    model = trained(_Odd(way))
    with torch.no_grad():
        assert folded(model, torch.rand(3, 2, 4, 4)) is model


@pytest.mark.parametrize("layer", ["convolution", "norm"])
@pytest.mark.parametrize("kind", ["before", "after", "forward"])
def test_layers_with_a_life_of_their_own_are_not_folded(layer, kind):
    model = trained(_Odd("nothing")).double()
    assert folded(model, torch.rand(3, 2, 4, 4).double()) is not model
    chosen = getattr(model, layer)
    if kind == "before":
        chosen.register_forward_pre_hook(lambda _, given: (given[0].clamp(max=_NEVER),))
    elif kind == "after":
        chosen.register_forward_hook(lambda _, __, made: made.clamp(max=_NEVER))
    else:
        ordinary = chosen.forward
        chosen.forward = lambda images: ordinary(images).clamp(max=_NEVER)
    assert folded(model, torch.rand(3, 2, 4, 4).double()) is model


def test_a_model_that_cannot_be_copied_stands_for_itself():
    model = trained(SmallNetwork(3, 1))
    model.__deepcopy__ = lambda memo: 1 / 0
    assert folded(model, torch.rand(2, 1, 8, 8)) is model


def test_a_shadow_follows_weights_and_statistics_and_shares_all_it_does_not_fold():
    torch.manual_seed(0)
    model = trained(SmallNetwork(4, 3)).double()
    images = torch.rand(6, 3, 8, 8, dtype=torch.float64)
    shadow = Shadow.of(model, images[:2])
    assert shadow is not None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        model.train()
        functional.cross_entropy(model(images), torch.arange(6) % 4).backward()
        optimizer.step()
        model.eval()
        torch.testing.assert_close(shadow.now()(images), model(images), rtol=1e-9, atol=1e-9)
    assert shadow.agrees(images)
    owned = {id(parameter) for parameter in model.parameters()}
    assert [id(parameter) in owned for parameter in shadow.now().head.parameters()] == [True, True]


def test_a_shadow_leaves_the_model_in_its_mode_and_stays_in_eval_mode_itself():
    model = trained(SmallNetwork(4, 3)).train()
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    shadow = Shadow.of(model, torch.rand(2, 3, 8, 8))
    assert shadow is not None
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in shadow.now().modules())
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.named_buffers())


class _Late(nn.Module):
    """A network that one day begins to do something else between a convolution and its norm."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.late = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), False

    def forward(self, images):
        features = self.convolution(images)
        return self.norm(features.relu() if self.late else features).flatten(1)


def test_a_shadow_notices_that_the_model_does_something_else():
    model, images = trained(_Late()), torch.rand(3, 2, 4, 4)
    shadow = Shadow.of(model, images)
    assert shadow is not None
    assert shadow.agrees(images)
    model.late = True
    assert not shadow.agrees(images)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, None])
def test_norms_of_timm_leave_their_activation(activation):
    options = {} if activation is None else {"act_layer": activation}
    norm = BatchNormAct2d(4, apply_act=activation is not None, **options)
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 2, 3))).double()
    images = torch.rand(2, 3, 7, 7, dtype=torch.float64)
    made = folded(model, images)
    assert norms(made) == 0
    torch.testing.assert_close(made(images), model(images), rtol=1e-9, atol=1e-9)


def test_low_precision_is_that_of_the_passes_alone():
    model, images = trained(SmallNetwork(4, 3)), torch.rand(5, 3, 8, 8)
    shadow = Shadow.of(model, images, "bf16")
    assert shadow is not None
    assert shadow.now()(images).dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    torch.testing.assert_close(shadow.now()(images).float(), model(images), rtol=0.1, atol=0.1)


class _Off(nn.Module):
    """Logits that are a little off, as a shadow's are."""

    def forward(self, logits):
        return logits + 1e-4 * logits.abs().amax(1, keepdim=True) * torch.randn_like(logits).clamp(-1, 1)


def test_close_calls_are_the_models_own():
    asked = []
    plain = nn.Identity()
    plain.register_forward_hook(lambda _, given, __: asked.append(len(given[0])))
    logits = torch.randn(3000, 10)
    logits[::3, 1] = logits[::3].amax(1) * (1 + 1e-5 * torch.randn(1000))
    logits[7] = torch.nan
    shadow = _Off()
    expected = logits.argmax(1)
    assert not torch.equal(shadow(logits).argmax(1), expected)
    assert torch.equal(Settled(plain, shadow)(logits).argmax(1), expected)
    assert 900 < sum(asked) < 1500


def test_votes_that_are_not_the_models_are_found_out():
    """On most images both say the same, and on one in ten a class that no close call would bring to light."""
    logits = 10 * functional.one_hot(torch.arange(2560) % 10).float()

    class Wrong(nn.Module):
        def forward(self, given):
            return torch.where(given[:, :1] > 0, given.roll(1, 1), given)

    with pytest.raises(EstrangedError):
        Settled(nn.Identity(), Wrong())(logits)
    assert torch.equal(Settled(nn.Identity(), Wrong())(logits[1:10]), logits[1:10])


def test_few_images_of_a_network_are_close_calls():
    model = trained(SmallNetwork(10, 3))
    images = torch.rand(400, 3, 8, 8)
    quick, asked = settled(model, images[:2]), []
    model.register_forward_hook(lambda _, given, __: asked.append(len(given[0])))
    with torch.no_grad():
        found = quick(images)
    assert sum(asked) < 40
    assert norms(quick.shadow) == 0
    assert torch.equal(found.argmax(1), model(images).argmax(1))


def test_what_has_no_shadow_is_asked_itself():
    model = nn.Linear(3, 2)
    assert settled(model, torch.rand(2, 3)) is model
