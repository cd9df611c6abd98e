"""Small matrices beside frozen weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from torch import nn

from poise.core.misuse import Misuse
from poise.models import Classifier
from poise.training.transfer.partial import head_names
from poise.training.transfer.transfer import Transfer


@dataclass(frozen=True, kw_only=True)
class LoRA(Transfer):
    """Low-rank adaptation (Hu et al. 2022) through peft: the head, and two small matrices beside each chosen layer.

    Layers are all linear ones of the backbone, or, in a network without any, all convolutions that are not grouped.
    When training ends their product is added to the frozen weights, so that the model is a plain one again.

    Args:
        rank: rank of the product, at least 1.
        alpha: the product is scaled by alpha / rank.
        dropout: share of a layer's inputs that the added path leaves out in training, in [0, 1).
        layers: parts of names; a layer is chosen if its name holds one of them. None chooses all.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise Misuse(f"a rank must be at least 1; got {self.rank}")
        if self.alpha < 1:
            raise Misuse(f"alpha must be at least 1; got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise Misuse(f"dropout is a share in [0, 1); got {self.dropout}")

    def check(self, classifier: Classifier) -> None:
        """See `Transfer.check`."""
        if find_spec("peft") is None:
            raise Misuse("transfer lora needs peft; install it with: pip install 'poise[lora]'")
        self._targets(classifier)
        super().check(classifier)

    @contextmanager
    def adapted(self, classifier: Classifier) -> Iterator[None]:
        """See `Transfer.adapted`."""
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - an extra, and slow to import

        chosen = "|".join(re.escape(name) for name in self._targets(classifier))
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=chosen)
        inject_adapter_in_model(config, classifier.network)
        try:
            yield
        finally:
            _merge(classifier.network)

    def trained(self, classifier: Classifier, progress: float) -> frozenset[str]:  # noqa: ARG002
        """Names of the added matrices and within the head."""
        added = {name for name, _ in classifier.named_parameters() if ".lora_" in name}
        return head_names(classifier) | added

    def _targets(self, classifier: Classifier) -> list[str]:
        """Names of the layers, within the network."""
        head = {id(parameter) for parameter in classifier.head_parameters()}
        free = {
            name: module
            for name, module in classifier.network.named_modules()
            if not any(id(parameter) in head for parameter in module.parameters(recurse=False))
        }
        # Subclasses of these may use their weights without calling the layer, past what is added to it.
        linear = [name for name, module in free.items() if type(module) is nn.Linear]
        convolutions = [name for name, each in free.items() if type(each) is nn.Conv2d and each.groups == 1]
        found = linear or convolutions
        chosen = [name for name in found if self.layers is None or any(part in name for part in self.layers)]
        if not chosen:
            raise Misuse(
                f"lora finds no layer {f'with {self.layers} in its name' if self.layers else 'it can adapt'}; "
                f"layers of this network: {', '.join(found[:4]) or 'none'}{', ...' if len(found) > 4 else ''}"
            )
        return chosen


def _merge(network: nn.Module) -> None:
    """Put the plain layers back, with the products added to their weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, module.get_base_layer())
