"""Flips: what a new model loses and gains against an old one, image by image, from two profiles.

It is arithmetic on verdicts that exist already; only `replay` runs a model. Start with `pair`, which joins two
profiles, and `counts`, the figures at every epsilon; `truth` says how open verdicts are counted, and `noise` what
attack noise alone would show.
"""

from poise.evaluation.flips.changes import Change, Side, changes
from poise.evaluation.flips.counts import Flips, flips, flips_by_class, rate
from poise.evaluation.flips.noise import NoiseFloor, noise_floors
from poise.evaluation.flips.pair import Pair, check_sound, join, place, spelled
from poise.evaluation.flips.replay import Replay, replay
from poise.evaluation.flips.truth import Count, Truth

__all__ = [
    "Change",
    "Count",
    "Flips",
    "NoiseFloor",
    "Pair",
    "Replay",
    "Side",
    "Truth",
    "changes",
    "check_sound",
    "flips",
    "flips_by_class",
    "join",
    "noise_floors",
    "place",
    "rate",
    "replay",
    "spelled",
]
