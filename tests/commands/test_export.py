from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from poise import Standard, Training, certify, finetune, mix, profile
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


def test_a_photo_prepared_as_file_and_card_say_gives_the_logits_of_the_run(tmp_path):
    photos = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (photos / name).mkdir(parents=True)
        for number in range(12):
            noise = generator.integers(0, 256, (30, 52, 3), dtype=np.uint8)
            Image.fromarray(noise).save(photos / name / f"{number}.png")
    training = Training(epochs=1, batch_size=4)
    options = {"objective": Standard(), "training": training, "validate_on": 0, "trackers": ()}
    run = finetune("small", f"folder:{photos}", image_size=16, out=tmp_path / "run", **options)
    assert main(["export", run.address, "--images", "2"]) == 0
    session = onnxruntime.InferenceSession(run.path / "model.onnx", providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["shape"]) == [3, 16, 16]
    words = "largest central square, resized (bilinear, antialiased)"
    assert words in said["preparation"]
    assert "values in [0, 1]" in said["preparation"]
    assert words in " ".join((run.path / "model.md").read_text().split())
    square = Image.open(photos / "ant" / "0.png").crop((11, 0, 41, 30)).resize((16, 16), Image.Resampling.BILINEAR)
    prepared = (np.asarray(square, dtype=np.float32) / 255).transpose(2, 0, 1)[None]
    (found,) = session.run(None, {"images": prepared})
    opened = open_data(f"folder:{photos}", image_size=16)
    mine = torch.cat([part.images(torch.arange(len(part))) for part in (opened.train, opened.validation, opened.test)])
    (of_the_photo,) = (mine == torch.from_numpy(prepared)).flatten(1).all(1).nonzero().flatten().tolist()
    served = run.classifier().eval()(mine[[of_the_photo]]).detach()
    torch.testing.assert_close(torch.from_numpy(found), served, atol=1e-4, rtol=0)


def test_a_file_for_images_that_are_not_cut_says_so(tmp_path):
    run = finetune(
        "small", "digits", limit=20, training=Training(epochs=1), validate_on=0, trackers=(), out=tmp_path / "r"
    )
    assert main(["export", run.address, "--images", "2"]) == 0
    session = onnxruntime.InferenceSession(run.path / "model.onnx", providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map["preparation"]
    assert said == "as they are, neither cut nor resized; values in [0, 1]"
    card = " ".join((run.path / "model.md").read_text().split())
    assert "brought to that size as in training: as they are, neither cut nor resized." in card


def test_the_card_of_a_mixture_says_at_which_alpha_it_was_measured(run, tmp_path):
    mixed = mix(run.address, run.address, "digits", alpha=0.75, limit=120, out=tmp_path / "mixed")
    certify(mixed.address, limit=5, method="lipschitz")
    assert main(["export", mixed.address, "--uses", "Sorting mail, never for medical use. # 1"]) == 0
    card = (mixed.path / "model.md").read_text()
    assert "- Sorting mail, never for medical use. \\# 1\n" in card
    assert "with alpha 0.75: other alphas have other figures" in card
    assert "The file takes alpha beside the images" in card
    assert "proven" in card
    assert "The suite fast is weak" not in card
    assert "has not been attacked" in card
