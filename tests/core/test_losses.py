from __future__ import annotations

import math

import pytest
import torch

from poise.core import losses

LOGITS = torch.tensor([[4.0, 1.0, 0.0, -1.0], [1.0, 2.0, 5.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])


def test_margin_is_signed_by_correctness():
    assert losses.margin(LOGITS, LABELS).tolist() == [3.0, -3.0]


def test_dlr_by_hand():
    expected = [-3 / (4 - 0), 3 / (5 - 1)]
    torch.testing.assert_close(losses.dlr(LOGITS, LABELS), torch.tensor(expected, dtype=torch.float64))


def test_dlr_ignores_shift_and_scale():
    torch.testing.assert_close(losses.dlr(LOGITS * 7 + 3, LABELS), losses.dlr(LOGITS, LABELS))


def test_targeted_dlr_by_hand():
    targets = torch.tensor([1, 2])
    expected = [-(4 - 1) / (4 - 0.5 * (0 - 1)), -(2 - 5) / (5 - 0.5 * (1 + 0))]
    actual = losses.targeted_dlr(LOGITS, LABELS, targets)
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))


def test_too_few_classes_are_refused():
    with pytest.raises(ValueError, match="at least 3 classes; got 2"):
        losses.dlr(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="at least 4 classes; got 3"):
        losses.targeted_dlr(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long))


def test_target_lead_by_hand():
    assert losses.target_lead(LOGITS, LABELS, torch.tensor([1, 2])).tolist() == [-3.0, 3.0]


def test_kl_divergence_by_hand():
    reference, logits = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert losses.kl_divergence(logits, reference).item() == pytest.approx(expected, rel=1e-6)


def test_logit_distance_by_hand():
    assert losses.logit_distance(LOGITS, torch.zeros_like(LOGITS)).tolist() == [0.5 * 18 / 4, 0.5 * 30 / 4]
