"""Training at weights that an adversary has shifted: adversarial weight perturbation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from poise.attacks import idle
from poise.core.misuse import Misuse
from poise.objectives.objective import Step, Terms
from poise.objectives.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class AWP(Wrapper):
    """Another objective, lowered at the worst weights nearby (Wu, Xia & Wang 2020, arXiv 2004.05884).

    The images are attacked at the weights w as they are. One gradient g of the inner loss there gives, layer by layer,
    the shift v = gamma * |w| / |g| * g, and the step goes along the gradient at w + v. The network computes with
    shifted copies, so that nothing has to be put back: gradients land on w, and batch statistics move once. As in the
    official code only weights with two dimensions or more are shifted, and one step is taken, with gradients at the
    network's own precision. At epsilon 0 nothing is shifted, so a schedule's clean phase is ordinary training.

    A step costs one more full gradient. Where processes share a batch or memory cuts it, each part has a shift of its
    own, so that the steps are not quite those that one process takes at once.

    Args:
        objective: what a step minimises.
        gamma: length of a layer's shift as a share of its weights' length, at least 0; 0.01 for plain adversarial
            training and 0.005 for TRADES in the official code.
    """

    shardable = False

    gamma: float = 0.01

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gamma) and self.gamma >= 0):
            raise Misuse(f"gamma of AWP must be a number of at least 0; got {self.gamma}")

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`, of the inner objective at the shifted weights."""
        if idle(step.batch, step.epsilon):
            return super().terms(step)
        step = replace(step, found={} if step.found is None else step.found)
        slopes = self._slopes(step)
        weights = {
            name: value + self._shift(value.detach(), slope)
            for (name, value), slope in zip(_shiftable(step.model).items(), slopes, strict=True)
        }
        return super().terms(replace(step, model=_With(step.model, weights), unshifted=step.network))

    def _slopes(self, step: Step) -> tuple[Tensor, ...]:
        """The gradient of the inner loss at the weights as they are; batch statistics move in copies only."""
        network = step.model
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        with torch.enable_grad():
            loss = super().terms(replace(step, model=_With(network, buffers), unshifted=step.network))["loss"]
        weights = tuple(_shiftable(network).values())
        return torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)

    def _shift(self, weight: Tensor, slope: Tensor) -> Tensor:
        size = slope.norm().clamp(min=torch.finfo(slope.dtype).tiny)
        shift: Tensor = self.gamma * weight.norm() / size * slope
        return shift


class _With(nn.Module):
    """A network that computes with other tensors in place of some of its own."""

    def __init__(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network, self.tensors = network, dict(tensors)
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, self.tensors, (images,))
        return logits


def _shiftable(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in network.named_parameters() if value.requires_grad and value.ndim > 1}
