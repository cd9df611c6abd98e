"""Batch norms folded into the convolutions before them: the same function with fewer passes over memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from poise.core.modes import Precision, evaluating, exact, precision
from poise.core.readers import mergeable, with_activation

_SLACK = 1e-4
"""By how much a shadow's logits may be off on the sample, as a share of the largest."""
_CLOSE = 10 * _SLACK
_AUDIT = 128
"""One in so many votes is cast by the model too."""
SAMPLE = 2
"""Examples on which a shadow has to agree."""


class EstrangedError(RuntimeError):
    """A shadow that was found to be another function than its model."""


@dataclass(frozen=True)
class _Fold:
    """A convolution and the batch norm that reads it, and the convolution of the copy that does the work of both."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d
    both: nn.Conv2d

    def renew(self) -> None:
        """Weights anew."""
        first, second = self.convolution, self.norm
        assert second.running_mean is not None  # noqa: S101 - `mergeable` wants norms that keep statistics
        assert second.running_var is not None  # noqa: S101
        weight, bias = fuse_conv_bn_weights(
            first.weight, first.bias, second.running_mean, second.running_var, second.eps, second.weight, second.bias
        )
        self.both.weight.copy_(weight)
        self.both.bias.copy_(bias)  # type: ignore[union-attr]  # `_folding` gave it one


class Shadow:
    """A copy of a model that computes the same logits faster in eval mode, and follows the model's weights.

    A convolution takes over the batch norm that reads its output; on CPUs its weights lie channels last. All else is
    shared with the model, tensor by tensor. Rounding differs, so that a shadow may propose and must not decide.

    Args:
        model: the model.
        copied: its copy, in eval mode whatever the model's mode.
        folds: what was folded.
        kind: precision of forward passes through the shadow.
    """

    def __init__(self, model: nn.Module, copied: nn.Module, folds: list[_Fold], kind: Precision) -> None:
        self._model, self._copied, self._folds = model, copied, folds
        self._shown = copied if kind == "fp32" else _InPrecision(copied, kind)

    @classmethod
    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def of(cls, model: nn.Module, images: Float[Tensor, "n *shape"], kind: Precision = "fp32") -> Shadow | None:
        """The shadow of a model; None where nothing can be folded, the model forbids copies, or its copy disagrees.

        Nothing is assumed about the model: what can be folded is found by watching one pass (`core.readers`).

        Args:
            model: in any mode; afterwards as it was.
            images: examples, on the model's device, of which the first few are looked at.
            kind: precision of forward passes through the shadow.
        """
        images = images[:SAMPLE]
        try:
            with evaluating(model):
                pairs = mergeable(model, images)
            if not pairs:
                return None
            shared: dict[int, object] = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
            copied = copy.deepcopy(model, shared)
            folds = [_folding(model, copied, *pair) for pair in pairs.items()]
            shadow = cls(model, copied.eval(), folds, kind)
            return shadow if shadow.agrees(images) else None
        except Exception:  # noqa: BLE001 - whatever forbids a copy, the model itself will do
            return None

    @torch.no_grad()
    def now(self) -> nn.Module:
        """The copy at the model's present weights and running statistics."""
        for fold in self._folds:
            fold.renew()
        return self._shown

    @torch.no_grad()
    def agrees(self, images: Float[Tensor, "n *shape"]) -> bool:
        """Whether model and copy, in full precision, say the same of images and their negatives, but for rounding."""
        self.now()
        images = torch.cat([images, 1 - images])
        with exact(images.device), evaluating(self._model):
            return alike(self._model(images), self._copied(images))


class _InPrecision(nn.Module):
    """A model whose forward passes are in low precision."""

    def __init__(self, model: nn.Module, kind: Precision) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        with precision(self.kind, images.device):
            logits: Tensor = self.model(images)
        return logits


def alike(ours: Float[Tensor, "n *shape"], theirs: Float[Tensor, "n *shape"], slack: float = _SLACK) -> bool:
    """Whether two models say the same of some images, but for rounding. Waits for the device.

    Where neither is finite, both say the same.

    Args:
        ours: logits of the one.
        theirs: logits of the other.
        slack: by how much they may differ, as a share of the largest.
    """
    off = torch.where(ours.isfinite() | theirs.isfinite(), (ours - theirs).abs(), 0.0)
    return bool(off.max() <= slack * ours.nan_to_num(0.0, 0.0, 0.0).abs().max())


def folded(model: nn.Module, images: Float[Tensor, "n *shape"]) -> nn.Module:
    """A model's shadow at its present weights, or the model itself where it has none.

    Args:
        model: in eval mode.
        images: examples, on its device, of which the first few are looked at.
    """
    shadow = Shadow.of(model, images)
    return model if shadow is None else shadow.now()


class Settled(nn.Module):
    """A model's shadow for those who count classes: close calls are settled by the model itself.

    Where the two highest logits of the shadow are nearer to each other than ten times what it may be off, logits are
    the model's own. A few more images, one in 128 and at least one, are given to the model at every call, to see
    whether both still say the same. A look at which these are waits for the device.

    Args:
        model: in eval mode.
        shadow: computes the same, but for rounding.
    """

    def __init__(self, model: nn.Module, shadow: nn.Module) -> None:
        super().__init__()
        self.model, self.shadow = model, shadow

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits whose highest is where the model's is.

        Raises:
            EstrangedError: where model and shadow differ by more than rounding.
        """
        logits: Tensor = self.shadow(images)
        first, second = logits.topk(2, dim=1).values.unbind(1)
        asked = ~(first - second > _CLOSE * logits.abs().amax(1))
        asked[::_AUDIT] = True
        rows = asked.nonzero()[:, 0]
        own: Tensor = self.model(images[rows])
        if not alike(own, logits[rows], _CLOSE / 2):
            raise EstrangedError
        return logits.index_copy(0, rows, own)


def settled(model: nn.Module, images: Float[Tensor, "n *shape"]) -> nn.Module:
    """What names the model's class of an image sooner than the model, or the model itself where it has no shadow.

    Args:
        model: in eval mode, with weights that stay as they are.
        images: examples, on its device, of which the first few are looked at.
    """
    shadow = Shadow.of(model, images)
    return model if shadow is None else Settled(model, shadow.now())


def _folding(model: nn.Module, copied: nn.Module, convolution: str, norm: str) -> _Fold:
    """Let a convolution of the copy do the work of its norm; weights are still to come."""
    first, second, both = model.get_submodule(convolution), model.get_submodule(norm), copied.get_submodule(convolution)
    assert isinstance(first, nn.Conv2d)  # noqa: S101 - `_pairs` looks for these types alone
    assert isinstance(both, nn.Conv2d)  # noqa: S101
    assert isinstance(second, nn.BatchNorm2d)  # noqa: S101
    order = torch.channels_last if first.weight.device.type == "cpu" else torch.preserve_format
    weight = first.weight.detach()
    both.weight = nn.Parameter(weight.clone(memory_format=order), requires_grad=False)
    both.bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=False)
    parent, _, name = norm.rpartition(".")
    setattr(copied.get_submodule(parent), name, _rest(copied.get_submodule(norm)))
    return _Fold(first, second, both)


def _rest(norm: nn.Module) -> nn.Module:
    """What is left of a layer whose normalisation was taken over."""
    return nn.Sequential(norm.drop, norm.act) if with_activation(norm) else nn.Identity()  # type: ignore[arg-type]
