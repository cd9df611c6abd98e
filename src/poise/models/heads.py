"""The head of a network: the last layer, whose rows are the classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from poise.core.misuse import Misuse


def head_modules(network: nn.Module) -> list[nn.Module]:
    """The modules that turn features into logits; several for a distilled network, none where none can be told.

    The network's own word counts first (`get_classifier`, as in timm), then its attribute `head`, then its last
    linear layer.
    """
    if callable(getattr(network, "get_classifier", None)):
        found = network.get_classifier()  # type: ignore[operator]
        return [module for module in (found if isinstance(found, tuple | list) else (found,)) if module is not None]
    if isinstance(getattr(network, "head", None), nn.Module):
        return [network.head]  # type: ignore[list-item]
    linear: list[nn.Module] = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linear[-1:]


def replace_head(network: nn.Module, classes: int, address: str) -> None:
    """Give the network a new, randomly initialised head, in place.

    Args:
        network: must offer timm's `reset_classifier`, as poise's own networks do.
        classes: number of logits, at least 1.
        address: what the network is called in an error.

    Raises:
        Misuse: when the network offers no way to replace its head.
    """
    reset = getattr(network, "reset_classifier", None)
    if not callable(reset):
        raise Misuse(f"{address} offers no reset_classifier, so it cannot be given a new head of {classes} classes")
    reset(classes)


def head_rows(tensors: Mapping[str, Tensor], heads: Iterable[str]) -> int:
    """The class count of a state dict: the rows of the first of these layers that it has; 0 where it has none."""
    return next((len(tensors[f"{head}.weight"]) for head in heads if f"{head}.weight" in tensors), 0)
