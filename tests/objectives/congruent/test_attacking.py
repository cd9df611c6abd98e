"""On which images of a batch the whole attack is spent."""

from __future__ import annotations

import pytest
import torch

from poise.attacks import FGSM, PGD
from poise.core.losses import cross_entropy, margin, misclassified
from poise.core.misuse import Misuse
from poise.core.modes import frozen
from poise.core.streams import Stream
from poise.objectives import PCAT, RCAT, Constrained, Guarded, Step
from poise.objectives.adversarial import raised
from tests.linear import Linear, batch

STREAM = Stream.seeded(0)
ATTACK = PGD(steps=4, step_size=0.5)
KINDS = [PCAT, RCAT, Constrained]


class _Counting(Linear):
    """A linear network that counts the images it is asked about, by whether a gradient is wanted."""

    def __init__(self, seed):
        super().__init__(3, (6,), seed)
        self.asked = {True: 0, False: 0}

    def forward(self, images):
        self.asked[images.requires_grad] += len(images)
        return super().forward(images)


def _step(objective, epsilon=0.2, count=12, **options):
    networks = {name: _Counting(seed).train(name == "model") for seed, name in enumerate(("model", "old", "new"))}
    references = {role: networks[role] for role in objective.roles}
    data = batch(count, (6,), 3, seed=7)
    said = Linear(3, (6,), 1)(data.images).argmax(1).detach()
    data.labels.copy_(torch.where(torch.arange(count) % 4 == 0, data.labels, said))  # the old network is mostly right
    return networks, Step(networks["model"], data, epsilon, "linf", STREAM, references, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_attack_goes_to_what_the_old_network_gets_right_near_the_new_boundary(kind):
    networks, step = _step(kind(attack=ATTACK, focus=0.25))
    images = kind(attack=ATTACK, focus=0.25).attacked(step)
    quick, whole = (attack.perturb(step.model, step.batch, 0.2, "linf", STREAM) for attack in (FGSM(), ATTACK))
    labels = step.batch.labels
    right = ~misclassified(networks["old"](quick), labels)
    assert 3 < int(right.sum()) < 12
    far = margin(networks["model"](quick), labels).abs().tolist()
    near = sorted(range(12), key=lambda row: (not right[row], far[row]))[:3]
    expected = quick.clone()
    expected[near] = whole[near]
    assert torch.equal(images, expected)
    assert not torch.equal(quick, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_images_reach_every_network(kind):
    objective = kind(attack=ATTACK, focus=0.5)
    networks, step = _step(objective, found={})
    shown = {name: [] for name in networks}
    for name, network in networks.items():
        network.register_forward_pre_hook(lambda _, images, name=name: shown[name].append(images[0].detach().clone()))
    state = objective.begin(step.model)
    with frozen(networks["old"]), frozen(networks["new"]):
        objective.terms(Step(**{**vars(step), "state": state}))
    for role in ("model", *objective.roles):
        assert torch.equal(shown[role][-1], step.found[ATTACK, raised(cross_entropy)])


def test_the_rest_costs_one_gradient_each():
    networks, step = _step(RCAT())
    RCAT(attack=ATTACK, focus=0.25).attacked(step)
    assert networks["model"].asked == {True: 12 + 3 * 4, False: 12}
    assert networks["old"].asked == {True: 0, False: 12}
    assert networks["new"].asked == {True: 0, False: 0}


def test_where_the_old_network_is_right_nowhere_the_nearest_are_attacked():
    _, step = _step(RCAT())
    wrong = (step.references["old"](step.batch.images).argmax(1) + 1) % 3
    step.batch.labels.copy_(wrong)
    step = Step(**{**vars(step), "epsilon": 1e-6})
    images = RCAT(attack=ATTACK, focus=0.1).attacked(step)
    quick = FGSM().perturb(step.model, step.batch, 1e-6, "linf", STREAM)
    changed = (images != quick).any(1)
    nearest = margin(step.model(quick), step.batch.labels).abs().argsort()[:2]
    assert set(changed.nonzero()[:, 0].tolist()) <= set(nearest.tolist())


def test_every_example_may_have_a_budget_of_its_own():
    epsilon = torch.linspace(0, 0.3, 12, dtype=torch.float64)
    _, step = _step(RCAT(), epsilon)
    images = RCAT(attack=ATTACK, focus=0.5).attacked(step)
    moved = (images - step.batch.images).abs().amax(1)
    assert bool((moved <= epsilon + 1e-12).all())
    assert bool((moved[1:] > 0).all())


def test_without_a_budget_nothing_is_attacked_or_asked():
    networks, step = _step(RCAT(), 0.0)
    assert torch.equal(RCAT(focus=0.5).attacked(step), step.batch.images)
    assert networks["model"].asked == networks["old"].asked == {True: 0, False: 0}


def test_a_guard_compares_the_images_that_are_trained_on():
    objective = Guarded(objective=RCAT(attack=ATTACK, focus=0.25), judge=PGD(steps=8), every=1)
    networks, step = _step(RCAT(), found={})
    with frozen(networks["old"]), frozen(networks["new"]):
        terms = objective.terms(Step(**{**vars(step), "state": objective.begin(step.model)}))
    own = ~misclassified(step.model(step.found[ATTACK, raised(cross_entropy)]), step.batch.labels)
    assert float(terms["own_attack"]) == pytest.approx(float(own.float().mean()))


@pytest.mark.parametrize("focus", [0, -0.5, 1.5, float("nan")])
def test_a_share_outside_its_range_is_refused(focus):
    with pytest.raises(Misuse, match="focus is a share of the batch"):
        RCAT(focus=focus)
