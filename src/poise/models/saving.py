"""A classifier as two files that anybody may open: `model.safetensors` and `model.json`; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from poise.core.files import write_text, written_whole
from poise.core.misuse import Misuse
from poise.models.blueprint import Blueprint
from poise.models.checkpoints import lay_over, read_safetensors
from poise.models.classifier import Classifier, classifier_around
from poise.models.mixing.neighbours import rebuild_neighbours
from poise.models.mixing.rebuilding import rebuild_mixed
from poise.models.own import rebuild_own
from poise.models.smoothed import rebuild_smoothed
from poise.models.timm_source import rebuild_timm

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
FOREIGN = ("python", "robustbench")
"""Kinds of addresses whose networks only other people's code can build."""

_REBUILD: dict[str, Callable[[Blueprint], nn.Module]] = {
    "timm": rebuild_timm,
    "small": rebuild_own,
    "resnet18": rebuild_own,
    "lipschitz": rebuild_own,
    "neighbours": rebuild_neighbours,
    "mixed": lambda blueprint: rebuild_mixed(blueprint, _network),
    "smoothed": lambda blueprint: rebuild_smoothed(blueprint, _network),
}


def _network(blueprint: Blueprint) -> nn.Module:
    """The bare network of a blueprint, or of a part of one, its weights still to come."""
    return _REBUILD[blueprint.kind](blueprint)


def save_model(classifier: Classifier, folder: str | Path) -> None:
    """Write weights and description into a folder, each whole or not at all; files of that name are replaced.

    Tensors carry the names that the bare network gives them, so that others can load `model.safetensors` too.
    Tensors that share memory are written once each. The weights of a network that only foreign code can build are kept
    too, for that code to open them.

    Raises:
        Misuse: for a network that is made of such ones, before anything is written: nothing could open it.
    """
    folder = Path(folder)
    for part in classifier.blueprint.parts.values():
        refuse_foreign(part)
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in classifier.network.state_dict().items()
    }
    description = {
        "blueprint": json.loads(classifier.blueprint.to_json()),
        "digest": classifier.digest(),
        "notes": list(classifier.notes),
        "versions": {name: version(name) for name in ("poise", "timm", "torch")},
    }
    write_text(folder / DESCRIPTION, json.dumps(description, indent=2) + "\n")
    # The weights come last: a run that has them is complete.
    with written_whole(folder / WEIGHTS) as partial:
        partial.write_bytes(save(tensors, metadata={"format": "pt"}))  # a full disk is then an OSError like any other


def load_model(folder: str | Path) -> Classifier:
    """Rebuild what `save_model` wrote, bit by bit, on the CPU, without executing anything foreign.

    Raises:
        Misuse: for files that are absent, damaged or not of one another, for an architecture that the installed timm
            does not know, and for a network that only foreign code could build.
    """
    folder = Path(folder)
    description = _description(folder)
    blueprint = read_blueprint(folder)
    if not (folder / WEIGHTS).is_file():
        raise Misuse(f"{folder} holds no {WEIGHTS}")
    tensors = read_safetensors(folder / WEIGHTS)
    network = rebuilt(blueprint, folder)
    classifier = classifier_around(network, blueprint, _notes(description))
    classifier.to(_floating(tensors))
    lay_over(network, tensors, folder / WEIGHTS)
    if classifier.digest() != description.get("digest"):
        raise Misuse(
            f"{folder / WEIGHTS} is not what {DESCRIPTION} beside it describes: its digest is {classifier.digest()}, "
            f"{description.get('digest')} was written; save the model again or restore both files"
        )
    return classifier


def notes_of(folder: Path) -> tuple[str, ...]:
    """What was to be known of a saved model when it was made.

    Raises:
        Misuse: if the folder describes no model.
    """
    return _notes(_description(folder))


def _notes(description: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, description.get("notes", ())))


def read_blueprint(folder: Path) -> Blueprint:
    """The blueprint of a run folder.

    Raises:
        Misuse: for a description that is absent or damaged.
    """
    try:
        return Blueprint.from_json(json.dumps(_description(folder).get("blueprint")))
    except Misuse as error:
        raise Misuse(f"{folder / DESCRIPTION} is damaged: {error}") from None


def rebuilt(blueprint: Blueprint, folder: Path) -> nn.Module:
    """The network of a blueprint that was read from a folder, its weights still to come.

    Raises:
        Misuse: for a network that cannot be rebuilt, with what can be done instead.
    """
    if blueprint.kind in FOREIGN:
        raise Misuse(
            f"the network in {folder} is built by code of {blueprint.address}, which a run folder never executes; "
            f"where you trust it, name {blueprint.address} as the model, {folder / WEIGHTS} as its weights, "
            "and the data and the threat of the run's recipe"
        )
    _refuse_unknown(blueprint, folder)
    try:
        return _network(blueprint)
    except (KeyError, ValueError) as error:
        written = _description(folder).get("versions", {})
        raise Misuse(
            f"{folder / DESCRIPTION} cannot be rebuilt here: {error} (it was written with {written})"
        ) from None


def refuse_foreign(blueprint: Blueprint) -> None:
    """Refuse to make something that shall be kept of a network that only foreign code can build.

    Raises:
        Misuse: naming it.
    """
    if (address := _unknown(blueprint)) is not None:
        raise Misuse(
            f"{address} is built by foreign code, which a run folder never executes, so nothing that is made of it can "
            "be kept in one; mix or smooth it in Python (poise.models.mixing, poise.models.smooth)"
        )


def _refuse_unknown(blueprint: Blueprint, folder: Path) -> None:
    if (address := _unknown(blueprint)) is not None:
        raise Misuse(f"{folder / DESCRIPTION} names an architecture unknown here: {address!r}")


def _unknown(blueprint: Blueprint) -> str | None:
    """The first address, of a network or of its parts, that cannot be rebuilt here; None for none."""
    if blueprint.kind not in _REBUILD:
        return blueprint.address
    return next(filter(None, map(_unknown, blueprint.parts.values())), None)


def _description(folder: Path) -> Mapping[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise Misuse(f"{folder} is not a run folder: it holds no {DESCRIPTION}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Misuse(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise Misuse(f"{path} is damaged: an object was expected, a {type(content).__name__} came")
    return content


def _floating(tensors: Mapping[str, Tensor]) -> torch.dtype:
    return next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
