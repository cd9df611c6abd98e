"""A classifier as a list of layers that bounds can be carried through, whatever code it is written in.

The network is traced by `torch.export` in eval mode and float64, so that weights which are computed from others (as in
1-Lipschitz layers, or under weight norm) come out as the numbers that are used. A layer that has no rule is refused by
name. What was captured is compared with the classifier on some images, and on those that are to be certified, before
anything is said of it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, fx, nn
from torch.export.graph_signature import OutputKind

from poise.core.misuse import Misuse, first_line
from poise.evaluation.certificates.affine import merged
from poise.evaluation.certificates.calls import CHECKS, Call, check_value, layer_of, name_of, passes_on, shape_of
from poise.evaluation.certificates.layers import Affine, Layer
from poise.models import Classifier

_TOLERANCE = 1e-10
"""What logits may differ by in float64, as a share of the largest."""
_PROBES = 4
_OTHERWISE = (
    "nothing can be proven of this network: on several images it is not what was traced of it on one, as if it drew "
    "random numbers, counted its calls, or looked at more than each image by itself"
)


@dataclass(frozen=True)
class Network:
    """Layers from images to logits, in an order in which each reads earlier values only.

    Args:
        layers: layer k gives value k + 1; value 0 is the image and the last one the logits.
        shape: shape of one image.
        classes: number of logits.
        device: where the weights are.
        classifier: what they were captured of, in float64.
    """

    layers: tuple[Layer, ...]
    shape: tuple[int, ...]
    classes: int
    device: torch.device
    classifier: nn.Module

    def values(self, images: Float64[Tensor, "n *shape"]) -> list[Tensor]:
        """The image and the value of every layer."""
        found: list[Tensor] = [images]
        for layer in self.layers:
            found.append(layer.values(*(found[source] for source in layer.sources)))
        return found

    @torch.no_grad()
    def confirmed(self, images: Float64[Tensor, "n *shape"]) -> Float64[Tensor, "n classes"]:
        """The logits of images, which the classifier must give too.

        Raises:
            Misuse: where it gives others, and nothing that is said of the layers would be said of it.
        """
        try:
            found, expected = self.values(images)[-1], self.classifier(images)
            same = found.shape == expected.shape == (len(images), self.classes)
            doubt = (
                float(((found - expected).abs() / (1 + expected.abs().amax(1, keepdim=True))).max()) if same else 1.0
            )
        except RuntimeError as error:
            raise Misuse(f"{_OTHERWISE}; together they end in {first_line(error)}") from error
        if not doubt <= _TOLERANCE:
            raise Misuse(f"{_OTHERWISE}; their logits are off by {doubt:.2g} of the largest")
        return found


def captured(classifier: Classifier) -> Network:
    """The classifier's layers, normalisation included, in float64 on its device.

    Raises:
        Misuse: for a layer that bounds cannot be carried through, which is named, and for a network that is no fixed
            function of the image, that cannot be traced, or that gives other logits than what was captured of it.
    """
    double = copy.deepcopy(classifier).eval().double()
    shape, device = classifier.blueprint.shape, classifier.device
    with torch.no_grad():
        program = _traced(double, torch.zeros(1, *shape, dtype=torch.float64, device=device))
        network = _Reader(program, shape, double).network(classifier.num_classes)
        network.confirmed(_probes(shape).to(device))
    return network


def _traced(double: nn.Module, image: Tensor) -> torch.export.ExportedProgram:
    try:
        program = torch.export.export(double, (image,), strict=False)
        functional: torch.export.ExportedProgram = program.run_decompositions({})
    except Exception as error:
        raise Misuse(
            f"bounds need a network that torch.export can trace; this one ends in {first_line(error)}"
        ) from error
    return functional


def _probes(shape: tuple[int, ...]) -> Float64[Tensor, "n *shape"]:
    """Grey and random images, always the same."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(_PROBES, *shape, dtype=torch.float64, generator=generator)
    return torch.cat([torch.full_like(noise[:1], 0.5), noise, noise.round()])


class _Reader:
    """Goes through a traced program once: computes what does not depend on the image, and keeps the rest as layers."""

    def __init__(self, program: torch.export.ExportedProgram, shape: tuple[int, ...], classifier: nn.Module) -> None:
        self.program, self.shape, self.classifier = program, shape, classifier
        self.image = next(node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
        self.device = self.image.meta["val"].device
        self.known: dict[fx.Node, Any] = _weights(program)
        self.layers: list[Layer] = []
        self.places: dict[fx.Node, int] = {self.image: 0}

    def network(self, classes: int) -> Network:
        """All layers.

        Raises:
            Misuse: for a call that has no rule, and a network that changes itself or gives more than logits.
        """
        outputs = self.program.graph_signature.output_specs
        if any(each.kind is not OutputKind.USER_OUTPUT for each in outputs):
            changed = ", ".join(str(each.target) for each in outputs if each.kind is not OutputKind.USER_OUTPUT)
            raise Misuse(
                f"the network changes something when it is called ({changed}), so nothing is proven of the next"
            )
        for node in self.program.graph.nodes:
            if node.op == "get_attr":
                self.known[node] = attrgetter(str(node.target))(self.program.graph_module)
            elif node.op == "call_function" and name_of(node) not in CHECKS:
                self._read(node)
        last: Any = next(node for node in self.program.graph.nodes if node.op == "output").args[0]
        if len(last) != 1 or self.places.get(last[0]) != len(self.layers):
            raise Misuse("the logits are not the last value that the network computes, so no bound reaches them")
        return Network(_joined(self.layers), self.shape, classes, self.device, self.classifier)

    def _read(self, node: fx.Node) -> None:
        sources = [each for each in node.all_input_nodes if each in self.places]
        if not sources:
            self.known[node] = self._computed(node)
            return
        shape = shape_of(sources[0])
        layer = None if passes_on(node) else layer_of(self._call(node, shape))
        check_value(node, shape)
        if layer is not None:
            self.layers.append(_on(layer, self.device))
        self.places[node] = self.places[sources[0]] if layer is None else len(self.layers)

    def _computed(self, node: fx.Node) -> Any:
        """The value of a call that does not depend on the image."""
        target: Any = node.target
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            raise Misuse(f"the network draws random numbers ({name_of(node)}), so it is no fixed function of the image")
        arguments, named = fx.node.map_arg((node.args, dict(node.kwargs)), self.known.__getitem__)
        return target(*arguments, **named)

    def _call(self, node: fx.Node, shape: tuple[int, ...]) -> Call:
        """A call with what is known filled in."""
        arguments, named = fx.node.map_arg((node.args, dict(node.kwargs)), lambda each: self.known.get(each, each))
        places = tuple(self.places[each] for each in node.args if isinstance(each, fx.Node) and each in self.places)
        return Call(node, arguments, named, places, shape)


def _on(layer: Layer, device: torch.device) -> Layer:
    """The layer with its weights on a device."""
    if not isinstance(layer, Affine):
        return layer
    bias = None if layer.bias is None else layer.bias.to(device)
    return replace(layer, weight=layer.weight.to(device), bias=bias)


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
