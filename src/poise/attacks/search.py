"""Attacks for evaluation as state machines over slots: they ask for model outputs at points and are told the answer.

A search never calls the model. It holds one row of state per slot, and slots do not interact: each has its own
iteration, step size, budget and target, so an item may leave at any moment and another take its row. Whoever drives
the search (`pool`) evaluates the model, in the precision and on the device it likes, watches every point for success,
and refills rows; searches stay pure functions of tensors whose shapes never change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from poise.attacks.attack import radii
from poise.attacks.slopes import differentiated
from poise.core.batch import Batch
from poise.core.streams import Stream
from poise.core.threat import Norm

State = dict[str, Tensor]
"""Named tensors whose first dimension counts slots; always holds "done" (bool), true once the budget is spent."""


@dataclass(frozen=True)
class Problem:
    """What each slot works on; one row per slot.

    Args:
        images: clean images, in [0, 1].
        labels: their classes.
        radius: budgets, in units of the image range.
        ids: integer keys under which random numbers are drawn.
        targets: classes that a targeted search aims at; others ignore them.
        restart: number of the attempt, which varies the random numbers.
    """

    images: Float[Tensor, "n *shape"]
    labels: Int[Tensor, " n"]
    radius: Float[Tensor, " n"]
    ids: Int[Tensor, " n"]
    targets: Int[Tensor, " n"]
    restart: Int[Tensor, " n"]

    @classmethod
    def of(
        cls, batch: Batch, epsilon: float | Float[Tensor, " n"], targets: Int[Tensor, " n"] | None = None
    ) -> Problem:
        """One item for each example of a batch, at its first attempt.

        Args:
            batch: clean images, labels and keys.
            epsilon: the budget, one for all or one each.
            targets: see `Problem`; class 0 where none are given, which only searches without a target may be given.
        """
        nothing = torch.zeros_like(batch.labels)
        reach, aims = radii(epsilon, batch.images), nothing if targets is None else targets
        return cls(batch.images, batch.labels, reach, batch.ids, aims, nothing)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Int[Tensor, " m"] | Bool[Tensor, " n"]) -> Problem:
        """The slots at these rows, or where the mask is true."""
        return Problem(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Answer:
    """What the model said at the points that a search asked for.

    Args:
        logits: outputs at the points.
        loss: the search's own loss there (`Search.loss`).
        gradient: its gradient by the points; None where the search's rhythm asks for none.
    """

    logits: Float[Tensor, "n classes"]
    loss: Float[Tensor, " n"]
    gradient: Float[Tensor, "n *shape"] | None

    def unusable(self) -> Bool[Tensor, " n"]:
        """Which rows hold an entry that is infinite or no number."""
        parts = (self.logits,) if self.gradient is None else (self.logits, self.gradient.flatten(1))
        return torch.stack([~part.isfinite().all(1) for part in parts]).any(0)

    def updated(self, rows: Int[Tensor, " m"], other: Answer) -> Answer:
        """This answer with other ones at some rows."""
        gradient = None
        if self.gradient is not None and other.gradient is not None:
            gradient = self.gradient.index_copy(0, rows, other.gradient)
        return Answer(
            self.logits.index_copy(0, rows, other.logits), self.loss.index_copy(0, rows, other.loss), gradient
        )


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """An attack as three pure functions of per-slot state.

    Whatever a search asks for lies in the box [0, 1]; points that also lie in the ball and are misclassified end the
    item with success, which the driver sees, not the search. Results do not depend on which slots stand beside one
    another. Nothing here waits for the device: no `.item()`, no branch on a value, no loop over slots. What a slot asks
    for once it is done means nothing, and drivers look away.

    Args:
        norm: norm of the budget.
        stream: randomness, used under the problems' ids, restarts and the slots' own iteration counters.
    """

    norm: Norm
    stream: Stream

    @property
    @abstractmethod
    def name(self) -> str:
        """What profiles call this attack."""

    @property
    @abstractmethod
    def queries(self) -> int:
        """The most points that one item asks for."""

    @property
    def rhythm(self) -> tuple[bool, ...]:
        """Which of an item's queries need the gradient, repeated from its first on.

        Slots that are answered together stand at the same place, so that a pass is with or without gradient for all.
        """
        return (True,)

    def slopes(self, classes: int) -> int:  # noqa: ARG002 - FAB needs them
        """Backward passes of a query that needs the gradient.

        Args:
            classes: number of classes.
        """
        return 1

    @property
    def stays_inside(self) -> bool:
        """Whether all points asked for lie in the ball up to rounding, so that only successes need be looked at."""
        return True

    @property
    def targeted(self) -> bool:
        """Whether items aim at a class, so that an example is one item a target."""
        return False

    @abstractmethod
    def begin(self, problem: Problem) -> State:
        """State of fresh items."""

    @abstractmethod
    def ask(self, problem: Problem, state: State) -> Float[Tensor, "n *shape"]:
        """The points to evaluate next, in the box."""

    @abstractmethod
    def loss(self, problem: Problem, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """What the search raises, one number per slot."""

    def differentiate(
        self, problem: Problem, logits: Float[Tensor, "n classes"], points: Float[Tensor, "n *shape"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n *shape"]]:
        """The loss and its gradient, for logits that were computed from points which require a gradient."""
        return differentiated(partial(self.loss, problem), logits, points)

    @abstractmethod
    def tell(self, problem: Problem, state: State, points: Float[Tensor, "n *shape"], answer: Answer) -> State:
        """The state after the answer at the points asked for; a slot that is done stays so."""
