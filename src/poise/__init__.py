"""poise: robust image classifiers from pretrained ones.

Every command is a function here with the same options: ``poise.finetune("timm:resnet18", "folder:photos")``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.attacks import FGSM as FGSM
    from poise.attacks import PGD as PGD
    from poise.attacks import Attack as Attack
    from poise.attacks import AutoPGD as AutoPGD
    from poise.commands.certify import certify as certify
    from poise.commands.compare import compare as compare
    from poise.commands.completion import completion as completion
    from poise.commands.demo import demo as demo
    from poise.commands.doctor import doctor as doctor
    from poise.commands.export import export as export
    from poise.commands.finetune import finetune as finetune
    from poise.commands.merge import merge as merge
    from poise.commands.mix import mix as mix
    from poise.commands.profile import profile as profile
    from poise.commands.quickstart import quickstart as quickstart
    from poise.commands.rehearsal.estimate import rehearse as rehearse
    from poise.commands.report import report as report
    from poise.commands.tune import tune as tune
    from poise.commands.update import update as update
    from poise.core.misuse import Misuse as Misuse
    from poise.core.threat import Threat as Threat
    from poise.data import open_data as open_data
    from poise.evaluation import accuracy_curve as accuracy_curve
    from poise.evaluation import expected_robustness as expected_robustness
    from poise.evaluation import read_adversarials as read_adversarials
    from poise.evaluation import read_profile as read_profile
    from poise.models import open_model as open_model
    from poise.objectives import AWP as AWP
    from poise.objectives import KL as KL
    from poise.objectives import MART as MART
    from poise.objectives import PCAT as PCAT
    from poise.objectives import PCT as PCT
    from poise.objectives import RCAT as RCAT
    from poise.objectives import TRADES as TRADES
    from poise.objectives import Adversarial as Adversarial
    from poise.objectives import Averaged as Averaged
    from poise.objectives import Constrained as Constrained
    from poise.objectives import Distance as Distance
    from poise.objectives import Guarded as Guarded
    from poise.objectives import Inhibition as Inhibition
    from poise.objectives import LabelSmoothing as LabelSmoothing
    from poise.objectives import Mixing as Mixing
    from poise.objectives import Noisy as Noisy
    from poise.objectives import Objective as Objective
    from poise.objectives import Squared as Squared
    from poise.objectives import Standard as Standard
    from poise.objectives import Wrapper as Wrapper
    from poise.schedules import Adaptive as Adaptive
    from poise.schedules import Automatic as Automatic
    from poise.schedules import Cosine as Cosine
    from poise.schedules import Fixed as Fixed
    from poise.schedules import Hinge as Hinge
    from poise.schedules import Linear as Linear
    from poise.schedules import Random as Random
    from poise.schedules import Schedule as Schedule
    from poise.training import Head as Head
    from poise.training import Last as Last
    from poise.training import LoRA as LoRA
    from poise.training import Probe as Probe
    from poise.training import Training as Training
    from poise.training import Transfer as Transfer
    from poise.training import Whole as Whole

__version__ = version("poise")

_ROOMS = {
    "poise.attacks": "FGSM PGD Attack AutoPGD",
    "poise.commands.certify": "certify",
    "poise.commands.compare": "compare",
    "poise.commands.completion": "completion",
    "poise.commands.demo": "demo",
    "poise.commands.doctor": "doctor",
    "poise.commands.export": "export",
    "poise.commands.finetune": "finetune",
    "poise.commands.merge": "merge",
    "poise.commands.mix": "mix",
    "poise.commands.profile": "profile",
    "poise.commands.quickstart": "quickstart",
    "poise.commands.rehearsal.estimate": "rehearse",
    "poise.commands.report": "report",
    "poise.commands.tune": "tune",
    "poise.commands.update": "update",
    "poise.core.misuse": "Misuse",
    "poise.core.threat": "Threat",
    "poise.data": "open_data",
    "poise.evaluation": "accuracy_curve expected_robustness read_adversarials read_profile",
    "poise.models": "open_model",
    "poise.objectives": (
        "AWP KL MART PCAT PCT RCAT TRADES Adversarial Averaged Constrained Distance Guarded Inhibition "
        "LabelSmoothing Mixing Noisy Objective Squared Standard Wrapper"
    ),
    "poise.schedules": "Adaptive Automatic Cosine Fixed Hinge Linear Random Schedule",
    "poise.training": "Head Last LoRA Probe Training Transfer Whole",
}
"""Public names by the module that holds them, as above for type checkers. They are imported when first used, so that
`poise --help` does not wait for PyTorch."""

_HOMES = {name: room for room, names in _ROOMS.items() for name in names.split()}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'poise' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
