"""Operators that ONNX Runtime has for float32 alone, spelled out in others for float64, in which mixtures compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch._decomp import get_decompositions

_NODES = 32
_FAR = 6.0
"""Where 1 - erf is below the spacing of float64."""

Table = dict[Any, Callable[..., Any]]


def portable_operators() -> Table:
    """What `ExportedProgram.run_decompositions` replaces: softplus, log-sigmoid, GELU and erf, of float64 alone."""
    aten = torch.ops.aten
    known = get_decompositions([aten.softplus, aten.log_sigmoid_forward, aten.gelu])
    return {operator: _wide(instead) for operator, instead in {**known, aten.erf.default: erf}.items()}


def erf(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The error function by Gauss-Legendre quadrature of its integral, exact to 1e-14 in float64.

    Args:
        values: of any size; beyond 6 the function is 1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    near = values.clamp(-_FAR, _FAR)
    total = torch.zeros_like(near)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total = total + float(weight) * (-(near * float(node)).square()).exp()
    return near * total * (2 / math.sqrt(math.pi))


def _wide(instead: Callable[..., Any]) -> Callable[..., Any]:
    """A replacement that leaves other dtypes alone."""

    def of(values: Tensor, *rest: Any, **named: Any) -> Any:
        return instead(values, *rest, **named) if values.dtype == torch.float64 else NotImplemented

    return of
