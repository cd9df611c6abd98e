"""Objectives that keep what an older network did right while a newer one is trained: updates without regression.

Each looks at frozen networks on the very images that the network in training sees; it makes no verdicts and chooses no
weights. Start with `views`, which is where the networks meet, then `rcat`; `distance` says how far apart logits are.
"""

from poise.objectives.congruent.constrained import Constrained
from poise.objectives.congruent.distance import KL, Distance, Inhibition, Squared
from poise.objectives.congruent.pct import PCAT, PCT
from poise.objectives.congruent.rcat import RCAT

__all__ = ["KL", "PCAT", "PCT", "RCAT", "Constrained", "Distance", "Inhibition", "Squared"]
