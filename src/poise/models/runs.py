"""Classifiers of run folders: `run:FOLDER`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from poise.core.misuse import Misuse
from poise.models.checkpoints import lay_over
from poise.models.classifier import Classifier, classifier_around
from poise.models.request import Request, with_wanted_head
from poise.models.saving import load_model, read_blueprint, rebuilt


def open_run(request: Request) -> Classifier:
    """The classifier of a run folder, its own weights replaced where others are asked for.

    Raises:
        Misuse: for what `load_model` refuses, for other classes (granted with `new_head`, unless they are the same in
            another order) and for another number of channels.
    """
    if request.options:
        raise Misuse(f"{request.address} is built as it was saved; it takes no options")
    classifier = _loaded(request, Path(request.name))
    blueprint, found = classifier.blueprint, classifier.num_classes
    _check_shape(request, blueprint.shape)
    wanted = _granted_classes(request, classifier.classes)
    blueprint = replace(blueprint.with_classes(wanted), shape=request.shape or blueprint.shape)
    others = found == len(wanted) and wanted != classifier.classes
    opened = with_wanted_head(classifier.network, found, request, blueprint, others=others)
    opened.notes = classifier.notes + opened.notes
    return opened.to(classifier.mean.dtype)


def _loaded(request: Request, folder: Path) -> Classifier:
    if request.checkpoint is None and not request.random:
        return load_model(folder)
    blueprint = read_blueprint(folder)
    network = rebuilt(blueprint, folder)
    if request.checkpoint is not None:
        lay_over(network, request.checkpoint.fitted(network.state_dict()), request.checkpoint.path)
    return classifier_around(network, blueprint)


def _check_shape(request: Request, own: tuple[int, ...]) -> None:
    if request.shape is not None and (len(request.shape), request.shape[0]) != (len(own), own[0]):
        raise Misuse(f"{request.address} takes images of shape {own}; the data has {request.shape}")


def _granted_classes(request: Request, own: tuple[str, ...]) -> tuple[str, ...]:
    wanted = request.classes or own
    if len(wanted) == len(own):
        for index, (ours, theirs) in enumerate(zip(own, wanted, strict=True)):
            if ours != theirs and not (request.new_head and set(own) != set(wanted)):
                raise Misuse(f"{request.address} knows class {index} as {ours!r}; the data calls it {theirs!r}")
    elif not request.new_head:
        raise Misuse(
            f"{request.address} has {len(own)} classes and the data {len(wanted)}; "
            "fine-tuning may replace the head (new_head), judging may not"
        )
    return wanted
