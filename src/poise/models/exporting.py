"""Classifiers for other runtimes, as ONNX or torch.export files that exist only if they agree with the original."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.core.files import written_whole
from poise.core.misuse import Failure, Misuse, check_choice
from poise.core.modes import evaluating, frozen
from poise.models.classifier import Classifier
from poise.models.mixing import MixedClassifier
from poise.models.mixing.adjustable import adjustable, settings
from poise.models.operators import portable_operators
from poise.models.smoothed import Smoothed

Format = Literal["onnx", "torch"]

ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
"""The ending of each format's files."""

TOLERANCE = 1e-4
"""The largest difference of a logit, in units of the logits, at which an export still counts as the same model."""

AlphaForm = Literal["input", "fixed"]

_RANGE = "values in [0, 1]"

_Run = Callable[..., Tensor]


@dataclass(frozen=True)
class Agreement:
    """How an exported file compares with the model that it was made from.

    Args:
        images: images on which both were run, in batches of one, two and all.
        difference: largest absolute difference of a logit.
        settings: where a mixture's alpha is an input: at which values of it, in words; "" for a file of images alone.
    """

    images: int
    difference: float
    settings: str = ""

    def __str__(self) -> str:
        where = f" at {self.settings}" if self.settings else ""
        return f"same predictions on {self.images} images{where}, logits differ by at most {self.difference:.1e}"


@dataclass(frozen=True)
class _Form:
    """What is exported of a classifier.

    Args:
        module: maps images and the further inputs, one number an image each, to logits.
        inputs: names of the further inputs.
        settings: values of these, the classifier's own ones first, and the classifier that the module then equals.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    settings: tuple[tuple[tuple[float, ...], Classifier], ...]

    @classmethod
    def of(cls, classifier: Classifier, alpha: AlphaForm) -> _Form:
        if isinstance(classifier.network, Smoothed):
            raise Misuse(
                f"{classifier.blueprint.address} averages over random noise, which no file of another runtime holds; "
                "export the network that it smooths, or run it with poise"
            )
        if not isinstance(classifier, MixedClassifier):
            return cls(classifier, (), (((), classifier),))
        module = adjustable(classifier)  # refuses what cannot be exported in either form
        if alpha == "fixed":
            return cls(classifier, (), (((), classifier),))
        return cls(module, module.inputs, tuple(settings(classifier)))

    def __str__(self) -> str:
        """The settings in words, such as "alpha 0.3, 0, 1"."""
        values = ", ".join(" to ".join(f"{value:g}" for value in point) for point, _ in self.settings)
        return f"alpha {values}" if self.inputs else ""

    def filled(self, point: tuple[float, ...], count: int, device: torch.device) -> tuple[Tensor, ...]:
        """The further inputs of some images at one setting."""
        return tuple(torch.full((count,), value, dtype=torch.float64, device=device) for value in point)


def export_model(
    classifier: Classifier,
    path: Path,
    images: Float[Tensor, "n *shape"],
    *,
    kind: Format = "onnx",
    opset: int = 20,
    alpha: AlphaForm = "input",
    preparation: str = "",
) -> Agreement:
    """Write a classifier for another runtime: images in [0, 1] in, logits out, for batches of any size.

    Normalisation and resizing are inside, as they are in the classifier. An ONNX file also carries the class names, the
    shape of an image and the classifier's digest as metadata. The file is run on the images before it gets its name.

    A mixture takes further inputs behind the images, float64 with a number for each image: `alpha` in [0, 1], or
    `alpha_low` and `alpha_high` where a gate chooses alpha between them. Its own values stand in the metadata under
    these names. Such a file is compared at these values, at alpha 0, 0.5 and 1 (with a gate, also between 0 and 1), and
    with images of one batch at different ones. What a caller passes is not checked to lie in [0, 1].

    Args:
        classifier: the model; it is left as it was found.
        path: the file to write; an older one is replaced whole.
        images: real images in [0, 1], at least 2, on the classifier's device; what the export is compared on.
        kind: onnx, or torch for torch.export's archive.
        opset: version of ONNX's operators, at least 18; what the target runtime knows decides.
        alpha: of a mixture, whether its alpha or bounds are inputs, or fixed as they are; no matter to others.
        preparation: how images are brought to their shape, for the metadata of an ONNX file.

    Returns:
        How far the file and the classifier agree.

    Raises:
        Misuse: for an unknown format, too few images, an opset below 18, a mixture whose gate needs gradients, and
            where the packages are not installed.
        Failure: where the file disagrees with the classifier; nothing is written then.
    """
    check_choice("format", kind, get_args(Format))
    if len(images) < 2:
        raise Misuse(f"an export is compared on at least 2 images; got {len(images)}")
    if opset < 18:
        raise Misuse(f"opset must be at least 18, as resizing is defined before in other ways; got {opset}")
    if kind == "onnx" and (missing := [name for name in ("onnxruntime", "onnxscript") if find_spec(name) is None]):
        raise Misuse(f"export to ONNX needs {' and '.join(missing)}; install them with pip install 'poise[export]'")
    check_choice("form of alpha", alpha, get_args(AlphaForm))
    form = _Form.of(classifier, alpha)
    with torch.no_grad(), evaluating(classifier), frozen(classifier), written_whole(path) as partial:
        program = _program(form, images[:2])
        if kind == "torch":
            return _agreement(form, _save_program(program, partial), images)
        told = _metadata(classifier, form) | {"preparation": "; ".join(filter(None, (preparation, _RANGE)))}
        return _agreement(form, _save_onnx(program, classifier, form, partial, opset, told), images)


def _program(form: _Form, images: Tensor) -> torch.export.ExportedProgram:
    """The computation for any number of images, traced on two."""
    example = (images, *form.filled(form.settings[0][0], len(images), images.device))
    count = torch.export.Dim("n")
    return torch.export.export(
        form.module.eval(), example, dynamic_shapes=tuple({0: count} for _ in example), strict=False
    )


def _save_program(program: torch.export.ExportedProgram, path: Path) -> _Run:
    with path.open("wb") as handle:
        torch.export.save(program, handle)
    with path.open("rb") as handle:
        module: nn.Module = torch.export.load(handle).module()
    return module


def _metadata(classifier: Classifier, form: _Form) -> dict[str, str]:
    """What an ONNX file says of itself, beside how images are prepared."""
    own = dict(zip(form.inputs, form.settings[0][0], strict=True))
    told = {"classes": classifier.classes, "shape": classifier.blueprint.shape, **own}
    return {name: json.dumps(value) for name, value in told.items()} | {"digest": classifier.digest()}


def _save_onnx(
    program: torch.export.ExportedProgram,
    classifier: Classifier,
    form: _Form,
    path: Path,
    opset: int,
    told: Mapping[str, str],
) -> _Run:
    import onnxruntime  # noqa: PLC0415 - an extra

    names = ("images", *form.inputs)
    if isinstance(classifier, MixedClassifier):
        program = program.run_decompositions(portable_operators())
    found = torch.onnx.export(
        program, input_names=list(names), output_names=["logits"], opset_version=opset, dynamo=True, verbose=False
    )
    assert found is not None  # noqa: S101 - `dynamo=True` returns a program
    found.model.metadata_props.update(told)
    found.save(path)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(*given: Tensor) -> Tensor:
        fed = {name: tensor.cpu().numpy() for name, tensor in zip(names, given, strict=True)}
        (logits,) = session.run(["logits"], fed)
        return torch.from_numpy(logits).to(given[0].device)

    return run


def _agreement(form: _Form, run: _Run, images: Tensor) -> Agreement:
    """Compare on batches of one, two and all images; a file that knows only one batch size fails here."""
    difference = 0.0
    for point, classifier in form.settings:
        for batch in (images[:1], images[:2], images):
            given = form.filled(point, len(batch), images.device)
            difference = max(difference, _difference(classifier(batch), run(batch, *given)))
    if form.inputs:
        difference = max(difference, _difference(*_alternating(form, run, images)))
    return Agreement(len(images), difference, str(form))


def _alternating(form: _Form, run: _Run, images: Tensor) -> tuple[Tensor, Tensor]:
    """What is expected and found where the images of one batch have different settings."""
    turns = torch.arange(len(images)) % len(form.settings)
    expected = torch.stack([classifier(images) for _, classifier in form.settings])[turns, torch.arange(len(images))]
    points = torch.tensor([point for point, _ in form.settings], dtype=torch.float64, device=images.device)
    return expected, run(images, *points[turns].unbind(1))


def _difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference of a logit, where it is one that may be."""
    difference = float((expected - found).abs().max())
    if not difference <= TOLERANCE or not torch.equal(expected.argmax(1), found.argmax(1)):
        raise Failure(
            f"the exported model differs from the original by {difference:.1e} in a logit, more than "
            f"{TOLERANCE:.0e}, or predicts other classes; nothing was written"
        )
    return difference
