"""Adversarial training under a bound on how much of what the old network did right may be lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from poise.core.losses import PerExample, margin
from poise.core.misuse import Misuse, check_choice
from poise.objectives.congruent.attacking import Attacking
from poise.objectives.congruent.views import Views, mean_where
from poise.objectives.objective import State, Step, Terms

Surrogate = Literal["distance", "hinge"]


@dataclass(frozen=True, kw_only=True)
class Constrained(Attacking):
    """Lower the adversarial cross-entropy subject to: at most a share `bound` of all images is lost.

    An image is lost when, attacked, the old network is right on it and the network in training wrong. That count has no
    gradient. So two players share the Lagrangian, as in Cotter et al. (2019): the weights lower
    (CE + multiplier * S) / (1 + multiplier), with a surrogate S for what is lost, and the multiplier, at first 0, rises
    by `rate` times the excess of the true rate over the bound and falls back, never below 0, once it is met. The
    division by 1 + multiplier moves no minimum and keeps the size of the steps.

    The bound is held on the training images under the training attack. Unseen images under stronger attacks lose more:
    `poise profile` measures that, and nothing here promises it. A bound that cannot be met shows as a multiplier that
    stays at its ceiling.

    Args:
        bound: largest share of all images that may be lost, in [0, 1); 0.005 is "at most 0.5 % robust flips".
        attack: how the images are attacked, on the network in training.
        focus: share of a batch that the whole attack is spent on, in (0, 1]; see `Attacking`.
        surrogate: what stands for a lost image where the old network is right: "distance", the distance from its
            logits, or "hinge", max(0, 1 - margin), which is at least 1 where the prediction is wrong.
        rate: how fast the multiplier moves, positive.
        ceiling: largest multiplier, positive: how much a bound that cannot be met may cost; 10 is the largest weight of
            the old network that arXiv 2402.17390 tries.
        smoothing: memory of the moving average of the true rate, in [0, 1); 0 goes by each batch alone.
    """

    bound: float = 0.005
    surrogate: Surrogate = "distance"
    rate: float = 1.0
    ceiling: float = 10.0
    smoothing: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("surrogate", self.surrogate, get_args(Surrogate))
        for name in ("bound", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise Misuse(f"{name} must be at least 0 and below 1; got {getattr(self, name)}")
        for name in ("rate", "ceiling"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise Misuse(f"{name} must be a positive number; got {getattr(self, name)}")

    def begin(self, model: nn.Module) -> State:
        """A multiplier of 0, and the moving average as a weighted sum and its weight."""
        start = next(model.parameters()).new_zeros((), dtype=torch.float32)
        return {name: start.clone() for name in ("multiplier", "flips", "weight")}

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; also "surrogate", "multiplier", and "excess" of the average so far over the bound."""
        views = self.views(step, self.attacked(step))
        plain, stand_in = views.cross_entropy(), mean_where(self._stand_in(views), views.right("old"))
        multiplier = step.state["multiplier"].to(plain)
        loss = (plain + multiplier * stand_in) / (1 + multiplier)
        excess = self._excess(step.state)
        return views.terms(loss, cross_entropy=plain, surrogate=stand_in, multiplier=multiplier, excess=excess)

    def advance(self, model: nn.Module, state: State, terms: Terms) -> State:  # noqa: ARG002
        """One step of dual ascent on the true rate."""
        share = 1 - self.smoothing
        flips = self.smoothing * state["flips"] + share * terms["flips"].to(state["flips"])
        moved = dict(state) | {"flips": flips, "weight": self.smoothing * state["weight"] + share}
        climbed = state["multiplier"] + self.rate * self._excess(moved)
        return moved | {"multiplier": climbed.clamp(min=0, max=self.ceiling)}

    def _excess(self, state: State) -> Tensor:
        """By how much the moving average exceeds the bound; 0 before the first step."""
        known = state["weight"] > 0
        return torch.where(known, state["flips"] / state["weight"].clamp(min=1e-12) - self.bound, 0)

    def _stand_in(self, views: Views) -> PerExample:
        if self.surrogate == "distance":
            return self.apart(views, "old")
        return (1 - margin(views.logits, views.labels)).clamp(min=0)
