"""Ways of transfer that freeze a part of the network."""

from __future__ import annotations

from dataclasses import dataclass

from poise.core.misuse import Misuse
from poise.models import Classifier
from poise.training.transfer.layers import layer_numbers
from poise.training.transfer.transfer import Transfer


@dataclass(frozen=True, kw_only=True)
class Head(Transfer):
    """The last layer alone (linear probing)."""

    def trained(self, classifier: Classifier, progress: float) -> frozenset[str]:  # noqa: ARG002
        """Names within the head."""
        return head_names(classifier)


@dataclass(frozen=True, kw_only=True)
class Last(Transfer):
    """The head and the blocks next to it.

    Blocks are the layers that timm cuts a network into: residual and transformer blocks, some with the downsampling
    before or the norm behind them, and the stem.

    Args:
        blocks: how many, at least 1.
    """

    blocks: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks < 1:
            raise Misuse(f"the last blocks are at least 1; got {self.blocks}: for none choose transfer head")

    def trained(self, classifier: Classifier, progress: float) -> frozenset[str]:  # noqa: ARG002
        """Names within the head and the last blocks."""
        head = {name.removeprefix("network.") for name in head_names(classifier)}
        numbers = layer_numbers(classifier.network)
        behind = {numbers[name] for name in head}
        blocks = sorted({number for name, number in numbers.items() if name not in head} - behind)
        if self.blocks > len(blocks):
            raise Misuse(f"this network has {len(blocks)} blocks before its head; got {self.blocks}")
        chosen = behind | set(blocks[-self.blocks :])
        return frozenset(f"network.{name}" for name, number in numbers.items() if number in chosen)


@dataclass(frozen=True, kw_only=True)
class Probe(Transfer):
    """The head alone first, then everything (linear probing, then fine-tuning; Kumar et al. 2022).

    The learning rate follows one course over both parts.

    Args:
        share: part of the training that belongs to the head alone, in (0, 1); it ends with an epoch.
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise Misuse(f"the probe's share of the training must be in (0, 1); got {self.share}")

    def check(self, classifier: Classifier) -> None:
        """See `Transfer.check`."""
        head_names(classifier)
        super().check(classifier)

    def trained(self, classifier: Classifier, progress: float) -> frozenset[str]:
        """Names within the head, and from `share` on all."""
        if progress < self.share:
            return head_names(classifier)
        return frozenset(name for name, _ in classifier.named_parameters())


def head_names(classifier: Classifier) -> frozenset[str]:
    """Names of the head's parameters.

    Raises:
        Misuse: if the network has no head that can be told apart.
    """
    head = {id(parameter) for parameter in classifier.head_parameters()}
    if not head:
        raise Misuse("the head of this network cannot be told apart, so it cannot be trained alone")
    return frozenset(name for name, parameter in classifier.named_parameters() if id(parameter) in head)
