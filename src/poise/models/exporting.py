"""Classifiers for other runtimes, as ONNX or torch.export files that exist only if they agree with the original."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.core.files import written_whole
from poise.core.misuse import Failure, Misuse, suggestion
from poise.core.modes import evaluating, frozen
from poise.models.classifier import Classifier

Format = Literal["onnx", "torch"]

ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
"""The ending of each format's files."""

TOLERANCE = 1e-4
"""The largest difference of a logit, in units of the logits, at which an export still counts as the same model."""

_Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Agreement:
    """How an exported file compares with the model that it was made from.

    Args:
        images: images on which both were run, in batches of one, two and all.
        difference: largest absolute difference of a logit.
    """

    images: int
    difference: float

    def __str__(self) -> str:
        return f"same predictions on {self.images} images, logits differ by at most {self.difference:.1e}"


def export_model(
    classifier: Classifier, path: Path, images: Float[Tensor, "n *shape"], *, kind: Format = "onnx", opset: int = 20
) -> Agreement:
    """Write a classifier for another runtime: images in [0, 1] in, logits out, for batches of any size.

    Normalisation and resizing are inside, as they are in the classifier. An ONNX file also carries the class names, the
    shape of an image and the classifier's digest as metadata. The file is run on the images before it gets its name.

    Args:
        classifier: the model; it is left as it was found.
        path: the file to write; an older one is replaced whole.
        images: real images in [0, 1], at least 2, on the classifier's device; what the export is compared on.
        kind: onnx, or torch for torch.export's archive.
        opset: version of ONNX's operators, at least 18; what the target runtime knows decides.

    Returns:
        How far the file and the classifier agree.

    Raises:
        Misuse: for an unknown format, too few images, an opset below 18, and where the packages are not installed.
        Failure: where the file disagrees with the classifier; nothing is written then.
    """
    if kind not in get_args(Format):
        raise Misuse(f"unknown format {kind!r}; {suggestion(str(kind), get_args(Format))}")
    if len(images) < 2:
        raise Misuse(f"an export is compared on at least 2 images; got {len(images)}")
    if opset < 18:
        raise Misuse(f"opset must be at least 18, as resizing is defined before in other ways; got {opset}")
    if kind == "onnx" and (missing := [name for name in ("onnxruntime", "onnxscript") if find_spec(name) is None]):
        raise Misuse(f"export to ONNX needs {' and '.join(missing)}; install them with pip install 'poise[export]'")
    with torch.no_grad(), evaluating(classifier), frozen(classifier), written_whole(path) as partial:
        program = torch.export.export(
            classifier, (images[:2],), dynamic_shapes=({0: torch.export.Dim("n")},), strict=False
        )
        run = _save_onnx(program, classifier, partial, opset) if kind == "onnx" else _save_program(program, partial)
        return _agreement(classifier, run, images)


def _save_program(program: torch.export.ExportedProgram, path: Path) -> _Run:
    with path.open("wb") as handle:
        torch.export.save(program, handle)
    with path.open("rb") as handle:
        module: nn.Module = torch.export.load(handle).module()
    return module


def _save_onnx(program: torch.export.ExportedProgram, classifier: Classifier, path: Path, opset: int) -> _Run:
    import onnxruntime  # noqa: PLC0415 - an extra

    found = torch.onnx.export(
        program, input_names=["images"], output_names=["logits"], opset_version=opset, dynamo=True, verbose=False
    )
    assert found is not None  # noqa: S101 - `dynamo=True` returns a program
    found.model.metadata_props.update(
        classes=json.dumps(classifier.classes), shape=json.dumps(classifier.blueprint.shape), digest=classifier.digest()
    )
    found.save(path)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.cpu().numpy()})
        return torch.from_numpy(logits).to(images.device)

    return run


def _agreement(classifier: Classifier, run: _Run, images: Tensor) -> Agreement:
    """Compare on batches of one, two and all images; a file that knows only one batch size fails here."""
    difference = 0.0
    for batch in (images[:1], images[:2], images):
        expected, found = classifier(batch), run(batch)
        difference = max(difference, float((expected - found).abs().max()))
        if not difference <= TOLERANCE or not torch.equal(expected.argmax(1), found.argmax(1)):
            raise Failure(
                f"the exported model differs from the original by {difference:.1e} in a logit, more than "
                f"{TOLERANCE:.0e}, or predicts other classes; nothing was written"
            )
    return Agreement(len(images), difference)
