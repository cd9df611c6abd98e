"""Batch norms folded into the convolutions before them: the same function with fewer passes over memory."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_SLACK = 1e-4

_Watch = Callable[[str, nn.Module, tuple[Tensor, ...], Tensor], None]


@torch.no_grad()
def folded(model: nn.Module, images: Float[Tensor, "n *shape"]) -> nn.Module:
    """A copy of a model that computes the same logits faster, or the model itself where none can be made.

    A convolution takes over the batch norm that alone reads its output; on CPUs its weights lie channels last. Nothing
    is assumed about the model: pairs are found by watching one pass, and the copy is thrown away unless it agrees with
    the model on these images. Rounding differs, so that it may propose and must not decide.

    Args:
        model: in eval mode, on the images' device.
        images: a few examples.
    """
    pairs = _pairs(model, images)
    if not pairs:
        return model
    try:
        made = copy.deepcopy(model)
    except Exception:  # noqa: BLE001 - whatever forbids a copy, the model itself will do
        return model
    for convolution, norm in pairs.items():
        _fold(made, convolution, norm)
    if images.device.type == "cpu":
        made = made.to(memory_format=torch.channels_last)
    return made if _agree(model(images), made(images)) else model


def _agree(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= _SLACK * ours.abs().max())


def _pairs(model: nn.Module, images: Tensor) -> dict[str, str]:
    """Names of convolutions, each with the batch norm that reads its output before anything has changed it."""
    written: dict[int, tuple[str, Tensor, int]] = {}
    calls: Counter[str] = Counter()
    pairs: dict[str, str] = {}

    def watch(name: str, module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        calls[name] += 1
        if isinstance(module, nn.Conv2d):
            written[id(made)] = name, made, made._version  # noqa: SLF001 - PyTorch's count of changes in place
        elif id(given[0]) in written:
            convolution, tensor, version = written[id(given[0])]
            if tensor._version == version:  # noqa: SLF001
                pairs[convolution] = name

    with _watching(model, watch):
        model(images)
    return {first: second for first, second in pairs.items() if calls[first] == calls[second] == 1}


@contextmanager
def _watching(model: nn.Module, watch: _Watch) -> Iterator[None]:
    """Tell of every call of a convolution or a batch norm that could be folded."""
    hooks = [
        module.register_forward_hook(partial(watch, name))
        for name, module in model.named_modules()
        if type(module) is nn.Conv2d or (type(module) is nn.BatchNorm2d and module.track_running_stats)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _fold(model: nn.Module, convolution: str, norm: str) -> None:
    first, second = model.get_submodule(convolution), model.get_submodule(norm)
    assert isinstance(first, nn.Conv2d)  # noqa: S101 - `_pairs` looks for these types alone
    assert isinstance(second, nn.BatchNorm2d)  # noqa: S101
    assert second.running_mean is not None  # noqa: S101
    assert second.running_var is not None  # noqa: S101
    first.weight, first.bias = fuse_conv_bn_weights(
        first.weight, first.bias, second.running_mean, second.running_var, second.eps, second.weight, second.bias
    )
    for parameter in (first.weight, first.bias):
        parameter.requires_grad_(False)
    parent, _, name = norm.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())
