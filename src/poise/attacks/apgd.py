"""Auto-PGD: gradient ascent that halves its own step where it stops paying, and returns to the best point so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from poise.attacks.apgd_l1 import SparseAscent
from poise.attacks.apgd_momentum import MomentumAscent
from poise.attacks.rows import choose
from poise.attacks.search import Answer, Problem, Search, State
from poise.core.losses import cross_entropy, dlr, margin, target_lead, targeted_dlr
from poise.core.misuse import Misuse, check_choice

LossKind = Literal["ce", "dlr", "targeted-dlr"]

_NAMES: dict[LossKind, str] = {"ce": "apgd-ce", "dlr": "apgd-dlr", "targeted-dlr": "apgd-t"}
_TARGET_STRIDE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class APGD(Search):
    """Auto-PGD with AutoAttack's settings: Croce & Hein 2020 for linf and l2, Croce & Hein 2021 for l1.

    How points move is told in `apgd_momentum` (linf, l2) and `apgd_l1`, with the differences from the official code.
    A targeted search draws another random start for every target; the official code does too, from one global state.

    Args:
        loss_kind: what is raised. "ce": cross-entropy. "dlr": difference-of-logits ratio, with fewer than three classes
            minus the margin. "targeted-dlr": its targeted form, with fewer than four classes z_target - z_label.
        steps: gradient steps, at least 1.

    Raises:
        Misuse: for an unknown loss or fewer than 1 step.
    """

    loss_kind: LossKind = "ce"
    steps: int = 100

    def __post_init__(self) -> None:
        check_choice("APGD loss", self.loss_kind, _NAMES)
        if self.steps < 1:
            raise Misuse(f"APGD needs at least 1 step; got {self.steps}")

    @property
    def name(self) -> str:
        """See `Search.name`."""
        return _NAMES[self.loss_kind]

    @property
    def targeted(self) -> bool:
        """See `Search.targeted`."""
        return self.loss_kind == "targeted-dlr"

    @property
    def queries(self) -> int:
        """A start and every step; in l1 one start for each of the radii that it tightens through."""
        return self._ascent.queries

    @property
    def stays_inside(self) -> bool:
        """Not in l1, where the first balls are larger."""
        return self.norm != "l1"

    @property
    def _ascent(self) -> MomentumAscent | SparseAscent:
        return SparseAscent(self.steps) if self.norm == "l1" else MomentumAscent(self.norm, self.steps)

    def begin(self, problem: Problem) -> State:
        """A random start; nothing has been answered yet."""
        attempt = problem.restart + _TARGET_STRIDE * problem.targets if self.targeted else problem.restart
        points = self._ascent.start(problem, self.stream.fold("apgd", self.loss_kind), attempt)
        return {
            "points": points,
            "best": points,
            "best_gradient": torch.zeros_like(points),
            "best_loss": torch.full_like(problem.radius, -torch.inf),
            "query": torch.zeros_like(problem.labels),
            "done": torch.zeros_like(problem.labels, dtype=torch.bool),
            **self._ascent.begin(points, problem.radius),
        }

    def ask(self, problem: Problem, state: State) -> Float[Tensor, "n *shape"]:  # noqa: ARG002
        """See `Search.ask`."""
        return state["points"]

    def loss(self, problem: Problem, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The loss of `loss_kind`, or what stands in for it when there are few classes."""
        classes = logits.shape[1]
        if self.loss_kind == "ce":
            return cross_entropy(logits, problem.labels)
        if self.loss_kind == "dlr":
            return dlr(logits, problem.labels) if classes >= 3 else -margin(logits, problem.labels)
        if classes >= 4:
            return targeted_dlr(logits, problem.labels, problem.targets)
        return target_lead(logits, problem.labels, problem.targets)

    def tell(self, problem: Problem, state: State, points: Float[Tensor, "n *shape"], answer: Answer) -> State:
        """Remember the best point and let the ascent move on."""
        assert answer.gradient is not None  # noqa: S101 - the rhythm asks for it
        better = answer.loss > state["best_loss"]
        seen = state | {
            "points": points,
            "best": choose(better, points, state["best"]),
            "best_gradient": choose(better, answer.gradient, state["best_gradient"]),
            "best_loss": torch.where(better, answer.loss, state["best_loss"]),
        }
        query = state["query"] + 1
        moved = seen | self._ascent.advance(problem, seen, answer.loss, answer.gradient)
        return moved | {"query": query, "done": query >= self.queries}
