"""poise: robust image classifiers from pretrained ones.

Every command is a function here with the same options: ``poise.finetune("timm:resnet18", "folder:photos")``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.attacks import FGSM, PGD, AutoPGD
    from poise.commands.finetune import finetune
    from poise.commands.profile import profile
    from poise.commands.quickstart import quickstart
    from poise.commands.report import report
    from poise.core.misuse import Misuse
    from poise.core.threat import Threat
    from poise.objectives import AWP, MART, TRADES, Adversarial, Averaged, Guarded, LabelSmoothing, Standard
    from poise.schedules import Adaptive, Automatic, Cosine, Fixed, Hinge, Linear, Random
    from poise.training import Training

__all__ = [
    "AWP",
    "FGSM",
    "MART",
    "PGD",
    "TRADES",
    "Adaptive",
    "Adversarial",
    "AutoPGD",
    "Automatic",
    "Averaged",
    "Cosine",
    "Fixed",
    "Guarded",
    "Hinge",
    "LabelSmoothing",
    "Linear",
    "Misuse",
    "Random",
    "Standard",
    "Threat",
    "Training",
    "finetune",
    "profile",
    "quickstart",
    "report",
]

__version__ = version("poise")

_HOMES = {
    **dict.fromkeys(("FGSM", "PGD", "AutoPGD"), "poise.attacks"),
    "Misuse": "poise.core.misuse",
    **dict.fromkeys(
        ("AWP", "MART", "TRADES", "Adversarial", "Averaged", "Guarded", "LabelSmoothing", "Standard"),
        "poise.objectives",
    ),
    "Threat": "poise.core.threat",
    "Training": "poise.training",
    **dict.fromkeys(("Adaptive", "Automatic", "Cosine", "Fixed", "Hinge", "Linear", "Random"), "poise.schedules"),
    **{verb: f"poise.commands.{verb}" for verb in ("finetune", "profile", "quickstart", "report")},
}


def __getattr__(name: str) -> object:
    """Public names are imported when first used, so that `poise --help` does not wait for PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'poise' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
