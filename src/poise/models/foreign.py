"""Networks that only other people's code can build: `python:PACKAGE.MODULE:FACTORY` and `robustbench:NAME`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from torch import nn

from poise.core.foreign import check_call, foreign
from poise.core.misuse import Misuse, kind_and_line
from poise.models.blueprint import Blueprint
from poise.models.checkpoints import lay_over
from poise.models.classifier import Classifier, classifier_around
from poise.models.probing import class_count
from poise.models.request import Request


def open_python(request: Request) -> Classifier:
    """Whatever a factory returns, which must map images in [0, 1] to logits by itself.

    The factory is called without arguments, or with ``num_classes`` where its signature has that name and classes are
    wanted. Its class count is found by one forward pass.

    Raises:
        Misuse: for a factory that cannot be found or called so, or returns no module that keeps the contract.
    """
    factory = foreign(request.address)
    arguments: dict[str, Any] = dict(request.options)
    if request.classes is not None and "num_classes" in inspect.signature(factory).parameters:
        arguments["num_classes"] = len(request.classes)
    check_call(factory, request.address, arguments)
    return _classifier(factory(**arguments), request)


def open_robustbench(request: Request) -> Classifier:
    """A model of RobustBench's zoo, by its name (CIFAR-10, Linf) or as ``robustbench:DATASET/THREAT/NAME``.

    Raises:
        Misuse: where the package is not installed, or cannot deliver the model.
    """
    parts = request.name.split("/")
    if len(parts) not in {1, 3} or request.random or request.options:
        raise Misuse(
            "a RobustBench address reads robustbench:NAME or robustbench:DATASET/THREAT/NAME, and its network takes "
            f"neither options nor random weights; got {request.address!r}"
        )
    try:
        zoo = importlib.import_module("robustbench.utils")
    except ModuleNotFoundError as error:
        raise Misuse(f"{request.address} needs the package robustbench: no module {error.name!r}") from None
    dataset, threat, name = ("cifar10", "Linf", *parts) if len(parts) == 1 else parts
    try:
        network = zoo.load_model(model_name=name, dataset=dataset, threat_model=threat)
    except Exception as error:  # unknown names and failed downloads arrive as many kinds
        reason = kind_and_line(error)
        raise Misuse(f"robustbench cannot deliver {request.name} ({reason})") from error
    return _classifier(network, request)


def _classifier(network: object, request: Request) -> Classifier:
    if not isinstance(network, nn.Module):
        raise Misuse(f"{request.address} must return a torch.nn.Module; it returned {type(network).__name__}")
    if request.checkpoint is not None:
        lay_over(network, request.checkpoint.fitted(network.state_dict()), request.checkpoint.path)
    shape = request.needed_shape()
    classes = request.class_names(class_count(network, shape, request.address))
    blueprint = Blueprint(address=request.address, classes=classes, shape=shape, options=dict(request.options))
    return classifier_around(network, blueprint, request.notes)
