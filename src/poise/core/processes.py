"""The processes that share a piece of work, as a launcher started them."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from functools import cache

import torch
from accelerate import PartialState

from poise.core.misuse import Misuse

_DEVICE = "ACCELERATE_TORCH_DEVICE"
_PATIENCE = timedelta(days=30)


def process_state() -> PartialState:
    """What accelerate knows of this process and the others that its launcher started.

    Where there is no GPU they are processes on CPUs that talk through gloo, which accelerate has to be told. They wait
    for one another as long as it takes: after hours of attacks on images of their own, one may well be ahead of another
    by more than the half hour that PyTorch would allow it.

    Raises:
        Misuse: where accelerate is told to use a device that does not work here.
    """
    if named := os.environ.get(_DEVICE):
        _check_device(named)
    if "LOCAL_RANK" in os.environ:
        _leave_in_order()
    return PartialState(cpu="LOCAL_RANK" in os.environ and not torch.accelerator.is_available(), timeout=_PATIENCE)


@cache
def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter from builds of PyTorch without the device
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise Misuse(f"{_DEVICE}={name} names a device that does not work here: {said}") from error


@cache
def _leave_in_order() -> None:
    """Have the process leave its group before it ends: threads of gloo that are still at work then abort it."""
    atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
