"""Reading two inner layers of a branch during the pass that gives its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.core.misuse import Misuse, first_line
from poise.core.modes import evaluating
from poise.models.classifier import Classifier
from poise.models.mixing.branches import Seen

LAYERS = 2
"""Layers of each branch that a gate reads."""

_STAGES = 4
"""Stages of a convolutional or hierarchical network; what comes before them is its stem."""


def seen_by(classifier: Classifier, images: Float[Tensor, "n *shape"], layers: Sequence[str]) -> Seen:
    """A classifier's logits and what stands at some of its layers, in one pass.

    Args:
        classifier: a branch.
        images: values in [0, 1].
        layers: names of modules of its network; or numbers, for a network of timm, which then brings tokens and
            channels-last maps into the form [n, channels, height, width] itself.

    Raises:
        Misuse: for a layer that the network does not have.
    """
    if not layers:
        return Seen(classifier(images), [])
    network: Any = classifier.network
    if all(layer.isdigit() for layer in layers) and hasattr(network, "forward_intermediates"):
        last, features = network.forward_intermediates(
            classifier.prepared(images), indices=[int(layer) for layer in layers], output_fmt="NCHW"
        )
        return Seen(network.forward_head(last), features)
    with _listening(network, layers) as heard:
        logits = classifier(images)
    return Seen(logits, [_as_map(heard[layer]) for layer in layers])


def default_layers(classifier: Classifier) -> tuple[str, ...]:
    """Two layers for a gate to read: after the first two stages, or at a third and two thirds of a flat network.

    A network of timm is asked for its own list of intermediate features. In any other, a blank image shows which
    modules return maps; the last of each size is the end of a stage. In a network without maps, which works on vectors
    alone, the first and the middle layer with parameters are taken.

    Raises:
        Misuse: where nothing can be read.
    """
    with _trying(classifier) as blank:
        if hasattr(classifier.network, "forward_intermediates"):
            network: Any = classifier.network
            found = network.forward_intermediates(classifier.prepared(blank), output_fmt="NCHW")[1]
            return tuple(str(index) for index in _chosen([tuple(feature.shape[2:]) for feature in found]))
        return _stage_ends(classifier, blank)


def channels(classifier: Classifier, layers: Sequence[str]) -> tuple[int, ...]:
    """How many channels stand at each of these layers, seen on a blank image.

    Raises:
        Misuse: for layers that do not see one image as one, as those inside a smoothing, which see its noisy copies.
    """
    with _trying(classifier) as blank:
        features = seen_by(classifier, blank, layers).features
    if any(len(feature) != len(blank) for feature in features):
        raise Misuse(
            f"the layers {', '.join(layers)} of {classifier.blueprint.address} see an image as {len(features[0])}, and "
            "a gate wants one; mix it with a constant alpha (--method constant)"
        )
    return tuple(feature.shape[1] for feature in features)


@contextmanager
def _trying(classifier: Classifier) -> Iterator[Tensor]:
    """A blank image for a classifier in eval mode; its errors are told as what cannot be done."""
    with torch.no_grad(), evaluating(classifier):
        try:
            yield torch.zeros(1, *classifier.blueprint.shape, dtype=classifier.dtype, device=classifier.device)
        except (RuntimeError, TypeError) as error:
            raise Misuse(
                f"the features of {classifier.blueprint.address} cannot be read ({first_line(error)}); mix it "
                "with a constant alpha (--method constant)"
            ) from error


def _chosen(sizes: list[tuple[int, ...]]) -> tuple[int, int]:
    """Which of some features, told by their sizes: the first two stages' ends, or two places in a flat network."""
    if len(set(sizes)) == 1:
        return len(sizes) // 3, min(2 * len(sizes) // 3, len(sizes) - 1)
    ends = [index for index, size in enumerate(sizes) if index + 1 == len(sizes) or sizes[index + 1] != size]
    first = max(len(ends) - _STAGES, 0)
    return ends[first], ends[min(first + 1, len(ends) - 1)]


def _stage_ends(classifier: Classifier, blank: Tensor) -> tuple[str, ...]:
    names = [name for name, _ in classifier.network.named_modules() if name]
    with _listening(classifier.network, names) as heard:
        classifier(blank)
    maps = [(name, output) for name, output in heard.items() if isinstance(output, Tensor) and output.ndim == 4]
    if maps:
        ends = {tuple(output.shape[2:]): name for name, output in maps}  # in the order in which modules ended
        places = list(ends.values())
        return places[0], places[min(1, len(places) - 1)]
    vectors = [name for name, output in heard.items() if isinstance(output, Tensor) and output.ndim == 2]
    if not vectors:
        raise Misuse(f"no layer of {classifier.blueprint.address} returns maps or vectors; name the layers to read")
    return vectors[0], vectors[len(vectors) // 2]


@contextmanager
def _listening(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What these modules return within the block, in the order in which they first end."""
    heard: dict[str, Any] = {}
    modules = dict(network.named_modules())
    if missing := [name for name in names if name not in modules]:
        raise Misuse(f"the network has no layer {missing[0]!r}; it has {', '.join(name for name in modules if name)}")
    handles = []
    for name in names:

        def note(_module: nn.Module, _inputs: object, output: Any, name: str = name) -> None:
            heard.setdefault(name, output)

        handles.append(modules[name].register_forward_hook(note))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _as_map(output: Tensor) -> Tensor:
    """Vectors as maps of one pixel, token sequences as maps of one column, maps as they are."""
    if output.ndim == 2:
        return output[:, :, None, None]
    return output.transpose(1, 2)[..., None] if output.ndim == 3 else output
