"""What every test shares: a deterministic Hypothesis profile and a linear model with known answers."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from hypothesis import settings

settings.register_profile("poise", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("poise")


@pytest.fixture(autouse=True)
def _one_global_seed():
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """Run-time type checks off, to see what a caller without them is told."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
