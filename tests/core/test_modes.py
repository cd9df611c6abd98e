from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from poise.core.modes import evaluating, exact, frozen, precision, steady, threads


def _model():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[1].eval()  # a batch norm that its owner keeps frozen
    model[0].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize("training", [False, True])
def test_modes_are_restored_module_by_module(training):
    model = _model()
    with evaluating(model, training=training):
        assert {module.training for module in model.modules()} == {training}
    assert [module.training for module in model] == [True, False, True]


def test_modes_and_flags_are_restored_after_an_error():
    model = _model()
    with pytest.raises(RuntimeError, match="inside"), evaluating(model), frozen(model):
        raise RuntimeError("inside")
    assert [module.training for module in model] == [True, False, True]
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]


def test_frozen_switches_all_off_and_restores_each():
    model = _model()
    with frozen(model):
        assert not any(p.requires_grad for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]


def test_steady_holds_batch_norms_and_nothing_else():
    model = nn.Sequential(_model(), nn.BatchNorm1d(2))
    with pytest.raises(RuntimeError, match="inside"), steady(model):
        assert [module.training for module in model.modules()] == [True, True, True, False, True, False]
        raise RuntimeError("inside")
    assert [module.training for module in model.modules()] == [True, True, True, False, True, True]
    with steady(model, wanted=False):
        assert model[1].training


def test_precision_reaches_the_forward_pass_only_when_asked():
    layer, images = nn.Linear(2, 2), torch.ones(1, 2)
    with precision("fp32", images.device):
        assert layer(images).dtype == torch.float32
    with precision("bf16", images.device):
        assert layer(images).dtype == torch.bfloat16


def test_the_number_of_threads_is_restored():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_two_threads_that_are_exact_at_once_leave_the_process_as_it_was():
    place = torch.backends.cuda.matmul
    before, place.fp32_precision = place.fp32_precision, "tf32"
    inside, over = threading.Event(), threading.Event()

    def first():
        with exact(torch.device("cpu")):
            inside.set()
            over.wait(10)

    try:
        thread = threading.Thread(target=first)
        thread.start()
        inside.wait(10)
        with exact(torch.device("cpu")):
            over.set()
            thread.join()
            assert place.fp32_precision == "ieee"
        assert place.fp32_precision == "tf32"
    finally:
        place.fp32_precision = before
