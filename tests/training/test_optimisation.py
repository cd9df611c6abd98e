from __future__ import annotations

import pytest
import torch

from poise.core.misuse import Misuse
from poise.training import Training
from poise.training.optimisation import make_optimizer, rate_share, set_rates
from tests.models_for_tests import small_network


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    shares = [rate_share(step, 100, 0.1) for step in range(100)]
    assert shares[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert shares[10] == pytest.approx(1)
    assert shares[55] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(0.0, abs=1e-3)
    assert rate_share(0, 10, 0.0) == 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_head_and_backbone_have_their_own_rates_and_vectors_do_not_decay(optimizer):
    classifier = small_network()
    options = Training(optimizer=optimizer, learning_rate=0.1, head_learning_rate=0.5, weight_decay=0.01)
    made = make_optimizer(classifier, options)
    set_rates(made, 0.5)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in made.param_groups for p in group["params"]}
    convolution, norm, head = classifier.network[0], classifier.network[1], classifier.network[5]
    assert found[id(convolution.weight)] == (0.05, 0.01)
    assert found[id(convolution.bias)] == (0.05, 0.0)
    assert found[id(norm.weight)] == (0.05, 0.0)
    assert found[id(head.weight)] == (0.25, 0.01)
    assert found[id(head.bias)] == (0.25, 0.0)
    assert len(found) == len(list(classifier.parameters()))


def test_parameters_that_are_not_trained_are_left_out():
    classifier = small_network()
    classifier.network[0].weight.requires_grad_(False)
    made = make_optimizer(classifier, Training(weight_decay=0.0))
    held = [p for group in made.param_groups for p in group["params"]]
    assert all(p is not classifier.network[0].weight for p in held)
    assert len(held) == len(list(classifier.parameters())) - 1
    assert isinstance(made, torch.optim.AdamW)


def test_weights_that_rest_at_first_take_their_first_step_as_if_it_were_the_optimisers():
    torch.manual_seed(0)
    classifier, other = small_network(), small_network()
    options = Training(optimizer="sgd", learning_rate=0.1)
    made = make_optimizer(classifier, options)
    twins = dict(zip(classifier.parameters(), other.parameters(), strict=True))
    decays = {twins[member]: group["weight_decay"] for group in made.param_groups for member in group["params"]}
    plain = torch.optim.SGD(
        [{"params": [twin], "weight_decay": decay} for twin, decay in decays.items()],
        lr=0.1,
        momentum=options.momentum,
        nesterov=True,
    )
    for resting in (True, False, False):
        for mine, theirs in twins.items():
            still = resting and mine is classifier.network[0].weight
            mine.grad = None if still else torch.randn_like(mine)
            theirs.grad = None if still else mine.grad.clone()
        made.step()
        plain.step()
    for mine, theirs in twins.items():
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1; got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive number"),
        ({"head_learning_rate": -1.0}, "head_learning_rate must be a positive number"),
        ({"warmup": 1.5}, "warmup must be at least 0 and at most 1; got 1.5"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0; got -0.1"),
        ({"clip": 0.0}, "clip must be a positive number"),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number of at least 1"),
    ],
)
def test_impossible_options_are_refused_when_made(options, words):
    with pytest.raises(Misuse, match=words):
        Training(**options)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("name", "value", "near"), [("optimizer", "adam", "adamw"), ("precision", "fp33", "fp32")])
def test_unknown_choices_name_the_nearest(name, value, near):
    with pytest.raises(Misuse, match=f"unknown {name} '{value}'; did you mean '{near}'"):
        Training(**{name: value})
