"""Whether a composite model was attacked through all the outputs that it offers for it."""

from __future__ import annotations

from torch import nn

from poise.evaluation.soundness.check import Check
from poise.evaluation.soundness.examined import Examined
from poise.evaluation.soundness.finding import Finding
from poise.evaluation.soundness.probing import outputs_of


class Adaptive(Check[Examined]):
    """A mixed or smoothed model that was attacked through its own output alone.

    A mixture can hide its branches' weaknesses behind a saturated softmax, a gate that has made up its mind, or a
    nonlinearity: figures of MixedNUTS fall when gradients are taken elsewhere (arXiv 2402.02263), and RobustBench asks
    such models for adaptive attacks. Hard votes of a smoothed model have no gradient. A model that offers surrogate
    outputs must have been attacked through each of them; a missing one blocks. So does a mixture or a smoothing inside
    a model that offers nothing.

    Limits: it knows what the model offers, not what would be worth offering. Cost: none.
    """

    name = "adaptive"
    meaning = "a mixed or smoothed model was attacked through its own output alone, which may hide weaknesses"

    def inspect(self, given: Examined) -> Finding:
        """See `Check.inspect`."""
        offered, used = tuple(outputs_of(given.model)), given.profile.header.surrogates
        if missing := [name for name in offered if name not in used]:
            return self.finding(
                "block", f"{len(missing)} of {len(offered)} surrogate outputs were not attacked: {', '.join(missing)}"
            )
        if not offered and (inside := _hidden(given.model)):
            return self.finding(
                "block", f"inside the model is a {inside}, whose surrogate outputs the model around it does not offer"
            )
        return self.finding("pass", f"attacked through {', '.join(('the model itself', *offered))}")


def _hidden(model: nn.Module) -> str:
    """The class of a module inside a model that is worth attacking through more than its output; empty without one."""
    return next((type(each).__name__ for each in model.modules() if hasattr(each, "face")), "")
