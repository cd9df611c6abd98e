"""Context managers that put a model into a state and restore exactly what they found, module by module."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

Precision = Literal["fp32", "bf16", "fp16"]

BATCH_NORM = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the one base of all of them, timm's included

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def evaluating(model: nn.Module, *, training: bool = False) -> Iterator[nn.Module]:
    """Every module in eval mode (or, with `training`, in train mode); each gets its own flag back."""
    found = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield model
    finally:
        for module, flag in found:
            module.training = flag


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """No parameter requires a gradient, so that a backward pass does no work for them; each gets its own flag back."""
    found = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in found:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for parameter in found:
            parameter.requires_grad_(True)


@contextmanager
def steady(model: nn.Module, wanted: bool = True) -> Iterator[nn.Module]:
    """Every batch norm in eval mode, so that it goes by its running averages and leaves them alone.

    Args:
        model: the network; its other modules keep their modes.
        wanted: with False nothing is changed.
    """
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORM) and module.training and wanted]
    for norm in norms:
        norm.training = False
    try:
        yield model
    finally:
        for norm in norms:
            norm.training = True


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch on this many CPU threads; afterwards on as many as before.

    Networks whose layers take microseconds gain nothing from a second thread, and lose much where other work wants its
    core: threads that wait for one another spin.
    """
    found = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(found)


@contextmanager
def precision(kind: Precision, device: torch.device) -> Iterator[None]:
    """Forward passes in the given precision, whatever autocast the caller is in; weights stay as they are."""
    with torch.autocast(device.type, dtype=_DTYPES.get(kind), enabled=kind in _DTYPES):
        yield


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Forward passes in the precision that the weights have, whatever the caller allows: neither autocast nor TF32.

    On NVIDIA GPUs since Ampere, PyTorch lets convolutions round their inputs to ten bits unless it is told not to. That
    is a setting of the whole process: where several threads are exact at once, the last to end gives it back.
    """
    with torch.autocast(device.type, enabled=False), _IEEE:
        yield


class _Ieee:
    """Full precision on NVIDIA GPUs for as long as one thread at least is inside."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._kept: list[str] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._kept = [place.fp32_precision for place in self._places()]
                for place in self._places():
                    place.fp32_precision = "ieee"
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for place, found in zip(self._places(), self._kept, strict=True):
                    place.fp32_precision = found

    @staticmethod
    def _places() -> tuple[Any, ...]:
        backends: Any = torch.backends
        return backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul


_IEEE = _Ieee()
