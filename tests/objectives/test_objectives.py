from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.attacks import PGD
from poise.core.losses import cross_entropy
from poise.core.streams import Stream
from poise.objectives import Adversarial, Standard, Step
from tests.linear import Linear, batch

STREAM = Stream.seeded(0)


def test_standard_is_mean_cross_entropy_on_clean_images():
    model, data = Linear(3, (4,)), batch(5, (4,), 3)
    terms = Standard().terms(Step(model, data, 0.5, "linf", STREAM))
    torch.testing.assert_close(terms["loss"], nn.functional.cross_entropy(model(data.images), data.labels))
    right = (model(data.images).argmax(1) == data.labels).double().mean()
    assert terms["accuracy"] == right


def test_adversarial_is_cross_entropy_on_what_the_attack_returns():
    model, data = Linear(3, (4,)), batch(5, (4,), 3)
    attack = PGD(steps=3)
    terms = Adversarial(attack=attack).terms(Step(model, data, 0.2, "l2", STREAM))
    attacked = attack.perturb(model, data, 0.2, "l2", STREAM)
    expected = cross_entropy(model(attacked), data.labels).mean()
    torch.testing.assert_close(terms["loss"], expected)
    assert terms["loss"] > Standard().terms(Step(model, data, 0.0, "l2", STREAM))["loss"]


def test_adversarial_at_epsilon_zero_is_standard_training():
    model, data = Linear(3, (4,)), batch(5, (4,), 3)
    assert torch.equal(
        Adversarial().terms(Step(model, data, 0.0, "linf", STREAM))["loss"],
        Standard().terms(Step(model, data, 0.0, "linf", STREAM))["loss"],
    )


@pytest.mark.parametrize("objective", [Standard(), Adversarial(attack=PGD(steps=1))])
def test_the_loss_trains_the_weights_in_train_mode(objective):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double().train()
    data = batch(8, (4,), 3)
    objective.terms(Step(model, data, 0.1, "linf", STREAM))["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model[2].parameters())
    assert model[1].num_batches_tracked == 1  # the training forward, and not the attack's, moved the statistics
