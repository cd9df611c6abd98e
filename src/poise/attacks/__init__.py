"""Searches for adversarial images: the attacks that training runs on, and those that evaluation judges by.

An attack knows a model only as a function from images to logits; it holds no schedule, no data source and no verdict.
Start with `attack` for the promise and `pgd` for the simplest that keeps it.
"""

from poise.attacks.attack import Attack
from poise.attacks.pgd import PGD

__all__ = ["PGD", "Attack"]
