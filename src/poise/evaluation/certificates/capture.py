"""A classifier as a list of layers that bounds can be carried through, whatever code it is written in.

The network is traced by `torch.export` in eval mode and float64, so that weights which are computed from others (as in
1-Lipschitz layers, or under weight norm) come out as the numbers that are used. A layer that has no rule is refused by
name. What was captured is compared with the classifier on an image before anything is said of it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, fx, nn

from poise.core.misuse import Misuse
from poise.evaluation.certificates.affine import merged
from poise.evaluation.certificates.calls import CHECKS, SAME, Call, layer_of, name_of, shape_of
from poise.evaluation.certificates.layers import Affine, Layer
from poise.models import Classifier

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Network:
    """Layers from images to logits, in an order in which each reads earlier values only.

    Args:
        layers: layer k gives value k + 1; value 0 is the image and the last one the logits.
        shape: shape of one image.
        classes: number of logits.
        device: where the weights are.
    """

    layers: tuple[Layer, ...]
    shape: tuple[int, ...]
    classes: int
    device: torch.device

    def values(self, images: Float64[Tensor, "n *shape"]) -> list[Tensor]:
        """The image and the value of every layer."""
        found: list[Tensor] = [images]
        for layer in self.layers:
            found.append(layer.values(*(found[source] for source in layer.sources)))
        return found


def captured(classifier: Classifier) -> Network:
    """The classifier's layers, normalisation included, in float64 on its device.

    Raises:
        Misuse: for a layer that bounds cannot be carried through, which is named.
    """
    double = copy.deepcopy(classifier).eval().double()
    shape, device = classifier.blueprint.shape, classifier.device
    blank = torch.zeros(1, *shape, dtype=torch.float64, device=device)
    with torch.no_grad():
        program = torch.export.export(double, (blank,), strict=False).run_decompositions({})
        network = _Reader(program, shape, device).network(classifier.num_classes)
        _compare(network, double, blank + 0.5)
    return network


def _compare(network: Network, double: nn.Module, images: Tensor) -> None:
    expected, found = double(images), network.values(images)[-1]
    if not torch.allclose(expected, found, rtol=_TOLERANCE, atol=_TOLERANCE):
        worst = float((expected - found).abs().max())
        raise RuntimeError(f"the captured layers give other logits than the classifier: off by {worst:g}")


class _Reader:
    """Goes through a traced program once: computes what does not depend on the image, and keeps the rest as layers."""

    def __init__(self, program: torch.export.ExportedProgram, shape: tuple[int, ...], device: torch.device) -> None:
        self.graph, self.shape, self.device = program.graph, shape, device
        self.known: dict[fx.Node, Any] = _weights(program)
        self.layers: list[Layer] = []
        self.places: dict[fx.Node, int] = {}

    def network(self, classes: int) -> Network:
        """All layers.

        Raises:
            Misuse: for a call that has no rule.
        """
        for node in self.graph.nodes:
            if node.op == "placeholder" and node not in self.known:
                self.places[node] = 0
            elif node.op == "call_function":
                self._read(node)
        last: Any = next(node for node in self.graph.nodes if node.op == "output").args[0]
        if self.places.get(last[0]) != len(self.layers):
            raise Misuse("the logits are not the last value that the network computes, so no bound reaches them")
        return Network(_joined(self.layers), self.shape, classes, self.device)

    def _read(self, node: fx.Node) -> None:
        sources = [each for each in node.all_input_nodes if each in self.places]
        if name_of(node) in CHECKS:
            return
        if not sources:
            arguments, named = fx.node.map_arg((node.args, node.kwargs), self.known.__getitem__)
            self.known[node] = node.target(*arguments, **named)  # type: ignore[operator]
        elif name_of(node) in SAME:
            self.places[node] = self.places[sources[0]]
        else:
            self.layers.append(layer_of(self._call(node, sources)))
            self.places[node] = len(self.layers)

    def _call(self, node: fx.Node, sources: list[fx.Node]) -> Call:
        """A call with what is known filled in."""
        values: tuple[Any, ...] = tuple(fx.node.map_arg(node.args, lambda each: self.known.get(each, each)))
        places = tuple(self.places[each] for each in node.args if isinstance(each, fx.Node) and each in self.places)
        return Call(node, values + (None,) * (8 - len(values)), places, shape_of(sources[0]))


def _joined(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers, where a scaling is a part of the affine layer before it if nobody else reads what that one gives."""
    readers = Counter(source for layer in layers for source in layer.sources)
    places, found = [0], list[Layer]()
    for layer in layers:
        moved = replace(layer, sources=tuple(places[source] for source in layer.sources))
        before = found[moved.sources[0] - 1] if moved.sources[0] and readers[layer.sources[0]] == 1 else None
        both = merged(before, moved) if isinstance(before, Affine) and isinstance(moved, Affine) else None
        if both is None:
            found.append(moved)
            places.append(len(found))
        else:
            found[moved.sources[0] - 1] = both
            places.append(moved.sources[0])
    return tuple(found)


def _weights(program: torch.export.ExportedProgram) -> dict[fx.Node, Any]:
    """The values of all inputs of a program but the image."""
    signature, held = program.graph_signature, {**program.state_dict, **program.constants}
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {node: held[names[node.name]].detach() for node in program.graph.nodes if node.name in names}
