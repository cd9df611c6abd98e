"""What every way of transfer promises, and the plain one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from poise.core.misuse import Misuse
from poise.models import Classifier
from poise.training.transfer.layers import layer_numbers


@dataclass(frozen=True, kw_only=True)
class Transfer(ABC):
    """Which weights of a pretrained network are trained, and when.

    Parameters that came frozen (`requires_grad` false) stay so. Parts of the network that hold no trained weight are
    in eval mode while the rest trains: their batch statistics do not drift, their dropout rests.

    Args:
        layer_decay: learning rate of a layer as a share of that of the layer behind it, in (0, 1]; 1 trains all layers
            at the same rate. Layers are numbered as timm does for this purpose (Bao et al. 2022, BEiT).
    """

    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.layer_decay) and 0 < self.layer_decay <= 1):
            raise Misuse(f"layer_decay is a share in (0, 1]; got {self.layer_decay}")

    def check(self, classifier: Classifier) -> None:
        """Refuse a network that this way of transfer does not fit; nothing is changed.

        Raises:
            Misuse: saying what the network lacks.
        """
        if self.layer_decay < 1:
            layer_numbers(classifier.network)
        if not self.trained(classifier, 1.0):
            raise Misuse(f"{type(self).__name__.lower()} leaves nothing of this network to train")

    @contextmanager
    def adapted(self, classifier: Classifier) -> Iterator[None]:  # noqa: ARG002
        """The network with whatever is added to it for training; afterwards plain again, what was learned merged in.

        Randomness comes from PyTorch's global generator.
        """
        yield

    @abstractmethod
    def trained(self, classifier: Classifier, progress: float) -> frozenset[str]:
        """Names of the parameters of the adapted network that are trained at a moment.

        Args:
            classifier: the network within `adapted`.
            progress: part of the training that is done, in [0, 1]; what is trained at 1 includes whatever was earlier.
        """


@dataclass(frozen=True, kw_only=True)
class Whole(Transfer):
    """All weights, from the first step on."""

    def trained(self, classifier: Classifier, progress: float) -> frozenset[str]:  # noqa: ARG002
        """Every name."""
        return frozenset(name for name, _ in classifier.named_parameters())


@contextmanager
def trainable(classifier: Classifier, transfer: Transfer) -> Iterator[frozenset[str]]:
    """The adapted network; afterwards its parameters ask for gradients where they did before.

    Yields:
        Names of the parameters that may be trained at some moment.
    """
    found = {parameter: parameter.requires_grad for parameter in classifier.parameters()}
    try:
        with transfer.adapted(classifier):
            frozen = {name for name, parameter in classifier.named_parameters() if not found.get(parameter, True)}
            yield transfer.trained(classifier, 1.0) - frozen
    finally:
        for parameter in classifier.parameters():
            parameter.requires_grad_(found.get(parameter, True))


def open_to(classifier: Classifier, names: frozenset[str]) -> list[nn.Module]:
    """Let exactly these parameters ask for gradients.

    Returns:
        The modules that hold parameters but no trained one, outermost only: they belong in eval mode.
    """
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(name in names)
    return _untrained(classifier)


def _untrained(module: nn.Module) -> list[nn.Module]:
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return [module]
    return [inner for child in module.children() for inner in _untrained(child)]
