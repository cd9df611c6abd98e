"""When memory runs out, on whatever device."""

from __future__ import annotations

import torch
from accelerate.utils.memory import should_reduce_batch_size


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory ran out: PyTorch has a kind of its own for GPUs, and only words for CPUs."""
    return isinstance(error, torch.OutOfMemoryError) or bool(should_reduce_batch_size(error))
