from __future__ import annotations

import json

import pytest
import torch

from poise.core.misuse import Failure, Misuse
from poise.models import exporting, open_model
from poise.models.exporting import export_model

CLASSES = ("ant", "bee", "cat")
NETWORKS = {
    "small": ("small", (3, 16, 16)),
    "resnet": ("timm:resnet10t", (3, 40, 40)),
    "vit": ("timm:test_vit", (3, 180, 180)),  # shrunk inside, with antialiasing
}


def _model(name: str):
    address, shape = NETWORKS[name]
    weights = None if address == "small" else "random"
    model = open_model(address, weights=weights, classes=CLASSES, shape=shape, new_head=True, seed=1)
    return model, torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_an_export_runs_elsewhere_with_the_same_logits_for_any_batch(tmp_path, name, kind):
    model, images = _model(name)
    model.train()
    before = model.digest()
    path = tmp_path / "model"
    agreement = export_model(model, path, images, kind=kind)
    assert agreement.images == 5
    assert agreement.difference <= 1e-4
    assert all(module.training for module in model.modules())
    assert model.digest() == before
    model.eval()
    for count in (1, 4):
        found = _run(path, kind, images[:count])
        torch.testing.assert_close(found, model(images[:count]).detach(), atol=1e-4, rtol=0)
    assert list(tmp_path.iterdir()) == [path]


def _run(path, kind, images):
    if kind == "torch":
        return torch.export.load(path).module()(images)
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["classes"]) == list(CLASSES)
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def test_a_file_that_disagrees_is_not_written(tmp_path, monkeypatch):
    model, images = _model("small")
    path = tmp_path / "model.pt2"
    path.write_text("the last good one")
    monkeypatch.setattr(exporting, "_save_program", lambda program, file: (file.touch(), lambda x: model(x) + 2e-4)[1])
    with pytest.raises(Failure, match=r"differs from the original by 2.*e-04 in a logit"):
        export_model(model, path, images, kind="torch")
    assert path.read_text() == "the last good one"
    assert list(tmp_path.iterdir()) == [path]


def test_equal_logits_that_tie_differently_are_refused_too(tmp_path, monkeypatch):
    model, images = _model("small")
    monkeypatch.setattr(
        exporting, "_save_program", lambda program, file: (file.touch(), lambda x: model(x).nan_to_num() * torch.nan)[1]
    )
    with pytest.raises(Failure):
        export_model(model, tmp_path / "model.pt2", images, kind="torch")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"kind": "onx"}, "unknown format 'onx'; did you mean 'onnx'"),
        ({"opset": 11}, "opset must be at least 18"),
        ({"images": 1}, "at least 2 images; got 1"),
    ],
)
def test_bad_requests_are_refused_before_any_work(tmp_path, unchecked, changes, line):
    model, images = _model("small")
    images = images[: changes.pop("images", 5)]
    with pytest.raises(Misuse, match=line):
        export_model(model, tmp_path / "model", images, **changes)
