"""Locally biased smoothing, by its definition."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from poise.core.misuse import Misuse
from poise.models import load_model, save_model
from poise.models.mixing import Blend, MixedClassifier, NeighbourClassifier, SlopeGate
from tests.models_for_tests import linear_classifier

SHAPE = (1, 3, 3)


def _neighbours(k: int = 5) -> NeighbourClassifier:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(60, *SHAPE, generator=generator, dtype=torch.float64)
    names = tuple(f"class {index}" for index in range(3))
    return NeighbourClassifier.of(images, torch.arange(60) % 3, names, k)


def _biased(strength: float = 0.3) -> MixedClassifier:
    standard = linear_classifier(3, SHAPE, seed=2, dtype=torch.float64)
    return MixedClassifier.of(standard, _neighbours(), Blend(alpha_low=0.0, alpha_high=1.0), SlopeGate(strength))


def _some(count: int = 20) -> torch.Tensor:
    return torch.rand(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_votes_are_those_of_scikit_learn():
    neighbours, images = _neighbours(), _some()
    judge = KNeighborsClassifier(5).fit(neighbours.network.images.flatten(1), neighbours.network.labels)
    votes = torch.from_numpy(judge.predict_proba(images.flatten(1).numpy()))
    assert torch.allclose(neighbours(images).exp(), (5 * votes + 1 / 3) / 6)


def test_the_mixture_is_the_definition_with_the_slope_of_the_margin():
    mixed, images = _biased(0.3), _some()
    logits = mixed.standard(images)
    top = logits.topk(2, dim=1).indices
    weight = mixed.standard.network.weight
    slope = (weight[top[:, 0]] - weight[top[:, 1]]).abs().sum(1, keepdim=True)
    expected = (logits.softmax(1) + 0.3 * slope * mixed.robust(images).exp()) / (1 + 0.3 * slope)
    assert torch.allclose(mixed(images).exp(), expected)
    with torch.no_grad():
        assert torch.allclose(mixed(images).exp(), expected)


def test_it_is_saved_and_attacked_through_a_soft_vote(tmp_path):
    mixed, images = _biased().eval(), _some().requires_grad_()
    assert list(mixed.surrogates()) == ["joint", "robust", "standard", "gate", "robust soft"]
    assert (torch.autograd.grad(mixed.robust(images).sum(), images)[0] == 0).all()
    soft = mixed.surrogates()["robust soft"](images)
    assert (torch.autograd.grad(soft[:, 0].sum(), images)[0].flatten(1).abs().amax(1) > 0).all()
    assert (soft.argmax(1) == mixed.robust(images).argmax(1)).double().mean() > 0.5
    save_model(_neighbours(), tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(loaded(images), _neighbours()(images))
    assert isinstance(loaded, NeighbourClassifier)


def test_impossible_votes_are_refused():
    with pytest.raises(Misuse, match="of 60 training images from 1 to all can vote; got 61"):
        _neighbours(61)
    with pytest.raises(Misuse, match="strength above 0"):
        SlopeGate(0.0)
