"""What is asked of an objective before it trains: that what it attacks with keeps an attack's promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from torch import nn

from poise.attacks import Attack
from poise.attacks.attack import check_promise
from poise.core.batch import Batch
from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.objectives.objective import Objective
from poise.objectives.wrapper import layers


def check_attacks(objective: Objective, model: nn.Module, few: Callable[[], Batch], threat: Threat) -> None:
    """Refuse what stands for an attack in an objective and is none, and try the attacks of others on a few examples.

    Args:
        objective: with all that it wraps.
        model: attacked.
        few: gives the examples, on the model's device; asked only where an attack is not poise's own.
        threat: norm and target budget.

    Raises:
        Misuse: naming the option, or the attack and what it did.
    """
    for layer in layers(objective):
        for name, attack in ((each.name, getattr(layer, each.name)) for each in fields(layer)):
            known = isinstance(attack, Attack)
            if name in {"attack", "judge"} and not known:
                raise Misuse(f"the {name} of {type(layer).__name__} must be a poise.attacks.Attack; got {attack!r}")
            if known and not type(attack).__module__.startswith("poise."):
                check_promise(attack, model, few(), threat)
