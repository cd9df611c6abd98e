from __future__ import annotations

import json

import pytest
import torch

from poise.core.misuse import Failure, Misuse
from poise.models import exporting, open_model
from poise.models.exporting import export_model
from poise.models.mixing import Blend, Gate, MixedClassifier, Sharpening, SlopeGate, plan_gate
from poise.models.operators import erf

CLASSES = ("ant", "bee", "cat")
NETWORKS = {
    "small": ("small", (3, 16, 16)),
    "resnet": ("timm:test_resnet", (3, 40, 40)),
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


def _run(path, kind, images, **further):
    if kind == "torch":
        return torch.export.load(path).module()(images, *further.values())
    session = _session(path)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["classes"]) == list(CLASSES)
    fed = {name: value.numpy() for name, value in further.items()}
    return torch.from_numpy(session.run(None, {"images": images.numpy(), **fed})[0])


def _session(path):
    return pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])


def _branch(address, seed):
    weights = "random" if address.startswith("timm:") else None
    return open_model(address, weights=weights, classes=CLASSES, shape=(3, 40, 40), new_head=True, seed=seed)


def _mixture(kind):
    """A mixture and images: of two small networks, or of a transformer and a convolutional network with a gate."""
    images = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    if kind == "gated":
        standard, robust = _branch("timm:test_vit", 1), _branch("timm:test_resnet", 2)
        torch.manual_seed(3)
        gate = Gate(plan_gate(standard, robust))
        return MixedClassifier.of(standard, robust, Blend(alpha_low=0.2, alpha_high=0.9), gate), images
    sharpening = Sharpening(scale=1.5, power=2, shift=0.2) if kind == "sharpened" else None
    blend = Blend(alpha_low=0.7, alpha_high=0.7, scale_standard=3, sharpening=sharpening)
    return MixedClassifier.of(_branch("small", 1), _branch("small", 2), blend), images


@pytest.mark.parametrize(
    ("name", "kind"),
    [("plain", "onnx"), ("plain", "torch"), ("sharpened", "onnx"), ("gated", "onnx"), ("gated", "torch")],
)
def test_an_exported_mixture_takes_alpha_or_its_bounds_for_every_image(tmp_path, name, kind):
    model, images = _mixture(name)
    path = tmp_path / "model"
    agreement = export_model(model, path, images, kind=kind)
    own = "0.2 to 0.9, 0 to 1, 0 to 0, 0.5 to 0.5, 1 to 1" if name == "gated" else "0.7, 0, 0.5, 1"
    assert agreement.settings == f"alpha {own}"
    if name == "gated":  # bounds that the export was not compared at, each image with its own
        further = {"alpha_low": (0.1, 0.3, 0.4, 1.0), "alpha_high": (0.6, 0.3, 0.8, 1.0)}
        at = [model.within(0.1, 0.6), model.at(0.3), model.within(0.4, 0.8), model.at(1.0)]
    else:
        further = {"alpha": (0.25, 0.999999, 1.0, 0.0)}
        at = [model.at(alpha) for alpha in further["alpha"]]
    fed = {key: torch.tensor(values, dtype=torch.float64) for key, values in further.items()}
    expected = torch.cat([each(images[row : row + 1]) for row, each in enumerate(at)])
    torch.testing.assert_close(_run(path, kind, images[:4], **fed), expected.detach(), atol=1e-4, rtol=0)
    if kind == "onnx":
        known = _session(path).get_modelmeta().custom_metadata_map
        assert {key: json.loads(known[key]) for key in further} == (
            {"alpha_low": 0.2, "alpha_high": 0.9} if name == "gated" else {"alpha": 0.7}
        )


def test_alpha_can_stay_inside_the_file(tmp_path):
    model, images = _mixture("plain")
    agreement = export_model(model, tmp_path / "model", images, kind="torch", alpha="fixed")
    assert agreement.settings == ""
    torch.testing.assert_close(_run(tmp_path / "model", "torch", images), model(images).detach(), atol=1e-4, rtol=0)


def test_a_file_that_takes_one_alpha_for_all_images_is_not_written(tmp_path, monkeypatch):
    model, images = _mixture("plain")

    def deaf(program, file):
        file.touch()
        return lambda x, alpha: model.at(float(alpha[0]))(x)

    monkeypatch.setattr(exporting, "_save_program", deaf)
    with pytest.raises(Failure, match="differs from the original"):
        export_model(model, tmp_path / "model.pt2", images, kind="torch")


def test_a_gate_that_needs_gradients_is_refused(tmp_path):
    model, images = _mixture("plain")
    model = MixedClassifier.of(model.standard, model.robust, Blend(alpha_low=0, alpha_high=1), SlopeGate(1.0))
    with pytest.raises(Misuse, match="differentiates the standard branch"):
        export_model(model, tmp_path / "model", images)


def test_the_spelled_out_error_function_is_exact_to_rounding():
    values = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    torch.testing.assert_close(erf(values), torch.erf(values), atol=1e-14, rtol=0)


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
