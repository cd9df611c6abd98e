"""Weights averaged over the training, which are shown in place of the last ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poise.core.misuse import Misuse
from poise.objectives.objective import State, Step, Terms
from poise.objectives.wrapper import Wrapper

_AVERAGE = "average/"


@dataclass(frozen=True, kw_only=True)
class Averaged(Wrapper):
    """Another objective, with an exponential moving average of the weights (Izmailov et al. 2018; Rebuffi et al. 2021).

    Training itself takes the steps that it would take without. After step t = 1, 2, ... the average moves by 1 - d
    towards the weights, with d = min(decay, t / (t + 9)), which at first is a plain mean of the latest weights and soon
    forgets the start. Running statistics of batch norms are averaged with the weights; whole numbers are copied.

    Args:
        objective: what a step minimises.
        decay: share of the average that a step keeps, in [0, 1); 0.999 looks back about a thousand steps.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise Misuse(f"the decay of averaged weights must be in [0, 1); got {self.decay}")

    def begin(self, model: nn.Module) -> State:
        """The weights as they are."""
        found = {_AVERAGE + name: value.detach().clone() for name, value in model.state_dict().items()}
        return {**super().begin(model), "steps": torch.zeros((), dtype=torch.int64), **found}

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`."""
        return super().terms(step)

    def advance(self, model: nn.Module, state: State, terms: Terms) -> State:
        """Move the average towards the weights."""
        steps = int(state["steps"]) + 1
        share = 1 - min(self.decay, steps / (steps + 9))
        found = {_AVERAGE + name: value.detach() for name, value in model.state_dict().items()}
        moved = {
            name: torch.lerp(state[name], value, share) if value.is_floating_point() else value.clone()
            for name, value in found.items()
        }
        return {**super().advance(model, state, terms), "steps": torch.tensor(steps), **moved}

    def weights(self, state: State) -> Mapping[str, Tensor]:
        """The average."""
        own = {name.removeprefix(_AVERAGE): value for name, value in state.items() if name.startswith(_AVERAGE)}
        return {**super().weights(state), **own}
