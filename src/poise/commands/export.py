"""Take a model elsewhere: a file for another runtime, and a card that says what is known of the model."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch

from poise.commands.opening import Source, open_whole
from poise.commands.run import file_name, fresh_path, recipe_of
from poise.commands.telling.terminal import say
from poise.core.files import write_text
from poise.core.misuse import Misuse, check_choice
from poise.core.run_folder import RunFolder
from poise.data import sample
from poise.models import Classifier
from poise.models.exporting import ENDINGS, AlphaForm, Format, export_model
from poise.models.mixing import MixedClassifier, shown_alpha
from poise.reporting import Subject, model_card, read_subject

_CUT = "the largest central square, resized (bilinear, antialiased)"
_KEPT = "as they are, neither cut nor resized"
"""How images are brought to the size that a model takes: with an image size, and without."""


def export(
    model: str,
    data: str | None = None,
    *,
    weights: str | None = None,
    format: Format = "onnx",  # noqa: A002 - what people call it
    opset: int = 20,
    alpha: AlphaForm = "input",
    image_size: int | None = None,
    limit: int | None = None,
    images: int = 64,
    card: bool = True,
    uses: list[str] | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model for another runtime, checked on real images, with a model card beside it.

    The file maps images in [0, 1] to logits, for batches of any size; normalisation and resizing are inside. It is
    compared with the model on validation images, and not written if a logit differs by more than 1e-4 or a prediction
    at all. The card says what the run's profile says; test images are not looked at.

    The file of a mixture takes alpha as a second input, float64, a number for each image; where a gate chooses alpha,
    its bounds are the second and third, alpha_low and alpha_high. It is compared at alpha 0, 0.5, 1 and its own.

    Args:
        model: address of the network: run:FOLDER, timm:NAME, python:pkg.module:factory, small, resnet18.
        data: address of the images to compare on; by default those the run was trained on.
        weights: a local weights file; by default what the address itself carries.
        format: onnx, or torch for torch.export's archive (.pt2).
        opset: version of ONNX's operators, at least 18; what the target runtime knows decides.
        alpha: of a mixture: input, or fixed as it was mixed, for a file that takes images alone.
        image_size: resize the shorter side to this and crop the centre; by default as the run.
        limit: use this many images of each split; by default as the run.
        images: compare on this many validation images, at least 2.
        card: write a model card in Markdown beside the file.
        uses: what the model is meant for, one sentence each, for the card.
        out: file to write; by default model.onnx or model.pt2 in the run's folder, or exports/NAME.
        overwrite: replace a file that is there already.

    Returns:
        The file.

    Raises:
        Misuse: for anything that cannot be done, before any work.
        Failure: where the file disagrees with the model.
    """
    check_choice("format", format, get_args(Format))
    if images < 2:
        raise Misuse(f"an export is compared on at least 2 images; got {images}")
    target = Path(out) if out else _default_path(model, format)
    if target.exists() and not overwrite:
        raise Misuse(f"{target} exists already; replace it with --overwrite, or write elsewhere with --out")
    subject = _subject(model) if card else None
    source = Source.of(recipe_of(model), data, image_size=image_size, limit=limit)
    prepared = _CUT if source.image_size is not None else _KEPT
    found = sample(source.open().validation, images)
    compared = found.images(torch.arange(len(found)))
    classifier = open_whole(model, found, weights=weights)
    agreement = export_model(
        classifier, target, compared.to(classifier.dtype), kind=format, opset=opset, alpha=alpha, preparation=prepared
    )
    say(f"{target}: {agreement}")
    if subject is not None:
        place = target.with_suffix(".md")
        write_text(place, model_card(subject, uses or (), _about(classifier, alpha), prepared))
        say(f"{place}: model card")
    return target


def _about(classifier: Classifier, form: AlphaForm) -> list[str]:
    """What a card says of a mixture: where its figures were measured, and what the file wants beside images."""
    if not isinstance(classifier, MixedClassifier):
        return []
    low, high = shown_alpha(classifier.alpha_low), shown_alpha(classifier.alpha_high)
    if classifier.gate is None:
        where, inputs = f"alpha {low}", "alpha"
    else:
        where, inputs = f"an alpha that a gate chooses between {low} and {high}", "alpha_low and alpha_high"
    said = f"Mixes an accurate and a robust network, with {where}: other alphas have other figures"
    beside = f"The file takes {inputs} beside the images, and was measured at the value above."
    return [f"{said}, and smaller ones fewer proofs.", *([beside] if form == "input" else [])]


def _subject(model: str) -> Subject:
    """What is known of the model: what its run folder holds, or nothing."""
    kind, _, place = model.partition(":")
    return read_subject(Path(place)) if kind == "run" else Subject(model, None, [], "", None)


def _default_path(model: str, kind: Format) -> Path:
    family, _, place = model.partition(":")
    if family == "run":
        return RunFolder(Path(place)).path / f"model{ENDINGS[kind]}"
    return fresh_path(Path("exports") / f"{file_name(model)}{ENDINGS[kind]}")
