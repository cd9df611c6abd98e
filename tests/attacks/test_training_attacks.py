"""FGSM and AutoPGD, the attacks of training beside PGD, and how attacks follow a schedule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.attacks import FGSM, PGD, AutoPGD
from poise.core.losses import cross_entropy
from poise.core.misuse import Misuse
from poise.core.norms import inside, random_point
from poise.core.streams import Stream
from poise.core.threat import NORMS
from tests.linear import Linear, batch, best_gain

norms = pytest.mark.parametrize("norm", NORMS)
attacks = pytest.mark.parametrize("attack", [FGSM(), AutoPGD(steps=4)], ids=["fgsm", "autopgd"])
BUDGET = {"linf": 0.1, "l2": 0.7, "l1": 2.5}
STREAM = Stream.seeded(0)


class _Watched(nn.Module):
    """A model that notes the points it is asked about, and for which of them a gradient is wanted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.points, self.sloped = model, [], []

    def forward(self, images):
        self.points.append(images.detach().clone())
        self.sloped.append(images.requires_grad)
        return self.model(images)


def _layered() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3)).double()


@norms
@attacks
def test_stays_in_ball_and_box_with_a_budget_for_each_and_leaves_no_trace(attack, norm):
    model, data = _layered(), batch(12, (3, 4, 4), 3)
    model[1].weight.grad = torch.ones_like(model[1].weight)
    state, random_state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    radius = torch.linspace(0, 1, 12, dtype=torch.float64) * BUDGET[norm]
    attacked = attack.perturb(model, data, radius, norm, STREAM)
    assert inside(attacked, data.images, radius, norm).all()
    assert torch.equal(attacked[0], data.images[0])
    assert (attacked[1:] != data.images[1:]).flatten(1).any(1).all()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[1].weight.grad, torch.ones_like(model[1].weight))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not attacked.requires_grad


@norms
@attacks
def test_an_example_is_attacked_alike_in_any_batch(attack, norm):
    model, data = _layered(), batch(6, (3, 4, 4), 3)
    together = attack.perturb(model, data, BUDGET[norm], norm, STREAM)
    alone = attack.perturb(model, data.select(torch.tensor([4])), BUDGET[norm], norm, STREAM)
    torch.testing.assert_close(together[4:5], alone, rtol=0, atol=1e-9)


@attacks
def test_no_budget_and_no_example_cost_nothing(attack):
    model, data = _Watched(_layered()), batch(4, (3, 4, 4), 3)
    assert attack.perturb(model, data, 0.0, "l2", STREAM) is data.images
    assert attack.perturb(model, data, torch.zeros(4), "l1", STREAM) is data.images
    assert len(attack.perturb(model, batch(0, (3, 4, 4), 3), 0.1, "linf", STREAM)) == 0
    assert not model.points


@attacks
def test_a_loss_of_ones_own_is_raised(attack):
    model, data = Linear(3, (8,)), batch(5, (8,), 3)
    first = lambda logits, labels: logits[:, 0]  # noqa: E731
    rises = model(attack.perturb(model, data, 0.1, "linf", STREAM, first))[:, 0] - model(data.images)[:, 0]
    assert (rises > 0).all()


def test_fgsm_is_one_step_of_five_quarters_from_a_random_start_back_into_the_ball():
    """The gradient of a linear function is the same everywhere, so its sign tells where every pixel ends."""
    model, data = Linear(2, (400,)), batch(6, (400,), 2)
    data.images.mul_(0.6).add_(0.2)  # away from the box
    start = random_point(data.images, torch.full((6,), 0.1, dtype=torch.float64), "linf", STREAM, data.ids)
    way = (model.weight[1] - model.weight[0]).sign() * (1 - 2 * data.labels[:, None])
    attacked = FGSM().perturb(model, data, 0.1, "linf", STREAM)
    expected = data.images + (start - data.images + 0.125 * way).clamp(-0.1, 0.1)
    torch.testing.assert_close(attacked, expected, rtol=0, atol=1e-15)
    corners = ((attacked - data.images).abs() > 0.1 - 1e-12).double().mean()
    assert float(corners) == pytest.approx(0.625, abs=0.04)  # a step of 1.25 in place of 1.25 epsilon would give 1


def test_fgsm_asks_once_at_the_start_that_box_and_ball_allow():
    model, data = _Watched(_layered()), batch(6, (3, 4, 4), 3)
    FGSM().perturb(model, data, 0.5, "linf", STREAM)
    start = random_point(data.images, torch.full((6,), 0.5, dtype=torch.float64), "linf", STREAM, data.ids)
    assert model.sloped == [True]
    assert torch.equal(model.points[0], start)
    assert start.min() >= 0


@norms
def test_autopgd_reaches_the_closed_form_optimum_on_a_linear_model(norm):
    model, data = Linear(2, (1, 5, 4)), batch(8, (1, 5, 4), 2)
    attacked = AutoPGD(steps=100).perturb(model, data, BUDGET[norm], norm, STREAM)
    gap = (model.weight[1] - model.weight[0]).detach()
    for index, label in enumerate(data.labels.tolist()):
        slope = gap if label == 0 else -gap
        gain = float(slope @ (attacked[index] - data.images[index]).flatten())
        best = best_gain(slope, data.images[index], BUDGET[norm], norm)
        assert (0.95 if norm == "l1" else 0.999) * best <= gain <= best + 1e-6


@pytest.mark.parametrize(("norm", "gradients"), [("linf", 7), ("l2", 7), ("l1", 9)])
def test_seven_steps_cost_seven_gradients_and_a_forward_pass(norm, gradients):
    model = _Watched(_layered())
    AutoPGD().perturb(model, batch(6, (3, 4, 4), 3), BUDGET[norm], norm, STREAM)
    assert model.sloped == [True] * gradients + [False]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_autopgd_returns_the_highest_loss_that_it_saw_even_of_images_that_are_fooled(norm):
    model, data = _Watched(_layered().eval()), batch(40, (3, 4, 4), 3)
    attacked = AutoPGD(steps=6).perturb(model, data, 2 * BUDGET[norm], norm, STREAM)
    with torch.no_grad():
        losses = torch.stack([cross_entropy(model.model(points), data.labels) for points in model.points])
        found = cross_entropy(model.model(attacked), data.labels)
    torch.testing.assert_close(found, losses.max(0).values, rtol=0, atol=1e-12)
    assert (losses.argmax(0) < 6).any()  # not always the last: the best had to be kept


def test_autopgd_may_start_from_the_image_itself():
    model, data = _Watched(_layered()), batch(4, (3, 4, 4), 3)
    AutoPGD(steps=2, random_start=False).perturb(model, data, 0.1, "linf", STREAM)
    assert torch.equal(model.points[0], data.images)
    model.points.clear()
    AutoPGD(steps=5, random_start=False).perturb(model, data, 2.5, "l1", STREAM)
    assert not torch.equal(model.points[0], data.images)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_model_is_attacked_in_the_mode_asked_for(mode):
    model, data, modes = _layered(), batch(6, (3, 4, 4), 3), []
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    for attack in (FGSM(model_mode=mode), AutoPGD(steps=2, model_mode=mode)):
        attack.perturb(model, data, 0.1, "linf", STREAM)
    assert set(modes) == {mode == "train"}
    assert model[2].num_batches_tracked == 0


@pytest.mark.parametrize("attack", [PGD(steps=2, model_mode="train"), FGSM(model_mode="train")])
def test_parts_that_rest_in_the_training_step_rest_under_attack_in_train_mode(attack):
    model, data, modes = _layered().train(), batch(6, (3, 4, 4), 3), []
    norm = model[2].eval()
    norm.register_forward_hook(lambda module, *_: modes.append((module.training, model.training)))
    attack.perturb(model, data, 0.1, "linf", STREAM)
    assert set(modes) == {(False, True)}
    attack.perturb(model.eval(), data, 0.1, "linf", STREAM)
    assert modes[-1] == (True, True)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("attack", [PGD(steps=10, steps_follow=True), AutoPGD(steps=10, steps_follow=True)])
def test_the_number_of_steps_follows_the_schedule_where_asked(attack):
    assert [attack.at(share).steps for share in (0.0, 0.01, 0.1, 0.3, 0.55, 1.0)] == [1, 1, 1, 3, 6, 10]
    assert attack.at(0.3).at(1.0).steps == 3


def test_however_few_its_steps_are_pgd_gets_to_the_border():
    """By default all steps together go 2.5 epsilon far, and one at most 1.25."""
    assert [PGD(steps=steps).stride for steps in (1, 2, 5, 10, 20)] == [1.25, 1.25, 0.5, 0.25, 0.125]
    for given in ("auto", 0.25):
        attack = PGD(steps=10, step_size=given, steps_follow=True)
        assert [attack.at(share).stride for share in (0.1, 0.2, 0.5, 1.0)] == pytest.approx([1.25, 1.25, 0.5, 0.25])
    assert PGD(steps=4, step_size=2.0, steps_follow=True).at(0.1).stride == 2.0
    torch.manual_seed(1)
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).double(), batch(40, (1, 3, 3), 2)
    data.images.mul_(0.2).add_(0.4)
    found = [attack.perturb(model, data, 0.01, "linf", STREAM) for attack in (PGD(), PGD(steps_follow=True).at(0.2))]
    assert torch.allclose(*found), "of a linear network two steps find what ten find"
    assert torch.allclose((found[1] - data.images).abs(), torch.full_like(found[1], 0.01))


@pytest.mark.parametrize("attack", [PGD(), AutoPGD(), FGSM()])
def test_otherwise_an_attack_is_the_same_at_every_share(attack):
    assert attack.at(0.1) is attack


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FGSM(step_size=0.0), "FGSM's step size must be positive"),
        (lambda: FGSM(step_size=float("nan")), "FGSM's step size must be positive"),
        (lambda: FGSM(sparsity=1.5), "FGSM's sparsity"),
        (lambda: AutoPGD(steps=0), "AutoPGD needs at least 1 step; got 0"),
    ],
)
def test_impossible_settings_are_refused_when_made(make, words):
    with pytest.raises(Misuse, match=words):
        make()
