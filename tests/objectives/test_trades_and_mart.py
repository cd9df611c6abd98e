"""TRADES and MART: values by hand, the official formulas written anew, slopes by finite differences."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poise.attacks import FGSM, PGD, Attack, AutoPGD
from poise.core.batch import Batch
from poise.core.losses import cross_entropy, kl_divergence
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.objectives import MART, TRADES, Adversarial, Standard, Step
from tests.linear import Linear, batch

STREAM = Stream.seeded(0)
both = pytest.mark.parametrize("objective", [TRADES(), MART()], ids=["trades", "mart"])


@dataclass(frozen=True, kw_only=True)
class _Shift(Attack):
    """Adds the same to every pixel: attacked images are known."""

    by: float = 0.25

    def perturb(self, model, batch, epsilon, norm, stream, loss=cross_entropy):
        return (batch.images + self.by).detach()


class _Identity(nn.Module):
    """Logits are the pixels, times a weight of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, images):
        return self.weight * images


@dataclass(frozen=True, kw_only=True)
class _To(Attack):
    """The same images, whatever is attacked."""

    images: tuple[tuple[float, ...], ...]

    def perturb(self, model, batch, epsilon, norm, stream, loss=cross_entropy):
        return torch.tensor(self.images, dtype=batch.images.dtype)


class _Broken(nn.Module):
    """The first class has no logit where the first pixel is dark: NaN, which `argmax` takes for the largest."""

    def forward(self, images):
        return torch.cat([torch.where(images[:, :1] < 0, torch.nan, 0.0), images], 1)


@pytest.mark.parametrize(
    "objective", [Standard(), Adversarial(attack=_Shift()), TRADES(attack=_Shift()), MART(attack=_Shift())]
)
def test_a_row_that_holds_nan_is_never_right(objective):
    images = torch.tensor([[-1.0, -1.0], [-0.1, -0.1], [-0.3, -0.3]], dtype=torch.float64)
    step = Step(_Broken(), Batch(images, torch.zeros(3, dtype=torch.int64), torch.arange(3)), 0.25, "linf", STREAM)
    terms = objective.terms(step)
    assert terms.get("clean", torch.tensor(0.0)) == 0
    assert terms["accuracy"] == 0


LOG2, LOG3, LOG4 = math.log(2), math.log(3), math.log(4)
CLEAN = torch.tensor([[LOG2, 0.0, 0.0]], dtype=torch.float64)  # probabilities 1/2, 1/4, 1/4
MOVED = ((0.0, LOG2, 0.0),)  # 1/4, 1/2, 1/4
BY_HAND = Step(_Identity(), Batch(CLEAN, torch.tensor([0]), torch.tensor([7])), 0.1, "linf", STREAM)


def test_trades_by_hand():
    """CE = log 2; KL((1/2, 1/4, 1/4) || (1/4, 1/2, 1/4)) = 1/2 log 2 - 1/4 log 2 = 1/4 log 2."""
    terms = TRADES(beta=3.0, attack=_To(images=MOVED)).terms(BY_HAND)
    assert float(terms["loss"].detach()) == pytest.approx(LOG2 + 3 * LOG2 / 4, abs=1e-12)
    assert float(terms["divergence"]) == pytest.approx(LOG2 / 4, abs=1e-12)
    assert (float(terms["clean"]), float(terms["accuracy"])) == (1, 0)


def test_mart_by_hand():
    """-log 1/4 - log(1 - 1/2) = 3 log 2; weight 1 - 1/2, so the divergence counts 1/8 log 2."""
    terms = MART(beta=3.0, attack=_To(images=MOVED)).terms(BY_HAND)
    assert float(terms["loss"].detach()) == pytest.approx(3 * LOG2 + 3 * LOG2 / 8, abs=1e-12)
    assert float(terms["divergence"]) == pytest.approx(LOG2 / 8, abs=1e-12)


def test_marts_rival_is_the_likeliest_wrong_class_whatever_the_label():
    """The label is likeliest: of (1/2, 1/3, 1/6) the rival has 1/3, and -log 1/2 - log 2/3 = log 3."""
    images = ((LOG3, LOG2, 0.0),)
    right = MART(beta=0.0, attack=_To(images=images)).terms(BY_HAND)
    assert float(right["loss"].detach()) == pytest.approx(LOG3, abs=1e-12)
    step = replace(BY_HAND, batch=Batch(CLEAN, torch.tensor([1]), torch.tensor([7])))
    wrong = MART(beta=0.0, attack=_To(images=images)).terms(step)  # the rival is class 0: -log 1/3 - log 1/2
    assert float(wrong["loss"].detach()) == pytest.approx(LOG2 + LOG3, abs=1e-12)


def test_extreme_logits_stay_finite():
    images = ((1000.0, -1000.0, 0.0),)
    for label in range(3):
        step = replace(BY_HAND, batch=Batch(CLEAN, torch.tensor([label]), torch.tensor([7])))
        for objective in (TRADES, MART):
            loss = objective(attack=_To(images=images)).terms(step)["loss"]
            assert loss.isfinite()
            loss.backward()
            assert step.model.weight.grad.isfinite()


def _official_trades(clean, moved, labels, beta):
    """Reference formula: cross-entropy plus beta over n times the batch's summed divergence."""
    divergence = F.kl_div(F.log_softmax(moved, dim=1), F.softmax(clean, dim=1), reduction="sum")
    return F.cross_entropy(clean, labels) + beta / len(labels) * divergence


def _official_mart(clean, moved, labels, beta):
    """Reference formula, its guards against log 0 left out."""
    p, q = clean.softmax(1), moved.softmax(1)
    order = q.sort(dim=1).indices
    rival = torch.where(order[:, -1] == labels, order[:, -2], order[:, -1])
    boosted = F.nll_loss(q.log(), labels) + F.nll_loss((1 - q).log(), rival)
    each = (p * (p.log() - q.log())).sum(1) * (1 - p[torch.arange(len(labels)), labels])
    return boosted + beta * each.mean()


@pytest.mark.parametrize(
    ("objective", "official"),
    [(TRADES(beta=6.0, attack=_Shift()), _official_trades), (MART(beta=5.0, attack=_Shift()), _official_mart)],
    ids=["trades", "mart"],
)
def test_loss_and_gradients_are_the_official_formulas(objective, official):
    model, data = nn.Sequential(Linear(5, (9,)), nn.Tanh(), nn.Linear(5, 4).double()), batch(13, (9,), 4)
    step = Step(model, data, 0.1, "linf", STREAM)
    loss = objective.terms(step)["loss"]
    expected = official(model(data.images), model(data.images + 0.25), data.labels, objective.beta)
    assert float((loss - expected).detach()) == pytest.approx(0, abs=1e-12)
    parameters = list(model.parameters())
    mine, theirs = (torch.autograd.grad(each, parameters) for each in (loss, expected))
    for own, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12)


@both
def test_gradients_by_finite_differences(objective):
    model, data = Linear(3, (4,)), batch(6, (4,), 3)
    objective = replace(objective, attack=_Shift())
    step = Step(model, data, 0.1, "linf", STREAM)
    slope = torch.autograd.grad(objective.terms(step)["loss"], model.weight)[0]
    way = torch.randn(model.weight.shape, dtype=torch.float64)
    losses = []
    for sign in (1, -1):
        model.weight.data += sign * 1e-5 * way
        losses.append(float(objective.terms(step)["loss"].detach()))
        model.weight.data -= sign * 1e-5 * way
    assert float((slope * way).sum()) == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-7)


@both
def test_at_epsilon_zero_this_is_ordinary_training(objective):
    model, data = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double().train(), batch(8, (4,), 3)
    for epsilon in (0.0, torch.zeros(8)):
        step = Step(model, data, epsilon, "linf", STREAM)
        terms, plain = objective.terms(step), Standard().terms(step)
        assert torch.equal(terms["loss"], plain["loss"])
        assert terms["clean"] == terms["accuracy"] == plain["accuracy"], "an epoch's mean is over steps of both kinds"
        assert terms["divergence"] == 0


@pytest.mark.parametrize("attack", [PGD(steps=5), FGSM(), AutoPGD(steps=4)], ids=["pgd", "fgsm", "autopgd"])
def test_the_attack_of_trades_raises_the_divergence_and_never_sees_the_labels(attack):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 4)).double().train()
    data = batch(20, (8,), 4)
    found = {}
    terms = TRADES(attack=attack).terms(Step(model, data, 0.2, "linf", STREAM, found=found))
    (images,) = found.values()
    other = {}
    shuffled = Batch(data.images, (data.labels + 1) % 4, data.ids)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    TRADES(attack=attack).terms(Step(model, shuffled, 0.2, "linf", STREAM, found=other))
    model.load_state_dict(state)
    model.eval()
    with torch.no_grad():
        clean = model(data.images)
        start = kl_divergence(model(data.images + 0.2 * torch.randn_like(data.images).sign()), clean).mean()
        assert kl_divergence(model(images), clean).mean() > 1.5 * start
    assert terms["divergence"] > 0


def test_clean_and_attacked_images_have_batch_statistics_of_their_own():
    model = nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)).double().train()
    data = batch(8, (4,), 3)
    TRADES(attack=_Shift()).terms(Step(model, data, 0.1, "linf", STREAM))
    assert model[0].num_batches_tracked == 2
    mean = data.images.mean(0)
    torch.testing.assert_close(model[0].running_mean, 0.9 * 0.1 * mean + 0.1 * (mean + 0.25))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TRADES(beta=-1.0), "beta of TRADES must be a number of at least 0; got -1.0"),
        (lambda: MART(beta=float("inf")), "beta of MART must be a number of at least 0; got inf"),
        (lambda: TRADES(attack=PGD(random_start=False)), "TRADES needs an attack with a random start"),
    ],
)
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(Misuse, match=words):
        make()
