"""A mixture from its blueprint, the weights still to come."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from poise.core.misuse import Misuse
from poise.models.blueprint import Blueprint
from poise.models.classifier import classifier_around
from poise.models.mixing.blend import Blend
from poise.models.mixing.gate import Gate, GatePlan
from poise.models.mixing.mixture import Mixture
from poise.models.mixing.neighbours import SlopeGate


def rebuild_mixed(blueprint: Blueprint, rebuild: Callable[[Blueprint], nn.Module]) -> Mixture:
    """The network of a mixed classifier.

    Args:
        blueprint: as `MixedClassifier.of` makes it.
        rebuild: makes the bare network of a branch's blueprint.

    Raises:
        Misuse: for a blueprint without both branches.
    """
    if set(blueprint.parts) != {"standard", "robust"}:
        raise Misuse(f"a mixture has a standard and a robust branch; found {', '.join(blueprint.parts) or 'none'}")
    standard, robust = (
        classifier_around(rebuild(blueprint.parts[role]), blueprint.parts[role]) for role in ("standard", "robust")
    )
    plan = GatePlan.of(blueprint.options)
    gate = SlopeGate.of(blueprint.options) if plan is None else Gate(plan)
    return Mixture(standard, robust, Blend.of(blueprint.options), gate)
