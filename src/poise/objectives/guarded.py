"""An eye on training with a weak attack: catastrophic overfitting is noticed, and can be stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.attacks import FGSM, PGD, Attack, attackable, idle
from poise.core.losses import cross_entropy, misclassified
from poise.core.misuse import Misuse
from poise.objectives.adversarial import Adversarial, attacked, raised
from poise.objectives.objective import Objective, State, Step, Terms
from poise.objectives.wrapper import Wrapper, innermost, inside, with_innermost

_ENOUGH = 64
"""Images that accuracies are compared on, at least: of two images chance decides."""
_SHOWN = ("collapsed", "collapse_own", "collapse_judged")
_NUMBERS = ("own", "judged", "seen", "own_right", "judged_right", "best", *_SHOWN)


@dataclass(frozen=True, kw_only=True)
class Guarded(Wrapper):
    """Another objective, whose attack is compared with a stronger one every now and then.

    Networks trained on single-step images can come to withstand these and nothing else, within a few steps
    (catastrophic overfitting; Wong et al. 2020). So every `every` attacked steps the batch is attacked by the judge
    too, and whenever 64 images or more have been, accuracies under both attacks are compared, in eval mode. A network
    that has yet to learn withstands neither attack, the judge's less; training has collapsed where the difference grows
    by more than `gap` beyond the least there was, and no more than half of the best accuracy under the judge's attack
    is left. That is logged, and with `switch` the judge's attack takes the place of the objective's own from the next
    step on.

    Args:
        objective: what a step minimises, with an attack of its own.
        judge: the stronger attack, another than the objective's own.
        every: attacked steps between judged batches, at least 1; one costs the judge's passes and two forward passes.
        gap: growth of the difference in accuracy that counts as a collapse, in (0, 1].
        switch: whether to train on the judge's images after a collapse.
    """

    objective: Objective = Adversarial(attack=FGSM())
    judge: Attack = PGD()
    every: int = 20
    gap: float = 0.3
    switch: bool = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise Misuse(f"a guarded objective is judged every so many steps, at least 1; got {self.every}")
        if not 0 < self.gap <= 1:
            raise Misuse(f"the gap of a guarded objective is a difference in accuracy in (0, 1]; got {self.gap}")
        own = getattr(innermost(self.objective), "attack", None)
        if not isinstance(own, Attack):
            raise Misuse(f"{type(innermost(self.objective)).__name__} has no attack that could be guarded")
        if own == self.judge:
            raise Misuse(f"a guarded objective's judge must be another attack than its own; both are {own}")

    def begin(self, model: nn.Module) -> State:
        """Nothing judged yet. The state lies on the CPU, so that looking at it waits for no device."""
        numbers = {name: torch.zeros((), dtype=torch.float64) for name in _NUMBERS}
        due, least = torch.zeros((), dtype=torch.int64), torch.ones((), dtype=torch.float64)
        return {**super().begin(model), **numbers, "due": due, "least": least}

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`.

        Also accuracy under the attack of its own, "own_attack", and the judge's, "judged", on the latest judged batch;
        "compared", its size where it is this step's; "collapsed" from a collapse on, and then what was found in the
        comparison that showed it, "collapse_own" and "collapse_judged".
        """
        switched = self.switch and bool(step.state["collapsed"])
        step = replace(step, found={} if step.found is None else step.found)
        objective = self._switched() if switched else self.objective
        terms = dict(objective.terms(replace(step, state=inside(step.state))))
        like = terms["loss"].detach()
        resting = idle(step.batch, step.epsilon)
        compares = not resting and not switched and int(step.state["due"]) == 0
        if compares:
            own, judged = self._accuracies(step)
        elif resting and "accuracy" in terms:
            own = judged = terms["accuracy"]
        else:
            own, judged = (like.new_full((), float(step.state[name])) for name in ("own", "judged"))
        compared = like.new_full((), float((step.whole or len(step.batch)) if compares else 0))
        shown = {name: like.new_full((), float(step.state[name])) for name in _SHOWN}
        return {**terms, "own_attack": own, "judged": judged, "compared": compared, **shown}

    def advance(self, model: nn.Module, state: State, terms: Terms) -> State:
        """Count a judged batch in, draw the conclusion from enough of them, or count down to the next."""
        inner = super().advance(model, state, terms)
        due, kept = int(state["due"]), {name: float(state[name]) for name in (*_NUMBERS, "least")}
        if due > 0:
            due -= 1
        elif bool(terms["compared"] > 0):
            due, images = self.every - 1, float(terms["compared"])
            kept |= {"own": float(terms["own_attack"]), "judged": float(terms["judged"])}
            kept["seen"] += images
            kept["own_right"] += images * kept["own"]
            kept["judged_right"] += images * kept["judged"]
            if kept["seen"] >= _ENOUGH:
                kept = self._concluded(kept)
        numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in kept.items()}
        return {**inner, **numbers, "due": torch.tensor(due)}

    def _concluded(self, kept: Mapping[str, float]) -> dict[str, float]:
        """What is remembered once enough images were seen: they begin anew."""
        own, judged = kept["own_right"] / kept["seen"], kept["judged_right"] / kept["seen"]
        found = {**kept, "seen": 0.0, "own_right": 0.0, "judged_right": 0.0}
        found |= {"least": min(kept["least"], own - judged), "best": max(kept["best"], judged)}
        lost = own - judged - kept["least"] > self.gap and judged <= kept["best"] / 2
        if lost and not kept["collapsed"]:
            found |= {"collapsed": 1.0, "collapse_own": own, "collapse_judged": judged}
        return found

    def _switched(self) -> Objective:
        """The same objective with the judge's attack, to which there is nothing to compare."""
        inner = replace(innermost(self.objective), attack=self.judge)  # type: ignore[call-arg] # it has one, see above
        return with_innermost(self.objective, inner)

    def _accuracies(self, step: Step) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Accuracy on the images of the objective's attack, which the step has found, and on the judge's."""
        network = step.network
        images = [self._found(step), attacked(self.judge, replace(step, share=1.0))]
        with torch.no_grad(), attackable(network, training=False):
            wrong = [misclassified(network(each), step.batch.labels).float().mean() for each in images]
        return 1 - wrong[0], 1 - wrong[1]

    def _found(self, step: Step) -> Tensor:
        """Images of the objective's attack, which may have raised another loss than the judge's does."""
        own: Attack = innermost(self.objective).attack  # type: ignore[attr-defined]
        found = {loss: images for (attack, loss), images in (step.found or {}).items() if attack == own}
        if found and raised(cross_entropy) not in found:
            return next(iter(found.values()))
        return attacked(own, replace(step, share=1.0))
