from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save

from poise.training.checkpoint import Position, save_checkpoint


def _saved(folder, tensors):
    save_checkpoint(folder, {"model": tensors}, Position())
    return next(folder.glob("*/model.safetensors"))


def test_tensors_that_share_memory_are_saved_as_their_copies_would_be(tmp_path):
    weight = torch.arange(12.0).view(3, 4)
    tensors = {
        "embedding": weight,
        "tied": weight,
        "row": weight[1],
        "turned": weight.T,
        "empty": torch.zeros(0),
        "scalar": torch.tensor(3),
    }
    file = _saved(tmp_path, tensors)
    assert file.read_bytes() == save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})
    for name, tensor in load_file(file).items():
        assert torch.equal(tensor, tensors[name])


def test_what_shares_no_memory_is_not_copied_for_saving(tmp_path, monkeypatch):
    tensors = {"weight": torch.ones(3, 4), "bias": torch.zeros(4)}
    monkeypatch.setattr(torch.Tensor, "clone", lambda *_: pytest.fail("copied"))
    assert load_file(_saved(tmp_path, tensors))["weight"].sum() == 12
