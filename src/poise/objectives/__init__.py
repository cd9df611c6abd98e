"""What one training step minimises: each objective turns a batch and a budget into a loss and its named parts.

An objective calls attacks and losses; it holds no optimiser, no schedule and no data. Start with `objective` for the
promise, then `adversarial`; `congruent` holds those that look at other networks. A new one is one file here, listed
below.
"""

from poise.objectives.adversarial import Adversarial
from poise.objectives.congruent import KL, PCAT, PCT, RCAT, Constrained, Distance, Inhibition, Squared
from poise.objectives.mixing import Mixing
from poise.objectives.objective import Objective, State, Step, Terms
from poise.objectives.standard import Standard

__all__ = [
    "KL",
    "PCAT",
    "PCT",
    "RCAT",
    "Adversarial",
    "Constrained",
    "Distance",
    "Inhibition",
    "Mixing",
    "Objective",
    "Squared",
    "Standard",
    "State",
    "Step",
    "Terms",
]
