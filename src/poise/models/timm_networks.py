"""What the installed timm knows: names of networks, their pretrained configurations, and how to build them.

timm takes seconds to import, so it is imported where the first of its networks is asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import nn

from poise.core.misuse import Misuse, first_line
from poise.models.blueprint import Option


def configuration(name: str) -> Any:
    """What timm knows of an architecture and its weights: a `PretrainedCfg`.

    Args:
        name: architecture, alone or with the tag of its weights, e.g. ``resnet50.a1_in1k``.

    Raises:
        Misuse: for an architecture or a tag that timm does not know.
    """
    import timm  # noqa: PLC0415

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=1, cutoff=0)
        raise Misuse(f"timm {timm.__version__} has no network {architecture!r}; did you mean {near[0]!r}?")
    try:
        found = timm.get_pretrained_cfg(name)
    except RuntimeError:
        raise Misuse(f"timm has no weights {tag!r} for {architecture}; {known_weights(architecture)}") from None
    return found or timm.models.PretrainedCfg()


def known_weights(architecture: str) -> str:
    """A clause that lists the weights timm has for an architecture."""
    import timm  # noqa: PLC0415

    names = timm.list_models(f"{architecture}.*", pretrained=True)
    return f"valid: {', '.join(names)}" if names else "there are none"


def built(name: str, classes: int, channels: int, options: Mapping[str, Option], **pretrained: Any) -> nn.Module:
    """A network of timm; without `pretrained`, randomly initialised from PyTorch's global generator.

    Args:
        name: as for `configuration`.
        classes: number of logits; 0 for no head.
        channels: channels of an image.
        options: further constructor arguments.
        pretrained: timm's arguments on which weights to load.

    Raises:
        Misuse: for options that the network does not take.
    """
    import timm  # noqa: PLC0415

    further: dict[str, Any] = {**options, **pretrained}
    try:
        network: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels, **further)
    except TypeError as error:
        if not options:
            raise
        raise Misuse(f"timm:{name} does not take the options {dict(options)}: {first_line(error)}") from None
    return network
