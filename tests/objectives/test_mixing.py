"""What a step of a gate's training sees and minimises."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from poise.core.batch import Batch
from poise.core.misuse import Misuse
from poise.core.norms import inside
from poise.core.streams import Stream
from poise.objectives import Mixing, Step


class _Toy(nn.Module):
    """A mixed model in miniature: logits and raw gate are linear in the image; remembers what it was asked."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 12, generator=generator))
        self.gate = nn.Linear(12, 1)
        self.asked = []

    def forward(self, images, *, with_gate):
        assert with_gate
        flat = images.flatten(1)
        self.asked.append(images.detach())
        return torch.cat([flat @ self.weight.t(), self.gate(flat)], dim=1)


def _step(model, seed=0, epsilon=0.1, count=64):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 2, 2, generator=generator)
    batch = Batch(images, torch.randint(4, (count,), generator=generator), torch.arange(count))
    return Step(model, batch, epsilon, "linf", Stream.seeded(seed))


def test_the_loss_is_the_weighted_sum_on_clean_and_attacked_images():
    model, objective = _Toy(), Mixing(gate=0.7, classes=0.4, both=0.2, clean_weight=3.0)
    step = _step(model)
    terms = objective.terms(step)
    seen = model.asked[-1]
    clean, attacked = seen[:64], seen[64:]
    assert torch.equal(clean, step.batch.images)
    output = model(seen, with_gate=True)
    labels = step.batch.labels.repeat(2)
    target = torch.cat([torch.zeros(64), torch.ones(64)])
    probability = output[:, -1].sigmoid()
    telling = -(target * probability.log() + (1 - target) * (1 - probability).log())
    classifying = functional.cross_entropy(output[:, :-1], labels, reduction="none")
    weight = torch.cat([torch.full((64,), 3.0), torch.ones(64)])
    expected = (weight * (0.7 * telling + 0.4 * classifying + 0.2 * telling * classifying)).mean()
    assert float(terms["loss"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert terms["loss"].requires_grad
    assert not torch.equal(attacked, clean)


def test_attacks_vary_in_budget_and_length_and_stay_inside():
    model, objective = _Toy(), Mixing(steps=3)
    lengths = set()
    for seed in range(12):
        step = _step(model, seed=seed)
        model.asked.clear()
        objective.terms(step)
        lengths.add(len(model.asked) - 1)
        moved = (model.asked[-1][64:] - step.batch.images).flatten(1).abs().amax(1)
        assert inside(model.asked[-1][64:], step.batch.images, torch.full((64,), 0.11), "linf").all()
        assert float(moved.max()) > 0.1
        assert float(moved.min()) < 0.05
    assert lengths <= set(range(1, 7))
    assert len(lengths) >= 4


def test_attacks_push_the_gate_towards_the_standard_branch():
    model = _Toy()
    for seed, (push, falls) in enumerate([(0.0, 0.7), (0.99, 1.01)]):
        step = _step(model, seed=seed)
        Mixing(push=push).terms(step)
        with torch.no_grad():
            raw = model(model.asked[-1], with_gate=True)[:, -1]
        share = float((raw[64:] < raw[:64]).float().mean())
        assert share < falls
        if push:
            assert share > 0.7


def test_the_step_leaves_gradients_and_flags_alone():
    model = _Toy()
    model.weight.requires_grad_(False)
    Mixing().terms(_step(model))
    assert model.gate.weight.grad is None
    assert (model.weight.requires_grad, model.gate.weight.requires_grad) == (False, True)


def test_models_without_a_gate_and_impossible_weights_are_refused():
    with pytest.raises(Misuse, match="this model has none"):
        Mixing().begin(nn.Linear(1, 1))
    with pytest.raises(Misuse, match="all are 0"):
        Mixing(gate=0.0, classes=0.0, both=0.0)
    with pytest.raises(Misuse, match=r"push in \[0, 1\)"):
        Mixing(push=1.0)
    with pytest.raises(Misuse, match="weight of at least 0; got nan"):
        Mixing(clean_weight=float("nan"))
