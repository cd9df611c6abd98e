from __future__ import annotations

import sys

import pytest
import torch
from torch.autograd import grad as renamed

from poise.evaluation.soundness.inner_optimisation import OptimisationInInference
from tests.evaluation.soundness.subjects import Around, healthy, subject


def _energy(images):
    return (images - 0.5).square().sum()


def _by_grad(images):
    for _ in range(2):
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            images = leaf - 0.1 * renamed(_energy(leaf), leaf)[0]
    return images.detach()


def _by_backward(images):
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        _energy(leaf).backward()
    return (leaf - 0.1 * leaf.grad).detach()


def _by_function(images):
    return images - 0.1 * torch.func.grad(_energy)(images)


def _on_weights(model):
    def before(images):
        with torch.enable_grad():
            model(images).square().sum().backward()
        return images

    return before


def test_a_plain_forward_pass_passes():
    assert OptimisationInInference().inspect(subject(healthy())).status == "pass"


@pytest.mark.parametrize(
    ("before", "calls"),
    [
        (_by_grad, "torch.autograd.grad 2 times"),
        (_by_backward, "torch.autograd.backward 1 times"),
        (_by_function, "torch.autograd.grad 1 times"),
    ],
)
def test_gradients_inside_the_forward_pass_are_warned_of(before, calls):
    found = OptimisationInInference().inspect(subject(Around(before=before)))
    assert found.status == "warn"
    assert calls in found.evidence


def test_the_flag_of_one_model_does_not_stick_to_the_next():
    """The official check counts in module globals that are never reset, so every later model is flagged too."""
    check = OptimisationInInference()
    statuses = [
        check.inspect(subject(model)).status for model in (Around(before=_by_grad), healthy(), Around(before=_by_grad))
    ]
    assert statuses == ["warn", "pass", "warn"]


def test_a_function_that_happens_to_be_called_grad_is_none():
    """The official check goes by names."""

    def grad(images):
        return images

    assert OptimisationInInference().inspect(subject(Around(before=grad))).status == "pass"


def test_a_profiler_is_put_back_even_when_the_model_fails():
    def profiler(frame, event, argument):
        return None

    def broken(images):
        raise ArithmeticError

    sys.setprofile(profiler)
    try:
        with pytest.raises(ArithmeticError):
            OptimisationInInference().inspect(subject(Around(before=broken)))
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


def test_gradients_that_the_model_leaves_on_its_weights_are_removed():
    model = healthy()
    kept = torch.ones_like(model.network.head.weight)
    model.network.head.weight.grad = kept
    assert OptimisationInInference().inspect(subject(Around(before=_on_weights(model)))).status == "warn"
    assert model.network.head.weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert model.network.head.bias.grad is None
    model.zero_grad()
