"""What every objective promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from poise.attacks import Attack
from poise.core.batch import Batch
from poise.core.losses import Logits, PerExample, cross_entropy
from poise.core.streams import Stream
from poise.core.threat import Norm

Terms = Mapping[str, Tensor]
"""Named scalars of one step. "loss" is what training lowers; the others are logged beside it, detached."""

State = Mapping[str, Tensor]
"""What an objective remembers from step to step, by name; it is part of every checkpoint."""


@dataclass(frozen=True)
class Step:
    """What an objective gets to see of one training step.

    Args:
        model: the network in training, in train mode.
        batch: labelled images.
        epsilon: current budget of the schedule, one for all or one each.
        norm: norm of the budget.
        stream: randomness of this step.
        references: frozen networks by role, in eval mode.
        state: what the objective remembers.
        share: the budget as a share of the target; 1 where examples have budgets of their own.
        smoothing: of the labels, in the loss that trains the weights; attacks raise the plain loss.
        found: where given, images that attacks found in this step, for objectives that look at them more than once, by
            attack and what it raised.
        shadow: where given, makes what attacks follow in place of the network in eval mode, as it is faster.
        unshifted: the network with the weights that it has, where `model` computes with others.
        whole: examples of the step's whole batch, over all processes and pieces; those at hand where it is not given.
    """

    model: nn.Module
    batch: Batch
    epsilon: float | Float[Tensor, " n"]
    norm: Norm
    stream: Stream
    references: Mapping[str, nn.Module] = field(default_factory=dict)
    state: State = field(default_factory=dict)
    share: float = 1.0
    smoothing: float = 0.0
    found: dict[tuple[Attack, Hashable], Tensor] | None = None
    shadow: Callable[[], nn.Module] | None = None
    unshifted: nn.Module | None = None
    whole: int | None = None

    @property
    def network(self) -> nn.Module:
        """The network with the weights that it has."""
        return self.model if self.unshifted is None else self.unshifted

    def target(self, attack: Attack) -> nn.Module:
        """What an attack follows: the network, or a faster copy that computes the same."""
        return self.network if self.shadow is None or attack.model_mode == "train" else self.shadow()

    def cross_entropy(self, logits: Logits) -> PerExample:
        """Cross-entropy of each example against its label, smoothed where that is asked for."""
        return cross_entropy(logits, self.batch.labels, self.smoothing)


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """What one training step minimises.

    An objective itself never changes. What it must remember, such as averaged weights or a multiplier, is a state that
    the trainer carries: `begin` makes it, `terms` reads it, `advance` replaces it after the optimiser has moved.
    """

    roles: ClassVar[tuple[str, ...]] = ()
    """Roles of the reference networks that `Step.references` must hold."""

    smooths: ClassVar[bool] = False
    """Whether the loss heeds `Step.smoothing`."""

    shardable: ClassVar[bool] = True
    """Whether it asks the network for nothing but passes with the weights that it has, as many in every process."""

    def begin(self, model: nn.Module) -> State:  # noqa: ARG002
        """The state before the first step; by default there is none.

        Args:
            model: the network, on the device it will be trained on.
        """
        return {}

    @abstractmethod
    def terms(self, step: Step) -> Terms:
        """The step's loss and its parts.

        Returns:
            At least "loss", a scalar that requires grad.
        """

    def advance(self, model: nn.Module, state: State, terms: Terms) -> State:  # noqa: ARG002
        """The state after the optimiser has moved; called without gradients.

        Args:
            model: the network with its new weights.
            state: the state so far.
            terms: the step's terms, averaged over the examples of all processes.
        """
        return state

    def weights(self, state: State) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Entries of the model's `state_dict` that validation and the finished model use in place of its own."""
        return {}
