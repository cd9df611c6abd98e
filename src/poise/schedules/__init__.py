"""Epsilon over training: each schedule says which share of the target budget a moment of the run trains at.

A schedule knows neither models nor attacks nor data; it maps progress to a share. Start with `schedule`, then `hinge`,
the paper's; a new one is one file here, listed below, and it is an option of every command that trains.
"""

from poise.schedules.fixed import Fixed
from poise.schedules.hinge import Hinge
from poise.schedules.schedule import Schedule

__all__ = ["Fixed", "Hinge", "Schedule"]
