"""When memory runs out, on whatever device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate.utils.memory import should_reduce_batch_size

Made = TypeVar("Made")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory ran out: PyTorch has a kind of its own for GPUs, and only words for CPUs."""
    return isinstance(error, torch.OutOfMemoryError) or bool(should_reduce_batch_size(error))


def piecewise(make: Callable[[slice], Made], count: int, at_once: int | None = None) -> list[Made]:
    """What is made of so many rows: at once, or where memory does not suffice in pieces, halved until they fit.

    Args:
        make: given some of the rows.
        count: number of rows; of none there is nothing to make.
        at_once: the most rows of a piece, at least 1; None for all.
    """
    size, made, start = at_once or max(count, 1), list[Made](), 0
    while start < count:
        rows = slice(start, min(start + size, count))
        try:
            made.append(make(rows))
        except RuntimeError as error:
            if rows.stop - start == 1 or not out_of_memory(error):
                raise
            size = (rows.stop - start + 1) // 2
        else:
            start = rows.stop
    return made
