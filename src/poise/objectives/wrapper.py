"""What objectives that change another objective have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from poise.objectives.adversarial import Adversarial
from poise.objectives.objective import Objective, State, Step, Terms

_INNER = "inner/"


@dataclass(frozen=True, kw_only=True)
class Wrapper(Objective):
    """An objective around another, which may itself be such a one.

    What the inner objective remembers stands in the state under "inner/".

    Args:
        objective: the objective inside.
    """

    objective: Objective = Adversarial()

    @property
    def roles(self) -> tuple[str, ...]:  # type: ignore[override] # those of the objective inside, whatever it is
        """See `Objective.roles`."""
        return self.objective.roles

    @property
    def shardable(self) -> bool:  # type: ignore[override] # as above
        """See `Objective.shardable`."""
        return self.objective.shardable

    def begin(self, model: nn.Module) -> State:
        """See `Objective.begin`."""
        return _outside(self.objective.begin(model))

    @abstractmethod
    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`; here, those of the objective inside."""
        return self.objective.terms(replace(step, state=inside(step.state)))

    def advance(self, model: nn.Module, state: State, terms: Terms) -> State:
        """See `Objective.advance`."""
        return _outside(self.objective.advance(model, inside(state), terms))

    def weights(self, state: State) -> Mapping[str, Tensor]:
        """See `Objective.weights`."""
        return self.objective.weights(inside(state))


def layers(objective: Objective) -> Iterator[Objective]:
    """An objective and what it wraps, from the outermost to the innermost."""
    yield objective
    if isinstance(objective, Wrapper):
        yield from layers(objective.objective)


def innermost(objective: Objective) -> Objective:
    """The objective that all wrappers around it come down to."""
    *_, inner = layers(objective)
    return inner


def with_innermost(objective: Objective, inner: Objective) -> Objective:
    """The same wrappers around another objective."""
    if isinstance(objective, Wrapper):
        return replace(objective, objective=with_innermost(objective.objective, inner))
    return inner


def inside(state: State) -> State:
    """The part of a wrapper's state that the objective inside remembers."""
    return {name.removeprefix(_INNER): value for name, value in state.items() if name.startswith(_INNER)}


def _outside(state: State) -> State:
    return {_INNER + name: value for name, value in state.items()}
