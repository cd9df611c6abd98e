"""poise: robust image classifiers from pretrained ones.

Every command is a function here with the same options: ``poise.finetune("timm:resnet18", "folder:photos")``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.attacks import PGD
    from poise.commands.doctor import doctor
    from poise.commands.finetune import finetune
    from poise.commands.profile import profile
    from poise.commands.quickstart import quickstart
    from poise.commands.report import report
    from poise.commands.tune import tune
    from poise.core.misuse import Misuse
    from poise.core.threat import Threat
    from poise.objectives import Adversarial, Standard
    from poise.schedules import Adaptive, Automatic, Cosine, Fixed, Hinge, Linear, Random
    from poise.training import Training

__all__ = [
    "PGD",
    "Adaptive",
    "Adversarial",
    "Automatic",
    "Cosine",
    "Fixed",
    "Hinge",
    "Linear",
    "Misuse",
    "Random",
    "Standard",
    "Threat",
    "Training",
    "doctor",
    "finetune",
    "profile",
    "quickstart",
    "report",
    "tune",
]

__version__ = version("poise")

_HOMES = {
    "PGD": "poise.attacks",
    "Adversarial": "poise.objectives",
    "Misuse": "poise.core.misuse",
    "Standard": "poise.objectives",
    "Threat": "poise.core.threat",
    "Training": "poise.training",
    **{verb: f"poise.commands.{verb}" for verb in ("doctor", "finetune", "profile", "quickstart", "report", "tune")},
    **dict.fromkeys(("Adaptive", "Automatic", "Cosine", "Fixed", "Hinge", "Linear", "Random"), "poise.schedules"),
}


def __getattr__(name: str) -> object:
    """Public names are imported when first used, so that `poise --help` does not wait for PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'poise' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
