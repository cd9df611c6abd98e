"""An eye on training with a weak attack: catastrophic overfitting is noticed, and can be stopped."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.attacks import FGSM, PGD, Attack, attackable, idle
from poise.core.losses import misclassified
from poise.core.misuse import Misuse
from poise.objectives.adversarial import Adversarial, attacked
from poise.objectives.objective import Objective, State, Step, Terms
from poise.objectives.wrapper import Wrapper, innermost, inside, with_innermost


@dataclass(frozen=True, kw_only=True)
class Guarded(Wrapper):
    """Another objective, whose attack is compared with a stronger one every now and then.

    Networks trained on single-step images can come to withstand these and nothing else, within a few steps
    (catastrophic overfitting; Wong et al. 2020). So every `every` attacked steps the batch is attacked by the judge
    too. Where the network, in eval mode, is right on so many more images of its own attack than of the judge's that
    the difference exceeds `gap`, training has collapsed. That is logged, and with `switch` the judge's attack takes the
    place of the objective's own from the next step on.

    Args:
        objective: what a step minimises, with an attack of its own.
        judge: the stronger attack.
        every: attacked steps between comparisons, at least 1; one costs the judge's passes and two forward passes.
        gap: difference in accuracy that counts as a collapse, in (0, 1].
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
        if not isinstance(getattr(innermost(self.objective), "attack", None), Attack):
            raise Misuse(f"{type(innermost(self.objective)).__name__} has no attack that could be guarded")

    def begin(self, model: nn.Module) -> State:
        """Nothing judged yet. The state lies on the CPU, so that looking at it waits for no device."""
        zero = torch.zeros((), dtype=torch.float64)
        own = {
            "due": torch.zeros((), dtype=torch.int64),
            "own": zero,
            "judged": zero.clone(),
            "collapsed": zero.clone(),
        }
        return {**super().begin(model), **own}

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`.

        Also accuracy under the attack of its own, "own_attack", and the judge's, "judged", from the latest comparison;
        "compared" where this step made one; and "collapsed" from a collapse on.
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
        collapsed = like.new_full((), float(step.state["collapsed"]))
        compared = like.new_full((), float(compares))
        return {**terms, "own_attack": own, "judged": judged, "compared": compared, "collapsed": collapsed}

    def advance(self, model: nn.Module, state: State, terms: Terms) -> State:
        """Draw the conclusion from a comparison, or count down to the next."""
        inner = super().advance(model, state, terms)
        due, collapsed = int(state["due"]), float(state["collapsed"])
        own, judged = state["own"], state["judged"]
        if due > 0:
            due -= 1
        elif bool(terms["compared"] > 0):
            own, judged = (terms[name].double().cpu() for name in ("own_attack", "judged"))
            due, collapsed = self.every - 1, max(collapsed, float(own - judged > self.gap))
        kept = {"due": torch.tensor(due), "own": own, "judged": judged}
        return {**inner, **kept, "collapsed": torch.tensor(collapsed, dtype=torch.float64)}

    def _switched(self) -> Objective:
        """The same objective with the judge's attack, to which there is nothing to compare."""
        inner = replace(innermost(self.objective), attack=self.judge)  # type: ignore[call-arg] # it has one, see above
        return with_innermost(self.objective, inner)

    def _accuracies(self, step: Step) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Accuracy on the images of the objective's attack, which the step has found, and on the judge's."""
        network = step.network
        own: Attack = innermost(self.objective).attack  # type: ignore[attr-defined]
        images = [attacked(attack, replace(step, share=1.0)) for attack in (own, self.judge)]
        with torch.no_grad(), attackable(network, training=False):
            wrong = [misclassified(network(each), step.batch.labels).float().mean() for each in images]
        return 1 - wrong[0], 1 - wrong[1]
