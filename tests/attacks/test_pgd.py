from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.attacks import PGD
from poise.attacks.pgd import sparse_direction
from poise.core.batch import Batch
from poise.core.losses import cross_entropy
from poise.core.misuse import Misuse
from poise.core.norms import inside, length
from poise.core.streams import Stream
from poise.core.threat import NORMS
from tests.linear import Linear, batch, best_gain

norms = pytest.mark.parametrize("norm", NORMS)
BUDGET = {"linf": 0.1, "l2": 0.7, "l1": 2.5}
STREAM = Stream.seeded(0)


@norms
@pytest.mark.parametrize("shape", [(30,), (1, 5, 4), (3, 4, 4)])
def test_reaches_the_closed_form_optimum_on_a_linear_model(norm, shape):
    """With two classes the loss rises with one linear function, so its maximum over ball and box is known."""
    model, data = Linear(2, shape), batch(12, shape, 2)
    attack = PGD(steps=2000 if norm == "l1" else 100, step_size=0.5)  # l1 is slow where two slopes nearly tie
    attacked = attack.perturb(model, data, BUDGET[norm], norm, STREAM)
    gap = model.weight[1] - model.weight[0]
    for index, label in enumerate(data.labels.tolist()):
        slope = gap if label == 0 else -gap
        clean = float((slope @ data.images[index].flatten()).detach())
        best = torch.nn.functional.softplus(
            torch.tensor(clean + best_gain(slope, data.images[index], BUDGET[norm], norm))
        )
        found = cross_entropy(model(attacked[index : index + 1]), data.labels[index : index + 1])
        assert abs(float(found.detach()) - float(best)) < 1e-4


@norms
def test_stays_in_ball_and_box_and_uses_the_budget(norm):
    model, data = Linear(5, (3, 6, 6), dtype=torch.float32), batch(16, (3, 6, 6), 5, dtype=torch.float32)
    radius = torch.linspace(0.01, 1, 16) * BUDGET[norm]
    attacked = PGD().perturb(model, data, radius, norm, STREAM)
    assert inside(attacked, data.images, radius, norm).all()
    assert (length(attacked - data.images, norm) > 0.5 * radius).all()


@norms
def test_each_example_follows_its_own_budget(norm):
    model, data = Linear(4, (6, 2)), batch(8, (6, 2), 4)
    mixed = PGD().perturb(model, data, torch.linspace(0, 1, 8, dtype=torch.float64) * BUDGET[norm], norm, STREAM)
    for index in range(8):
        alone = PGD().perturb(model, data.select(torch.tensor([index])), index / 7 * BUDGET[norm], norm, STREAM)
        torch.testing.assert_close(mixed[index], alone[0], rtol=0, atol=1e-12)
    assert torch.equal(mixed[0], data.images[0])


class _Uncallable(nn.Module):
    def forward(self, images):
        raise AssertionError("the model was called")


def test_epsilon_zero_costs_nothing_and_changes_nothing():
    data = batch(4, (3, 2), 2)
    assert PGD().perturb(_Uncallable(), data, 0.0, "l2", STREAM) is data.images
    assert PGD().perturb(_Uncallable(), data, torch.zeros(4), "linf", STREAM) is data.images


def test_an_empty_batch_stays_empty():
    assert PGD().perturb(_Uncallable(), batch(0, (3, 2), 2), 0.1, "l1", STREAM).shape == (0, 3, 2)


@norms
def test_a_flat_loss_moves_nothing_without_a_random_start(norm):
    model, data = Linear(3, (4,)), batch(3, (4,), 3)
    nn.init.zeros_(model.weight)
    attacked = PGD(random_start=False).perturb(model, data, 0.2, norm, STREAM)
    assert torch.equal(attacked, data.images)


def _layered():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    model[2].eval()
    model[4].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_leaves_no_trace(mode):
    model, data = _layered(), batch(6, (3, 4), 3)
    model[1].weight.grad = torch.ones_like(model[1].weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images, random_state = data.images.clone(), torch.get_rng_state()
    attack = PGD(steps=3, model_mode=mode)
    if mode == "train":
        model[3] = nn.Identity()  # dropout draws from the global state by its own nature
        random_state = torch.get_rng_state()
    attacked = attack.perturb(model, data, 0.1, "linf", STREAM)
    assert [module.training for module in model] == [True, True, False, True, True]
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, True, False]
    assert torch.equal(model[1].weight.grad, torch.ones_like(model[1].weight))
    assert all(p.grad is None for p in model.parameters() if p is not model[1].weight)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(data.images, images)
    assert not data.images.requires_grad
    assert not attacked.requires_grad


def test_model_mode_decides_which_statistics_the_attack_sees():
    model, data = _layered(), batch(6, (3, 4), 3)
    model[3] = nn.Identity()
    model.train()
    seen = {}
    for mode in ("eval", "train"):
        seen[mode] = PGD(model_mode=mode).perturb(model, data, 0.1, "linf", STREAM)
    assert not torch.equal(seen["eval"], seen["train"])


def test_works_inside_no_grad():
    model, data = Linear(3, (4,)), batch(3, (4,), 3)
    with torch.no_grad():
        inner = PGD().perturb(model, data, 0.1, "linf", STREAM)
    assert torch.equal(inner, PGD().perturb(model, data, 0.1, "linf", STREAM))


def test_more_steps_and_gradients_beat_noise():
    model, data = _layered().eval(), batch(64, (3, 4), 3)
    loss = lambda images: float(cross_entropy(model(images), data.labels).detach().mean())  # noqa: E731
    noise = PGD(steps=1, step_size=1e-9).perturb(model, data, 0.3, "l2", STREAM)
    one = PGD(steps=1).perturb(model, data, 0.3, "l2", STREAM)
    ten = PGD(steps=10).perturb(model, data, 0.3, "l2", STREAM)
    assert loss(data.images) < loss(one) < loss(ten)
    assert loss(noise) < loss(one)


def test_a_custom_loss_is_raised():
    model, data = Linear(3, (4,)), batch(3, (4,), 3)
    first_logit = lambda logits, labels: logits[:, 0]  # noqa: E731
    attacked = PGD(steps=50).perturb(model, data, 0.1, "linf", STREAM, first_logit)
    expected = (data.images + 0.1 * model.weight[0].sign()).clamp(0, 1)
    torch.testing.assert_close(attacked, expected)


def test_the_seed_decides_the_start():
    model, data = _layered().eval(), batch(4, (3, 4), 3)
    first, again, other = (PGD(steps=1).perturb(model, data, 0.1, "l2", Stream.seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sparse_direction_counts_only_pixels_that_can_move():
    slope = torch.tensor([[4.0, -3.0, 2.0, 1.0]])
    points = torch.tensor([[1.0, 0.5, 0.5, 0.5]])  # the first is stopped by the box but keeps its entry
    torch.testing.assert_close(sparse_direction(slope, points, 0.5), torch.tensor([[3.0, -2.0, 1.0, 0.0]]) / 6)


def test_single_precision_and_cpu_bf16_attacks_agree_in_strength():
    model = Linear(4, (3, 5), dtype=torch.float32)
    data = batch(8, (3, 5), 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = PGD().perturb(model, data, 0.1, "linf", STREAM)
    assert low.dtype == torch.float32
    assert inside(low, data.images, torch.full((8,), 0.1), "linf").all()
    assert isinstance(data, Batch)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "at least 1 step; got 0"),
        ({"step_size": 0.0}, "step size must be positive"),
        ({"step_size": float("nan")}, "step size must be positive"),
        ({"sparsity": 0.0}, "sparsity is a share"),
    ],
)
def test_impossible_settings_are_refused_when_made(options, words):
    with pytest.raises(Misuse, match=words):
        PGD(**options)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_model_mode_is_refused():
    with pytest.raises(Misuse, match="'eval' or 'train' mode; got 'test'"):
        PGD(model_mode="test")
