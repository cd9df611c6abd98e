"""poise: robust image classifiers from pretrained ones.

Every command is a function here with the same options: ``poise.finetune("timm:resnet18", "folder:photos")``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.attacks import FGSM, PGD, AutoPGD
    from poise.commands.certify import certify
    from poise.commands.compare import compare
    from poise.commands.completion import completion
    from poise.commands.demo import demo
    from poise.commands.doctor import doctor
    from poise.commands.export import export
    from poise.commands.finetune import finetune
    from poise.commands.merge import merge
    from poise.commands.mix import mix
    from poise.commands.profile import profile
    from poise.commands.quickstart import quickstart
    from poise.commands.rehearsal.estimate import rehearse
    from poise.commands.report import report
    from poise.commands.tune import tune
    from poise.commands.update import update
    from poise.core.misuse import Misuse
    from poise.core.threat import Threat
    from poise.data import open_data
    from poise.evaluation import accuracy_curve, expected_robustness, read_adversarials, read_profile
    from poise.models import open_model
    from poise.objectives import (
        AWP,
        KL,
        MART,
        PCAT,
        PCT,
        RCAT,
        TRADES,
        Adversarial,
        Averaged,
        Constrained,
        Guarded,
        Inhibition,
        LabelSmoothing,
        Mixing,
        Noisy,
        Squared,
        Standard,
    )
    from poise.schedules import Adaptive, Automatic, Cosine, Fixed, Hinge, Linear, Random
    from poise.training import Head, Last, LoRA, Probe, Training, Whole

__all__ = [
    "AWP",
    "FGSM",
    "KL",
    "MART",
    "PCAT",
    "PCT",
    "PGD",
    "RCAT",
    "TRADES",
    "Adaptive",
    "Adversarial",
    "AutoPGD",
    "Automatic",
    "Averaged",
    "Constrained",
    "Cosine",
    "Fixed",
    "Guarded",
    "Head",
    "Hinge",
    "Inhibition",
    "LabelSmoothing",
    "Last",
    "Linear",
    "LoRA",
    "Misuse",
    "Mixing",
    "Noisy",
    "Probe",
    "Random",
    "Squared",
    "Standard",
    "Threat",
    "Training",
    "Whole",
    "accuracy_curve",
    "certify",
    "compare",
    "completion",
    "demo",
    "doctor",
    "expected_robustness",
    "export",
    "finetune",
    "merge",
    "mix",
    "open_data",
    "open_model",
    "profile",
    "quickstart",
    "read_adversarials",
    "read_profile",
    "rehearse",
    "report",
    "tune",
    "update",
]

__version__ = version("poise")

_HOMES = {
    "AutoPGD": "poise.attacks",
    "FGSM": "poise.attacks",
    "PGD": "poise.attacks",
    "Misuse": "poise.core.misuse",
    "Threat": "poise.core.threat",
    "AWP": "poise.objectives",
    "Adversarial": "poise.objectives",
    "Averaged": "poise.objectives",
    "Constrained": "poise.objectives",
    "Guarded": "poise.objectives",
    "Inhibition": "poise.objectives",
    "KL": "poise.objectives",
    "LabelSmoothing": "poise.objectives",
    "MART": "poise.objectives",
    "Mixing": "poise.objectives",
    "Noisy": "poise.objectives",
    "PCAT": "poise.objectives",
    "PCT": "poise.objectives",
    "RCAT": "poise.objectives",
    "Squared": "poise.objectives",
    "Standard": "poise.objectives",
    "TRADES": "poise.objectives",
    "Adaptive": "poise.schedules",
    "Automatic": "poise.schedules",
    "Cosine": "poise.schedules",
    "Fixed": "poise.schedules",
    "Hinge": "poise.schedules",
    "Linear": "poise.schedules",
    "Random": "poise.schedules",
    "Head": "poise.training",
    "Last": "poise.training",
    "LoRA": "poise.training",
    "Probe": "poise.training",
    "Training": "poise.training",
    "Whole": "poise.training",
    "accuracy_curve": "poise.evaluation",
    "certify": "poise.commands.certify",
    "compare": "poise.commands.compare",
    "demo": "poise.commands.demo",
    "completion": "poise.commands.completion",
    "doctor": "poise.commands.doctor",
    "expected_robustness": "poise.evaluation",
    "export": "poise.commands.export",
    "finetune": "poise.commands.finetune",
    "merge": "poise.commands.merge",
    "mix": "poise.commands.mix",
    "open_data": "poise.data",
    "open_model": "poise.models",
    "profile": "poise.commands.profile",
    "quickstart": "poise.commands.quickstart",
    "read_adversarials": "poise.evaluation",
    "read_profile": "poise.evaluation",
    "rehearse": "poise.commands.rehearsal.estimate",
    "report": "poise.commands.report",
    "tune": "poise.commands.tune",
    "update": "poise.commands.update",
}
"""Where each public name lives. They are imported when first used, so that `poise --help` does not wait for PyTorch."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'poise' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
