"""Gradients by images that survive low precision, and verdicts that nothing around them makes coarser."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import nn

from poise.attacks import APGD, PGD, Square
from poise.attacks.pool import Item, Pool
from poise.attacks.slopes import differentiated, finite
from poise.core.batch import Batch
from poise.core.losses import cross_entropy
from poise.core.modes import exact
from poise.core.streams import Stream

STREAM = Stream.seeded(0)


def _confident(scale: float = 300.0) -> nn.Module:
    """A network whose cross-entropy is flat beyond what fp16 can tell."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 5))
    model[3].weight.data *= scale
    return model.eval()


def _data(model: nn.Module, count: int = 40) -> Batch:
    images = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return Batch(images, model(images).argmax(1), torch.arange(count))


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scaling_changes_no_digit(scale, dtype):
    model = _confident(scale).to(dtype)
    data = _data(model.float())
    model.to(dtype)
    points = data.images.to(dtype).requires_grad_()
    loss, gradient = differentiated(lambda logits: cross_entropy(logits, data.labels), model(points), points)
    expected = cross_entropy(model(points), data.labels)
    assert torch.equal(loss, expected.detach())
    assert torch.equal(gradient, torch.autograd.grad(expected.sum(), points)[0])


def test_a_loss_that_does_not_depend_on_the_points_has_no_slope():
    points = torch.rand(3, 4, requires_grad=True)
    for logits in (torch.rand(3, 2), points * 0):
        loss, gradient = differentiated(lambda found: found[:, 0], logits, points)
        assert (loss.shape, gradient.abs().sum()) == ((3,), 0)


class _Square(nn.Module):
    """Half an ellipse as a loss of two classes: its slope is infinite where a pixel is 0."""

    def forward(self, images):
        lead = (images.flatten(1).sqrt() - 0.5).sum(1)
        return torch.stack([lead, torch.zeros_like(lead)], 1)


def test_an_infinite_slope_stops_no_attack():
    images = torch.full((4, 1, 3, 3), 0.36)
    images[:, :, 0, 0] = 0
    data = Batch(images, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    for attack in (APGD(norm="l2", stream=STREAM, steps=20), APGD(norm="l1", stream=STREAM, steps=20)):
        pool = Pool(model=_Square(), fetch=data.select, slots=4)
        with pool.open():
            items = deque(Item(row, {"l2": 0.6, "l1": 1.5}[attack.norm]) for row in range(4))
            assert all(o.image is not None for part in pool.run(attack, items) for o in part)


def test_what_is_no_number_is_nothing_and_what_is_infinite_as_large_as_the_largest():
    slope = torch.tensor([[1.0, -2.0, torch.inf, -torch.inf, torch.nan], [torch.inf, 0, -torch.inf, 0, torch.nan]])
    expected = torch.tensor([[1.0, -2.0, 2.0, -2.0, 0.0], [1.0, 0.0, -1.0, 0.0, 0.0]])
    assert torch.equal(finite(slope), expected)
    plain = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(finite(plain), plain)


@pytest.mark.parametrize(("attack", "steps"), [(APGD, 20), (Square, 300)])
def test_what_overflows_in_fp16_is_asked_about_again(attack, steps):
    """Activations of 10^5 and more: to fp16 they are infinite, and no attack would move."""
    model = _confident(1.0)
    with torch.no_grad():
        for parameter in model[1].parameters():
            parameter.mul_(3e5)
        model[3].weight.mul_(1e-4)
    data, broken = _data(model, 60), {}
    for proposing in ("fp32", "fp16"):
        pool = Pool(model=model, fetch=data.select, slots=60, proposing=proposing)
        with pool.open():
            items = deque(Item(row, 0.06) for row in range(60))
            search = attack(norm="linf", stream=STREAM, steps=steps)
            outcomes = [o for part in pool.run(search, items) for o in part]
        broken[proposing] = sum(outcome.image is not None for outcome in outcomes)
    assert broken["fp32"] > 20
    assert abs(broken["fp32"] - broken["fp16"]) <= 3


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_low_precision_does_not_hide_the_gradient_of_a_confident_network(kind):
    """As many images are broken as in full precision, but for a few; unscaled, fp16 broke 17 of 28."""
    model = _confident()
    data, broken = _data(model, 60), {}
    for proposing in ("fp32", kind):
        pool = Pool(model=model, fetch=data.select, slots=60, proposing=proposing)
        with pool.open():
            items = deque(Item(row, 0.06) for row in range(60))
            outcomes = [o for part in pool.run(APGD(norm="linf", stream=STREAM, steps=20), items) for o in part]
        broken[proposing] = sum(outcome.image is not None for outcome in outcomes)
    assert broken["fp32"] > 20
    assert abs(broken["fp32"] - broken[kind]) <= 3


def test_a_training_attack_finds_its_way_in_fp16():
    model, slopes = _confident(), {}
    data = _data(model)
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.float16, enabled=enabled):
            slopes[enabled] = PGD(steps=3).perturb(model, data, 0.05, "linf", STREAM)
    moved = [(slopes[True] - data.images)[row].abs().max() > 0.02 for row in range(len(data))]
    assert all(moved)
    with torch.no_grad():
        low, full = (cross_entropy(model(slopes[enabled]), data.labels).mean() for enabled in (True, False))
    assert low == pytest.approx(float(full), rel=0.05)


def test_verdicts_are_in_full_precision_within_anybodys_autocast():
    seen = []
    model = _confident(1.0)
    model[1].register_forward_hook(lambda _module, _given, made: seen.append(made.dtype))
    data = _data(model)
    seen.clear()
    pool = Pool(model=model, fetch=data.select, slots=40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pool.open():
            pool.logits(data.images)
            list(pool.run(APGD(norm="linf", stream=STREAM, steps=2), deque(Item(row, 0.5) for row in range(40))))
        assert torch.is_autocast_enabled("cpu")
    assert set(seen) == {torch.float32}


def test_exact_passes_allow_no_tf32_and_leave_what_they_found():
    convolution, product = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = convolution.fp32_precision, product.fp32_precision
    with pytest.raises(ZeroDivisionError), exact(torch.device("cpu")):
        assert (convolution.fp32_precision, product.fp32_precision) == ("ieee", "ieee")
        1 / 0  # noqa: B018
    assert (convolution.fp32_precision, product.fp32_precision) == before
    assert torch.backends.cudnn.allow_tf32  # PyTorch's default, which only the new way of setting it must not upset
