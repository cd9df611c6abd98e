from __future__ import annotations

import torch

from poise.attacks import Problem
from tests.linear import batch


def test_a_batch_is_a_problem_with_one_budget_or_one_each_and_targets_where_they_are_given():
    data = batch(3, (4,), 5)
    plain = Problem.of(data, 0.1)
    assert plain.images is data.images
    assert torch.equal(plain.radius, torch.full((3,), 0.1, dtype=data.images.dtype))
    assert [plain.labels.tolist(), plain.ids.tolist()] == [data.labels.tolist(), data.ids.tolist()]
    assert [plain.targets.tolist(), plain.restart.tolist()] == [[0, 0, 0], [0, 0, 0]]
    aimed = Problem.of(data, torch.tensor([0.0, 0.1, 0.2]), (data.labels + 1) % 5)
    assert torch.equal(aimed.radius, torch.tensor([0.0, 0.1, 0.2]).to(data.images))
    assert torch.equal(aimed.targets, (data.labels + 1) % 5)
