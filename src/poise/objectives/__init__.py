"""What one training step minimises: each objective turns a batch and a budget into a loss and its named parts.

An objective calls attacks and losses; it holds no optimiser, no schedule and no data. Start with `objective` for the
promise, then `adversarial`; `congruent` holds those that look at other networks, `wrapper` is for those that change
another. A new one is one file here, listed below.
"""

from poise.objectives.adversarial import Adversarial
from poise.objectives.averaged import Averaged
from poise.objectives.awp import AWP
from poise.objectives.congruent import KL, PCAT, PCT, RCAT, Constrained, Distance, Inhibition, Squared
from poise.objectives.guarded import Guarded
from poise.objectives.label_smoothing import LabelSmoothing
from poise.objectives.mart import MART
from poise.objectives.mixing import Mixing
from poise.objectives.noisy import Noisy
from poise.objectives.objective import Objective, State, Step, Terms
from poise.objectives.standard import Standard
from poise.objectives.trades import TRADES
from poise.objectives.trial import check_attacks
from poise.objectives.wrapper import Wrapper, innermost, layers

__all__ = [
    "AWP",
    "KL",
    "MART",
    "PCAT",
    "PCT",
    "RCAT",
    "TRADES",
    "Adversarial",
    "Averaged",
    "Constrained",
    "Distance",
    "Guarded",
    "Inhibition",
    "LabelSmoothing",
    "Mixing",
    "Noisy",
    "Objective",
    "Squared",
    "Standard",
    "State",
    "Step",
    "Terms",
    "Wrapper",
    "check_attacks",
    "innermost",
    "layers",
]
