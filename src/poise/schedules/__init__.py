"""Epsilon over training: each schedule says which share of the target budget a moment of the run trains at.

A schedule knows neither models nor attacks nor data; it maps a moment to a share, and may listen to validation.
Start with `schedule`, then `hinge`, the paper's; a new one is one file here, listed below, and it is an option of
every command that trains.
"""

from poise.schedules.adaptive import Adaptive
from poise.schedules.automatic import Automatic
from poise.schedules.cosine import Cosine
from poise.schedules.fixed import Fixed
from poise.schedules.hinge import Hinge
from poise.schedules.linear import Linear
from poise.schedules.random import Random
from poise.schedules.schedule import Figures, Memory, Moment, Schedule

__all__ = [
    "Adaptive",
    "Automatic",
    "Cosine",
    "Figures",
    "Fixed",
    "Hinge",
    "Linear",
    "Memory",
    "Moment",
    "Random",
    "Schedule",
]
