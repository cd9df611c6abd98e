from __future__ import annotations

import onnxruntime
import pytest
import torch

from poise import Standard, Training, finetune, profile
from poise.cli import main
from poise.data import open_data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run with a profile."""
    options = Training(epochs=1, learning_rate=1e-2)
    folder = tmp_path_factory.mktemp("export") / "run"
    found = finetune("small", limit=120, objective=Standard(), training=options, validate_on=0, trackers=(), out=folder)
    profile(found.address, suite="fast", limit=20, soundness=False)
    return found


def test_a_run_is_exported_beside_its_model_with_a_card_of_its_profile(run, capsys):
    assert main(["export", run.address]) == 0
    assert "same predictions on" in capsys.readouterr().err
    images = open_data("digits").validation.images(torch.arange(7))
    session = onnxruntime.InferenceSession(run.path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), run.classifier().eval()(images).detach(), atol=1e-4, rtol=0)
    card = (run.path / "model.md").read_text()
    assert "20 images" in card
    assert "The suite fast is weak" in card
    assert main(["export", run.address]) == 2
    assert "exists already" in capsys.readouterr().err


def test_other_models_go_where_they_are_told_and_without_a_card_if_so_asked(tmp_path, capsys):
    out = tmp_path / "other.pt2"
    words = ["export", "small", "--weights", "random", "--format", "torch", "--images", "3", "--card", "false"]
    assert main([*words, "--out", str(out)]) == 0
    assert "3 images" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [out]
