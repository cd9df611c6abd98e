"""Searches for adversarial images: the attacks that training runs on, and those that evaluation judges by.

An attack knows a model only as a function from images to logits; it holds no schedule, no data source and no verdict.
Start with `attack` and `pgd` for training, with `search` and `apgd` for evaluation: those are state machines that
ask for model outputs, `driver` answers one batch and `pool` a whole set.
"""

from poise.attacks.apgd import APGD
from poise.attacks.attack import Attack, Loss, idle
from poise.attacks.auto_pgd import AutoPGD
from poise.attacks.driver import run_search
from poise.attacks.fab import FAB, FABT
from poise.attacks.fgsm import FGSM
from poise.attacks.pgd import PGD, attackable
from poise.attacks.search import Problem, Search
from poise.attacks.square import Square

__all__ = [
    "APGD",
    "FAB",
    "FABT",
    "FGSM",
    "PGD",
    "Attack",
    "AutoPGD",
    "Loss",
    "Problem",
    "Search",
    "Square",
    "attackable",
    "idle",
    "run_search",
]
