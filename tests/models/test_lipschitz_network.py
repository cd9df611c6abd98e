"""The 1-Lipschitz network: no pair of images is stretched, whatever the weights."""

from __future__ import annotations

import pytest
import torch

from poise.models import load_model, open_model, save_model
from poise.models.lipschitz import AlmostOrthogonal, group_sort


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("side", [1, 3, 5])
def test_a_layer_stretches_no_image_whatever_its_weights(scale, side):
    layer = AlmostOrthogonal(3, 8, side).double()
    with torch.no_grad():
        layer.weight.normal_().mul_(scale)
        images = torch.eye(75, dtype=torch.float64).view(75, 3, 5, 5)
        matrix = (layer(images) - layer(torch.zeros_like(images))).flatten(1)
    norm = float(torch.linalg.matrix_norm(matrix, 2))
    assert 0.3 < norm <= 1 + 1e-12


def test_sorting_keeps_distances_of_neighbours():
    features = torch.randn(10, 6, 2, 2)
    found = group_sort(features)
    assert torch.equal(found[:, 0], features[:, :2].amin(1))
    assert torch.equal(found[:, 1], features[:, :2].amax(1))
    assert torch.allclose(found.square().sum(), features.square().sum())


def test_it_is_trained_saved_and_opened_like_any_other(tmp_path):
    model = open_model("lipschitz", classes=("a", "b"), shape=(3, 8, 8), seed=2).eval()
    images = torch.rand(20, 3, 8, 8, requires_grad=True)
    model(images)[:, 0].sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.head_parameters() if parameter.ndim > 1)
    assert model.network.first.weight.grad.abs().sum() > 0
    # Normalisation divides by 0.25 and the logits are six times a 1-Lipschitz function.
    assert images.grad.flatten(1).norm(dim=1).max() <= 24
    save_model(model, tmp_path)
    assert torch.equal(load_model(tmp_path).eval()(images), model(images))
