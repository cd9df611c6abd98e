"""What networks are shown and left with in a step, and what the multiplier does over many."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from poise.attacks import PGD
from poise.core.losses import misclassified
from poise.core.modes import evaluating, frozen
from poise.core.streams import Stream
from poise.objectives import PCAT, PCT, RCAT, Constrained, Step
from tests.linear import Linear, batch

STREAM = Stream.seeded(0)
ATTACK = PGD(steps=2)


class _Watched(Linear):
    """A linear network that notes what it is shown, and whether gradients are wanted."""

    def __init__(self, seed):
        super().__init__(3, (4,), seed)
        self.shown = []

    def forward(self, images):
        self.shown.append((images.detach().clone(), torch.is_grad_enabled(), self.training))
        return super().forward(images)


def _watched_step(objective, epsilon=0.2):
    nets = {name: _Watched(seed).train(name == "model") for seed, name in enumerate(("model", "old", "new"))}
    data = batch(6, (4,), 3)
    with frozen(nets["old"]), frozen(nets["new"]):
        references = {role: nets[role] for role in objective.roles}
        state = objective.begin(nets["model"])
        terms = objective.terms(Step(nets["model"], data, epsilon, "linf", STREAM, references, state))
    return nets, data, terms


@pytest.mark.parametrize("objective", [PCAT(attack=ATTACK), RCAT(attack=ATTACK), Constrained(attack=ATTACK)])
def test_the_same_attacked_images_reach_every_network_once(objective):
    nets, data, _ = _watched_step(objective)
    expected = ATTACK.perturb(_Watched(0), data, 0.2, "linf", STREAM)
    assert not torch.equal(expected, data.images)
    trained_on = [shown for shown, _, training in nets["model"].shown if training]
    assert len(trained_on) == 1
    assert torch.equal(trained_on[0], expected)
    for role in objective.roles:
        assert len(nets[role].shown) == 1
        shown, graph, training = nets[role].shown[0]
        assert torch.equal(shown, expected)
        assert not graph
        assert not training


def test_pct_shows_the_clean_images_and_attacks_nothing():
    nets, data, _ = _watched_step(PCT())
    assert len(nets["model"].shown) == len(nets["old"].shown) == 1
    assert torch.equal(nets["model"].shown[0][0], data.images)
    assert torch.equal(nets["old"].shown[0][0], data.images)


@pytest.mark.parametrize("objective", [PCT(), PCAT(attack=ATTACK), RCAT(attack=ATTACK), Constrained(attack=ATTACK)])
def test_only_the_network_in_training_gets_gradients(objective):
    nets, _, terms = _watched_step(objective)
    terms["loss"].backward()
    assert all(parameter.grad is not None for parameter in nets["model"].parameters())
    assert all(parameter.grad is None for role in ("old", "new") for parameter in nets[role].parameters())


def _normed(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()


@pytest.mark.parametrize("statistics", ["kept", "moving"])
def test_batch_norms_keep_the_new_networks_statistics_unless_told_otherwise(statistics):
    model, data = _normed().train(), batch(8, (4,), 3)
    old, new = _normed(1).eval(), copy.deepcopy(model).eval()
    with frozen(old), frozen(new):
        objective = RCAT(attack=ATTACK, statistics=statistics)
        terms = objective.terms(Step(model, data, 0.1, "linf", STREAM, {"old": old, "new": new}))
    assert model[1].training
    assert int(model[1].num_batches_tracked) == (statistics == "moving")
    assert (float(terms["distance_new"]) == 0) == (statistics == "kept")


def test_the_multiplier_climbs_while_the_bound_is_broken_and_falls_back_to_zero():
    objective = Constrained(bound=0.1, rate=2, smoothing=0.5)
    state = objective.begin(Linear(3, (4,)))
    expected, total, weight, multipliers = 0.0, 0.0, 0.0, []
    for flips in [0.3, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]:
        state = objective.advance(nn.Identity(), state, {"flips": torch.tensor(flips)})
        total, weight = 0.5 * total + 0.5 * flips, 0.5 * weight + 0.5
        expected = max(0.0, expected + 2 * (total / weight - 0.1))
        multipliers.append(float(state["multiplier"]))
        assert multipliers[-1] == pytest.approx(expected, abs=1e-6)
    assert multipliers[0] == pytest.approx(2 * 0.2, abs=1e-6)  # the average of one batch is that batch
    assert max(multipliers) > 1
    assert multipliers[-1] < max(multipliers)
    capped = Constrained(bound=0.1, rate=2, smoothing=0.5, ceiling=0.3)
    assert float(capped.advance(nn.Identity(), state, {"flips": torch.tensor(1.0)})["multiplier"]) == pytest.approx(0.3)


def _fitted(objective, steps=150):
    """A linear network fitted to labels that an old one mostly gets right, from a start that gets others right."""
    generator = torch.Generator().manual_seed(3)
    old, model = Linear(3, (6,), 1), Linear(3, (6,), 2)
    data = batch(60, (6,), 3, seed=4)
    with torch.no_grad():
        said = old(data.images).argmax(1)
    labels = torch.where(torch.rand(60, generator=generator) < 0.6, said, data.labels)
    data = type(data)(data.images, labels, data.ids)
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.8), objective.begin(model)
    with frozen(old), evaluating(old):
        for number in range(steps):
            step = Step(model, data, 0.02, "linf", STREAM.fold(number), {"old": old}, state)
            optimizer.zero_grad()
            terms = objective.terms(step)
            terms["loss"].backward()
            optimizer.step()
            state = objective.advance(model, state, {name: term.detach() for name, term in terms.items()})
        lost = ~misclassified(old(data.images), labels) & misclassified(model(data.images), labels)
    return float(lost.float().mean()), float(state["multiplier"])


@pytest.mark.parametrize("surrogate", ["distance", "hinge"])
def test_a_bound_that_plain_training_breaks_is_met_by_the_multiplier(surrogate):
    free, unused = _fitted(Constrained(attack=PGD(steps=1, step_size=0.25), bound=0.99, surrogate=surrogate))
    held, multiplier = _fitted(Constrained(attack=PGD(steps=1, step_size=0.25), bound=0.02, surrogate=surrogate))
    assert unused == 0
    assert free > 0.06
    assert held <= 0.035
    assert multiplier > 0
