"""Numbers for the layers of a network, as timm gives them for layer-wise learning rates."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from poise.core.misuse import Misuse


def layer_numbers(network: nn.Module) -> dict[str, int]:
    """The number of the layer that each parameter belongs to, from the images on.

    Raises:
        Misuse: if the network does not say how it is cut into layers.
    """
    from timm.models import group_parameters  # noqa: PLC0415 - timm takes seconds to import

    matcher = getattr(network, "group_matcher", None)
    if not callable(matcher):
        raise Misuse(
            f"{type(network).__name__} does not say what its layers are: it lacks timm's group_matcher; "
            "choose transfer whole, head or lora, and layer_decay 1"
        )
    numbers: dict[str, int] = group_parameters(network, matcher(coarse=False), reverse=True)
    return numbers


def layer_shares(network: nn.Module, decay: float, exempt: Collection[str]) -> dict[nn.Parameter, float]:
    """The share of the learning rate that each trained parameter gets under layer-wise decay, by timm's rule.

    Args:
        network: its parameters that ask for gradients count as trained.
        decay: factor from a layer to the one before it; 1 gives every parameter the whole rate.
        exempt: names of parameters without weight decay; they only decide how timm groups.
    """
    if decay == 1:
        return {}
    from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]  # noqa: PLC0415

    groups = param_groups_layer_decay(network, no_weight_decay_list=exempt, layer_decay=decay)
    return {parameter: float(group["lr_scale"]) for group in groups for parameter in group["params"]}
