"""Bounds of spectral norms: never below the truth, and near it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from poise.evaluation.certificates.spectral import convolution_norm, matrix_norm


def _random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (60, 20), (3, 200)])
def test_the_norm_of_a_matrix_is_met_from_above(shape):
    matrix = _random(*shape)
    truth = float(torch.linalg.matrix_norm(matrix, 2))
    assert truth <= matrix_norm(matrix) <= truth * (1 + 1e-4)


@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1e20, 1e100])
def test_the_norm_survives_scales_at_which_powers_overflow(scale):
    matrix = _random(6, 4) * scale
    assert matrix_norm(matrix) / scale == pytest.approx(matrix_norm(_random(6, 4)), rel=1e-9)


def test_equal_singular_values_are_the_slowest_case_and_still_close():
    orthogonal = torch.linalg.qr(_random(64, 64)).Q
    assert 1 <= matrix_norm(orthogonal) * (1 + 1e-12) <= 1.003


def test_a_norm_of_zero_is_no_trouble():
    assert 0 <= matrix_norm(torch.zeros(3, 4, dtype=torch.float64)) < 1e-100


@pytest.mark.parametrize(
    ("side", "stride", "padding", "dilation"),
    [
        (3, (1, 1), (1, 1), (1, 1)),
        (3, (2, 2), (1, 1), (1, 1)),
        (3, (2, 1), (0, 0), (1, 1)),
        (3, (1, 1), (2, 2), (2, 2)),
        (1, (2, 2), (0, 0), (1, 1)),
        (2, (1, 1), (0, 0), (1, 1)),
        (5, (3, 3), (2, 2), (1, 1)),
        (4, (4, 4), (0, 0), (1, 1)),
    ],
)
def test_the_norm_of_a_convolution_with_zero_padding_is_met_from_above(side, stride, padding, dilation):
    kernel, size = _random(4, 3, side, side), (7, 8)
    unit_images = torch.eye(3 * 56, dtype=torch.float64).view(-1, 3, *size)
    matrix = functional.conv2d(unit_images, kernel, stride=stride, padding=padding, dilation=dilation).flatten(1)
    truth = float(torch.linalg.matrix_norm(matrix, 2))
    found = convolution_norm(kernel, size, stride, dilation)
    assert truth <= found <= 1.25 * truth
