"""Training through Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from poise.attacks import PGD
from poise.core.folding import Shadow
from poise.core.losses import cross_entropy
from poise.core.misuse import Misuse
from poise.core.norms import inside
from poise.core.streams import Stream
from poise.models.small import SmallNetwork
from poise.objectives import AWP, MART, PCAT, TRADES, Adversarial, Averaged, Guarded, Noisy, Standard, Step
from tests.linear import Linear, batch

STREAM = Stream.seeded(0)


def _step(model, objective, *, count=8, shape=(4,), epsilon: float = 0.1, **more) -> Step:
    return Step(model, batch(count, shape, 3), epsilon, "linf", STREAM, state=objective.begin(model), **more)


def _network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double().train()


class _Seeing(Linear):
    """A linear network that remembers what it saw."""

    def __init__(self) -> None:
        super().__init__(3, (400,))
        self.seen: list[torch.Tensor] = []

    def forward(self, images):
        self.seen.append(images.detach())
        return super().forward(images)


def _noise(objective: Noisy, **more) -> torch.Tensor:
    model = _Seeing()
    step = _step(model, objective, count=50, shape=(400,), **more)
    objective.terms(step)
    return model.seen[0] - step.batch.images


def test_noise_is_normal_of_the_deviation_asked_for_and_may_leave_the_box():
    noise = _noise(Noisy(sigma=0.5))
    assert abs(float(noise.std()) - 0.5) < 0.01
    assert abs(float(noise.mean())) < 0.01
    assert abs(float((noise.abs() < 0.5).double().mean()) - 0.6827) < 0.01
    assert float(noise.max()) > 1


def test_every_image_has_noise_of_its_own_whatever_batch_it_comes_in():
    objective, model = Noisy(sigma=0.3), _Seeing()
    whole = _step(model, objective, count=6, shape=(400,))
    objective.terms(whole)
    part = replace(whole, batch=whole.batch.select(torch.tensor([4, 1])))
    objective.terms(part)
    objective.terms(replace(whole, stream=Stream.seeded(1)))
    first, some, other = model.seen
    assert torch.equal(some, first[[4, 1]])
    assert not torch.equal(other, first)
    assert not torch.equal(first[0] - whole.batch.images[0], first[1] - whole.batch.images[1])


def test_noise_grows_with_the_schedule_where_that_is_asked_for():
    follows = Noisy(sigma=0.4, sigma_follows=True)
    torch.testing.assert_close(_noise(follows, share=0.25), 0.25 * _noise(follows))
    assert not _noise(follows, share=0.0).any()
    torch.testing.assert_close(_noise(Noisy(sigma=0.4), share=0.25), _noise(follows))


def test_around_standard_it_is_cross_entropy_on_noisy_images():
    objective, model = Noisy(sigma=0.2), _network()
    step = _step(model, objective)
    noise = 0.2 * STREAM.fold("noise").normal(step.batch.ids, (4,), dtype=torch.float64)
    expected = cross_entropy(model(step.batch.images + noise), step.batch.labels).mean()
    assert torch.equal(objective.terms(step)["loss"], expected)


@dataclass(frozen=True, kw_only=True)
class _Kept(PGD):
    """Remembers what it found."""

    def perturb(self, model, batch, *rest, **more):
        found = super().perturb(model, batch, *rest, **more)
        assert inside(found, batch.images, torch.full((len(batch),), 0.1).double(), "linf").all()
        _FOUND.append(found)
        return found


_FOUND: list[torch.Tensor] = []


def test_an_attack_inside_knows_the_noise_and_stays_in_its_ball():
    """SmoothAdv with one pattern: what PGD finds on the network that adds this very noise."""
    _FOUND.clear()
    attack, model = _Kept(steps=5), _network()
    objective = Noisy(objective=Adversarial(attack=attack), sigma=2.0)
    step = _step(model, objective)
    loss = objective.terms(step)["loss"]
    noise = 2.0 * STREAM.fold("noise").normal(step.batch.ids, (4,), dtype=torch.float64)

    class Shifted(nn.Module):
        def forward(self, images):
            return model(images + noise)

    found = PGD(steps=5).perturb(Shifted(), step.batch, 0.1, "linf", STREAM)
    assert torch.equal(_FOUND[0], found)
    assert torch.equal(loss, cross_entropy(model(found + noise), step.batch.labels).mean())
    elsewhere = PGD(steps=5).perturb(model, step.batch, 0.1, "linf", STREAM)
    assert not torch.equal(found, elsewhere)


@pytest.mark.parametrize(
    "inner",
    [
        Averaged(objective=TRADES(attack=PGD(steps=2))),
        AWP(objective=MART(attack=PGD(steps=2)), gamma=0.05),
        Guarded(objective=Adversarial(attack=PGD(steps=1)), judge=PGD(steps=2), every=1),
    ],
)
def test_it_goes_around_other_wrappers(inner):
    objective, model = Noisy(objective=inner, sigma=0.3), _network()
    step = _step(model, objective)
    terms = objective.terms(step)
    terms["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    state = objective.advance(model, step.state, terms)
    assert state.keys() == step.state.keys()
    assert not torch.equal(terms["loss"], inner.terms(replace(step, state=inner.begin(model)))["loss"])


def test_awp_may_go_around_it():
    inner = Noisy(objective=Adversarial(attack=PGD(steps=2)), sigma=0.3)
    model = _network()
    shifted, plain = (each.terms(_step(model, each))["loss"] for each in (AWP(objective=inner, gamma=0.1), inner))
    assert shifted > plain


def test_attacks_follow_the_faster_copy_through_the_noise():
    torch.manual_seed(0)
    model = SmallNetwork(3, 3).train()
    objective = Noisy(objective=Adversarial(attack=PGD(steps=3)), sigma=0.1)
    examples = batch(16, (3, 16, 16), 3, dtype=torch.float32)
    shadow = Shadow.of(model, examples.images)
    assert shadow is not None
    asked = []

    def quick():
        asked.append(shadow.now())
        return asked[-1]

    step = Step(model, examples, 0.05, "linf", STREAM)
    plain, found = (objective.terms(each)["loss"] for each in (step, replace(step, shadow=quick)))
    assert len(asked) == 1
    torch.testing.assert_close(found, plain, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Noisy(sigma=0.0), "sigma of noisy training must be a number above 0, in units of the image range"),
        (lambda: Noisy(sigma=float("nan")), "sigma of noisy training"),
        (lambda: Noisy(objective=PCAT()), "PCAT compares with networks that would see no noise"),
        (lambda: Noisy(objective=AWP(objective=PCAT())), "PCAT compares with networks that would see no noise"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(Misuse, match=message):
        make()


def test_the_default_attacks_nobody():
    assert Noisy().objective == Standard()
