from __future__ import annotations

import pytest
import torch

from poise.core.batch import Batch
from poise.core.misuse import Misuse
from poise.evaluation.soundness.catalogue import CHECKS, MODEL_CHECKS, RETRIAL_CHECKS, inspect_model, inspect_profile
from poise.evaluation.soundness.check import Subject
from poise.evaluation.soundness.finding import blocked
from poise.models import smooth
from tests.evaluation.soundness.subjects import STREAM, THREAT, Around, StuckNorm, batch, digits, examined, healthy


def _profile(model, images):
    return examined(model, images, 2 / 255).profile


def test_a_healthy_network_passes_every_check():
    images = digits(64)
    findings = inspect_model(healthy(), batch(images), THREAT, STREAM)
    findings += inspect_profile(_profile(healthy(), images), healthy(), images, steps=10)
    assert {finding.status for finding in findings} == {"pass"}
    assert {finding.check for finding in findings} == set(CHECKS)


def test_findings_are_the_same_every_time():
    images = digits(24)
    model, made = Around(after=lambda logits: logits + 0.05 * torch.randn_like(logits)), _profile(healthy(), images)
    assert inspect_model(model, batch(images), THREAT, STREAM) == inspect_model(model, batch(images), THREAT, STREAM)
    first, second = (inspect_profile(made, healthy(), images, sample=8, steps=5) for _ in range(2))
    assert first == second


def test_a_model_without_gradient_is_not_attacked_again():
    images = digits(8)
    findings = inspect_profile(_profile(healthy(), images), Around(after=torch.detach), images)
    assert [finding.status for finding in findings] == [*["pass"] * 4, *["note"] * 5]
    assert findings[-1].evidence.endswith("see gradient-graph")


def test_a_model_of_hard_votes_is_attacked_again_through_its_soft_ones():
    model, images = smooth(healthy(), sigma=0.05, samples=4).eval(), digits(12)
    found = {each.check: each for each in inspect_profile(examined(model, images).profile, model, images, steps=5)}
    assert not any("not attacked again" in each.evidence for each in found.values())
    assert found["convergence"].evidence.endswith("fall to 10 steps")
    assert found["adaptive"].status == "block"  # that profile names no surrogate


def test_a_robust_figure_from_hidden_gradients_is_held_back():
    """Saturated logits let examination and attacks fail; several checks notice independently of one another."""
    images, hidden = digits(48), Around(after=lambda logits: 1e4 * logits)
    made = examined(hidden, images, 0.2).profile
    findings = (*inspect_model(hidden, batch(images), THREAT, STREAM), *inspect_profile(made, hidden, images, steps=10))
    assert {finding.check for finding in blocked(findings)} >= {"zero-gradients", "vanishing", "convergence"}
    warned = {finding.check for finding in findings if finding.status == "warn"}
    assert warned == {"planted"}


def test_nothing_is_left_behind():
    """Modes, buffers, gradients, gradient flags, images and random states are as before, although this model draws
    random numbers, updates its running statistics when asked, and is in a mixed mode.
    """
    images = digits(16)
    model = Around(before=StuckNorm(), after=lambda logits: logits + 0 * torch.rand(1), model=_copy(healthy()))
    model.train()
    model.model.network.features[1].eval()
    model.model.network.head.bias.requires_grad_(False)
    model.model.network.head.weight.grad = torch.ones_like(model.model.network.head.weight)
    made, data = _profile(healthy(), images), batch(images)
    before, seed, pixels = _state(model), torch.get_rng_state(), data.images.clone()
    inspect_model(model, data, THREAT, STREAM)
    inspect_profile(made, model, images, sample=8, steps=3)
    after = _state(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(torch.get_rng_state(), seed)
    assert torch.equal(data.images, pixels)


def _copy(model):
    fresh = type(model)(type(model.network)(10), model.blueprint)
    fresh.load_state_dict(model.state_dict())
    return fresh


def _state(model):
    modes = {f"mode {name}": torch.tensor(module.training) for name, module in model.named_modules()}
    flags = {f"flag {name}": torch.tensor(tensor.requires_grad) for name, tensor in model.named_parameters()}
    slopes = {f"grad {name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return modes | flags | slopes | {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _forward_passes(model, work):
    calls = []
    with_hook = model.register_forward_hook(lambda *_: calls.append(1))
    try:
        work()
    finally:
        with_hook.remove()
    return len(calls)


def test_a_model_check_takes_the_passes_that_its_docstring_says():
    subject = Subject(healthy(), batch(digits(32)), THREAT, STREAM)
    costs = {check.name: _forward_passes(healthy(), lambda c=check: c.inspect(subject)) for check in MODEL_CHECKS}
    assert costs == {
        "input-range": 0,
        "train-mode": 0,
        "batch-dependence": 12,
        "randomised-output": 10,
        "probabilities": 1,
        "few-classes": 1,
        "gradient-graph": 1,
        "zero-gradients": 4,
        "gradient-noise": 21,
        "optimisation-in-inference": 1,
    }


def test_a_retrial_takes_no_more_passes_than_its_docstring_says():
    images, model = digits(16), Around(before=lambda images: images)
    given = examined(model, images, 2 / 255)
    costs = {check.name: _forward_passes(model, lambda c=check: c.inspect(given)) for check in RETRIAL_CHECKS}
    most = {"vanishing": 21, "single-step": 23, "more-budget": 63, "convergence": 402, "planted": 72}
    assert costs.keys() == most.keys()
    assert all(0 < costs[name] <= most[name] for name in most)
    assert costs["convergence"] == 402


def test_an_empty_batch_is_refused():
    nothing = Batch(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(Misuse, match="need at least one image"):
        inspect_model(healthy(), nothing, THREAT, STREAM)
