"""Choosing row by row between two batches, as slots of different age must."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor


def choose(
    rows: Bool[Tensor, " n"], taken: Shaped[Tensor, "n *shape"], otherwise: Shaped[Tensor, "n *shape"]
) -> Shaped[Tensor, "n *shape"]:
    """`taken` where the row's flag is true, `otherwise` elsewhere."""
    return torch.where(rows.reshape(-1, *(1 for _ in taken.shape[1:])), taken, otherwise)
