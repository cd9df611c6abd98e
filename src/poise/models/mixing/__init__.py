"""Mixed classifiers: an accurate and a robust network whose probabilities are averaged, by a weight fixed or learned.

Nothing here knows an attack or a data set: a mixed classifier is a classifier like any other, and offers the further
outputs through which it must be attacked. Start with `mixed`, then `logspace` for the arithmetic, `blend` for what can
be chosen, `gate` for the network that chooses alpha by itself, `sharpening` for the mixture without training.
"""

from poise.models.mixing.blend import Blend, shown_alpha
from poise.models.mixing.gate import Gate, GatePlan, plan_gate
from poise.models.mixing.mixed import MixedClassifier
from poise.models.mixing.neighbours import NeighbourClassifier, SlopeGate
from poise.models.mixing.sharpening import Sharpening

__all__ = [
    "Blend",
    "Gate",
    "GatePlan",
    "MixedClassifier",
    "NeighbourClassifier",
    "Sharpening",
    "SlopeGate",
    "plan_gate",
    "shown_alpha",
]
